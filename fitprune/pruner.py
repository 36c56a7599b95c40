"""`Pruner`: the base of every pruning method, and how one is applied to a live model."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fitprune.engine.masks import require_numbers
from fitprune.engine.patch import pruning
from fitprune.engine.tower import require_tower
from fitprune.errors import BudgetError, FitPruneError, UnsupportedModel
from fitprune.interface.hooks import Hooks
from fitprune.interface.trace import Trace
from fitprune.models.parts import SEE_VIDEOS, has_axes, model_parts, unwrapped

NEWLINES = ("kept", "pruned")
POSITIONS = ("kept", "repacked")


@dataclasses.dataclass
class Pruner(Hooks):
    """A pruning method with its parameters, applied to a live model as a context manager.

        with MyPruner(...)(model) as trace:
            model.generate(**inputs)

    A method overrides one or both of `before_layer` and `after_attention`. Both are called during the prefill only, with
    the whole batch at once, and answer which of the visual tokens present stay. A method that works before the decoder may
    look into the vision tower (`vision`, `observed_tower_layers`) or change what runs there (`before_tower`,
    `after_tower_attention`). Pruner objects hold parameters alone; what a prefill must remember goes into `tokens.memory`,
    so one object may serve several models and threads at once.

    Attributes:
        newlines: tiled models (LLaVA-NeXT, LLaVA-OneVision) put a learnt newline token after each row of patches. "kept":
            these are no visual tokens to the method, which neither sees nor drops them, and `Trace.kept` does not count
            them. "pruned": they are visual tokens like all others. Other models have none.
        positions: "kept": survivors keep their position ids, and decoding goes on where the unpruned prompt ends. "repacked":
            they are numbered anew after every cut; in every layer, decoding goes on after the tokens that entered this layer.
            Methods have their authors' choice as the default.
    """

    newlines: str = dataclasses.field(default="kept", kw_only=True)
    positions: str = dataclasses.field(default="kept", kw_only=True)

    @property
    def members(self) -> "tuple[Pruner, ...]":
        return (self,)

    def params(self) -> dict[str, Any]:
        """The parameters, as JSON-able values, for a result's record."""
        return dataclasses.asdict(self)

    @classmethod
    def own_positions(cls, model_config: Any) -> str:
        """What `positions` is on a model of this configuration where nothing else is asked for: the authors' choice."""
        return next(str(field.default) for field in dataclasses.fields(cls) if field.name == "positions")

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "Pruner":
        """The method with its free parameter solved so that it saves `reduction` of the visual tokens' decoder FLOPs.

        Args:
            model_config: the vision-language model's transformers configuration.
            reduction: share of the visual tokens' decoder FLOPs to save, in (0, 1), the method's own scoring included.
            visual_tokens: visual tokens of a prompt; derived from the configuration where it is fixed.

        Raises:
            BudgetError: the method cannot reach it; the message says what it can reach.
        """
        raise BudgetError(f"{cls.__name__} has no free parameter to solve for a budget; it saves what it saves.")

    @contextmanager
    def __call__(
        self, model: nn.Module, *, visual_mask: torch.Tensor | None = None, record_all: bool = False
    ) -> Iterator[Trace]:
        """Prune `model` inside the context. The model is as it was on exit, also after an error.

        Any batch size, padding, beams or sampling. Text-only prompts pass untouched. The context also holds for threads
        started inside it. Two threads, two asyncio tasks or two generators may each hold a context of their own on one model.
        Copies of the model made inside (`copy.deepcopy`, `torch.save`) are of the model as it was.

        Args:
            model: a live vision-language model of transformers, or torch's DistributedDataParallel around one.
            visual_mask: bool (batch, T): where the visual tokens are in prompts that are given as `inputs_embeds` which hold
                their images already. Other prompts show it themselves.
            record_all: keep the trace of every prefill (`Trace.prefills`), not of the latest alone.

        Raises:
            UnsupportedModel: a model, or (from its forward) a way of calling it, that cannot be pruned correctly.
        """
        model_parts(model)
        model = unwrapped(model)
        self.require(model)
        with pruning(model, self, visual_mask, record_all) as trace:
            yield trace

    def require(self, model: nn.Module) -> None:
        """Raise a `FitPruneError` if the method, with its parameters, cannot be applied to `model`."""
        if self.newlines not in NEWLINES:
            raise FitPruneError(f"newlines must be one of {', '.join(NEWLINES)}, not {self.newlines!r}.")
        if self.positions not in POSITIONS:
            raise FitPruneError(f"positions must be one of {', '.join(POSITIONS)}, not {self.positions!r}.")
        if self.looks_into_tower:
            require_tower(model, self)
        if self.biases_attention:
            require_numbers(model_parts(model))
        if self.videos and model_parts(model).video_token_id is None:
            raise UnsupportedModel(
                f"{self.name} prunes videos, by what changes from frame to frame; {type(unwrapped(model)).__name__} is shown "
                f"images alone. Models with videos: {', '.join(sorted(SEE_VIDEOS))}."
            )
        self.require_positions(model.config)
        self.check(model)

    def require_positions(self, model_config: Any) -> None:
        """Raise UnsupportedModel if the position ids of a model of this configuration cannot be as `positions` says."""
        if self.positions == "repacked" and has_axes(model_config):
            raise UnsupportedModel(
                f"{model_config.model_type} has position ids on three axes, "
                "which cannot be numbered anew; use positions='kept'."
            )
