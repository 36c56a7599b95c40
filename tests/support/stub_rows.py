"""A few rows in the columns that a task of lmms-eval reads, found in its code, for tasks whose data are not at hand.

What a column holds is guessed from what the code does with it, and else from its name.
"""

import ast
import base64
import inspect
import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from tests.support.tiny_llava import picture, write

ROWS = 6
PICTURES = ("image", "picture", "img", "screenshot", "figure")
QUESTIONS = ("doc", "doc_dict", "row", "sample", "example", "item", "x")
OPTIONS = ["red", "blue", "ten", "left"]


@dataclass
class Column:
    """What code does with a column.

    Attributes:
        uses: names of what is called on it or with it: `convert`, `literal_eval`, `int`; `each` where it is walked through, and
            `each.convert` what is called on its items.
        values: constants that it is compared with, or looked up among.
    """

    uses: set[str] = field(default_factory=set)
    values: list[str] = field(default_factory=list)


def columns_of(config: Mapping[str, Any]) -> dict[str, Column]:
    """What a task's functions read of a question: `doc["column"]`, `doc.get("column")`, and a template's "{{column}}"."""
    found: dict[str, Column] = defaultdict(Column)
    metrics = [entry["metric"] for entry in config.get("metric_list") or () if entry]
    for function in _reachable([value for value in config.values() if isinstance(value, FunctionType)]):
        _read(function, metrics, found)
    for value in config.values():
        for name in re.findall(r"\{\{\s*(\w+)|^(\w+)$", value if isinstance(value, str) else ""):
            if name[0] or value == config.get("doc_to_target"):
                found[name[0] or name[1]].uses.add("read")
    return dict(found)


def _reachable(functions: list[FunctionType]) -> list[FunctionType]:
    """These functions, and all of their own modules that they call."""
    found: dict[FunctionType, None] = {}
    while functions:
        function = functions.pop()
        if function in found or "lmms_eval/tasks" not in function.__code__.co_filename:
            continue
        found[function] = None
        codes = [function.__code__]
        while codes:
            code = codes.pop()
            codes += [one for one in code.co_consts if isinstance(one, CodeType)]
            functions += [one for name in code.co_names if isinstance(one := function.__globals__.get(name), FunctionType)]
    return list(found)


def _read(function: FunctionType, metrics: list[str], found: dict[str, Column]) -> None:
    source = textwrap.dedent(inspect.getsource(function))
    tree = ast.parse(source)
    if "<image" in source:
        found["image_1"].uses.add("convert")
    names: dict[str, str] = {}  # a variable -> the column that it is, or "column." for one of its items

    def column(node: ast.AST) -> str:
        """The column that an expression is; empty for none."""
        if isinstance(node, ast.Name):
            return names.get(node.id, "")
        holder, key = None, None
        if isinstance(node, ast.Subscript):
            holder, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("strip", "lower", "upper"):
                return column(node.func.value)
            if node.func.attr == "get" and node.args:
                holder, key = node.func.value, node.args[0]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("str", "enumerate")
            and node.args
        ):
            return column(node.args[0])
        if isinstance(key, ast.JoinedStr):  # image_1, of as many as a question names
            key = ast.Constant(f"{key.values[0].value}1") if isinstance(key.values[0], ast.Constant) else None
        if not (isinstance(holder, ast.Name) and isinstance(key, ast.Constant)):
            return ""
        if holder.id in QUESTIONS and isinstance(key.value, str):
            found[key.value]
            return key.value
        return f"{inner}." if (inner := names.get(holder.id)) and isinstance(key.value, int) else ""

    for node in ast.walk(tree):
        column(node)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (name := column(node.value)):
            names[node.targets[0].id] = name
        if isinstance(node, ast.For | ast.comprehension) and (name := column(node.iter)):
            found[name.rstrip(".")].uses.add("each")
            targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
            names |= {target.id: f"{name}." for target in targets[-1:] if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        for name, use, values in _uses(node, function.__globals__, metrics, column):
            found[name.rstrip(".")].uses.add(f"each.{use}" if name.endswith(".") else use)
            found[name.rstrip(".")].values += [value for value in values if isinstance(value, str) and value]


def _uses(node: ast.AST, known: Mapping[str, Any], metrics: list[str], column: Callable) -> Iterator[tuple[str, str, list]]:
    if isinstance(node, ast.Call):
        called = (
            node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        )
        receiver = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        yield from ((name, called, []) for one in [*receiver, *node.args] if (name := column(one)))
    elif isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        constants = [one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)]
        same = isinstance(node.ops[0], ast.Eq | ast.In)
        yield from ((name, "compared", constants if same else []) for side in sides if (name := column(side)))
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and (name := column(node.slice)):
        table = known.get(node.value.id)
        yield name, "looked up", list(table) if isinstance(table, dict) else []
    elif isinstance(node, ast.Dict):  # a metric of each category: {category: ..., f"seed_{data_type}": ...}
        for key in node.keys:
            parts = (
                key.values
                if isinstance(key, ast.JoinedStr)
                else [ast.Constant(""), key]
                if isinstance(key, ast.Name | ast.Subscript)
                else []
            )
            if len(parts) == 2 and isinstance(parts[0], ast.Constant):
                inner = parts[1].value if isinstance(parts[1], ast.FormattedValue) else parts[1]
                start = parts[0].value
                if name := column(inner):
                    yield name, "metric", [one.removeprefix(start) for one in metrics if one.startswith(start)]


