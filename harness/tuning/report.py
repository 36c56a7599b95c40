"""What a search found: as a record, as Markdown, and as the certificate of a recipe."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fitprune import FitPrune
from fitprune.files import write_atomically
from fitprune.recipes.certificate import Certificate, CertifiedSuite
from harness.bench.resolved import Resolved
from harness.results.key import digest_of
from harness.results.once import slug
from harness.results.result import now, versions
from harness.results.strict_json import strict
from harness.statistics import Drop, Verdict, certified
from harness.storage.places import files_at
from harness.tuning.file import FOLDER, FORMAT, VERSION
from harness.tuning.search import ERROR, Candidate, Search, Shown, Tried

METHOD = "weighted draws without replacement and betting (arXiv 2305.06884), one error budget over all candidates"
BARS = 40  # characters of the frontier's widest bar


@dataclass
class Tuned:
    """A finished search, and what it was asked.

    Attributes:
        cells: of each candidate, by suite.
        confirmed: drops in points on questions that the search never looked at, by suite.
        notes: candidates that could not be, and why.
    """

    search: Search
    cells: Mapping[Candidate, Mapping[str, Resolved]]
    goal: str
    command: str = ""
    confirmed: dict[str, Drop] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def best(self) -> Candidate | None:
        """The candidate that saves most among those that are certified."""
        return self.search.best

    @property
    def holds(self) -> bool:
        """Whether a candidate is certified, and on no suite shown to lose more on the questions kept for confirmation."""
        return self.best is not None and Verdict.FAIL not in self.verdicts().values()

    def verdicts(self) -> dict[str, Verdict]:
        """Of the questions kept for confirmation, by suite: whether the drop there is shown to be below the margin."""
        margins = {suite.name: 100 * suite.margin for suite in self.search.suites}
        return {suite: certified(drop, margins[suite]) for suite, drop in self.confirmed.items()}

    def certificate(self, counts: str) -> Certificate:
        """Of the best candidate; `counts` is the digest of its recipe's."""
        assert self.best is not None
        (tried,) = [tried for tried in self.search.tried if tried.candidate == self.best]
        cells = self.cells[self.best]
        one = next(iter(cells.values()))
        suites = [
            CertifiedSuite(
                shown.suite,
                str(cells[shown.suite].identity["metric"]),
                str(cells[shown.suite].identity["data_digest"]),
                round(100 * shown.margin, 6),
                shown.questions,
                shown.asked,
            )
            for shown in tried.shown
        ]
        model = one.facts
        return Certificate(
            model.name, model.revision, model.weights, counts, ERROR, METHOD, self.search.seed, tuple(suites), now()
        )

    def record(self) -> dict[str, Any]:
        """Everything, as strict JSON."""
        best = self.best
        return strict(
            {
                "format": FORMAT,
                "version": VERSION,
                "headline": self.headline().replace("**", ""),
                "model": next(iter(next(iter(self.cells.values())).values())).facts.name,
                "command": self.command,
                "goal": self.goal,
                "error": ERROR,
                "method": METHOD,
                "seed": self.search.seed,
                "best": None if best is None else asdict(best),
                "tried": [asdict(tried) for tried in self.search.tried],
                "frontier": [asdict(one) for one in frontier(self.search.tried)],
                "candidates": [asdict(candidate) for candidate in self.search.candidates],
                "questions": {suite.name: len(suite.dense) for suite in self.search.suites},
                "confirmed": {
                    suite: {"drop": drop.drop, "low": drop.low, "high": drop.high, "n": drop.n, "images": drop.clusters}
                    | {"verdict": str(verdict)}
                    for (suite, drop), verdict in zip(self.confirmed.items(), self.verdicts().values(), strict=True)
                },
                "notes": list(self.notes),
                "versions": versions(),
                "date": now(),
            }
        )

    def markdown(self) -> str:
        """The report: what was found, the frontier, what was asked, and what is promised."""
        asked = sum(shown.asked for tried in self.search.tried for shown in tried.shown)
        dense = sum(len(suite.dense) for suite in self.search.suites)
        full = dense * len(self.search.candidates)
        parts = [
            f"# Tuned pruning\n\n{self.headline()}",
            f"Of {len(self.search.candidates)} candidates {len(self.search.tried)} were asked {asked} questions; asking all of "
            f"all would have been {full}. The dense model answered {dense}, once.",
            "## Frontier",
            _fenced(f"{'saves':>6} {'drop at most':>13}", *map(str, frontier(self.search.tried))),
            "## What was asked",
            "| candidate | saves | suite | asked | drop, for all at once | allowed | |\n|---|---|---|---|---|---|---|\n"
            + "\n".join(_line(tried, shown) for tried in self.search.tried for shown in tried.shown),
        ]
        if self.confirmed:
            verdicts = self.verdicts()
            lines = ["| suite | drop | n | images | |", "|---|---|---|---|---|"]
            for suite, drop in self.confirmed.items():
                interval = f"{drop.drop:.2f} ({drop.low:.2f} to {drop.high:.2f})"
                lines.append(f"| {suite} | {interval} | {drop.n} | {drop.clusters} | {verdicts[suite]} |")
            parts += ["## On questions that the search never looked at", "\n".join(lines)]
        parts.append(_PROMISE.format(error=ERROR))
        if self.notes:
            parts += ["## Not reached", "\n".join(f"- {note}" for note in self.notes)]
        if self.command:
            parts += ["## Again", _fenced(self.command)]
        return "\n\n".join(parts) + "\n"

    def write(self, path: Path, results: Path) -> None:
        """The recipe, with its certificate, or the method and its parameters, to `path`; beside it the report, and a copy of
        its record in the results folder, for its page. Where nothing is certified, the report alone.
        """
        text = json.dumps(self.record(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path.with_suffix(".tuned.json"), [text, "\n"])
        files_at(results).write(f"{FOLDER}/{slug(str(path))}.json", [text, "\n"])
        write_atomically(path.with_suffix(".tuned.md"), [self.markdown()])
        if self.best is None:
            return
        cell = next(iter(self.cells[self.best].values()))
        if isinstance(cell.pruner, FitPrune):
            recipe = cell.pruner.recipe
            certificate = self.certificate(recipe.counts).to_record()
            replace(recipe, provenance={**recipe.provenance, "certificate": certificate}).save(path)
            return
        params = strict(cell.pruner.params())
        certificate = self.certificate(digest_of(params, 12)).to_record()
        chosen = {"format": "fitprune-choice", "pruner": cell.cell.pruner, "reduction": cell.cell.reduction, "params": params}
        write_atomically(path, [json.dumps(chosen | {"certificate": certificate}, indent=1, allow_nan=False), "\n"])

    def headline(self) -> str:
        """The result in one line."""
        suites = ", ".join(f"{suite.name} {100 * suite.margin:g}" for suite in self.search.suites)
        if self.best is None:
            return f"No candidate is certified to lose at most what is allowed, in points: {suites}."
        what = "FLOPs of the visual tokens" if self.goal == "flops" else "time of an answer"
        saves = f"**{self.best.name}** saves {self.best.saved:.0%} of the {what}"
        return f"{saves} and is certified to lose at most, in points: {suites}."


_PROMISE = """## What is promised

- That any candidate is called certified which loses more than is allowed on any suite has a chance of at most {error:.0%}, over
  the whole search. It is about these very questions: what asking all of them would show. All chance is in which were asked.
- The intervals hold for all candidates and suites at once, with 95 % confidence, so that choosing among them makes none of them
  optimistic. They are wider than what decides.
- Recipes were fitted on the calibration samples, which are no questions of the suites. What the search has looked at is what is
  reported here, but for what `--confirm` keeps from it: an image in five. Those intervals are over images like these.
- Another seed, tried until one certifies, is another search: its errors add up."""


@dataclass(frozen=True)
class Frontier:
    """A candidate that was tested.

    Attributes:
        saves: a share.
        most: the largest drop in points that is not refuted on any suite, for all candidates at once.
        asked: questions.
    """

    name: str
    saves: float
    most: float
    asked: int
    certified: bool

    @classmethod
    def of(cls, tried: Tried) -> "Frontier":
        """Of what was found."""
        most, asked = max(100 * shown.high for shown in tried.shown), sum(shown.asked for shown in tried.shown)
        return cls(tried.candidate.name, tried.candidate.saved, most, asked, tried.certified)

    def __str__(self) -> str:
        bar = ("#" if self.certified else ".") * max(1, round(BARS * max(self.saves, 0)))
        return f"{self.saves:6.0%} {self.most:10.2f} pt  {bar} {self.name}{'' if self.certified else ' (no)'}"


def frontier(tried: Sequence[Tried]) -> list[Frontier]:
    """The candidates that were tested, by what they save."""
    return sorted(map(Frontier.of, tried), key=lambda one: one.saves)


def _fenced(*lines: str) -> str:
    return "\n".join(["```", *lines, "```"])


def _line(tried: Tried, shown: Shown) -> str:
    low, high = 100 * shown.low, 100 * shown.high
    said = "certified" if tried.certified else "loses more" if shown is tried.shown[-1] else ""
    return (
        f"| {tried.candidate.name} | {tried.candidate.saved:.1%} | {shown.suite} | {shown.asked} of {shown.questions} | "
        f"{low:.2f} to {high:.2f} | {100 * shown.margin:g} | {said} |"
    )
