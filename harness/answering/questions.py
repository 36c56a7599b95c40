"""`Questions`: what lmms-eval asks, and the inputs that a model gets for it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from PIL import Image

from fitprune.errors import FitPruneError
from harness.answering.arguments import refuse_unheard, whole_number
from harness.answering.batching import Request, Shown, image_hash
from harness.models.loading import LoadedModel, ModelOutline
from harness.models.prompting import encode
from harness.models.videos.reading import FRAMES, BrokenVideo, Video, blank, read_video
from harness.tasks.pictures import nothing_filled_up, seen

# For tasks that set no limit of their own (TextVQA); as in LLaVA's own evaluation of short answers.
MAX_NEW_TOKENS = 128
# What the pictures of a question are known by where they cannot be decoded.
BROKEN = "broken"
# What the requests of a task have in common: where answers end, how long they may be, and what reads what a question shows.
_Way = tuple[tuple[str, ...], int, Callable[[int], Shown]]


class BrokenPicture(FitPruneError):
    """A question's picture or video cannot be decoded."""


class _OfVideo(BrokenPicture):
    """It is the video that cannot."""


class Questions:
    """Reads requests, their pictures and videos; the model's weights are not needed.

    Args:
        loaded: the model, or its outline.
        datasets: task -> split -> rows; lmms-eval fills it.
        allow_broken, frames: as `FitPruneLMM` takes them.
    """

    def __init__(
        self,
        loaded: LoadedModel | ModelOutline,
        datasets: Mapping[str, Mapping[str, Any]],
        allow_broken: bool = False,
        frames: int = FRAMES,
    ) -> None:
        self.loaded, self.datasets, self.allow_broken, self.frames = loaded, datasets, allow_broken, frames
        self._read: tuple[Any, Any, Any] = (None, None, None)
        nothing_filled_up()

    def read(self, place: int, request: Instance) -> Request:
        """What an lmms-eval request asks for. Raises FitPruneError for generation options that would have no effect."""
        prompt, options, doc_to_visual, doc_id, task, split = request.args
        asked = (doc_to_visual, task, split)
        if self._read[0] is not options or self._read[1] != asked:  # a task's requests share theirs
            self._read = (options, asked, self._way(options, *asked))
        until, limit, shown = self._read[2]
        return Request(place, (task, doc_id), prompt, shown, until, limit)

    def _way(self, options: Mapping[str, Any], doc_to_visual: Callable[[Any], Any], task: str, split: str) -> _Way:
        if options.get("num_beams", 1) not in (1, None) or (options.get("do_sample") and options.get("temperature", 1)):
            raise FitPruneError(f"task '{task}' asks for sampling or beams; answers here are greedy, so that they repeat")
        refuse_unheard(task, options)
        until = options.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        given = options.get("max_new_tokens")
        limit = MAX_NEW_TOKENS if given is None else whole_number(f"task '{task}': max_new_tokens", given)
        return tuple(stop for stop in stops if stop), limit, functools.partial(self._shown, doc_to_visual, task, split)

    def _shown(self, doc_to_visual: Callable[[Any], Any], task: str, split: str, doc_id: int) -> Shown:
        """A question's pictures and videos, read now. Raises BrokenPicture where one cannot be decoded."""
        dataset = self.datasets[task][split]
        images, videos = list[Image.Image](), list[Video]()
        try:
            doc = {name: seen(value) for name, value in dataset[doc_id].items()}
            for item in doc_to_visual(doc) or ():
                if isinstance(item, str | Path):
                    videos.append(read_video(Path(item), self.frames))
                else:
                    images.append(item.convert("RGB"))
        except BrokenVideo as error:
            raise _OfVideo(f"{self._row(task, dataset, doc_id)}: {error}") from None
        except FitPruneError:  # no answer of Pillow's
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BrokenPicture(
                f"{self._row(task, dataset, doc_id)}: its picture cannot be decoded ({' '.join(str(error).split())[:160]})"
            ) from None
        return Shown(images, videos, videos[0].digest if videos else image_hash(images))

    @staticmethod
    def _row(task: str, dataset: Any, doc_id: int) -> str:
        row = getattr(dataset, "rows", range(len(dataset)))[doc_id]
        return f"task '{task}', row {row} of {getattr(dataset, 'origin', 'its data')}"

    def inputs(self, batch: Sequence[Request]) -> tuple[dict[str, torch.Tensor], list[str]]:
        """The model's inputs for a batch, left-padded, on its device; and what each question shows is known by."""
        shown = [self._read_now(request) for request in batch]
        videos = [one.videos for one in shown]
        prompts = [request.prompt for request in batch]
        made = encode(self.loaded, prompts, [one.images for one in shown], videos if any(videos) else ())
        return made, [one.known for one in shown]

    def _read_now(self, request: Request) -> Shown:
        try:
            return request.shown(request.key[1])
        except BrokenPicture as error:
            if not self.allow_broken:
                raise
            # Something to ask about, so that the question costs what it would; its answer is not taken.
            known = f"{BROKEN}-{request.key[1]}"
            if isinstance(error, _OfVideo):
                return Shown([], [blank(self.frames)], known)
            return Shown([Image.new("RGB", (224, 224))], [], known)
