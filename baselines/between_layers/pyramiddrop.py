"""PyramidDrop: visual tokens are dropped stage by stage, by the last token's attention in the layer ahead."""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared.budget import TEXT_TOKENS, nearest_choice
from baselines.shared.repacked import Repacked
from baselines.shared.stages import scaled_stages
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.parts import model_parts
from fitprune.models.sizes import DecoderSizes

# Values of λ that a budget chooses from, of 0 to 1.
STEPS = 1000


@dataclass
class PyramidDrop(Repacked):
    """PyramidDrop (Xing et al. 2024, arXiv 2410.17247; code github.com/Cooperx521/PyramidDrop), without training.

    Before each layer of `layer_list`, int(n·ratio) of the prompt's n visual tokens stay: those that the prompt's last token
    attends to most in that layer. This attention row is computed ahead, with the layer's own norm, queries and keys at the
    current position ids, and averaged over heads. Survivors stand in prompt order. Position ids repacked: after each stage
    they count 0, 1, … over the tokens left. Stage: between decoder layers. Needs one attention row at each stage, computed
    beside SDPA, but no [CLS].

    Deviations:

    - All images of a prompt are one pool. The authors' code takes one image.
    - The newline tokens of tiled models are no visual tokens by default (see `Pruner.newlines`).

    Attributes:
        layer_list: layers before which tokens are dropped, ascending (authors': 8, 16, 24 of 32).
        image_token_ratio_list: share of the prompt's visual tokens that stays at each stage (authors': 0.5, 0.25, 0.125).
    """

    name: ClassVar[str] = "pyramiddrop"
    text_degree = 1
    layer_list: tuple[int, ...] = (8, 16, 24)
    image_token_ratio_list: tuple[float, ...] = (0.5, 0.25, 0.125)

    def __post_init__(self) -> None:
        self.layer_list, self.image_token_ratio_list = tuple(self.layer_list), tuple(self.image_token_ratio_list)
        layers, ratios = self.layer_list, self.image_token_ratio_list
        if not layers or len(layers) != len(ratios):
            raise FitPruneError(f"PyramidDrop needs one ratio per layer, not {len(ratios)} for {len(layers)}.")
        if layers[0] < 1 or any(later <= earlier for earlier, later in itertools.pairwise(layers)):
            raise FitPruneError(f"PyramidDrop's layers must ascend from 1 on, not {list(layers)}.")
        if any(not 0 <= later <= earlier for earlier, later in itertools.pairwise((1.0, *ratios))):
            raise FitPruneError(f"PyramidDrop's ratios are shares, from 1 to 0 and not rising, not {list(ratios)}.")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        layers = len(model_parts(model).layers)
        if self.layer_list[-1] >= layers:
            raise FitPruneError(f"PyramidDrop before layers {list(self.layer_list)} does not fit a decoder of {layers} layers.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer not in self.layer_list:
            return None
        # Rounded down in double precision, as by Python's int() in the authors' code.
        keep = (tokens.total.double() * self.image_token_ratio_list[self.layer_list.index(layer)]).long()
        attention = tokens.upcoming()
        score = attention.last_token_mean(tokens)
        tokens.spend(*attention.spent)
        return tokens.keep_highest(score, keep)

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        layer_list: tuple[int, ...] | None = None,
    ) -> "PyramidDrop":
        """Solve the paper's ratio λ for a FLOPs budget, the attention rows included: λ, λ², λ³, … stay (authors': λ = 0.5).

        By default, the stages are the authors', scaled to the decoder's depth. Stages that fall on one layer become one.
        """
        sizes = DecoderSizes.of(model_config)
        stages = layer_list or sorted({min(stage, sizes.layers - 1) for stage in scaled_stages((8, 16, 24), sizes.layers)})
        cls(tuple(stages), (0.0,) * len(stages))  # raises where layer_list is no list of layers

        def ratios(steps: int) -> tuple[float, ...]:
            return tuple((steps / STEPS) ** (stage + 1) for stage in range(len(stages)))

        def present(n: int, steps: int) -> list[int]:
            return [n, *(int(n * ratio) for ratio in ratios(steps))]

        def entering(n: int, steps: int) -> list[int]:
            counts = present(n, steps)
            return [counts[sum(layer >= stage for stage in stages)] for layer in range(sizes.layers)]

        def scoring(n: int, steps: int) -> int:
            keys = sizes.hidden_size * sizes.kv_size + sizes.q_size
            return sum((count + TEXT_TOKENS) * keys + sizes.hidden_size * sizes.q_size for count in present(n, steps)[:-1])

        choices = range(STEPS)
        _, steps = nearest_choice("PyramidDrop", model_config, reduction, visual_tokens, choices, entering, scoring)
        return cls(tuple(stages), ratios(steps))
