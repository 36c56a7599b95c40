"""What CONTRIBUTING.md tells to run is there; hooks and citation agree with what they stand for."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
TOX = configparser.ConfigParser(interpolation=None)
TOX.read(ROOT / "tox.ini")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tests|docs|fitprune|harness|\.ci)/[\w/.-]*\w", GUIDE))))
def test_a_path_that_it_names_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (tests[\w.]+)", GUIDE))))
def test_a_module_that_it_runs_exists(module):
    place = ROOT / module.replace(".", "/")
    assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()


def test_the_environments_that_it_names_are_tox_s():
    named = {name for words in re.findall(r"-e ([\w,]+)", GUIDE) for name in words.split(",")}
    assert {"dev", "lint", "tests", "latest", "oldest"} <= named
    assert {f"testenv:{name}" for name in named} <= set(TOX.sections())


def test_the_hooks_check_what_lint_checks():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [re.sub(r" --force-exclude", "", hook["entry"]) for hook in repository["hooks"]]
    linted = [line.removesuffix(" .") for line in TOX["testenv:lint"]["commands"].split("\n") if line]
    assert hooks[: len(linted)] == linted


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"[{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_an_issue_form_is_one(form):
    read = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= set(read)
    asked = [part["id"] for part in read["body"]]
    assert len(asked) == len(set(asked))
    assert all(part["type"] in ("input", "textarea", "checkboxes") and part["attributes"]["label"] for part in read["body"])
