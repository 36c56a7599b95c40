"""The files of a gallery: one a question, in the results folder's `gallery/`. A reader needs neither torch nor a model."""

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError
from harness.results.store import write_atomically
from harness.results.strict_json import strict

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
    try:
        _check_views(record["views"], record["tokens"])
        texts = [record[name] for name in ("model", "suite", "question", "target", "command")] + [record["dense"]["answer"]]
        for part in record["pruned"]:
            texts.append(part["cannot"] if "cannot" in part else part["answer"])
            if "cannot" not in part:
                _check_views(part.get("views", []), part["tokens"])
                _check_masks(part)
        sound = all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FitPruneError(f"not the picture that it should be ({type(error).__name__}: {error})") from None
    if not sound:
        raise FitPruneError("a question or an answer is not a text")
    return record


def _check_views(views: Any, tokens: int) -> None:
    for view in views:
        if view["picture"] and not view["picture"].startswith(PICTURE):
            raise ValueError("a picture that is not an embedded PNG")
    if views and sum(view["columns"] * view["rows"] for view in views) < tokens:
        raise ValueError(f"its views have fewer patches than the prompt's {tokens} visual tokens")


def _check_masks(part: dict[str, Any]) -> None:
    for mask in part["masks"]:
        if len(bytes.fromhex(mask)) != math.ceil(part["tokens"] / 8):
            raise ValueError(f"a mask of {len(mask)} digits for {part['tokens']} tokens")
    if len(part["layers"]) != len(part["left"]) or not set(part["layers"]) <= set(range(len(part["masks"]))):
        raise ValueError("layers without a mask")
