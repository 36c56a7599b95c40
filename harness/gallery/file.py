"""The files of a gallery: one a question, in the results folder's `gallery/`. A reader needs neither torch nor a model."""

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Discriminator, StrictInt, Tag, field_validator, model_validator

from fitprune.errors import FitPruneError
from fitprune.files import write_atomically
from harness.results.strict_json import strict
from harness.results.validation import checked

SCHEMA = 1
FOLDER = "gallery"
PICTURE = "data:image/png;base64,"


def write_scene(results: str | os.PathLike[str], scene: dict[str, Any]) -> Path:
    """Write a scene's file, whole or not at all; an earlier one of the same question and model is replaced."""
    folder = Path(results) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    key = json.dumps([scene[name] for name in ("model", "revision", "suite", "data", "doc_id")])
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{Path(scene['model']).name}-{scene['suite']}-{scene['doc_id']}")
    path = folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:10]}.json"
    write_atomically(path, [json.dumps(strict(scene), ensure_ascii=False, allow_nan=False), "\n"])
    return path


def check_scene(record: Any) -> dict[str, Any]:
    """The scene in a parsed file. Raises FitPruneError, in one line, on anything that the page could not show."""
    if not isinstance(record, dict) or (record.get("schema"), record.get("kind")) != (SCHEMA, FOLDER):
        raise FitPruneError(f"no picture of a gallery, of schema {SCHEMA}")
    checked(_Scene.model_validate, record)
    return record


class _View(BaseModel):
    """A picture and its grid of patches; see `harness.gallery.views.View`."""

    columns: StrictInt
    rows: StrictInt
    picture: str

    @field_validator("picture")
    @classmethod
    def _is_embedded(cls, picture: str) -> str:
        if picture and not picture.startswith(PICTURE):
            raise ValueError("not an embedded PNG")
        return picture


class _Shown(BaseModel):
    """Visual tokens, and the views that they lie in."""

    tokens: StrictInt
    views: list[_View] = []

    @model_validator(mode="after")
    def _tokens_lie_in_views(self) -> Self:
        if self.views and sum(view.columns * view.rows for view in self.views) < self.tokens:
            raise ValueError(f"its views have fewer patches than the prompt's {self.tokens} visual tokens")
        return self


class _Answered(BaseModel):
    """What the dense model answered."""

    answer: str


class _Refused(BaseModel):
    """A pruner that could not run on the question."""

    cannot: str


class _Kept(_Shown):
    """What a pruner left of the question's tokens, and what the model answered then; see `survivors.masks`."""

    answer: str
    masks: list[str]
    layers: list[StrictInt]
    left: list[StrictInt]

    @model_validator(mode="after")
    def _masks_are_whole(self) -> Self:
        for mask in self.masks:
            if len(bytes.fromhex(mask)) != math.ceil(self.tokens / 8):
                raise ValueError(f"a mask of {len(mask)} digits for {self.tokens} tokens")
        if len(self.layers) != len(self.left) or not set(self.layers) <= set(range(len(self.masks))):
            raise ValueError("layers without a mask")
        return self


def _kind(part: Any) -> str:
    return "cannot" if isinstance(part, dict) and "cannot" in part else "kept"


class _Scene(_Shown):
    """A question under several pruners; see `harness.gallery.survivors`."""

    model: str
    suite: str
    question: str
    target: str
    command: str
    views: list[_View]
    dense: _Answered
    pruned: list[Annotated[Annotated[_Refused, Tag("cannot")] | Annotated[_Kept, Tag("kept")], Discriminator(_kind)]]
