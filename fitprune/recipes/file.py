"""Reads and writes a recipe's file: readable JSON that people share, refused where it contradicts itself."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitprune.errors import RecipeError, one_line
from fitprune.files import replacing
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.certificate import Certificate
from fitprune.recipes.fields import RecipeFields

FORMAT = "fitprune-recipe"
VERSION = 2

# What the entries of a fitted recipe's provenance hold, where they are there.
PROVENANCE: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "revision": str,
    "data": dict,
    "budget": dict,
    "alpha": (int, float),
    "mode": str,
    "statistics": str,
    "versions": dict,
    "date": str,
    "source": str,
    "certificate": dict,
}
_DATA: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "digest": str,
    "samples": int,
    "visual_tokens": int,
    "text_tokens": int,
}
_BUDGET: dict[str, type | tuple[type, ...]] = {"asked": (int, float), "reached": (int, float), "scoring_counted": bool}
_KINDS = {str: "a text", dict: "an object", int: "a whole number", bool: "true or false", (int, float): "a number"}


def fingerprint(sizes: DecoderSizes) -> str:
    """What identifies an architecture: 12 hex digits of SHA-256 over its sizes, by name, as JSON with sorted keys."""
    text = json.dumps(dataclasses.asdict(sizes), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_text(recipe: RecipeFields) -> str:
    """Readable JSON. Raises RecipeError, TypeError or ValueError for a recipe that could not be read again."""
    record = to_record(recipe)
    from_record(record)
    # One line per entry, so that the counts of a recipe stand side by side.
    lines = (f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in record.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(recipe: RecipeFields, path: Path) -> None:
    """Write it, atomically. See `Recipe.save`."""
    try:
        text = to_text(recipe)
    except (RecipeError, TypeError, ValueError) as error:
        raise RecipeError(f"this recipe cannot be written to {path}: {one_line(error)}") from None
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot write a recipe to {path}: {error.strerror}.") from None


def read(path: Path) -> RecipeFields:
    """Read what `write` wrote. See `Recipe.load`."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"the recipe {path} is not JSON: {one_line(error)}.") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RecipeError(f'{path} is not a recipe: it lacks "format": "{FORMAT}".')
    version = record.get("version")
    if version != VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > VERSION
        raise RecipeError(
            f"the recipe {path} has format version {json.dumps(version)}; this release reads {VERSION}: "
            + ("upgrade this package." if newer else "fit it again with fitprune fit.")
        )
    try:
        return from_record(record)
    except RecipeError as error:
        raise RecipeError(f"the recipe {path} is malformed: {error}") from None


def to_record(recipe: RecipeFields) -> dict[str, Any]:
    """The JSON object of a recipe."""
    sizes = recipe.sizes
    return {
        "format": FORMAT,
        "version": VERSION,
        "visual_tokens": recipe.visual_tokens,
        "drop": recipe.drop,
        **recipe.scaled_otherwise,
        "reduction": None if sizes is None else recipe.reduction,
        "architecture": None if sizes is None else {**dataclasses.asdict(sizes), "fingerprint": fingerprint(sizes)},
        "provenance": recipe.provenance,
    }


def from_record(record: Mapping[str, Any]) -> RecipeFields:
    """What a recipe holds, from a JSON object of the current format.

    Raises:
        RecipeError: an entry that is absent, of the wrong kind, or at odds with another one.
    """
    for name in ("drop", "visual_tokens"):
        if name not in record:
            raise RecipeError(f"it lacks {name}.")
    architecture = record.get("architecture")
    recipe = RecipeFields(
        drop=record["drop"],
        visual_tokens=record["visual_tokens"],
        sizes=None if architecture is None else _sizes(architecture),
        provenance=_provenance(record.get("provenance")),
        scaling=record.get("scaling", "left"),
    )
    dropped = sum(recipe.drop)
    if dropped > recipe.visual_tokens:
        raise RecipeError(f"its layers drop {dropped} visual tokens in all, more than the {recipe.visual_tokens} there are.")
    stated = record.get("reduction")
    if stated is not None:
        _check_reduction(recipe, stated)
    return recipe


def _sizes(architecture: Any) -> DecoderSizes:
    if not isinstance(architecture, dict):
        raise RecipeError(f"architecture must be an object, not {architecture!r:.60}.")
    values = dict(architecture)
    stated = values.pop("fingerprint", None)
    names = {field.name for field in dataclasses.fields(DecoderSizes)}
    if wrong := sorted(values.keys() ^ names):
        raise RecipeError(f"architecture must hold {', '.join(sorted(names))} and fingerprint; wrong: {', '.join(wrong)}.")
    sizes = DecoderSizes(**values)
    if stated != fingerprint(sizes):
        raise RecipeError(
            f"its architecture has the fingerprint {fingerprint(sizes)}, not the {stated!r:.60} that the file states; "
            "one of them was edited."
        )
    return sizes


def _provenance(provenance: Any) -> dict[str, Any]:
    if provenance is None:
        return {}
    _check("provenance", provenance, dict)
    for part, kinds in (("", PROVENANCE), ("data", _DATA), ("budget", _BUDGET)):
        entries = provenance.get(part, {}) if part else provenance
        for name, kind in kinds.items():
            if name in entries:
                _check(".".join(filter(None, ("provenance", part, name))), entries[name], kind)
    if "certificate" in provenance:
        Certificate.from_record(provenance["certificate"])
    return dict(provenance)


def _check(name: str, value: Any, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RecipeError(f"{name} must be {_KINDS[kind]}, not {value!r:.60}.")


def _check_reduction(recipe: RecipeFields, stated: Any) -> None:
    _check("reduction", stated, (int, float))
    if recipe.sizes is None:
        raise RecipeError(f"it states a reduction of {stated} but no architecture, on which that depends.")
    if not math.isclose(stated, recipe.reduction, rel_tol=0, abs_tol=1e-9):
        raise RecipeError(
            f"its drop saves {recipe.reduction:.4%} of the visual tokens' FLOPs, not the {stated:.4%} that it states; "
            'after an edit, write "reduction": null.'
        )
