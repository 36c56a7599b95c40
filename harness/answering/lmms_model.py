"""Our lmms-eval model: batched greedy generation of a pruned vision-language model.

From Python it takes a loaded model and a pruner. From lmms-eval's command line:

    python -m lmms_eval --model fitprune --model_args pretrained=llava-tiny,recipe=recipe.json --tasks pope

`--model_args`:

    pretrained  registry name, hub id or folder (required)
    recipe      a FitPrune recipe, a file or published:llava-1.5-7b@60; or
    pruner      a method's name, with `reduction` in (0, 1) and any of the method's own options
    data        mini, hub or a folder; by default mini for models that ship with the package, else hub
    frames      of a video that the model is shown (default 32)
    limit       number of questions, chosen as the pytest plugin chooses them (`--limit` takes the first ones)
    device, dtype
"""

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from tqdm import tqdm

from baselines.registry import get_pruner_class
from fitprune import Pruner
from fitprune.errors import FitPruneError
from harness.answering.ahead import ahead
from harness.answering.arguments import answered_by, make_pruner, whole_number
from harness.answering.batching import Finished, Prepared, Record, Request, halves, in_batches, keys_of, places_of
from harness.answering.generate import generate
from harness.answering.input_cache import SuiteInputs
from harness.answering.questions import BROKEN, Questions
from harness.cells import DENSE
from harness.heap import uncollected
from harness.models.chat import tokenizer_beside
from harness.models.facts import model_facts
from harness.models.family_names import announced
from harness.models.gpu_memory import is_out_of_memory, no_memory, release_memory
from harness.models.loading import LoadedModel, load_model
from harness.models.videos.reading import FRAMES
from harness.results.journal import Journal
from harness.tasks.build import tasks_reading
from harness.tasks.isolation import ending_its_command
from harness.telling import PATIENCE, tell
from harness.words import duration

# Batches that are prepared while the model runs: one ready, one in the making, so that it waits only for the first.
LOOK_AHEAD = 2
VIDEOS_AHEAD = 1  # whose pixels are so many that more of them in memory would be the larger cost

Observer = Callable[[Finished], None]


