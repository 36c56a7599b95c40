"""G-Prune: the visual tokens stay that collect most of the flow through the graph of their similarities."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from baselines.shared.budget import dropped_before_decoder
from baselines.shared.counts import part
from baselines.shared.padded import highest
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes, tower_sizes

BLOCK = 1024
"""Nodes whose similarities are computed at a time."""

HELD = 3072
"""Nodes of a graph up to which all weights are held; those of larger graphs are computed in each step of the flow."""


@dataclass
class GPrune(Pruner):
    """G-Prune (Jiang et al., AAAI 2025, arXiv 2501.02268; code github.com/jytmelon/G-Prune), training-free.

    The projected embeddings of a picture are the nodes of a graph. Two nodes have an edge where their cosine is at least
    `similarity`. Transition weights are the softmax of cosines over `temperature`, row by row. The norms of the embeddings
    flow along the edges for `iterate_num` steps. The score of a node is what it then holds, divided by the number of its edges
    (one to itself included). The int(n·keep_ratio) tokens of highest score stay. The base view of a tiled picture is one
    graph, and all its tiles are another. Survivors stand in prompt order, position ids and newlines kept. Stage: before the
    decoder. Needs neither attention nor [CLS], but a tower of CLIP's or SigLIP's form, which tells base view and tiles apart.

    Deviations:

    - The authors' code is for LLaVA-NeXT and one picture. Here each picture of a prompt is pruned by itself. A picture of
      another model is one graph.
    - The flow is computed in float32, step by step. The authors' code takes the matrix to the power of iterate_num in half
      precision, where the smallest weights are lost to rounding and do not count as edges.

    Attributes:
        similarity: least cosine of an edge (authors' default 0.5).
        temperature: of the softmax (authors' default 0.03).
        iterate_num: steps of the flow (authors' default 5).
        keep_ratio: share of the visual tokens to keep, at least 0 and below 1 (authors' default 0.5).
    """

    name: ClassVar[str] = "gprune"
    vision: ClassVar[bool] = True
    similarity: float = 0.5
    keep_ratio: float = 0.5
    temperature: float = 0.03
    iterate_num: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.keep_ratio < 1:
            raise FitPruneError(f"keep_ratio is a share of the visual tokens, from 0 to below 1, not {self.keep_ratio}.")
        if self.temperature <= 0 or self.iterate_num < 1:
            raise FitPruneError(
                f"temperature must be above 0 and iterate_num at least 1, not {self.temperature} and {self.iterate_num}."
            )

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision, known = tokens.vision, tokens.vision.view >= 0
        # A graph's number is twice its picture's base view; that of the picture's tiles is one more.
        tile = vision.base_view != torch.arange(vision.views, device=known.device)
        graph = (2 * vision.base_view + tile)[vision.view.clamp(min=0)].masked_fill(~known, -1)
        row = torch.arange(len(graph), device=graph.device)[:, None]
        nodes = members(torch.where(known, row * 2 * vision.views + graph, -1).flatten())
        there = nodes >= 0
        features = tokens.features.flatten(0, 1)[nodes.clamp(min=0)]
        count = there.sum(1)
        tokens.spend((count**2).sum() * products(nodes.shape[1], features.shape[-1], self.iterate_num))
        score = flow(features, there, self.similarity, self.temperature, self.iterate_num)
        stays = torch.zeros(known.numel(), dtype=torch.bool, device=known.device)
        stays[nodes[highest(score, there, part(count, self.keep_ratio))]] = True
        return stays.view_as(known)

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        similarity: float = 0.5,
        temperature: float = 0.03,
        iterate_num: int = 5,
    ) -> "GPrune":
        """Solve `keep_ratio` for a FLOPs budget, cosines and flow included."""
        base = tower_sizes(model_config).patches
        hidden = DecoderSizes.of(model_config).hidden_size

        def scoring(n: int, dropped: int) -> int:
            graphs = min(n, base), max(n - base, 0)
            return sum(size**2 for size in graphs) * products(max(graphs), hidden, iterate_num)

        n, dropped = dropped_before_decoder("G-Prune", model_config, reduction, visual_tokens, scoring)
        return cls(similarity, (n - dropped) / n, temperature, iterate_num)


@torch.no_grad()
def flow(features: torch.Tensor, there: torch.Tensor, similarity: float, temperature: float, steps: int) -> torch.Tensor:
    """G-Prune's score (graphs, n): what each node holds after `steps` steps, divided by its number of edges.

    Args:
        features: (graphs, n, d).
        there: bool (graphs, n): False in padding.
    """
    features = features.float()
    unit = functional.normalize(features, dim=-1)
    held, edges = features.norm(dim=-1) * there, torch.zeros_like(there, dtype=torch.long)
    blocks = list(zip(*(of.split(BLOCK, 1) for of in (unit, there, edges)), strict=True))

    def weights(rows: torch.Tensor, own: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        cosine = rows @ unit.mT
        edge = (cosine >= similarity) & own[:, :, None] & there[:, None]
        number.copy_(edge.sum(-1))
        # Padding has no edges; the second masked_fill removes the NaN of its rows.
        return cosine.div_(temperature).masked_fill_(~edge, -torch.inf).softmax(-1).masked_fill_(~edge, 0)

    if there.shape[1] > HELD:
        for _ in range(steps):
            flowing = zip(held.split(BLOCK, 1), blocks, strict=True)
            held = torch.stack([(part[:, None] @ weights(*block))[:, 0] for part, block in flowing]).sum(0)
        return held / edges.clamp(min=1)
    # One matrix is held, filled block by block.
    weight = unit.new_empty(*there.shape, there.shape[1])
    for rows, block in zip(weight.split(BLOCK, 1), blocks, strict=True):
        rows.copy_(weights(*block))
    for _ in range(steps):
        held = (held[:, None] @ weight)[:, 0]
    return held / edges.clamp(min=1)


def products(nodes: int, width: int, steps: int) -> int:
    """Multiply-accumulates of `flow` for each pair of nodes, `width` numbers each, where the largest graph has so many."""
    return width * (steps if nodes > HELD else 1) + steps


def members(group: torch.Tensor) -> torch.Tensor:
    """LongTensor (groups, most): the indices that belong to each number in `group` (n,), padded with -1.

    Groups stand in ascending order of their numbers. An index whose group is -1 belongs to none.
    """
    order = group.argsort(stable=True)
    order = order[group[order] >= 0]
    counts = group[order].unique_consecutive(return_counts=True)[1].tolist()
    if not counts:
        return group.new_empty(0, 0)
    return pad_sequence(order.split(counts), batch_first=True, padding_value=-1)
