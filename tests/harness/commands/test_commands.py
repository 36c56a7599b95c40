"""`fitprune models` and `fitprune flops`."""

import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fitprune import Recipe
from harness.__main__ import main
from harness.latency.asked import Asked
from harness.models.registry import MODELS
from tests.support.tiny_llava import save_tiny

pytestmark = pytest.mark.releases
ROOT = Path(__file__).parents[3]
# LLaMA-7B: layers, hidden size, FFN size, vocabulary of the llava-hf checkpoints.
LAYERS, HIDDEN, INNER, VOCABULARY = 32, 4096, 11008, 32064
UNITS = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}

needs_llava_hr = pytest.mark.skipif(
    importlib.util.find_spec("harness.models.llava_hr") is None, reason="LLaVA-HR's classes are not in this tree"
)


def prefill(tokens: int) -> int:
    """FLOPs of LLaMA-7B over a prompt and of its head on the last row: two per multiply-accumulate, by hand."""
    matrices = tokens * (4 * HIDDEN**2 + 3 * HIDDEN * INNER)
    attention = 2 * tokens**2 * HIDDEN
    return 2 * (LAYERS * (matrices + attention) + HIDDEN * VOCABULARY)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def table(text: str) -> dict[str, dict[str, float]]:
    """The printed table: row → column → number (FLOPs, or a share)."""
    lines = text.splitlines()
    rule = next(place for place, line in enumerate(lines) if line.startswith("---"))
    edges = [match.span() for match in re.finditer(r"-+", lines[rule])]

    def cells(line: str) -> list[str]:
        return [line[start:end].strip() for start, end in edges]

    titles = cells(lines[rule - 1])[1:]
    found: dict[str, dict[str, float]] = {}
    for line in itertools.takewhile(str.strip, lines[rule + 1 :]):
        name, *values = cells(line)
        numbers = [value.partition(" ") for value in values]
        figures = [float(figure.rstrip("%")) * UNITS.get(unit, 1.0) for figure, _, unit in numbers]
        found[name] = dict(zip(titles, figures, strict=True))
    return found


def test_every_model_is_listed_with_what_it_is(capsys):
    text = printed(capsys, "models")
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert list(lines) == list(MODELS)
    assert re.search(r"7\.06 G +576 +32 +15\.\d GB  b234b804", lines["llava-1.5-7b"])
    assert re.search(r"llava_next +7\.06 G +2304 +32 ", lines["llava-next-7b"])
    assert lines["llava-tiny"].endswith("embedded")
    assert lines["llava-hr-7b"].endswith("to convert")


def test_columns_are_aligned(capsys):
    lines = printed(capsys, "models").splitlines()
    starts = [line.index(f" {MODELS[line.split()[0]].family} ") + 1 for line in lines[1:]]
    assert set(starts) == {lines[0].index("family")}


def test_visual_tokens_follow_the_image(capsys):
    rows = {line.split()[0]: line.split() for line in printed(capsys, "models", "--image", "672x672").splitlines()[1:]}
    assert "2880" in rows["llava-next-7b"]
    assert "576" in rows["llava-1.5-7b"]
    assert "576" in rows["qwen2.5-vl-7b"]  # 24 × 24 tokens of 28 × 28 pixels


def test_downloaded_weights_are_seen(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert " not here" in next(line for line in printed(capsys, "models").splitlines() if line.startswith("llava-1.5-7b"))
    save_tiny(tmp_path / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / str(MODELS["llava-1.5-7b"].revision))
    assert next(line for line in printed(capsys, "models").splitlines() if line.startswith("llava-1.5-7b")).endswith("  here")


def test_listing_loads_no_torch():
    code = "import sys; from harness.__main__ import main; main(['models']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_seven_billion_model_s_prefill(capsys):
    dense = table(printed(capsys, "flops", "--model", "llava-1.5-7b"))["dense"]
    assert round(dense["prefill"] / 1e12, 1) == 8.5
    assert dense["prefill"] == pytest.approx(prefill(640), rel=5e-4)  # four digits are printed
    # CLIP-L/14 at 336: 24 layers, width 1024, 577 tokens, and the patches' convolution.
    tower = 2 * (24 * (577 * 12 * 1024**2 + 2 * 577**2 * 1024) + 576 * 3 * 14**2 * 1024)
    assert dense["vision tower"] == pytest.approx(tower, rel=5e-4)
    assert dense["projector"] == pytest.approx(2 * 576 * (1024 * HIDDEN + HIDDEN**2), rel=5e-4)
    per_token = 2 * (LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * INNER + 2 * 641 * HIDDEN) + HIDDEN * VOCABULARY)
    assert dense["decode, per token"] == pytest.approx(per_token, rel=5e-4)
    assert dense["of it, scoring"] == 0


