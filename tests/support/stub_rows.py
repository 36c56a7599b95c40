"""A few rows in the columns that a task of lmms-eval reads, found in its code, for tasks whose data are not at hand."""

import ast
from pathlib import Path

from tests.support.tiny_llava import picture, write

ROWS = 6
PICTURES = ("image", "picture", "img", "screenshot", "figure")


def columns_of(folder: Path) -> list[str]:
    """What a folder's code reads of a question: `doc["column"]` and `doc.get("column")`."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            holder, key = None, None
            if isinstance(node, ast.Subscript):
                holder, key = node.value, node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
                holder, key = node.func.value, node.args[0]
            of_a_question = isinstance(holder, ast.Name) and holder.id in ("doc", "row", "sample", "example", "item")
            if of_a_question and isinstance(key, ast.Constant) and isinstance(key.value, str):
                found[key.value] = None
    return list(found)


def value_of(column: str, row: int) -> object:
    """Something that such a column may hold."""
    name = column.lower()
    if name in ("images", "image_list", "pictures"):
        return [picture(row), picture(row + 1)]
    if any(name == word or (name.startswith(f"{word}_") and name.rpartition("_")[2].isdigit()) for word in PICTURES):
        return picture(row)
    if name in ("answers", "gt_answers", "references"):
        return ["A", "A", "B", "A", "A", "A", "A", "A", "A", "A"]
    if name in ("options", "choices", "candidates"):
        return ["red", "blue", "ten", "left"]
    if name in ("a", "b", "c", "d"):
        return f"{column}{row}"
    if name in ("bbox", "box"):
        return [1.0, 1.0, 9.0, 9.0]
    if name in ("index", "idx"):
        return row
    if name in ("id", "question_id", "qid", "doc_id", "pid") or name.endswith("_id"):
        return f"{row}"
    if "answer" in name or name in ("label", "target", "gt", "solution", "ground_truth"):
        return "AB"[row % 2]
    if name in ("width", "height"):
        return 10
    return f"what color {row} ?" if "question" in name or "prompt" in name else "red"


def write_stub(place: Path, task: str, config: str | None, split: str, columns: list[str]) -> None:
    """The task's data, as `--data` finds them."""
    rows = [
        {column: value_of(column, row) for column in dict.fromkeys(["image", "question", "answer", *columns])}
        for row in range(ROWS)
    ]
    write(place, f"{task}/{config or 'default'}/{split}", rows)
