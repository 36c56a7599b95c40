"""What a leaderboard is made of: a results folder with rows and refusals, made up."""

import numpy as np

from harness.answering.evaluate import Answer, Answers
from harness.cells import Cell
from harness.results.refusals import write_refusal
from tests.support.results import result

RNG = np.random.default_rng(0)


def answers_with(scores, suite="gqa", image="image{}"):
    """One question an image, with these scores; `image` forms an image's name of its number."""
    made = [Answer(i, image.format(i), "what?", "yes", "yes", float(score)) for i, score in enumerate(scores)]
    return Answers(suite, "exact_match", 100 * float(np.mean(scores)), made, len(made), 0.1, "digest")


def put(store, pruner, scores, suite="gqa", reduction=0.5, flops=1e9, image="image{}", **more):
    kept = answers_with(scores, suite, image)
    values = {"score": kept.score, "reduction_asked": reduction, "data": "mini", "flops": flops, "n": len(scores)} | more
    store.write(result(pruner=pruner, suite=suite, **values), kept, answers_with([1.0] * len(scores), suite, image))


def flips(share, count=80):
    return (RNG.random(count) < share).astype(float)


def refuse(folder, pruner="vtw", reduction=0.9, suite="gqa", reason="it saves at most 40 %", limit=None, kind="cannot"):
    cell = Cell("llava-tiny", pruner, reduction, suite)
    command = "pytest suites/test_gqa.py"
    return folder / write_refusal(folder, cell, reason, data="mini", limit=limit, command=command, kind=kind)


def page_cells(data, row=1):
    """The cells of a row of a page's data, by suite, with their fields' names and the questions that they quote."""
    cells = {suite: dict(zip(data["fields"], cell, strict=True)) for suite, cell in data["rows"][row]["cells"].items()}
    for cell in cells.values():
        cell["examples"] = [[data["texts"][place] for place in said] for said in cell["examples"]]
    return cells
