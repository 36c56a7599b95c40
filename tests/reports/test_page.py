"""The page in a real browser: it sorts, filters, draws, shows what is kept; texts of results are shown, never run."""

import base64
import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.answering.evaluate import Answer
from harness.gallery.file import write_scene
from harness.gallery.survivors import masks
from harness.plugin.summary import lines_of
from harness.results.store import Store
from harness.results.texts import row_texts
from harness.tasks.specs import suite_title
from harness.tuning.file import FOLDER
from reports.__main__ import main
from reports.table.leaderboard import read_leaderboard
from reports.writing.tabular import escape_latex
from tests.support.boards import answers_with, flips, refuse
from tests.support.browser import Browser, needs_chromium
from tests.support.results import result

pytestmark = needs_chromium

ROOT = Path(__file__).parents[2]
EVIL = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
METHODS = ("fitprune", "fastv", "random", "downsample")
REDUCTIONS = (0.3, 0.5)
SUITES = ("gqa", "pope")
COLORS = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]  # of a picture's four patches


def png():
    image = Image.fromarray(np.array(COLORS, dtype=np.uint8)).resize((32, 32), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def scene(doc_id, question, **changes):
    view = {"label": "the model's view", "columns": 2, "rows": 2, "picture": png()}
    kept = {"pruner": "fastv", "answer": EVIL, "score": 0.0, "left": [4, 3], "tower": False} | masks([[0, 1, 2, 3], [1, 2]], 4)
    whole = {"pruner": "fitprune", "answer": "red", "score": 1.0, "left": [4, 1], "tower": True} | masks([[0, 1, 2, 3], [0]], 4)
    kept, whole = ({"reduction": 0.5, "tokens": 4} | part for part in (kept, whole))
    made = {
        "schema": 1,
        "kind": "gallery",
        "model": "llava-tiny",
        "revision": "abc",
        "suite": "gqa",
        "data": "mini",
        "doc_id": doc_id,
        "question": question,
        "target": "red",
        "tokens": 4,
        "views": [view],
        "dense": {"answer": "red", "score": 1.0},
        "pruned": [kept, whole, {"pruner": "vtw", "reduction": 0.5, "cannot": EVIL}],
        "seed": 0,
        "device": "cpu",
        "versions": {},
        "date": "2026-01-01",
        "command": "fitprune gallery",
    }
    return made | changes


SEARCH = {
    "format": "fitprune-tuned",
    "version": 1,
    "model": "llava-1.5-7b",
    "headline": "fastv@0.5 saves 50% of the FLOPs of the visual tokens and is certified to lose at most, in points: gqa 1.",
    "goal": "flops",
    "command": "fitprune tune --model llava-1.5-7b --suite gqa --max-drop 1",
    "frontier": [
        {"name": "fastv@0.5", "saves": 0.5, "most": 0.42, "asked": 310, "certified": True},
        {"name": EVIL, "saves": 0.7, "most": 6.5, "asked": 96, "certified": False},
    ],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Four methods at two reductions on two suites, dense, one refusal, two questions in the gallery, markup in every text."""
    store = Store(tmp_path_factory.mktemp("results"))
    for suite in SUITES:
        for number, method in enumerate(METHODS):
            for reduction in REDUCTIONS:
                kept = answers_with(flips(0.95 - 0.15 * number), suite)
                kept.answers = [Answer(a.doc_id, a.image, EVIL, EVIL, EVIL, a.score) for a in kept.answers]
                store.write(
                    result(
                        pruner=method,
                        suite=suite,
                        score=kept.score,
                        drop=100 - kept.score,
                        reduction_asked=reduction,
                        reduction=reduction,
                        flops=(2 - reduction) * 1e9 + number * 1e6,
                        score_ci95=(kept.score - 3, kept.score + 3),
                        data="mini",
                        note=EVIL,
                        latency_ms={"prefill_ratio": 0.9 - 0.1 * number, "prefill_ratio_q1": 0.3, "prefill_ratio_q3": 0.95},
                        max_drop=5.0,
                        gate="significant",
                        command=f"pytest suites/test_{suite}.py --pruner {method} --reduction {reduction}",
                        tokens_per_layer=[144.0, 144.0, 70.0 + number],
                    ),
                    kept,
                    answers_with([1.0] * 80, suite),
                )
    refuse(store.folder, reason=EVIL)
    write_scene(store.folder, scene(1, "What color?"))
    write_scene(store.folder, scene(2, EVIL))
    tuned = store.folder / FOLDER
    tuned.mkdir()
    (tuned / "recipe.json").write_text(json.dumps(SEARCH))
    (tuned / "z.json").write_text(json.dumps(SEARCH | {"frontier": "none"}))
    return store


@pytest.fixture(scope="module")
def site(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "made"
    assert main([str(results.folder), "--html", str(folder)]) == 0
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser():
    with Browser() as running:
        yield running


@pytest.fixture
def page(browser, site):
    opened = browser.open(site)
    yield opened
    assert opened.errors == []
    # Chromium notes pictures inside the page as requests too.
    assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data"}
    assert [url for url in opened.requests if url.startswith("file:")] == [site.resolve().as_uri()]


FIRST = "r => r.querySelector('th').innerText.split('\\n')[0].replace(' ◆', '')"
NAMES = f"[...document.querySelectorAll('#board tbody tr')].map({FIRST})"


def column(page, name):
    heads = page.evaluate("[...document.querySelectorAll('#board thead th')].map(h => h.innerText.replace(/ [↑↓]/, ''))")
    texts = f"[...document.querySelectorAll('#board tbody tr')].map(r => r.children[{heads.index(name)}]?.innerText ?? '–')"
    return page.evaluate(texts)


def click(page, selector):
    page.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def choose(page, selector, value):
    element = f"document.querySelector({json.dumps(selector)})"
    page.evaluate(f"{element}.value = {json.dumps(value)}; {element}.dispatchEvent(new Event('change')); 0")


def test_it_sorts_by_any_column_both_ways(page):
    everything = page.evaluate(NAMES)
    assert sorted(everything) == sorted(["dense", *(f"{m} {r}" for m in METHODS for r in REDUCTIONS)])
    for name, id_ in (("GQA", "sort-gqa"), ("average", "sort-average")):
        click(page, f"#{id_}")
        shown = [float(text.split()[0]) for text in column(page, name) if text not in ("–", "cannot")]
        assert shown == sorted(shown, reverse=True)
        assert len(set(shown)) > 3
        click(page, f"#{id_}")
        assert [float(text.split()[0]) for text in column(page, name) if text not in ("–", "cannot")] == shown[::-1]
    click(page, "#sort-gflops")
    flops = [float(text) for text in column(page, "GFLOPs") if text != "–"]
    assert flops == sorted(flops)
    assert page.evaluate("document.querySelector('#sort-gflops').closest('th').getAttribute('aria-sort')") == "ascending"


def test_what_could_not_run_is_one_line_to_unfold(page):
    assert page.evaluate("document.querySelector('#refused').innerText") == "1 row without a result: vtw 0.9"
    page.evaluate("document.querySelector('#refused').open = true; 0")
    assert page.evaluate("document.querySelector('#refused li').innerText") == f"vtw 0.9: cannot: {EVIL}"
    choose(page, "#filter-method", "fastv")
    assert page.evaluate("document.querySelector('#refused').hidden")


def test_it_says_first_what_it_found_and_what_the_gate_failed(page):
    said = page.evaluate("document.querySelector('#headlines').innerText")
    assert re.fullmatch(
        r"With 50% of the visual tokens’ FLOPs saved, fitprune keeps 9\d\.\d of 100\.0 points; random \d\d\.\d\. "
        r"(GQA|POPE) loses most, \d+\.\d\.",
        said,
    )
    gate = page.evaluate("document.querySelector('#gate').innerText").splitlines()
    assert gate[0].startswith("✗ The gate failed ")
    assert re.search(r"downsample 0\.[35] on (GQA|POPE): lost \d\d\.\d points, allowed 5$", "\n".join(gate), re.MULTILINE)
    assert page.evaluate("document.querySelector('#gate').getBoundingClientRect().bottom") < 900
    assert page.evaluate("document.title") == "Pruned visual tokens of llava-tiny: accuracy against FLOPs"
    about = page.evaluate("document.querySelector('header .note').innerText")
    assert about == "fitprune-bench · mini data · 80 questions a suite · 2026-01-01 · Apache-2.0 · method: arXiv 2409.10197"


def test_it_filters_rows_and_columns(page):
    choose(page, "#filter-method", "fastv")
    assert page.evaluate(NAMES) == ["fastv 0.3", "fastv 0.5"]
    choose(page, "#filter-reduction", "0.5")
    assert page.evaluate(NAMES) == ["fastv 0.5"]
    choose(page, "#filter-method", "")
    assert sorted(page.evaluate(NAMES)) == sorted(f"{method} 0.5" for method in METHODS)
    page.evaluate(
        "const box = document.querySelector('#filter-words'); box.value = 'RAND'; box.dispatchEvent(new Event('input')); 0"
    )
    assert page.evaluate(NAMES) == ["random 0.5"]
    assert page.evaluate("document.querySelector('#shown').innerText") == "1 row"
    click(page, "#suite-gqa")
    assert "GQA" not in page.evaluate("document.querySelector('#board thead').innerText")


def test_every_cell_says_the_same_in_every_form(page, results, tmp_path):
    """The page, Markdown, LaTeX and the terminal, by the texts; CSV, which is not rounded, by its figures rounded."""
    paths = {suffix: tmp_path / f"board.{suffix}" for suffix in ("md", "csv", "tex")}
    options = zip(("--markdown", "--csv", "--latex"), paths.values(), strict=True)
    assert main([str(results.folder), *(str(word) for pair in options for word in pair)]) == 0
    (board,) = read_leaderboard(results.folder).boards
    lines = {line["method"].text.removesuffix(" ◆"): list(line.values()) for line in board.lines if line["gqa"].text != "–"}
    texts = {name: [text.text for text in line] for name, line in lines.items()}
    assert len(texts) == 9
    assert all(len(line) == len(board.columns) == 12 for line in texts.values())

    read = "[...document.querySelectorAll('#board tbody tr')].map(r => [...r.children].map(c => c.innerText.trim()))"
    page_lines = [[" ".join(cell.split()) for cell in line] for line in page.evaluate(read)]
    # A cell of the page has the score and its marks before the drop, which stands below.
    assert [[sorted(cell.split()) for cell in line] for line in page_lines] == [
        [sorted(cell.split()) for cell in line] for line in texts.values()
    ]
    heads = page.evaluate("[...document.querySelectorAll('#board thead th')].map(h => h.innerText)")
    assert heads == board.columns

    markdown = paths["md"].read_text().partition("## Published")[0].splitlines()
    cells = [line.strip("|").split(" | ") for line in markdown if line.startswith("|")]
    plain = [[re.sub(r"\\(.)", r"\1", cell).strip(" *") for cell in line] for line in cells]
    assert [line for line in plain[2:] if line[1][0].isdigit()] == list(texts.values())

    latex = [line for line in paths["tex"].read_text().splitlines() if " & " in line and "multicolumn" not in line][1:]
    assert [line.replace(r"\textbf{", "").replace("}", "").removesuffix(r" \\") for line in latex] == [
        " & ".join(map(escape_latex, line)).replace("}", "") for line in texts.values()
    ]

    table = board.table
    terminal = [[row.name, *row_texts(row, table, suite_title).values()] for row in table.rows if row.results]
    whole = [[re.sub(r"[ ʳᵈ◆]*$", "", cell) for cell in line[:7] + line[9:11]] for line in texts.values()]
    assert terminal == whole
    shown = lines_of([table])[1:]
    assert all(re.split(r"\s{2,}", line.strip()) == cells for line, cells in zip(shown, terminal, strict=False))

    for record in csv.DictReader(io.StringIO(paths["csv"].read_text())):
        name = " ".join(filter(None, (record["method"], record["reduction_asked"])))
        if name in texts:
            cell = texts[name][1 if record["suite"] == "average" else board.columns.index(suite_title(record["suite"]))]
            drop = record["drop"] and f"{float(record['drop']):.1f}".replace("-", "−")
            assert cell.startswith(f"{float(record['score']):.1f}" + (f" ({drop} " if drop else ""))
            assert texts[name][3:5] == [f"{float(record['reduction']):.1%}", f"{float(record['prefill_of_dense']):.2f}"]
            assert texts[name][6] == f"{float(record['of_dense']):.0%}"


def test_a_row_unfolds_to_the_command_and_versions_of_each_figure(page):
    choose(page, "#filter-method", "fastv")
    click(page, "#board tbody button")
    text = page.evaluate("document.querySelector('.unfolded').textContent")
    for suite in SUITES:
        assert f"pytest suites/test_{suite}.py --pruner fastv --reduction 0.3" in text
    assert "transformers" in text
    assert "device cpu; seed 0" in text
    assert "2026-01-01" in text
    assert '{"k": 2}' in text
    click(page, "#sort-gflops")  # what is unfolded goes with its row
    assert page.evaluate("document.querySelector('.unfolded').closest('tr').previousElementSibling.innerText").startswith(
        "fastv 0.3"
    )
    assert page.evaluate("document.querySelectorAll('#board > tbody > tr').length") == len(REDUCTIONS) + 1
    page.evaluate("document.querySelector('#board tbody [aria-expanded=true]').click()")
    assert page.evaluate("document.querySelector('.unfolded')") is None


def test_charts_are_drawn_and_follow_the_chosen_suite(page):
    marks = "document.querySelectorAll('#{} .mark-symbol.role-mark path').length"
    for chart in ("chart-flops", "chart-latency"):
        page.wait(f"{marks.format(chart)} === 9")  # eight rows and dense
    before = page.evaluate("document.querySelector('#chart-flops .mark-symbol.role-mark').innerHTML")
    choose(page, "#chart-suite", "pope")
    page.wait(f"document.querySelector('#chart-flops .mark-symbol.role-mark')?.innerHTML !== {json.dumps(before)}")
    page.wait(f"{marks.format('chart-flops')} === 9")
    label = page.evaluate("document.querySelector('#chart-flops .mark-symbol.role-mark path').getAttribute('aria-label')")
    assert "score" in label
    assert "POPE" in page.evaluate("document.querySelector('#chart-note').innerText")


def test_a_point_s_tooltip_gives_its_figures(page):
    """Of the dense row, which lies alone."""
    page.wait("document.querySelectorAll('#chart-flops .mark-symbol.role-mark path').length === 9")
    page.point_at("#chart-flops .mark-symbol.role-mark path[aria-label*='row: dense']")
    page.wait("document.querySelector('#vg-tooltip-element.visible')")
    text = page.evaluate("document.querySelector('#vg-tooltip-element').innerText")
    assert "dense" in text
    assert "100.0" in text  # what the dense answers beside a pruned cell's say
    assert "GFLOPs" in text


def test_a_method_shows_the_tokens_left_in_each_layer(page):
    page.evaluate("document.querySelector('#method-fastv').open = true; 0")
    page.wait("document.querySelector('#method-fastv svg .mark-line path')")
    assert page.evaluate("document.querySelector('#method-fastv table').innerText").split() == [
        *("layer", "0", "1", "2", "fastv", "0.3", "144", "144", "71", "fastv", "0.5", "144", "144", "71")
    ]  # fmt: skip


def patch(page, pruner, place):
    """The colour in the middle of a patch of a pruner's picture, or None while nothing is drawn there."""
    row, col = divmod(place, 2)
    at = f"c.width * {(col + 0.5) / 2}, c.height * {(row + 0.5) / 2}"
    read = f"(c => [...c.getContext('2d').getImageData({at}, 1, 1).data])"
    return page.evaluate(f"{read}(document.querySelector('[data-pruner={pruner}] canvas'))")[:3]


def test_the_gallery_shows_which_patches_survive_and_both_answers(page):
    flat = [color for row in COLORS for color in row]
    page.wait("document.querySelector('[data-pruner=fastv] canvas').getContext('2d').getImageData(9, 9, 1, 1).data[3] > 0")
    assert page.evaluate("document.querySelector('#dense-answer').innerText") == "dense: red ✓"
    assert [max(patch(page, "fastv", place)) > 200 for place in range(4)] == [False, True, True, False]
    assert [max(patch(page, "fitprune", place)) > 200 for place in range(4)] == [True, False, False, False]
    assert tuple(patch(page, "fastv", 1)) == flat[1]
    assert (
        page.evaluate("document.querySelector('[data-pruner=fastv] .left').innerText")
        == "3 of 4 tokens left, 1 of them of no single patch"
    )
    assert page.evaluate("document.querySelector('[data-pruner=fitprune] .left').innerText") == "1 of 4 tokens left"
    said = "document.querySelector('[data-pruner={}]').innerText.includes('a mark names a token')"
    assert (page.evaluate(said.format("fastv")), page.evaluate(said.format("fitprune"))) == (False, True)
    page.evaluate("document.querySelector('#layer').focus()")
    page.press("ArrowLeft")  # from the last layer to the one before
    assert page.evaluate("document.querySelector('#layer-said').innerText") == "after layer 0 (0 to 1)"
    page.wait("document.querySelector('[data-pruner=fastv] canvas').getContext('2d').getImageData(9, 9, 1, 1).data[0] > 200")
    assert all(max(patch(page, "fastv", place)) > 200 for place in range(4))
    click(page, ".questions label:nth-of-type(2) input")
    assert page.evaluate("document.querySelector('#gallery strong').innerText") == EVIL


def test_a_search_stands_with_its_frontier_as_chart_and_table(page):
    page.wait("document.querySelectorAll('#tuned svg text').length")
    shown = "[...document.querySelectorAll('#tuned tbody tr')].map(r => r.innerText.split('\\t').map(t => t.trim()))"
    assert page.evaluate(shown) == [
        ["fastv@0.5", "50.0%", "0.42", "310", "certified"],
        [EVIL, "70.0%", "6.50", "96", "not certified"],
    ]
    drawn = page.evaluate("[...document.querySelectorAll('#tuned svg text')].map(t => t.textContent)")
    assert {"fastv@0.5", EVIL, "certified", "not certified", "Saved", "Drop at most (points)"} <= set(drawn)
    assert page.evaluate("document.querySelector('#tuned h3 + p').innerText") == SEARCH["headline"]
    notes = page.evaluate("document.querySelector('#measured').innerText")
    assert "tuned/z.json is damaged and left out" in notes


def test_texts_of_results_are_shown_and_not_run(page, site):
    text = site.read_text(encoding="utf-8")
    assert "<script>window" not in text
    assert "<img src=x" not in text
    page.evaluate("document.querySelectorAll('#board tbody .first button').forEach(b => b.click())")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    click(page, ".questions label:nth-of-type(2) input")
    page.wait("document.querySelectorAll('#method-fastv svg').length")
    shown = page.evaluate("document.body.innerText")
    assert shown.count(EVIL) > 20  # notes, questions, answers, reasons
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0


def test_it_works_with_the_keyboard(page):
    for _ in range(60):
        page.press("Tab")
        if page.evaluate("document.activeElement.id") == "sort-average":
            break
    page.press("Enter")
    assert page.evaluate("document.querySelector('#sort-average').closest('th').getAttribute('aria-sort')") == "descending"
    assert page.evaluate("document.activeElement.id") == "sort-average"  # the focus stays where it was
    page.evaluate("document.querySelector('#board tbody button').focus()")
    page.press(" ")
    assert page.evaluate("document.querySelector('.unfolded') !== null")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("still", [False, True])
def test_nothing_moves_for_who_wants_no_motion(browser, site, still):
    page = browser.open(site, still=still)
    page.evaluate("document.body.style.transition = document.body.style.animation = 'all 1s'; 0")
    moving = page.evaluate(
        "[getComputedStyle(document.body).transitionDuration, getComputedStyle(document.body).animationName]"
    )
    assert moving == (["0s", "none"] if still else ["1s", "all"])


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling(browser, site, dark):
    page = browser.open(site, width=390, height=800, dark=dark)
    page.wait("document.querySelectorAll('#chart-latency svg').length")
    page.evaluate("document.querySelectorAll('#board tbody .first button').forEach(b => b.click())")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait("document.querySelectorAll('#method-fastv svg').length")
    # As many questions as a real gallery has.
    double = "document.querySelectorAll('.questions').forEach(strip => strip.append(...strip.cloneNode(true).children))"
    page.evaluate(f"{double}; {double}")
    assert page.evaluate("[...document.querySelectorAll('.questions')].every(strip => strip.scrollWidth > 600)")
    assert page.evaluate("window.innerWidth") == 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("window.scrollTo(500, 0)")
    assert page.evaluate("window.scrollX") == 0
    assert page.errors == []


def luminance(color):
    """Relative luminance of `rgb(r, g, b)` or `#rrggbb` (WCAG 2.2)."""
    channels = bytes.fromhex(color[1:]) if color.startswith("#") else [int(part) for part in color[4:-1].split(",")]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (channel / 255 for channel in channels)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_both_colour_schemes_are_readable_charts_too(browser, site, dark):
    page = browser.open(site, dark=dark)
    page.wait("document.querySelectorAll('#chart-flops svg text').length")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(back) < 0.05) == dark
    texts = [
        page.evaluate(f"getComputedStyle(document.querySelector('{part}')).color")
        for part in ("body", ".note", "nav a", ".sub")
    ]
    texts += page.evaluate("[...document.querySelectorAll('#chart-flops svg text')].map(t => getComputedStyle(t).fill)")
    assert min(contrast(text, back) for text in texts) >= 4.5
    assert page.errors == []


AXE = next(
    filter(Path.is_file, [Path(os.environ.get("AXE_CORE", "")), ROOT / "node_modules" / "axe-core" / "axe.min.js"]), None
)


@pytest.mark.skipif(AXE is None, reason="no axe-core here: npm install --no-save axe-core")
@pytest.mark.product(strength=1)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(browser, site, width, dark):
    page = browser.open(site, width=width, dark=dark)
    page.wait("document.querySelectorAll('#chart-latency svg').length")
    page.evaluate(f"{AXE.read_text(encoding='utf-8')}; 0")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true); 0")
    page.evaluate("document.querySelector('#board tbody .first button').click()")
    found = page.evaluate("axe.run().then(all => all.violations.map(v => [v.impact, v.id, v.nodes[0].html]))")
    assert [violation for violation in found if violation[0] in ("serious", "critical")] == []


@pytest.mark.exhaustive
def test_difficulty_has_a_section_where_it_was_asked_for(browser, page, results, tmp_path):
    assert page.evaluate("document.querySelector('#difficulty').hidden") is True
    assert main([str(results.folder), "--html", str(tmp_path / "page.html"), "--difficulty"]) == 0
    (board,) = read_leaderboard(results.folder, difficulty=True).boards
    asked = browser.open(tmp_path / "page.html")
    assert asked.errors == []
    assert asked.evaluate("document.querySelector('#difficulty').checkVisibility()")
    cells = "[...document.querySelectorAll('#difficulty tr')].map(r => [...r.children].map(c => c.innerText))"
    assert asked.evaluate(cells) == [board.difficulty.columns, *board.difficulty.lines]
    assert asked.evaluate("[...document.querySelectorAll('#difficulty .note')].map(n => n.innerText)") == board.difficulty.notes