def value_of(name: str, row: int, column: Column | None = None) -> object:
    """Something that such a column may hold."""
    uses, values = (column.uses, column.values) if column else (set(), [])
    plain = _plain(name.lower(), row, name)
    if any("base64" in use or "b64" in use for use in uses):
        encoded = base64.b64encode(picture(row)["bytes"]).decode()
        return [encoded] if any(use.startswith("each.") and "64" in use for use in uses) else encoded
    if "convert" in uses:
        return picture(row)
    if "each.convert" in uses:
        return [picture(row), picture(row + 1)]
    if uses & {"literal_eval", "eval"}:
        return repr(plain if isinstance(plain, list) else [str(plain)])
    if "loads" in uses:
        return json.dumps(plain if isinstance(plain, list) else [str(plain)])
    if values and isinstance(plain, str) and not _names_a_row(name.lower()):
        return values[row % len(values)]
    if uses & {"int", "float"} and isinstance(plain, str):
        return str(row % 2)
    return plain


def _plain(name: str, row: int, column: str) -> object:
    """What such a name may be of."""
    if name in ("images", "image_list", "pictures"):
        return [picture(row), picture(row + 1)]
    if any(name == word or (name.startswith(f"{word}_") and name.rpartition("_")[2].isdigit()) for word in PICTURES):
        return picture(row)
    if name in ("answers", "gt_answers", "references"):
        return ["A", "A", "B", "A", "A", "A", "A", "A", "A", "A"]
    if name in ("options", "choices", "candidates"):
        return OPTIONS
    if name in ("a", "b", "c", "d"):
        return f"{column}{row}"
    if name in ("bbox", "box"):
        return [1.0, 1.0, 9.0, 9.0]
    if name in ("index", "idx"):
        return row
    if _names_a_row(name):
        return f"{row}"
    if "answer" in name or name in ("label", "target", "gt", "solution", "ground_truth"):
        return "AB"[row % 2]
    if name in ("width", "height"):
        return 10
    return f"what color {row} ?" if "question" in name or "prompt" in name else "red"


def _names_a_row(name: str) -> bool:
    return name in ("id", "qid", "pid") or name.endswith("_id")


def write_stub(place: Path, task: str, config: str | None, split: str, columns: dict[str, Column]) -> None:
    """The task's data, as `--data` finds them."""
    known = {**dict.fromkeys(("image", "question", "answer")), **columns}
    if "image_1" in known:
        known["question"] = Column(values=["what color <image 1> ?"])
    rows = [{name: value_of(name, row, column) for name, column in known.items()} for row in range(ROWS)]
    write(place, f"{task}/{config or 'default'}/{split}", rows)
