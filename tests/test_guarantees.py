"""Every test that docs/guarantees.md names is there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"


def named(text):
    """The (file, test or None) that a page names, in order; `::name` is of the file named last."""
    file = None
    for path, test in re.findall(r"`((?:[\w/]+\.py)?)(?:::(\w+))?`", text):
        file = path or file
        if path or test:
            yield file, test or None


NAMED = sorted({(file, test or "") for file, test in named(PAGE.read_text(encoding="utf-8"))})


def test_the_page_names_tests():
    assert len(NAMED) > 50


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_what_is_named_is_there(file, test):
    path = TESTS / file
    assert path.is_file()
    if test:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
