"""`Bench`: the device, the sizes and the models that the rows of a section share."""

from dataclasses import dataclass, field

import torch

from harness.latency.asked import RANDOM, Asked
from harness.latency.run import TimedModel
from tests.benchmarks.gpu.sizes import TEXT_TOKENS, Shape, Sizes


@dataclass
class Bench:
    """What a row is measured with.

    Attributes:
        dtype: of the weights, a name.
        attention: of the models, transformers' name of it.
        finished: figures of the section's rows that are known, by name.
    """

    device: torch.device
    dtype: str
    attention: str
    sizes: Sizes
    finished: dict[str, float] = field(default_factory=dict)
    _model: tuple[Shape, TimedModel] | None = field(default=None, init=False)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def asked(self, shape: Shape, pruners: tuple[str, ...], reduction: float, batch: int) -> Asked:
        """A prefill of random prompts, in the harness's terms."""
        return Asked(
            shape.model,
            pruners,
            (reduction,),
            (batch,),
            RANDOM,
            shape.image,
            TEXT_TOKENS,
            1,
            self.sizes.repeats,
            str(self.device),
            None,
            self.dtype,
        )

    def model(self, shape: Shape) -> TimedModel:
        """Random weights of a shape, made once; the one before goes first, for a card may hold no two."""
        if self._model is None or self._model[0] != shape:
            self._model = None
            made = TimedModel.of(self.asked(shape, (), 0.5, 1))
            made.model.set_attn_implementation(self.attention)
            self._model = shape, made
        return self._model[1]

    def free(self) -> str:
        """For a row that needs too much: the card's memory."""
        free, total = torch.cuda.mem_get_info(self.device)
        return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
