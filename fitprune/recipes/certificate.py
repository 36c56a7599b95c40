"""`Certificate`: which drop a recipe was shown to stay below, on which suites of which data, of which weights."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fitprune.errors import RecipeError


@dataclass(frozen=True)
class CertifiedSuite:
    """One suite of a certificate.

    Attributes:
        data_digest: of the data's content, as the harness has it.
        margin: points that the recipe was shown to lose at most, over all `questions`, of which `asked` were asked.
    """

    suite: str
    metric: str
    data_digest: str
    margin: float
    questions: int
    asked: int


@dataclass(frozen=True)
class Certificate:
    """What `fitprune tune` showed of a recipe.

    Attributes:
        model, revision, weights: the model by name, and by the digest of its weights, processor and tokenizer.
        counts: digest of the recipe's counts, `counts_digest`.
        error: the chance, over the whole search, that anything was certified that loses more.
        method: of testing.
    """

    model: str
    revision: str
    weights: str
    counts: str
    error: float
    method: str
    seed: int
    suites: tuple[CertifiedSuite, ...]
    date: str

    def to_record(self) -> dict[str, Any]:
        """Plain data for a recipe's provenance."""
        return dataclasses.asdict(self) | {"suites": [dataclasses.asdict(suite) for suite in self.suites]}

    @classmethod
    def from_record(cls, record: Any) -> "Certificate":
        """The inverse of `to_record`. Raises RecipeError for anything else."""
        if not isinstance(record, Mapping) or not isinstance(record.get("suites"), list) or not record["suites"]:
            raise RecipeError("certificate must be an object that names its suites.")
        suites = tuple(_checked(CertifiedSuite, suite) for suite in record["suites"])
        return _checked(cls, {**record, "suites": suites})

    def void(self, counts: str, model: Mapping[str, str] | None = None, data: Mapping[str, str] | None = None) -> str:
        """Why the certificate does not hold here, in one line; empty where it does.

        Args:
            counts: digest of the recipe's counts.
            model: `model`, `revision` or `weights` of the model at hand; what is not given is not compared.
            data: the digest of each suite's data at hand; a suite that was not certified voids it.
        """
        if self.counts != counts:
            return f"its certificate is void: it is of a recipe with other counts ({self.counts}, not {counts})"
        for name, value in (model or {}).items():
            if getattr(self, name) != value:
                return f"its certificate is void: {name} is {value}, and {getattr(self, name)} was certified"
        known = {suite.suite: suite.data_digest for suite in self.suites}
        for name, digest in (data or {}).items():
            if name not in known:
                return f"it is not certified on {name}, but on {', '.join(known)}"
            if known[name] != digest:
                return f"its certificate is void: the data of {name} have the digest {digest}, and {known[name]} was certified"
        return ""

    def facts(self, counts: str) -> dict[str, str]:
        """What it says, for people, a name and a line each; or that it is void for the recipe with these counts."""
        if reason := self.void(counts):
            return {"certificate": reason}
        suites = [
            f"{one.suite} at most {one.margin:g} points "
            f"({one.asked} of {one.questions} questions asked, data {one.data_digest})"
            for one in self.suites
        ]
        return {
            "certified": f"with {1 - self.error:.0%} confidence over the whole search: {'; '.join(suites)}",
            "certified for": f"{self.model}, weights {self.weights}; void for others and for other data",
            "certified by": f"{self.method}; seed {self.seed}, {self.date}",
        }


_KINDS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}


def counts_digest(drop: list[int], visual_tokens: int, scaling: str) -> str:
    """12 hex digits of SHA-256 over what decides what a recipe drops."""
    return hashlib.sha256(json.dumps([drop, visual_tokens, scaling]).encode()).hexdigest()[:12]


def _checked(kind: Any, record: Any) -> Any:
    fields = {field.name: getattr(field.type, "__name__", "") for field in dataclasses.fields(kind)}
    if not isinstance(record, Mapping) or record.keys() != fields.keys():
        raise RecipeError(f"an entry of certificate must hold {', '.join(fields)}.")
    for name, value in record.items():
        kinds = _KINDS.get(fields[name])
        if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise RecipeError(f"certificate's {name} is {value!r:.60}, which is no {fields[name]}.")
    return kind(**record)
