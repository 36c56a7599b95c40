"""Which patches survive: a few questions under several pruners, for people to look at.

One file a question in the results folder's `gallery/`: the picture as the model sees it, the question, what the dense model
and each pruned one answered, and for each layer the visual tokens left after it, as a mask. A token that a method has merged,
averaged or made of a smaller picture is marked at the patch that it is named by; one that stands for no single patch is counted
and not marked, as in `fitprune.Trace`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.registry import get_pruner_class
from fitprune.errors import BudgetError, UnsupportedModel, one_line
from harness.answering.evaluate import evaluate_cell
from harness.answers import Answer
from harness.bench.bench import Bench
from harness.cells import DENSE, Cell
from harness.gallery.file import FOLDER, SCHEMA
from harness.gallery.views import View, views_of
from harness.results.result import now, versions

if TYPE_CHECKING:
    from fitprune import Pruner
    from harness.answering.batching import Finished
    from harness.models.loading import LoadedModel


@dataclass(frozen=True)
class Seen:
    """What a pruner left of one prompt.

    Attributes:
        tokens: visual tokens of the prompt; views: what the model is shown without a pruner.
        kept: per layer, the indices left; left: how many tokens that is, those of no single patch counted.
        tower: whether the pruner changed what ran in the vision tower.
    """

    tokens: int
    views: list[View]
    kept: list[list[int]]
    left: list[int]
    tower: bool


@dataclass
class Watcher:
    """An observer for `evaluate_cell` at batch size 1: what a pruner, the dense one included, left of each question's tokens.

    Attributes:
        seen: by the question's place among the answers.
    """

    loaded: "LoadedModel"
    seen: dict[int, Seen] = field(default_factory=dict)

    def __call__(self, batch: "Finished") -> None:
        """Note what a batch of one question left."""
        assert batch.inputs is not None and batch.trace is not None  # noqa: PT018 - of this run, under a pruner
        trace, count = batch.trace, int(batch.trace.visual_tokens.sum())
        self.seen[batch.keys[0][1]] = Seen(
            tokens=count,
            views=views_of(self.loaded, batch.inputs, count),
            kept=[[index for index in layer.flatten().tolist() if index >= 0] for layer in trace.kept],
            left=[int(layer.sum()) for layer in trace.visual_out],
            tower=trace.tower is not None,
        )


def scenes(
    bench: Bench, model: str, pruners: Sequence[str], reductions: Sequence[float], suite: str, command: str
) -> Iterator[dict[str, Any]]:
    """One scene a question: see the module. `bench.settings` says which questions.

    A pruner that cannot run has its reason in place of its masks. Raises FitPruneError for what concerns all of them.
    """
    dense = Cell(model, DENSE, None, suite)
    made = [_scene(bench, dense, answer, seen, command) for answer, seen in _watch(bench, dense, get_pruner_class(DENSE)())]
    for pruner in pruners:
        for reduction in reductions:
            parts = _parts(bench, Cell(model, pruner, reduction, suite), len(made))
            for scene, part in zip(made, parts, strict=True):
                scene["pruned"].append(_without_known_views(part, scene))
    yield from (scene for scene in made if scene["tokens"])


def _parts(bench: Bench, cell: Cell, questions: int) -> list[dict[str, Any]]:
    """What a pruner did to each question."""
    head = {"pruner": cell.pruner, "reduction": cell.reduction}
    try:
        watched = _watch(bench, cell, bench.pruners.of(cell, bench.shelf.facts(cell.model)))
    except (BudgetError, UnsupportedModel) as error:
        return [head | {"cannot": one_line(error)}] * questions
    return [
        head
        | _answer(answer)
        | {"tokens": seen.tokens, "left": seen.left, "tower": seen.tower, "views": [asdict(view) for view in seen.views]}
        | masks(seen.kept, seen.tokens)
        for answer, seen in watched
    ]


def masks(kept: Sequence[Sequence[int]], tokens: int) -> dict[str, Any]:
    """`masks`: the different sets of tokens, each as hexadecimal digits of four tokens, the first in the highest bit;
    `layers`: the place in it of each layer's set.
    """
    texts: dict[str, int] = {}
    layers = []
    for indices in kept:
        bits = np.zeros(tokens, dtype=bool)
        bits[list(indices)] = True
        layers.append(texts.setdefault(np.packbits(bits).tobytes().hex(), len(texts)))
    return {"masks": list(texts), "layers": layers}


def _watch(bench: Bench, cell: Cell, pruner: "Pruner") -> list[tuple[Answer, Seen]]:
    loaded, settings = bench.shelf.model(cell.model), replace(bench.settings, batch_size=1)
    watcher = Watcher(loaded)
    answers = evaluate_cell(loaded, pruner, cell.suite, settings, observer=watcher)
    return [(answer, watcher.seen[place]) for place, answer in enumerate(answers.answers)]


def _scene(bench: Bench, cell: Cell, answer: Answer, seen: Seen, command: str) -> dict[str, Any]:
    loaded = bench.shelf.model(cell.model)
    return {
        "schema": SCHEMA,
        "kind": FOLDER,
        "model": cell.model,
        "revision": loaded.revision,
        "suite": cell.suite,
        "data": bench.settings.data,
        "doc_id": answer.doc_id,
        "question": answer.question,
        "target": answer.target,
        "tokens": seen.tokens,
        "views": [asdict(view) for view in seen.views],
        "dense": _answer(answer),
        "pruned": [],
        "seed": bench.settings.seed,
        "device": str(loaded.device),
        "versions": versions(),
        "date": now(),
        "command": command,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {"answer": answer.answer, "score": answer.score}


def _without_known_views(part: dict[str, Any], scene: dict[str, Any]) -> dict[str, Any]:
    """Views are given again only by a pruner that changes what the model is shown."""
    return {name: value for name, value in part.items() if name != "views" or value != scene["views"]}