def _ranks() -> int:
    """Processes that share out a run's questions, as `accelerate launch` and `torchrun` start them. lmms-eval deals questions
    out to them, and scores them together.
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def _device_of_rank(asked: str | None) -> str | None:
    """The device of this process among several: its card, unless another is asked for."""
    if _ranks() < 2 or asked == "cpu" or not torch.cuda.is_available():
        return asked
    if asked not in (None, "cuda"):
        raise FitPruneError(
            f"device={asked} with several processes: each takes a card of its own; leave device out, or take one process"
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


class FitPruneLMM(lmms):
    """Greedy answers; the batch size changes speed and memory, never an answer (float32).

    Args:
        loaded: the model.
        pruner: applied around every `generate`; None for none.
        batch_size: prompts per `generate`.
        observer: called with each finished batch, those of an earlier run first.
        journal: where finished batches are written down, and those of an earlier run read, which are not asked again.
        kept_inputs: the inputs of cells that asked the same questions before; changes no answer.
        progress: where a progress bar goes; without one, a line is told from time to time.
        look_ahead: batches whose images and prompts are prepared, in a thread, while the model runs; changes no answer.
        allow_broken: a question whose picture or video cannot be decoded is answered by nothing, instead of ending the run.
        frames: of a video, that the model is shown.

    `records` maps (task, doc_id) to what its answer took. `halved`: whether memory ran out, so that from there on half as many
    questions were asked at a time.
    """

    is_simple = True

    def __init__(
        self,
        loaded: LoadedModel,
        pruner: Pruner | None = None,
        *,
        batch_size: int = 16,
        observer: Observer | None = None,
        journal: Journal | None = None,
        kept_inputs: SuiteInputs | None = None,
        progress: TextIO | None = None,
        look_ahead: int = LOOK_AHEAD,
        allow_broken: bool = False,
        frames: int = FRAMES,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise FitPruneError(f"batch size must be at least 1, not {batch_size}")
        self.loaded, self.pruner, self.batch_size = loaded, pruner, batch_size
        self.observer, self.journal, self.kept_inputs = observer, journal, kept_inputs
        self.progress, self.look_ahead = progress, look_ahead
        self.questions = Questions(loaded, self.task_dict, allow_broken, frames)
        tokenizer_beside(loaded.processor.tokenizer)  # copied now: later a thread may be encoding with it
        self.records: dict[tuple[str, int], Record] = {}
        self.halved = False
        # None keeps lmms-eval from creating one, which would claim the first CUDA device.
        self.accelerator = Accelerator(cpu=loaded.device == "cpu") if _ranks() > 1 else None
        self._release: Callable[[], Any] = lambda: None

    @classmethod
    @ending_its_command
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "FitPruneLMM":
        """The model that lmms-eval's command line asks for. While it lives, up to `clean`, tasks read its `data`."""
        from lmms_eval.utils import simple_parse_args_string

        given = {key: value for key, value in (additional_config or {}).items() if value is not None}
        given |= simple_parse_args_string(arg_string)
        if "max_batch_size" in given:
            raise FitPruneError("max_batch_size has no effect: no batch size is searched for; give batch_size")
        if "pretrained" not in given:
            raise FitPruneError("--model_args needs pretrained=NAME: a registry name, a family's, a hub id or a folder")
        limit, batch_size = given.pop("limit", None), whole_number("batch_size", given.pop("batch_size", 16))
        questions = None if limit is None else whole_number("limit", limit)
        frames = whole_number("frames", given.pop("frames", FRAMES))
        shown = {"frames": frames} if frames != FRAMES else {}
        dtype, device = given.pop("dtype", None), _device_of_rank(given.pop("device", None))
        loaded = load_model(announced(str(given.pop("pretrained"))).name, device=device, dtype=dtype)
        data = str(given.pop("data", "mini" if loaded.spec.kind == "embedded" else "hub"))
        pruner = make_pruner(loaded, data=data, **given)
        self = cls(loaded, pruner, batch_size=batch_size, progress=sys.stderr, frames=frames)
        stack = contextlib.ExitStack()
        known = answered_by(model_facts(loaded.name, loaded.device), pruner or get_pruner_class(DENSE)())
        stack.enter_context(tasks_reading(data, questions, known | {"dtype": str(loaded.dtype), **shown}))
        self._release = weakref.finalize(self, stack.close)
        return self

    @property
    def device(self) -> torch.device:
        return torch.device(self.loaded.device)

    @ending_its_command
    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests. Errors are never swallowed."""
        answers: dict[int, GenerationResult] = {}
        alike: dict[tuple[str, int, int], GenerationResult] = {}  # of very many questions, one object for equal answers
        with uncollected():
            asked = [self.questions.read(place, request) for place, request in enumerate(requests)]
            batches = self._ordered(asked)
        began = told = time.monotonic()
        with tqdm(
            total=len(requests),
            desc="answers",
            unit="q",
            file=self.progress or sys.stderr,
            disable=None if self.progress else True,
        ) as bar:
            for batch, finished in self._answered(batches):
                for request, given, record in zip(batch, finished.texts, finished.records, strict=True):
                    text = "" if record.image.startswith(BROKEN) else given
                    told_as = text, record.prompt_tokens, record.new_tokens
                    if told_as not in alike:
                        alike[told_as] = GenerationResult(text, TokenCounts(*told_as[1:]))
                    answers[request.place] = alike[told_as]
                bar.update(len(batch))
                now, left = time.monotonic(), len(requests) - len(answers)
                if self.progress is None and left and now - told > PATIENCE:
                    told = now
                    remaining = duration((now - began) / len(answers) * left)
                    where = self._named(requests[0].args[4])
                    tell(f"{where}: {len(answers)} of {len(requests)} questions, about {remaining} left")
        return [answers[request.place] for request in asked]

    def _named(self, task: str) -> str:
        pruner = "dense" if self.pruner is None else self.pruner.name
        return f"{self.loaded.name}, {pruner}, {task}"

    def _answered(self, batches: Sequence[list[Request]]) -> Iterator[tuple[list[Request], Finished]]:
        """Every batch, finished: first those that the journal knows, then the others as they are generated."""
        entries = self.journal.entries if self.journal else []
        earlier = {finished.keys: finished for finished in map(Finished.from_json, entries)}
        self.halved = any(entry.get("halved") for entry in entries)
        left: list[list[Request]] = []
        for whole in batches:
            for batch in halves([whole]) if self.halved and keys_of(whole) not in earlier else [whole]:
                if (finished := earlier.get(keys_of(batch))) is not None:
                    yield batch, self._finish(finished)
                else:
                    left.append(batch)
        done = 0
        while done < len(left):
            try:
                for batch, finished in self._generated(left[done:]):
                    done += 1
                    yield batch, finished
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.halved or len(left[done]) == 1:
                    raise no_memory(self._named(left[done][0].key[0]), len(left[done])) from None
                left, self.halved = left[:done] + halves(left[done:]), True
            if done < len(left):  # the failed batch is let go of by now, with its exception
                release_memory()

    def _generated(self, left: Sequence[list[Request]]) -> Iterator[tuple[list[Request], Finished]]:
        """The batches, as they are generated."""
        # What is kept needs no preparing, and a thread for it would only be in the way.
        ready = self.kept_inputs is not None and self.kept_inputs.holds([places_of(batch) for batch in left])
        with ahead(self.prepare, left, 0 if ready else self.look_ahead) as prepared:
            for ready_batch in prepared:
                finished = generate(self.loaded, self.pruner, ready_batch, bool(self.observer or self.journal))
                if self.journal:
                    self.journal.append(finished.to_json() | ({"halved": True} if self.halved else {}))
                yield ready_batch.requests, self._finish(finished)

    def _finish(self, finished: Finished) -> Finished:
        """The one place where a batch is finished, by the model or by an earlier run, and the journal has it."""
        self.records.update(zip(finished.keys, finished.records, strict=True))
        if self.observer:
            self.observer(finished)
        return finished

    def _ordered(self, requests: Sequence[Request]) -> list[list[Request]]:
        """`batches`, from memory where the same questions were asked before."""
        kept = self.kept_inputs
        if kept is None:
            return list(in_batches(requests, self.batch_size, self.loaded.processor.tokenizer))
        if kept.order is None:
            kept.order = [places_of(batch) for batch in in_batches(requests, self.batch_size, self.loaded.processor.tokenizer)]
        return [[requests[place] for place in places] for places in kept.order]

    def prepare(self, batch: list[Request]) -> Prepared:
        """Decode the images of a batch, process them, tokenize its prompts; or find all this done."""
        if self.kept_inputs is None:
            return Prepared(batch, *self.questions.inputs(batch))
        places = places_of(batch)
        if (kept := self.kept_inputs.get(places, self.loaded.device)) is not None:
            return Prepared(batch, *kept)
        inputs, images = self.questions.inputs(batch)
        self.kept_inputs.put(places, inputs, images)
        return Prepared(batch, inputs, images)

    def clean(self) -> None:
        """Keep the model: it goes on to the next cell. Tasks read lmms-eval's own data again."""
        self._release()

    @ending_its_command
    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise FitPruneError(
            "tasks scored by log-likelihood are not supported (lmms-eval 0.7.3 mangles them); take generate_until tasks"
        )

    @ending_its_command
    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise FitPruneError("multi-round tasks are not supported; take a generate_until task")
