"""The workflows: they parse, their shell parses, and what they call exists and takes these options."""

import configparser
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from harness.gate.saved import FOLDER
from harness.plugin.options import RunOptions, add_options

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "gate.yml"
RELEASES = ROOT / ".github" / "workflows" / "releases.yml"
TOX = (ROOT / "tox.ini").read_text(encoding="utf-8")


def read(text):
    # YAML 1.1 reads the key `on` as true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(text).items()}


def gates():
    """The one in the repository, and the one that docs/ci.md shows for GPU runners."""
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    return [read(WORKFLOW.read_text(encoding="utf-8")), *(read(text) for text in shown)]


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def scripts(workflow):
    return [step["run"] for step in steps(workflow) if "run" in step]


@pytest.mark.parametrize("workflow", [*gates(), read(RELEASES.read_text(encoding="utf-8"))])
def test_every_step_runs_something_and_every_script_is_shell(workflow):
    assert workflow["on"]
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step), step
    for script in scripts(workflow):
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        assert subprocess.run(["bash", "-n"], input=plain, text=True, capture_output=True, check=False).stderr == ""


@pytest.mark.parametrize("workflow", gates())
def test_what_it_calls_is_there(workflow):
    text = "\n".join(scripts(workflow))
    for environment in re.findall(r"tox run -e (\w+)", text):
        assert f"[testenv:{environment}]" in TOX
    for module in re.findall(r"-m (\w+)", text):
        assert module == "pip" or module == "tox" or importlib.util.find_spec(module), module
    assert "fitprune report results" in text
    assert '>> "$GITHUB_STEP_SUMMARY"' in text


def options(line):
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    parser.addini("testpaths", "")
    group = parser.getgroup("test")
    for name in ("--junitxml", "-n"):
        group._addoption(name)
    return RunOptions.parse(parser.parse_known_args([str(word) for word in shlex.split(line)]))


@pytest.mark.parametrize("workflow", gates())
def test_its_options_are_the_plugins(workflow):
    gate = workflow.get("env", {}).get("GATE", "")
    lines = [
        shell_line.replace("$GATE", gate)
        for script in scripts(workflow)
        for shell_line in script.replace("\\\n", " ").splitlines()
        if "$GATE" in shell_line or "pytest suites" in shell_line
    ]
    assert lines
    for line in lines:
        # Unknown options would make pytest stop with an error; here they would be left over.
        words = line.replace('"${compare[@]}"', "--compare main --compare-fail 1.0")
        given = set(re.findall(r"(?<= )--[a-z-]+", words.partition(" -- ")[2] or words))
        parsed = options(words.partition(" -- ")[2] or words.partition("pytest suites")[2])
        assert given <= {"--pruner", "--reduction", "--limit", "--results", "--junitxml", "--max-drop", "--compare",
                         "--compare-fail", "--save", "--gate", "--model", "--data", "--device"}  # fmt: skip
        assert parsed.results == "results"


def test_the_saved_run_that_is_cached_is_the_one_that_is_compared():
    text = WORKFLOW.read_text(encoding="utf-8")
    assert f"results/{FOLDER}/main" in text
    assert "--compare main --compare-fail 1.0" in text
    assert "--save main" in text


def test_releases_are_run_weekly_and_gate_nothing():
    workflow = read(RELEASES.read_text(encoding="utf-8"))
    assert set(workflow["on"]) == {"schedule", "workflow_dispatch"}
    (schedule,) = workflow["on"]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* \d", schedule["cron"])
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["environment"] == ["latest", "oldest"]
    assert not job["strategy"]["fail-fast"]
    (test,) = [script for script in scripts(workflow) if "--skip-pkg-install" in script]
    # All that is marked: nothing narrows the environments' own selection.
    assert test == "python -m tox run -e ${{ matrix.environment }} --skip-pkg-install -- --junitxml releases.xml"


@pytest.mark.parametrize("environment", ["latest", "oldest"])
def test_an_environment_of_releases_runs_what_is_marked(environment):
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string(TOX)
    section = tox[f"testenv:{environment}"]
    assert (
        section["commands"]
        .replace("{[testenv:latest]commands}", tox["testenv:latest"]["commands"])
        .endswith("pytest tests -n 2 --dist worksteal --timeout 600 -m releases {posargs}")
    )
    # Neither is held to the versions that the tables were made with.
    assert "constraints.txt" not in section["deps"] + section["set_env"]
    assert ("requirements{/}oldest.txt" in section["set_env"]) == (environment == "oldest")
    assert f"tox run -e {environment} -- -m releases_short" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
