"""JSON files of a checkpoint, read with one-line errors."""

import json
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError, one_line


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises FitPruneError, in one line, when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FitPruneError(f"{path}: cannot be read as JSON: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise FitPruneError(f"{path}: holds no JSON object")
    return content
