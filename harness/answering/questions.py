"""`Questions`: what lmms-eval asks, and the inputs that a model gets for it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from PIL import Image

from fitprune.errors import FitPruneError
from harness.answering.arguments import refuse_unheard, whole_number
from harness.answering.batching import Request, image_hash
from harness.models.loading import LoadedModel, ModelOutline
from harness.models.prompting import encode
from harness.tasks.pictures import nothing_filled_up, seen

# For tasks that set no limit of their own (TextVQA); as in LLaVA's own evaluation of short answers.
MAX_NEW_TOKENS = 128
# What the pictures of a question are known by where they cannot be decoded.
BROKEN = "broken"
# What the requests of a task have in common: where answers end, how long they may be, and what reads a question's pictures.
_Way = tuple[tuple[str, ...], int, Callable[[int], list[Image.Image]]]


class BrokenPicture(FitPruneError):
    """A question's picture cannot be decoded."""


class Questions:
    """Reads requests and their pictures; the model's weights are not needed.

    Args:
        loaded: the model, or its outline.
        datasets: task -> split -> rows; lmms-eval fills it.
        allow_broken: as `FitPruneLMM` takes it.
    """

    def __init__(
        self, loaded: LoadedModel | ModelOutline, datasets: Mapping[str, Mapping[str, Any]], allow_broken: bool = False
    ) -> None:
        self.loaded, self.datasets, self.allow_broken = loaded, datasets, allow_broken
        self._read: tuple[Any, Any, Any] = (None, None, None)
        nothing_filled_up()

    def read(self, place: int, request: Instance) -> Request:
        """What an lmms-eval request asks for. Raises FitPruneError for generation options that would have no effect."""
        prompt, options, doc_to_visual, doc_id, task, split = request.args
        asked = (doc_to_visual, task, split)
        if self._read[0] is not options or self._read[1] != asked:  # a task's requests share theirs
            self._read = (options, asked, self._way(options, *asked))
        until, limit, images = self._read[2]
        return Request(place, (task, doc_id), prompt, images, until, limit)

    def _way(self, options: Mapping[str, Any], doc_to_visual: Callable[[Any], Any], task: str, split: str) -> _Way:
        if options.get("num_beams", 1) not in (1, None) or (options.get("do_sample") and options.get("temperature", 1)):
            raise FitPruneError(f"task '{task}' asks for sampling or beams; answers here are greedy, so that they repeat")
        refuse_unheard(task, options)
        until = options.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        given = options.get("max_new_tokens")
        limit = MAX_NEW_TOKENS if given is None else whole_number(f"task '{task}': max_new_tokens", given)
        return tuple(stop for stop in stops if stop), limit, functools.partial(self._shown, doc_to_visual, task, split)

    def _shown(self, doc_to_visual: Callable[[Any], Any], task: str, split: str, doc_id: int) -> list[Image.Image]:
        """A question's pictures, read now. Raises BrokenPicture where one cannot be decoded."""
        dataset = self.datasets[task][split]
        try:
            doc = {name: seen(value) for name, value in dataset[doc_id].items()}
            return [picture.convert("RGB") for picture in doc_to_visual(doc) or ()]
        except FitPruneError:  # no answer of Pillow's
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            row = getattr(dataset, "rows", range(len(dataset)))[doc_id]
            raise BrokenPicture(
                f"task '{task}', row {row} of {getattr(dataset, 'origin', 'its data')}: "
                f"its picture cannot be decoded ({' '.join(str(error).split())[:160]})"
            ) from None

    def inputs(self, batch: Sequence[Request]) -> tuple[dict[str, torch.Tensor], list[str]]:
        """The model's inputs for a batch, left-padded, on its device; and each question's image hash."""
        images, hashes = zip(*map(self._pictures, batch), strict=True)
        return encode(self.loaded, [request.prompt for request in batch], images), list(hashes)

    def _pictures(self, request: Request) -> tuple[list[Image.Image], str]:
        """A question's pictures, and what they are known by."""
        try:
            pictures = request.images(request.key[1])
            return pictures, image_hash(pictures)
        except BrokenPicture:
            if not self.allow_broken:
                raise
            # Something to ask about, so that the question costs what it would; its answer is not taken.
            return [Image.new("RGB", (224, 224))], f"{BROKEN}-{request.key[1]}"
