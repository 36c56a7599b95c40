"""Suites named in other ways than by a path, and what plug-ins that run tests again make of cells."""

from collections import Counter
from xml.etree import ElementTree

import pytest

from harness.plugin.selection import failed_suites
from tests.support.suite_runs import PLUGIN

pytest_plugins = ["pytester", "tests.support.suite_runs"]

AGAIN = """
from _pytest.runner import runtestprotocol


def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(report.failed for report in reports):
        item._initrequest()
        reports += runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""


@pytest.fixture
def typed(run, pytester, place):
    """Runs pytest with made-up answers, its cache on, and the suites named as the arguments have it."""
    common = [*PLUGIN, "-p", "tests.support.fake_bench", "--results", str(run.folder), "--model", str(place / "m")]
    common += ["--pruner", "random", "--reduction", "0.5", "--data", str(place / "d")]
    return lambda *arguments: pytester.runpytest(*common, *arguments)


@pytest.mark.parametrize(("name", "cells"), [("suites", 6), ("suites.test_pope", 1)])
def test_pyargs_name_the_suites_of_an_installation(typed, name, cells):
    result = typed("--pyargs", name)
    result.assert_outcomes(passed=cells)
    assert result.ret == 0


def test_a_package_that_is_not_there_is_pytests_own_error(typed):
    result = typed("--pyargs", "no_such_package")
    assert result.ret == 4
    assert "unrecognized arguments" in result.stderr.str()


def test_a_suites_folder_that_is_not_here_is_named_with_what_to_type(typed):
    result = typed("suites/test_pope.py")
    assert result.ret == 4
    assert "not found: suites/test_pope.py (away from a checkout: pytest --pyargs suites)" in result.stderr.str()
    assert "unrecognized" not in result.stderr.str()
    assert "away from" not in typed("-k", "suites").stderr.str()


@pytest.mark.parametrize("option", ["--lf", "--last-failed", "--ff"])
def test_what_failed_last_is_found_without_a_path(typed, option):
    first = typed("--pyargs", "suites.test_pope", "suites.test_gqa", "--max-drop", "1")
    first.assert_outcomes(failed=2)
    again = typed(option, "--max-drop", "100")
    again.assert_outcomes(passed=2)
    again.stdout.fnmatch_lines(["cached: 2 of 2 cells *"])


def test_without_a_failure_there_is_nothing_to_find(typed, pytester):
    assert failed_suites(pytester.parseconfig(), ["--lf"]) == []
    cache = pytester.path / ".pytest_cache/v/cache"
    cache.mkdir(parents=True)
    for text in ("", "[]", '{"gone.py::test": true}'):
        (cache / "lastfailed").write_text(text)
        assert failed_suites(pytester.parseconfig(), ["--lf"]) == []


def test_a_test_that_is_run_again_counts_once(typed, pytester):
    pytester.makepyfile(again=AGAIN)
    pytester.syspathinsert()
    result = typed("-p", "again", "--pyargs", "suites.test_pope", "--max-drop", "1", "--junitxml", "j.xml")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*1 of 1 cells*"])
    assert "2 of 1" not in result.stdout.str()
    (case, *_) = ElementTree.parse(pytester.path / "j.xml").iter("testcase")
    names = Counter(entry.get("name") for entry in case.iter("property"))
    assert names
    assert set(names.values()) == {1}


def test_a_line_of_progress_stands_alone_under_q(typed):
    result = typed("-q", "--pyargs", "suites")
    for line in result.outlines:
        if " of 6 cells" in line:
            assert line.lstrip().startswith(tuple("0123456789")), line
            assert not line.startswith(".")
