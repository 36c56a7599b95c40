"""The key of a cell: a digest of everything that decides its outcome, and of nothing else, known before it runs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Which facts of a cell decide its outcome. Weights, data and parameters stand there by content: how a path was spelled, or how
# a recipe is called, decides nothing.
KEY_FIELDS = (
    "schema",
    "revision",
    "weights",
    "pruner",
    "code",
    "params",
    "suite",
    "task_code",
    "metric",
    "data_digest",
    "limit",
    "generation",
    "versions",
    "device",
)


def content_key(identity: Mapping[str, Any], seed: int | None = None) -> str:
    """16 hex digits of the SHA-256 over the `KEY_FIELDS` of what is known of a cell before it runs.

    Left out of them is what changes no answer: a recipe's provenance, the patch release of Python, and in float32 the batch
    size, unless it decides where a sequential run stops.

    Args:
        seed: of the global random generators, where the method may draw from them.
    """
    decides = {name: identity[name] for name in KEY_FIELDS}
    decides["params"] = _without(identity["params"], "provenance")
    if identity["generation"].get("dtype") == "float32" and not identity.get("sequential"):
        decides["generation"] = _without(identity["generation"], "batch_size")
    decides["versions"] = dict(identity["versions"]) | {"python": _minor(identity["versions"].get("python", ""))}
    if identity.get("sequential"):  # what decides when a run stops
        decides["sequential"] = identity["sequential"]
    return digest_of(decides | ({} if seed is None else {"seed": seed}))


def digest_of(value: Any, digits: int = 16) -> str:
    """Hex digits of the SHA-256 over a value's strict JSON."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _without(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def _minor(version: str) -> str:
    """ "3.11" of "3.11.7"."""
    return ".".join(version.split(".")[:2])
