"""Our lmms-eval model: batched greedy generation of a pruned vision-language model.

From Python it takes a loaded model and a pruner. From lmms-eval's command line:

    python -m lmms_eval --model fitprune --model_args pretrained=llava-tiny,recipe=recipe.json --tasks pope

`--model_args`:

    pretrained  registry name, hub id or folder (required)
    recipe      a FitPrune recipe, a file or published:llava-1.5-7b@60; or
    pruner      a method's name, with `reduction` in (0, 1) and any of the method's own options
    data        mini, hub or a folder; by default mini for models that ship with the package, else hub
    limit       number of questions, chosen as the pytest plugin chooses them (`--limit` takes the first ones)
    device, dtype
"""

import contextlib
import copy
import hashlib
import inspect
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TextIO

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm

from baselines.registry import get_pruner_class
from fitprune import FitPrune, Pruner
from fitprune.errors import FitPruneError, unknown_name
from fitprune.interface.trace import Trace
from harness.answering.ahead import ahead
from harness.answering.input_cache import SuiteInputs
from harness.cost.flops import prompt_tokens
from harness.cost.tally import BatchCost, batch_cost
from harness.models.family_names import announced
from harness.models.loading import LoadedModel, load_model
from harness.models.prompting import encode
from harness.pruners.solve import from_recipe, solve
from harness.results.journal import Journal
from harness.tasks.build import tasks_reading
from harness.tasks.typical import typical_tokens

# For tasks that set no limit of their own (TextVQA); as in LLaVA's own evaluation of short answers.
MAX_NEW_TOKENS = 128

# Batches that are prepared while the model runs: one ready, one in the making, so that it waits only for the first.
LOOK_AHEAD = 2

_decoders: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Request:
    """What one lmms-eval request asks for."""

    place: int
    key: tuple[str, int]
    prompt: str
    images: Callable[[], list[Image.Image]]
    until: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Prepared:
    """A batch of requests, ready for the model.

    Attributes:
        inputs: left-padded, on the model's device.
        images: each question's image hash.
    """

    requests: list[Request]
    inputs: dict[str, torch.Tensor]
    images: list[str]


