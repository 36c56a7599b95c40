"""A task of lmms-eval in a folder of its own, with metrics of every kind, as another package would bring it."""

from pathlib import Path

from harness.answers import MEAN
from harness.tasks import Metric, SuiteSpec
from tests.support.tiny_llava import picture, write

YAML = """task: colors
dataset_path: nobody/colors
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.score
generation_kwargs:
  max_new_tokens: 4
metric_list:
"""
UTILS = """import os, random
import requests


def visual(doc):
    return [image.convert("RGB") for image in doc["image"]]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def score(doc, results):
    right = float(results[0] == doc["answer"])
    value = {"right": right, "kind": doc["kind"]}
    metrics = os.environ.get("COLORS", "macro").split(",")
    if "judged" in metrics:
        body = {"model": "gpt-4", "messages": [{"role": "user", "content": results[0]}], "temperature": 0.0}
        said = None
        while said is None:  # as many tasks do
            try:
                said = requests.post("https://api.openai.com/v1/chat/completions", json=body, timeout=60).json()
            except Exception:
                pass
        return {"judged": float(said["choices"][0]["message"]["content"])}
    if "fragile" in metrics and results[0] not in ("red", "blue"):
        raise KeyError(results[0])
    found = {name: right for name in metrics} | {"macro": value, "words": value, "nothing": float("nan")}
    later = doc["question"] >= "what color 6"
    return {name: found[name] for name in metrics if name != "never" and (later or name != "late")}


def mean(values):
    return sum(values) / len(values)


def macro(values):
    kinds = {}
    for value in values:
        kinds.setdefault(value["kind"], []).append(value["right"])
    return mean([mean(of_kind) for of_kind in kinds.values()])


def points(values):
    return 100 * mean(values)


def total(values):
    return sum(values)


def thousands(values):
    return 1000 * mean(values)


def restless(values):
    return mean(values) + random.random()


def words(values):
    return {"all": macro(values)}
"""
AGGREGATIONS = {
    "macro": "macro",
    "points": "points",
    "total": "total",
    "thousands": "thousands",
    "restless": "restless",
    "words": "words",
}


def write_task(folder: Path, metrics: list[str]) -> SuiteSpec:
    """The task with these metrics, and the suite that is it."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = ""
    for name in metrics:
        listed += f"  - metric: {name}\n    aggregation: !function utils.{AGGREGATIONS.get(name, 'mean')}\n"
        listed += f"    higher_is_better: {str(name != 'lower').lower()}\n"
    (folder / "colors.yaml").write_text(YAML + listed)
    (folder / "utils.py").write_text(UTILS)
    return SuiteSpec("colors", "colors", folder, Metric("", full=None), "Colors", "nobody/colors")


def claimed(spec: SuiteSpec) -> SuiteSpec:
    """The same suite, that claims to be a mean."""
    import dataclasses

    return dataclasses.replace(spec, metric=Metric("macro", MEAN))


def write_rows(folder: Path, rows: int = 8) -> Path:
    """Questions about two images each, the first of which two questions share; three of four are of one kind."""
    questions = [
        {
            "question": f"what color {n} ?",
            "answer": ("red", "blue")[n % 2],
            "kind": "rare" if n % 4 == 0 else "common",
            "image": [picture(n // 2), picture(50 + n)],
        }
        for n in range(rows)
    ]
    write(folder, "colors/default/test", questions)
    return folder