def test_llava_next_at_2880_tokens(capsys):
    dense = table(printed(capsys, "flops", "--model", "llava-next-7b", "--tokens", "2880"))["dense"]
    assert dense["prefill"] == pytest.approx(prefill(2880 + 64), rel=5e-4)
    tiles = table(printed(capsys, "flops", "--model", "llava-next-7b", "--image", "672x672"))["dense"]
    assert tiles["prefill"] == pytest.approx(prefill(2880 + 48 + 64), rel=5e-4)  # 48 newlines
    single = table(printed(capsys, "flops", "--model", "llava-1.5-7b"))["dense"]
    assert tiles["vision tower"] == pytest.approx(5 * single["vision tower"], rel=5e-4)  # base view and four tiles


@needs_llava_hr
def test_llava_hr_at_1024_tokens(capsys):
    dense = table(printed(capsys, "flops", "--model", "llava-hr-7b"))["dense"]
    assert dense["prefill"] == pytest.approx(prefill(1024 + 64), rel=1e-3)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.family != "llava_hr"])
def test_every_model_s_prompt_can_be_counted(name, capsys):
    dense = table(printed(capsys, "flops", "--model", name))["dense"]
    assert 0 < dense["projector"] < dense["vision tower"] < dense["total"]
    parts = dense["vision tower"] + dense["projector"] + dense["prefill"] + 15 * dense["decode, per token"]
    assert dense["total"] == pytest.approx(parts, rel=2e-3)  # later tokens cost a little more than the first


