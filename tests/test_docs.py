"""README and docs: small, no broken link, and every command that they show can be read, and run where it needs no network."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from baselines.registry import CLASS_PATHS
from fitprune.arguments import commands_parser
from harness.__main__ import main
from harness.plugin.options import DEST, OPTIONS, RunOptions
from harness.results.store import Store
from reports.console import COMMANDS, PROGRAM, PURPOSE
from tests.support.boards import put

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What is not on every machine, or takes its own test.
ELSEWHERE = re.compile(
    r"download|git clone|\bpip\b|\btox\b|cuda|--data hub|llava-(1\.5|next|hr)(-7b|-13b)?\b(?!-tiny)|\.venv|yesterday|…|"
    r"--engine|validity |"
    r"paper restore-1 (?!--model llava-tiny)"
)


def blocks(page: Path) -> list[list[str]]:
    """The commands of each block: lines that begin with a program of ours, without what a comment says."""
    found = []
    for block in re.findall(r"^```(?:\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        lines = [re.split(r"\s#", line)[0].strip() for line in block.replace("\\\n", " ").splitlines()]
        found.append([line for line in lines if re.match(r"(fitprune [a-z-]|pytest )", line)])
    return [commands for commands in found if commands]


SHOWN = sorted({(page.name, line) for page in PAGES for commands in blocks(page) for line in commands})


def test_the_readme_is_small():
    assert len((ROOT / "README.md").read_bytes()) <= 8000


def anchors(page: Path) -> set[str]:
    """As GitHub and mkdocs make them of headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_leads_nowhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target
        assert page.parent.name != "docs" or other.resolve().is_relative_to(ROOT / "docs"), f"{target} is not in the site"


def test_the_commands_were_found():
    assert len(SHOWN) > 30
    shown = {words.split()[1] for _, words in SHOWN if words.startswith("fitprune ")}
    assert set(COMMANDS) - shown <= {"completion", "methods", "models", "scenes"}  # which stand in a line of text


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_every_command_can_be_read(page, line):
    """The options are there, and their values can be meant."""
    words = shlex.split(re.split(r" (?:&&|\||>>?|<) ", line)[0])
    if words[0] == PROGRAM:
        commands_parser(PROGRAM, PURPOSE, COMMANDS, words[1:2]).parse_args(words[1:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="*")
    parser.add_argument("-n", "--junitxml", "--pyargs", nargs="?")
    for option in OPTIONS:
        action = {"action": "append" if option.repeatable else "store"} if option.metavar else {"action": "store_true"}
        parser.add_argument(f"--{option.name}", dest=DEST + option.field, **action)
    options, _ = parser.parse_known_args(words[1:])
    RunOptions.parse(options).expanded()


@pytest.mark.exhaustive
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_what_needs_no_network_runs(page, tmp_path):
    """A page's commands, one after another in one folder, with few questions where they say how many."""
    (tmp_path / "suites").symlink_to(ROOT / "suites")
    if page.name == "reports.md":  # of a results folder that is there
        for pruner in ("fastv", "random", "downsample"):
            put(Store(tmp_path / "results"), pruner, [1.0, 0.0])
    few = [("--limit 100", "--limit 4"), ("--limit 400", "--limit 4"), ("-n 8", "-n 2"), ("--samples 256", "--samples 16")]
    for line in [line for commands in blocks(page) for line in commands if not ELSEWHERE.search(line)]:
        for shown, run in few:
            line = line.replace(shown, run)
        more = " --limit 4" if line.startswith("pytest suites/") and "--limit" not in line else ""
        more += " --limit 4 --suite gqa --pruner dense,divprune" if line.startswith("fitprune paper restore-1") else ""
        path = f"PATH={Path(sys.executable).parent}:$PATH OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1"
        ran = subprocess.run(["bash", "-c", f"export {path}; {line}{more}"], cwd=tmp_path, capture_output=True, text=True)
        # 1 is a gate that fails, or a search that certifies nothing.
        assert ran.returncode in (0, 1), f"{line}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
        assert "Traceback" not in ran.stderr, line


@pytest.mark.parametrize("name", ["methods", "models"])
def test_a_page_s_table_is_what_the_command_prints(name, capsys):
    assert main([name, "--markdown"]) == 0
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert block == capsys.readouterr().out


def test_a_method_s_row_has_its_paper_its_rule_and_its_ids(capsys):
    main(["methods", "--markdown"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    found = {name.strip("`"): cells for name, *cells in rows}
    assert list(found) == list(CLASS_PATHS)
    assert all(all(cells) for cells in found.values())
    link = "[{0}](https://arxiv.org/abs/{0})".format
    assert found["fastervlm"][0] == link("2412.01818") + " v1"
    assert found["restore-divprune"][0] == link("2606.01711")  # its base's
    assert found["cosine"][0] == "–"
    assert found["vtw"][1:] == ["between layers", "all visual tokens are withdrawn at one layer", "kept", "none"]
