"""The key of a cell: a digest of everything that decides its outcome, known before it runs."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitprune import Pruner

# Which fields of a result make its cell the cell it is.
KEY_FIELDS = (
    "schema",
    "model",
    "revision",
    "weights",
    "pruner",
    "code",
    "params",
    "suite",
    "metric",
    "data_digest",
    "limit",
    "generation",
    "seed",
    "versions",
    "device",
)


def content_key(record: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 over the `KEY_FIELDS` of a result, or of what is known of it before it is there."""
    # Provenance says when and how a recipe was fitted; its counts are what matters.
    params = {name: value for name, value in record["params"].items() if name != "provenance"}
    # What decided when a sequential run stopped; other runs have nothing there, and the keys that they always had.
    stopped = {"sequential": record["sequential"]} if record.get("sequential") else {}
    return digest_of({name: record[name] for name in KEY_FIELDS} | {"params": params} | stopped)


def digest_of(value: Any, digits: int = 16) -> str:
    """Hex digits of the SHA-256 over a value's strict JSON."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def code_digest(method: "type[Pruner]") -> str:
    """12 hex digits over the source files of a method: its class and those it inherits from, up to `Pruner`, and the files of
    its own package and of `fitprune` that these take functions and classes from.

    So a method under development is measured anew after each change, though no version has changed.
    """
    from fitprune import Pruner

    names: set[str] = set()
    for base in method.__mro__:
        if base is Pruner:
            break
        names.add(base.__module__)
        packages = {base.__module__.partition(".")[0], Pruner.__module__.partition(".")[0]}
        taken = {getattr(value, "__module__", None) for value in vars(sys.modules[base.__module__]).values()}
        names |= {name for name in taken if isinstance(name, str) and name.partition(".")[0] in packages}
    total = hashlib.sha256(method.__qualname__.encode())
    for name in sorted(names):
        source = getattr(sys.modules.get(name), "__file__", None)
        total.update(Path(source).read_bytes() if source and Path(source).is_file() else name.encode())
    return total.hexdigest()[:12]
