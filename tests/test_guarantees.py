"""Every test that docs/guarantees.md names is there."""

import ast
import itertools
import re
from pathlib import Path

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


def test_what_is_named_is_there():
    for file, tests in itertools.groupby(NAMED, key=lambda pair: pair[0]):
        assert (TESTS / file).is_file(), file
        nodes = ast.walk(ast.parse((TESTS / file).read_text(encoding="utf-8")))
        there = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert {test for _, test in tests if test} - there == set(), file
