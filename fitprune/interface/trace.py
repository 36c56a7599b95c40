"""`Trace`: what a pruner did inside its context; `PrefillTrace`: what it did in one prefill."""

import weakref
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

from fitprune.interface.layout import HostCounts, Layout
from fitprune.scoring.macs import Macs, counted


@dataclass
class TowerCounts:
    """What ran in the vision tower, where a method changed it.

    Attributes:
        views: pictures that went through it; pixels: their height and width.
        attended, fed: per layer, tokens of a view that entered its attention, and its feed-forward network.
        projected: tokens of a view that went through the projector.
    """

    views: int
    pixels: tuple[int, int]
    attended: list[int]
    fed: list[int]
    projected: int


@dataclass
class PrefillFacts:
    """What the engine notes of one prefill, without waiting for the device.

    Attributes:
        prompt: the layout of the prompt.
        tower: what ran in the vision tower, where the pruner changed it; else None.
        entered, left: per decoder layer, the layout before it and after it.
        scoring: per decoder layer, what was spent on scoring.
    """

    prompt: Layout
    tower: TowerCounts | None = None
    entered: list[Layout] = field(default_factory=list)
    left: list[Layout] = field(default_factory=list)
    scoring: list[list[Macs]] = field(default_factory=list)


class PrefillTrace:
    """What a pruner did in one prefill. Lists have one entry per layer; tensors lie on the device of the decoder's input,
    wherever its layers are.

    Counts and costs are worked out when they are read: pruning itself does not wait for them.
    """

    def __init__(self, facts: PrefillFacts) -> None:
        self._facts = facts

    def _read(self) -> PrefillFacts:
        return self._facts

    def _home(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        return [tensor.to(self._read().prompt.position.device) for tensor in tensors]

    @property
    def kept(self) -> list[torch.Tensor]:
        """`kept[l]` is a LongTensor (batch, kept): the indices, among the prompt's n visual tokens (0 … n-1, in prompt order),
        of those present after layer l, ascending; rows padded with -1 on the right where counts differ.

        Tokens that the pruner may not drop, the newlines of tiled models, have no index: see `Pruner.newlines`. A merged token
        is reported under the index of the token it replaces; a row that stands for no single token is counted in `visual_in`
        only.
        """
        return self._home([layout.kept for layout in self._read().left])

    @property
    def place(self) -> torch.Tensor:
        """LongTensor (batch, n): the position in the prompt, padding counted, of each visual token; padded with -1."""
        return self._read().prompt.position

    @property
    def visual_tokens(self) -> torch.Tensor:
        """(batch,) visual tokens in the prompt."""
        return self._read().prompt.total

    @property
    def text_tokens(self) -> torch.Tensor:
        """(batch,) the prompt's other tokens, newlines among them, padding not counted."""
        prompt = self._read().prompt
        tokens = torch.full_like(prompt.total, prompt.shape[1]) if prompt.valid is None else prompt.valid.sum(1)
        return tokens - prompt.total

    @property
    def visual_in(self) -> list[torch.Tensor]:
        """`visual_in[l]`, (batch,): visual tokens that enter layer l; its KV cache holds these."""
        return self._home([layout.count for layout in self._read().entered])

    @property
    def visual_out(self) -> list[torch.Tensor]:
        """`visual_out[l]`, (batch,): those that take part in layer l's output projection and feed-forward network."""
        return self._home([layout.count for layout in self._read().left])

    @property
    def scoring_macs(self) -> list[int]:
        """Multiply-accumulates that the pruner spent on scoring in each layer, for the whole batch; what it spent before the
        decoder is in the first."""
        return [sum(map(counted, spent)) for spent in self._read().scoring]

    @property
    def tower(self) -> TowerCounts | None:
        """What ran in the vision tower, where the pruner changed it; else None."""
        return self._read().tower


# The latest prefill of each trace in this execution context. A value is replaced, never changed.
_own: ContextVar[dict["weakref.ref[Trace]", PrefillFacts] | None] = ContextVar("fitprune_prefills", default=None)

_NOTHING = PrefillFacts(
    Layout(
        place=torch.empty(0, 0, dtype=torch.long),
        number=torch.empty(0, 0, dtype=torch.long),
        total=torch.empty(0, dtype=torch.long),
        flags=torch.empty(0, 2, 0, dtype=torch.bool),
        first_row=0,
        host=HostCounts((), (), (), (), (), 0),
    )
)


class Trace(PrefillTrace):
    """What a pruner did inside its context: reads as the trace of the latest prefill, and is empty before the first.

    In a thread or an asyncio task that has run prefills itself, the latest of these; elsewhere, the latest of all.
    """

    def __init__(self, record_all: bool = False) -> None:
        """`record_all`: keep the trace of every prefill, not of the latest alone."""
        self._prefills: deque[PrefillFacts] = deque(maxlen=None if record_all else 1)

    @property
    def prefills(self) -> list[PrefillTrace]:
        """The traces of all prefills of all threads, in the order in which they began, where the pruner's context was opened
        with `record_all=True`; else of the latest alone."""
        return [PrefillTrace(facts) for facts in list(self._prefills)]

    def start(self, facts: PrefillFacts) -> None:
        """A prefill begins, of which `facts` will tell."""
        others = {trace: own for trace, own in (_own.get() or {}).items() if trace() is not None}
        _own.set({**others, weakref.ref(self): facts})
        self._prefills.append(facts)

    def _read(self) -> PrefillFacts:
        own = (_own.get() or {}).get(weakref.ref(self))
        return own or (self._prefills[-1] if self._prefills else _NOTHING)