@pytest.mark.parametrize("some", [("--pruner", "fastv,random,fitprune"), pytest.param((), marks=pytest.mark.exhaustive)])
def test_the_issue_s_own_command(some, capsys):
    methods = table(printed(capsys, "flops", "--model", "llava-next-7b", "--reduction", "0.549", *some))
    assert next(iter(methods)) == "dense"
    assert {"fastv", "random", "fitprune (published 60.3%)"} < set(methods)
    visual = prefill(2304 + 36 + 64) - prefill(36 + 64)
    for name in ("fastv", "random"):
        saved = methods["dense"]["prefill"] - methods[name]["prefill"]
        assert 0.54 * visual < saved < 0.6 * visual  # text attends to what is left of the image, which saves a little more
    assert 0 < methods["fastv"]["of it, scoring"] < 1e9


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_sees_how_far_the_count_is_and_no_other_file_does(terminal, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert main(["flops", "--model", "llava-tiny", "--reduction", "0.5", "--pruner", "vtw,fastv"]) == 0
    out, err = capsys.readouterr()
    assert "0/3" in err if terminal else err == ""
    assert ("flops:" in err) is terminal
    assert err.rpartition("\r")[2].strip() == ""  # the bar is gone when the table comes
    assert re.search(r"^fastv .* 53\.248 k ", out, re.MULTILINE)


@pytest.mark.exhaustive
def test_all_is_the_default(capsys):
    default = printed(capsys, "flops", "--model", "llava-tiny", "--reduction", "0.5")
    assert printed(capsys, "flops", "--model", "llava-tiny", "--reduction", "0.5", "--pruner", "all") == default
    assert Asked("llava-tiny", pruners=("all",)).methods() == Asked("llava-tiny").methods()


@pytest.mark.exhaustive
def test_the_published_recipe_is_taken_where_there_is_one(capsys):
    methods = table(printed(capsys, "flops", "--model", "llava-1.5-7b", "--reduction", "0.55"))
    assert "fitprune (published 54.5%)" in methods
    assert methods["fitprune (published 54.5%)"]["of it, scoring"] > 1e9


def test_without_a_published_recipe_one_is_asked_for(capsys):
    assert main(["flops", "--model", "llava-next-13b", "--reduction", "0.2", "--pruner", "random,fitprune"]) == 2
    asked = "error: needs --recipe FILE: make one with 'fitprune fit --model llava-next-13b --reduction 0.2 -o FILE'\n"
    assert capsys.readouterr().err == asked


def test_a_recipe_of_one_s_own(capsys, tmp_path):
    Recipe(drop=[0] * 10 + [288] + [0] * 21, visual_tokens=576).save(tmp_path / "mine.json")
    words = ("flops", "--model", "llava-1.5-7b", "--recipe", str(tmp_path / "mine.json"), "--pruner", "fitprune")
    (dense, pruned) = table(printed(capsys, *words)).values()
    # Half of the visual tokens miss one layer's output projection and FFN, and 21 layers altogether.
    after = 32 - 11
    rows = 288 * (HIDDEN**2 + 3 * HIDDEN * INNER) + after * 288 * (4 * HIDDEN**2 + 3 * HIDDEN * INNER)
    pairs = after * 2 * (640**2 - 352**2) * HIDDEN
    saved = dense["prefill"] - (pruned["prefill"] - pruned["of it, scoring"])
    assert saved == pytest.approx(2 * (rows + pairs), rel=5e-3)


def test_a_folder_is_counted_by_its_own_configuration(capsys, tmp_path):
    text = printed(capsys, "flops", "--model", str(save_tiny(tmp_path)), "--text", "10", "--new", "1")
    assert "16 visual and 10 other tokens, 1 generated" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flops", "--model", "llava-1.5-8b"], "llava-1.5-7b"),
        (["flops", "--model", "llava-1.5-7b", "--reduction", "1.5"], "--reduction 1.5 is not between 0 and 1"),
        (["flops", "--model", "llava-1.5-7b", "--pruner", "fastv"], "needs --reduction R"),
        (["flops", "--model", "llava-1.5-7b", "--pruner", "fastw", "--reduction", "0.5"], "fastv"),
        (["flops", "--model", "llava-1.5-7b", "--pruner", "fastv", "--reduction", "0.99"], "it reaches"),
        (["flops", "--model", "qwen2.5-vl-3b", "--pruner", "fitprune", "--reduction", "0.5"], "needs --recipe FILE"),
        (["flops", "--model", "llava-1.5-7b", "--recipe", "nowhere.json"], "nowhere.json"),
        (["flops", "--model", "llava-1.5-7b", "--tokens", "0"], "--tokens 0 is not a whole number of at least 1"),
        (["flops", "--model", "llava-1.5-7b", "--text", "-3"], "--text -3 is not a whole number of at least 1"),
        (["models", "--image", "large"], "--image large is not WIDTHxHEIGHT"),
        (["flops", "--model", "llava-next-7b", "--image", "0x5"], "--image 0x5 is not WIDTHxHEIGHT"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the hub is asked for."""
    calls: list[dict] = []

    def snapshot_download(repository: str, **options: object) -> str:
        calls.append({"repository": repository, **options})
        return "/cache/snapshot"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


def test_a_model_is_downloaded_at_its_pinned_revision(asked: list[dict], capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "download", "llava-1.5-7b") == "/cache/snapshot\n"
    spec = MODELS["llava-1.5-7b"]
    (call,) = asked
    assert (call["repository"], call["revision"]) == (spec.source, spec.revision)
    assert "*.safetensors" in call["allow_patterns"]
    assert "*.bin" not in call["allow_patterns"]
    assert not call.get("local_files_only")


def test_a_model_to_convert_comes_with_its_pickles_and_the_next_command(
    asked: list[dict], capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, "download", "llava-hr-7b")
    assert said.splitlines()[1] == "next: python -m harness.models.llava_hr /cache/snapshot llava-hr-7b"
    assert "*.bin" in asked[0]["allow_patterns"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llava-tiny", "needs no download"),
        ("llava-9", "unknown model"),
        ("llava-1.5-7b", r"cannot download llava-hf/llava-1.5-7b-hf \(14 GB\).*HF_HUB_OFFLINE"),
    ],
)
def test_what_cannot_be_downloaded_is_said_in_one_line(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tests run with HF_HUB_OFFLINE set; the cache is an empty one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["download", name]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)
