"""`Asked`: what `fitprune latency` is asked to measure. It is checked before torch is imported."""

from dataclasses import dataclass

from baselines.registry import PRUNERS, check_name
from fitprune.arguments import TYPICAL_SIZE, Size
from fitprune.errors import FitPruneError
from harness.cells import DENSE
from harness.models.devices import AUTO, check_device

RANDOM, CHECKPOINT = "random", "checkpoint"

ALL = "all"  # the default, spelt out


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Attributes:
        pruners: registry names; empty for all.
        layers: decoder layers; None for all of them. Random weights only.
        dtype: of the weights; None is the checkpoint's for random ones, and what `load_model` takes for real ones.
    """

    model: str
    pruners: tuple[str, ...] = ()
    reductions: tuple[float, ...] = (0.5,)
    batch_sizes: tuple[int, ...] = (1,)
    weights: str = CHECKPOINT
    image_size: Size = TYPICAL_SIZE
    text_tokens: int = 64
    new_tokens: int = 16
    repeats: int = 10
    device: str | None = None
    layers: int | None = None
    dtype: str | None = None

    def check(self) -> None:
        """Raise FitPruneError for what cannot be asked, before any work."""
        for name in self.pruners:
            if name != ALL:
                check_name(name)
        if self.layers is not None and self.weights != RANDOM:
            raise FitPruneError("--layers shortens a model with random weights; add --weights random")
        check_device(self.device)
        if self.device == AUTO:
            raise FitPruneError("a latency is that of one device: --device cpu or cuda:N (--layers N for less of the model)")

    def methods(self) -> list[str]:
        """The pruners to compare with the dense model, which always is measured."""
        asked = PRUNERS if ALL in self.pruners else self.pruners or PRUNERS
        return [name for name in asked if name != DENSE]
