"""`Cost`: what pruned calibration samples cost, and where the published rule stops pruning them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fitprune.flops import layer_macs
from fitprune.models.sizes import DecoderSizes
from fitprune.scoring.column_sums import in_blocks
from fitprune.scoring.macs import Blocks, causal_pairs, column_sum_macs


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of visual tokens in a decoder.

    Attributes:
        sizes: of the decoder.
        text_tokens: of a prompt; if given, the cost holds that of scoring too.
        blocks: how scoring walks over the attention map of so many rows, see `scoring.column_sums.blocks_for`.
    """

    sizes: DecoderSizes
    text_tokens: int | None = None
    blocks: Callable[[int], Blocks] = in_blocks

    def layer(self, entered: np.ndarray, kept: np.ndarray, scored: np.ndarray | bool = False) -> np.ndarray:
        """Cost of a layer that `entered` tokens enter and `kept` leave, elementwise."""
        entered = np.asarray(entered, dtype=float)
        macs = layer_macs(entered, np.asarray(kept, dtype=float), **self.sizes.costs())
        if self.text_tokens is None:
            return macs
        # A prompt's text is taken to stand after its image, which is where nearly all of it stands.
        rows = np.rint(entered).astype(int) + self.text_tokens
        return macs + np.where(scored, self._scoring(rows), 0)

    def _scoring(self, rows: np.ndarray) -> np.ndarray:
        """Multiply-accumulates of `head_max_columns` with two weighted sums, for samples of which `rows` rows are scored."""
        lengths, place = np.unique(rows, return_inverse=True)
        walks = [(length, self.blocks(int(length))) for length in lengths]
        macs = [column_sum_macs(causal_pairs(length, 0, walk), self.sizes.q_size, 2, walk) for length, walk in walks]
        return np.asarray(macs)[place].reshape(rows.shape)

    def dense(self, visual_tokens: np.ndarray) -> np.ndarray:
        """Cost of the whole decoder, nothing dropped."""
        return self.sizes.layers * self.layer(visual_tokens, visual_tokens)

    def recipe(self, drop: list[int], visual_tokens: int) -> float:
        """Cost of the whole decoder under a recipe."""
        left = visual_tokens - np.cumsum(drop)
        entered = np.concatenate([[visual_tokens], left[:-1]])
        return float(self.layer(entered, left, np.asarray(drop) > 0).sum())

    def spent(self, visual_tokens: np.ndarray, left: np.ndarray, reduction: float) -> float:
        """What is spent at the published stop or, without one, in all layers, as a share of the budget.

        Arguments as in `stop`.
        """
        return float(self._stopped_at(visual_tokens, left).min() / self._budget(visual_tokens, reduction))

    def stop(self, visual_tokens: np.ndarray, left: np.ndarray, reduction: float) -> int:
        """The published stop: the layer from which the rest, run without further pruning, is within the budget.

        Budget and cost are means over the samples, so that all of them stop at the same layer.

        Args:
            visual_tokens: (samples,) tokens of each prompt; left: (samples, layers) tokens left after each layer.
            reduction: share of the dense cost to save.

        Returns:
            The first such layer; the number of layers where only pruning in all of them is enough, or not even that.
        """
        within = self._stopped_at(visual_tokens, left)[:-1] <= self._budget(visual_tokens, reduction)
        return int(within.argmax()) if within.any() else left.shape[1]

    def _budget(self, visual_tokens: np.ndarray, reduction: float) -> float:
        return (1 - reduction) * float(self.dense(visual_tokens).mean())

    def _stopped_at(self, visual_tokens: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Mean cost with pruning stopped before each layer, and, last, never: (layers + 1,)."""
        entered = np.concatenate([visual_tokens[:, None], left[:, :-1]], 1)
        layers = left.shape[1]
        spent = self.layer(entered, left, np.asarray((left < entered).any(0))).mean(0).cumsum()
        rest = np.arange(layers, 0, -1) * self.layer(entered, entered).mean(0)
        return np.append(np.concatenate([[0.0], spent[:-1]]) + rest, spent[-1])