@dataclass(frozen=True)
class Record:
    """What answering one question took.

    Attributes:
        image: hash of its pixels, 16 hex digits; empty for a question without an image.
        prompt_tokens: real (non-padding) tokens of the prompt, visual ones included.
        visual_tokens: those that stand for image patches, before pruning.
        new_tokens: generated tokens, the end token included.
    """

    image: str
    prompt_tokens: int
    visual_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Finished:
    """A batch that has been answered, in this run or, according to the journal, in an earlier one.

    Attributes:
        keys: (task, doc_id) of each question.
        cost: None where neither an observer nor a journal asks for it.
        seconds: what generating took.
        inputs, trace: the model's inputs and what the pruner did, None without one; both None for an earlier run's batch.
    """

    keys: tuple[tuple[str, int], ...]
    texts: list[str]
    records: list[Record]
    cost: BatchCost | None
    seconds: float
    inputs: dict[str, torch.Tensor] | None = None
    trace: Trace | None = None

    def to_json(self) -> dict[str, Any]:
        """What a journal keeps."""
        return {
            "keys": [list(key) for key in self.keys],
            "texts": self.texts,
            "records": [asdict(record) for record in self.records],
            "cost": None if self.cost is None else asdict(self.cost),
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Finished":
        """What `to_json` made of one."""
        return cls(
            tuple((task, doc_id) for task, doc_id in entry["keys"]),
            entry["texts"],
            [Record(**record) for record in entry["records"]],
            None if entry["cost"] is None else BatchCost(**entry["cost"]),
            entry["seconds"],
        )


Observer = Callable[[Finished], None]


class FitPruneLMM(lmms):
    """Greedy answers; the batch size changes speed and memory, never an answer (float32).

    Args:
        loaded: the model.
        pruner: applied around every `generate`; None for none.
        batch_size: prompts per `generate`.
        observer: called with each finished batch, those of an earlier run first.
        journal: where finished batches are written down, and those of an earlier run read, which are not asked again.
        kept_inputs: the inputs of cells that asked the same questions before; changes no answer.
        progress: where a progress bar goes; None shows none.
        look_ahead: batches whose images and prompts are prepared, in a thread, while the model runs; changes no answer.

    `records` maps (task, doc_id) to what its answer took.
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
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise FitPruneError(f"batch size must be at least 1, not {batch_size}")
        self.loaded, self.pruner, self.batch_size = loaded, pruner, batch_size
        self.observer, self.journal, self.kept_inputs = observer, journal, kept_inputs
        self.progress, self.look_ahead = progress, look_ahead
        self._decoder = _decoder_of(loaded.processor.tokenizer)
        self.records: dict[tuple[str, int], Record] = {}
        self.accelerator = None  # keeps lmms-eval from creating one, which would claim the first CUDA device
        self._release: Callable[[], Any] = lambda: None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "FitPruneLMM":
        """The model that lmms-eval's command line asks for. While it lives, up to `clean`, tasks read its `data`."""
        from lmms_eval.utils import simple_parse_args_string

        given = {key: value for key, value in (additional_config or {}).items() if value is not None}
        given |= simple_parse_args_string(arg_string)
        given.pop("max_batch_size", None)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise FitPruneError("the fitprune model runs in one process; for several, use pytest suites/ -n")
        if "pretrained" not in given:
            raise FitPruneError("--model_args needs pretrained=NAME: a registry name, a family's, a hub id or a folder")
        dtype, device = given.pop("dtype", None), given.pop("device", None)
        loaded = load_model(announced(str(given.pop("pretrained"))).name, device=device, dtype=dtype)
        data = str(given.pop("data", "mini" if loaded.spec.kind == "embedded" else "hub"))
        limit, batch_size = given.pop("limit", None), _number("batch_size", given.pop("batch_size", 16))
        pruner = make_pruner(loaded, data=data, **given)
        self = cls(loaded, pruner, batch_size=batch_size, progress=sys.stderr)
        if data != "hub" or limit is not None:
            stack = contextlib.ExitStack()
            stack.enter_context(tasks_reading(data, None if limit is None else _number("limit", limit)))
            self._release = weakref.finalize(self, stack.close)
        return self

    @property
    def device(self) -> torch.device:
        return torch.device(self.loaded.device)

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests. Errors are never swallowed."""
        answers: dict[int, GenerationResult] = {}
        asked = [self.read(place, request) for place, request in enumerate(requests)]
        batches = self._ordered(asked)
        with tqdm(
            total=len(requests),
            desc="answers",
            unit="q",
            file=self.progress or sys.stderr,
            disable=None if self.progress else True,
        ) as bar:
            for batch, finished in self._answered(batches):
                for request, text, record in zip(batch, finished.texts, finished.records, strict=True):
                    counts = TokenCounts(input_tokens=record.prompt_tokens, output_tokens=record.new_tokens)
                    answers[request.place] = GenerationResult(text, counts)
                bar.update(len(batch))
        return [answers[request.place] for request in asked]

    def _answered(self, batches: Sequence[list[Request]]) -> Iterator[tuple[list[Request], Finished]]:
        """Every batch, finished: first those that the journal knows, then the others as they are generated."""
        entries = self.journal.entries if self.journal else []
        earlier = {finished.keys: finished for finished in map(Finished.from_json, entries)}
        for batch in batches:
            if (finished := earlier.get(_keys(batch))) is not None:
                yield batch, self._finish(finished)
        left = [batch for batch in batches if _keys(batch) not in earlier]
        # What is kept needs no preparing, and a thread for it would only be in the way.
        ready = self.kept_inputs is not None and self.kept_inputs.holds([_places(batch) for batch in left])
        with ahead(self.prepare, left, 0 if ready else self.look_ahead) as prepared:
            for ready_batch in prepared:
                finished = self._answer(ready_batch)
                if self.journal:
                    self.journal.append(finished.to_json())
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
            return list(self.batches(requests))
        if kept.order is None:
            kept.order = [_places(batch) for batch in self.batches(requests)]
        return [[requests[place] for place in places] for places in kept.order]

    def batches(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Requests that can be generated together; longest first, so that padding is little and memory peaks early."""
        tokenizer = self.loaded.processor.tokenizer
        lengths = {request.place: len(tokenizer(request.prompt).input_ids) for request in requests}
        ordered = sorted(
            requests,
            key=lambda request: (-request.max_new_tokens, request.until, -lengths[request.place], request.place),
        )
        batch: list[Request] = []
        for request in ordered:
            if batch and (
                len(batch) == self.batch_size
                or (request.max_new_tokens, request.until) != (batch[0].max_new_tokens, batch[0].until)
            ):
                yield batch
                batch = []
            batch.append(request)
        if batch:
            yield batch

    def prepare(self, batch: list[Request]) -> Prepared:
        """Decode the images of a batch, process them, tokenize its prompts; or find all this done."""
        if self.kept_inputs is None:
            return Prepared(batch, *self.inputs(batch))
        places = _places(batch)
        if (kept := self.kept_inputs.get(places, self.loaded.device)) is not None:
            return Prepared(batch, *kept)
        inputs, images = self.inputs(batch)
        self.kept_inputs.put(places, inputs, images)
        return Prepared(batch, inputs, images)

    def inputs(self, batch: Sequence[Request]) -> tuple[dict[str, torch.Tensor], list[str]]:
        """The model's inputs for a batch, left-padded, on its device; and each question's image hash."""
        images = [request.images() for request in batch]
        inputs = encode(self.loaded, [request.prompt for request in batch], images)
        return inputs, [_image_hash(pictures) for pictures in images]

    def read(self, place: int, request: Instance) -> Request:
        prompt, options, doc_to_visual, doc_id, task, split = request.args
        if options.get("num_beams", 1) not in (1, None) or (options.get("do_sample") and options.get("temperature", 1)):
            raise FitPruneError(f"task '{task}' asks for sampling or beams; answers here are greedy, so that they repeat")
        until = options.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)

        def images() -> list[Image.Image]:
            try:
                return [picture.convert("RGB") for picture in doc_to_visual(self.task_dict[task][split][doc_id]) or ()]
            except (OSError, SyntaxError) as error:  # Pillow's answers to a damaged file
                raise FitPruneError(f"task '{task}', question {doc_id}: its image cannot be decoded ({error})") from error

        limit = int(options.get("max_new_tokens") or MAX_NEW_TOKENS)
        return Request(place, (task, doc_id), prompt, images, tuple(stop for stop in stops if stop), limit)

    @torch.inference_mode()
    def _answer(self, batch: Prepared) -> Finished:
        started = time.perf_counter()
        inputs, tokenizer = batch.inputs, self._decoder
        model: Any = self.loaded.model
        with self.pruner(model) if self.pruner else contextlib.nullcontext() as trace:
            sequences = model.generate(
                **inputs,
                max_new_tokens=batch.requests[0].max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id,
            )
        fresh = sequences[:, inputs["input_ids"].shape[1] :]
        new_tokens = _lengths(fresh, self._ends())
        text, visual = prompt_tokens(model.config, inputs)
        lengths, visual_tokens = (text + visual).tolist(), visual.tolist()
        texts = []
        for row, request in enumerate(batch.requests):
            answer = tokenizer.decode(fresh[row, : new_tokens[row]], skip_special_tokens=True)
            for stop in request.until:
                answer = answer.split(stop)[0]
            texts.append(answer.strip())
        records = [Record(*parts) for parts in zip(batch.images, lengths, visual_tokens, new_tokens, strict=True)]
        cost = batch_cost(model.config, inputs, trace, new_tokens) if self.observer or self.journal else None
        seconds = time.perf_counter() - started
        return Finished(_keys(batch.requests), texts, records, cost, seconds, inputs, trace)

    def _ends(self) -> list[int]:
        ends = self.loaded.model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [] if ends is None else [ends]

    def clean(self) -> None:
        """Keep the model: it goes on to the next cell. Tasks read lmms-eval's own data again."""
        self._release()

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise FitPruneError(
            "tasks scored by log-likelihood are not supported (lmms-eval 0.7.3 mangles them); take generate_until tasks"
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise FitPruneError("multi-round tasks are not supported; take a generate_until task")


def make_pruner(
    loaded: LoadedModel,
    recipe: str | None = None,
    pruner: str | None = None,
    reduction: float | None = None,
    data: str = "mini",
    **options: Any,
) -> Pruner | None:
    """The pruner that command-line arguments describe: a recipe, or a method's name with its reduction and options.

    Where the number of visual tokens depends on the image, `data` says what prompts are typical.
    """
    if recipe is not None:
        if pruner not in (None, "fitprune") or reduction is not None or options:
            raise FitPruneError("recipe=FILE already says how much is pruned: leave out pruner, reduction and options")
        return from_recipe(recipe, loaded.model.config)
    if pruner is None:
        if reduction is not None or options:
            given = ["reduction"] * (reduction is not None) + sorted(options)
            raise FitPruneError(f"{', '.join(given)}: name the pruner it is for (pruner=NAME), or give recipe=FILE")
        return None
    method = get_pruner_class(pruner)
    if issubclass(method, FitPrune):
        raise FitPruneError("FitPrune needs recipe=FILE; make one with 'python -m fitprune fit'")
    known = [option.name for option in fields(method)]
    if reduction is not None:  # which solves one of them
        known = [name for name in known if name in inspect.signature(method.for_reduction).parameters]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {pruner}", name, known)
    if reduction is None:
        return method(**options)
    if not isinstance(reduction, float) or not 0 < reduction < 1:
        raise FitPruneError(f"reduction must be a number between 0 and 1, not {reduction}")
    return solve(pruner, reduction, loaded.model.config, visual_tokens=typical_tokens(loaded, data), **options)


def _keys(batch: Iterable[Request]) -> tuple[tuple[str, int], ...]:
    return tuple(request.key for request in batch)


def _places(batch: Iterable[Request]) -> tuple[int, ...]:
    return tuple(request.place for request in batch)


def _decoder_of(tokenizer: Any) -> Any:
    """A copy of the tokenizer to decode with: one cannot encode in one thread and decode in another."""
    if tokenizer not in _decoders:
        _decoders[tokenizer] = copy.deepcopy(tokenizer)
    return _decoders[tokenizer]


def _number(name: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise FitPruneError(f"{name} must be a whole number, not '{value}'") from None


def _lengths(tokens: torch.Tensor, ends: list[int]) -> list[int]:
    """Per row of (batch, new): tokens up to and including the first end token."""
    ended = torch.isin(tokens, torch.tensor(ends, dtype=tokens.dtype, device=tokens.device))
    first = torch.where(ended.any(1), ended.int().argmax(1) + 1, tokens.shape[1])
    return first.tolist()


def _image_hash(images: Sequence[Image.Image]) -> str:
    if not images:
        return ""
    total = hashlib.sha256()
    for image in images:
        total.update(f"{image.mode}{image.size}".encode())
        total.update(image.tobytes())
    return total.hexdigest()[:16]
