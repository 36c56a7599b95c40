"""Requests of lmms-eval, the batches that can be generated together, and what answering one gives."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image

from fitprune.interface.trace import Trace
from harness.cost.tally import BatchCost
from harness.models.videos.reading import Video


@dataclass(frozen=True, slots=True)
class Shown:
    """What a question shows.

    Attributes:
        known: 16 hex digits over what it hangs on: its first video's file, or its first image's pixels; empty without any.
    """

    images: list[Image.Image]
    videos: list[Video]
    known: str


@dataclass(frozen=True, slots=True)
class Request:
    """What one lmms-eval request asks for; `shown` reads the pictures and videos of a question, by its doc_id."""

    place: int
    key: tuple[str, int]
    prompt: str
    shown: Callable[[int], Shown]
    until: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Prepared:
    """A batch of requests, ready for the model.

    Attributes:
        inputs: left-padded, on the model's device.
        images: what each question's images or videos are known by.
    """

    requests: list[Request]
    inputs: dict[str, torch.Tensor]
    images: list[str]


@dataclass(frozen=True, slots=True)
class Record:
    """What answering one question took.

    Attributes:
        image: what its image or video is known by, 16 hex digits (`Shown.known`); empty for a question without either.
        prompt_tokens: real (non-padding) tokens of the prompt, visual ones included.
        visual_tokens: those that stand for patches of images and frames, before pruning.
        new_tokens: generated tokens, the end token included.
        margin, entropy: of the first of them, in nats: by how much the likeliest token's log-probability is above the next
            one's, and the distribution's entropy. Batches change their last digits, so that they make no two records unequal.
    """

    image: str
    prompt_tokens: int
    visual_tokens: int
    new_tokens: int
    margin: float | None = field(default=None, compare=False)
    entropy: float | None = field(default=None, compare=False)


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


def in_batches(requests: Sequence[Request], batch_size: int, tokenizer: Any) -> Iterator[list[Request]]:
    """Requests that can be generated together; longest first, so that padding is little and memory peaks early."""
    lengths = _lengths(requests, tokenizer)
    ordered = sorted(
        requests, key=lambda request: (-request.max_new_tokens, request.until, -lengths[request.place], request.place)
    )
    batch: list[Request] = []
    for request in ordered:
        if batch and (
            len(batch) == batch_size or (request.max_new_tokens, request.until) != (batch[0].max_new_tokens, batch[0].until)
        ):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def _lengths(requests: Sequence[Request], tokenizer: Any) -> dict[int, int]:
    """Place → tokens of its prompt, which are counted and not kept."""
    backend, lengths = getattr(tokenizer, "backend_tokenizer", None), dict[int, int]()
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    for start in range(0, len(requests), 1000):
        some = requests[start : start + 1000]
        prompts = [request.prompt for request in some]
        encoded = tokenizer(prompts).input_ids if backend is None else backend.encode_batch_fast(prompts)
        lengths |= {request.place: len(one) for request, one in zip(some, encoded, strict=True)}
    return lengths


def halves(batches: Iterable[list[Request]]) -> list[list[Request]]:
    """Each batch in two; one of a single request as it is."""
    return [part for batch in batches for part in (batch[: -(-len(batch) // 2)], batch[-(-len(batch) // 2) :]) if part]


def keys_of(batch: Iterable[Request]) -> tuple[tuple[str, int], ...]:
    """Task and doc_id of each request."""
    return tuple(request.key for request in batch)


def places_of(batch: Iterable[Request]) -> tuple[int, ...]:
    """Where each request stands among all that were made."""
    return tuple(request.place for request in batch)


def image_hash(images: Sequence[Image.Image]) -> str:
    """16 hex digits over the pixels of a question's first image, which it hangs on; empty without any."""
    if not images:
        return ""
    total = hashlib.sha256(f"{images[0].mode}{images[0].size}".encode())
    total.update(images[0].tobytes())
    return total.hexdigest()[:16]
