"""The rooms: what may import what, inside every package too; no rings; nothing grown too large."""

import pytest

from tests.support.house import House

# Lowest first. Names in one line are of equal height and do not import each other. A module's layer is the longest name that
# fits. `__init__` hands names on and stands, like `__main__`, above all that it hands on.
LAYERS = {
    "fitprune": [
        "fitprune.errors fitprune.lazy",
        "fitprune.arguments fitprune.files fitprune.flops fitprune.registries",
        "fitprune.models fitprune.scoring",
        "fitprune.interface",
        "fitprune.engine",
        "fitprune.pruner",
        "fitprune.composed",
        "fitprune.recipes",
        "fitprune.search",
        "fitprune.fitting",
        "fitprune.method",
        "fitprune.cli",
        "fitprune.__main__",
    ],
    "baselines": [
        "baselines.shared baselines.served",
        "baselines.controls baselines.before_decoder baselines.in_tower baselines.between_layers baselines.on_videos",
        "baselines.wrappers",
        "baselines.registry",
    ],
    "harness": [
        "harness.words harness.cells harness.cores harness.heap harness.telling",
        "harness.storage",
        "harness.answers",
        "harness.statistics harness.published",
        "harness.results",
        "harness.gate",
        "harness.models",
        "harness.cost",
        "harness.tasks",
        "harness.pruners",
        "harness.latency",
        "harness.answering",
        "harness.bench",
        "harness.tuning harness.cluster",
        "harness.paper",
        "harness.gallery",
        "harness.scenes",
        "harness.plugin",
        "harness.provider",
        "harness.commands",
        "harness.__main__",
    ],
    "reports": [
        "reports.table",
        "reports.charts",
        "reports.writing",
        "reports.page",
        "reports.paper",
        "reports.validity",
        "reports.command",
        "reports.__main__",
        "reports.completion",
        "reports.console",
    ],
}
PACKAGES = ["fitprune", "baselines", "harness", "suites reports training"]


@pytest.fixture(scope="module")
def house():
    return House.of()


def test_the_source_was_read(house):
    assert len(house.paths) > 200
    assert "harness.bench.resolved" in house.imports["harness.bench.bench"]


def test_packages_import_one_way(house):
    assert house.upward(PACKAGES) == []


@pytest.mark.parametrize("package", LAYERS)
def test_nothing_imports_upward(house, package):
    assert house.upward(LAYERS[package]) == []


@pytest.mark.parametrize("package", LAYERS)
def test_every_folder_has_a_layer(house, package):
    named = {name for line in LAYERS[package] for name in line.split()}
    parts = {".".join(name.split(".")[:2]) for name in house.paths if name.startswith(f"{package}.")}
    assert parts - named == set()


def test_no_modules_import_each_other(house):
    assert house.rings() == []


def test_no_folder_file_or_class_is_too_large(house):
    # Of suites/ one file a benchmark is what people look for.
    assert [found for found in house.too_large() if not found.startswith(("training/", "suites/ "))] == []


@pytest.mark.parametrize(
    "text",
    ["import harness.b", "def f():\n    from harness import b", "import importlib\nimportlib.import_module('harness.b')"],
)
def test_an_arrow_upward_and_a_ring_are_found(tmp_path, text):
    """At the top, in a function, by a string."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("")
    (tmp_path / "harness" / "a.py").write_text(text + "\n")
    (tmp_path / "harness" / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.a import f\n"
    )
    small = House.of(tmp_path, ["harness"])
    assert small.upward(["harness.a", "harness.b"]) == ["harness.a imports harness.b"]
    assert small.rings() == [["harness.a", "harness.b"]]


def test_what_is_too_large_is_found(tmp_path):
    (tmp_path / "reports").mkdir()
    for number in range(17):
        (tmp_path / "reports" / f"m{number}.py").write_text("")
    (tmp_path / "reports" / "m0.py").write_text("class Long:\n" + "    x = 1\n" * 420)
    assert House.of(tmp_path, ["reports"]).too_large() == [
        "reports.m0 has 421 lines",
        "reports.m0.Long has 421 lines",
        "reports/ has 17 modules",
    ]


def test_no_passage_stands_twice(house):
    assert house.repeated() == []


def test_a_passage_that_stands_twice_is_found(tmp_path):
    (tmp_path / "reports").mkdir()
    body = "".join(f"    value = shorten(value, {number})\n" for number in range(6))
    (tmp_path / "reports" / "a.py").write_text(f'def one(value):\n    """One."""\n{body}')
    (tmp_path / "reports" / "b.py").write_text(f"import re\n\n\ndef two(value, more):\n    value += more\n{body}")
    assert House.of(tmp_path, ["reports"]).repeated() == ["reports.a:3 and reports.b:6"]
    (tmp_path / "reports" / "b.py").write_text(f'def two(value):\n    """Two."""\n{body[: body.rindex("    ")]}')
    assert House.of(tmp_path, ["reports"]).repeated() == []
