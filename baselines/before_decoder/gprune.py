"""G-Prune: visual tokens that collect most of what flows through the graph of their similarities."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from baselines.shared.budget import fewest_dropped
from baselines.shared.counts import part
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes, tower_sizes


@dataclass
class GPrune(Pruner):
    """G-Prune (Jiang et al., AAAI 2025, arXiv 2501.02268; code github.com/jytmelon/G-Prune), training-free.

    The projected embeddings of a picture are nodes of a graph, with edges where their cosine is at least `similarity`;
    a softmax of the cosines over `temperature`, row by row, makes transition weights. The norms of the embeddings flow along
    them for `iterate_num` steps; what a node then holds, divided by the number of its edges (one to itself included), is its
    score, and the int(n·keep_ratio) highest stay. The base view of a tiled picture is one graph, all its tiles are another.
    In prompt order, position ids kept, newlines kept. Stage: before the decoder. Needs neither attention nor [CLS], but a
    tower of CLIP's or SigLIP's form, which tells base view and tiles apart.

    Deviations: the authors' code is for LLaVA-NeXT and one picture; here each picture of a prompt is pruned by itself, and
    those of other models are one graph each. Computed in float32, step by step; theirs takes the matrix to the power of
    iterate_num in half precision, where the smallest weights are lost to rounding and do not count as edges.

    Attributes:
        similarity, temperature, iterate_num: as above (authors' defaults 0.5, 0.03, 5).
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
        # Base views have even numbers, the tiles of the same picture the odd one after it.
        tile = vision.base_view != torch.arange(vision.views, device=known.device)
        graph = (2 * vision.base_view + tile)[vision.view.clamp(min=0)].masked_fill(~known, -1)
        row = torch.arange(len(graph), device=graph.device)[:, None]
        places = _gathered(torch.where(known, row * 2 * vision.views + graph, -1).flatten())
        there = places >= 0
        features = tokens.features.flatten(0, 1)[places.clamp(min=0)]
        count = there.sum(1)
        tokens.spend(int((count**2).sum()) * (features.shape[-1] + self.iterate_num))
        score = flow(features, there, self.similarity, self.temperature, self.iterate_num)
        keep = part(count, self.keep_ratio)
        rank = score.masked_fill(~there, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        stays = torch.zeros(known.numel(), dtype=torch.bool, device=known.device)
        stays[places[there]] = (rank < keep[:, None])[there]
        return stays.view_as(known)

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        similarity: float = 0.5,
        temperature: float = 0.03,
        iterate_num: int = 5,
    ) -> "GPrune":
        """Solve keep_ratio for a FLOPs budget; the products of cosines and of the flow are paid for."""
        base = tower_sizes(model_config).patches
        sizes = DecoderSizes.of(model_config)
        n, dropped = fewest_dropped(
            "G-Prune",
            model_config,
            reduction,
            visual_tokens,
            entering=lambda n, dropped: [n - dropped] * sizes.layers,
            scoring=lambda n, dropped: (min(n, base) ** 2 + max(n - base, 0) ** 2) * (sizes.hidden_size + iterate_num),
        )
        return cls(similarity, (n - dropped) / n, temperature, iterate_num)


def flow(features: torch.Tensor, there: torch.Tensor, similarity: float, temperature: float, steps: int) -> torch.Tensor:
    """What each node holds after so many steps, over its number of edges: (graphs, n).

    Args:
        features: (graphs, n, d); there: bool (graphs, n), which of them are nodes.
    """
    features = features.float()
    unit = functional.normalize(features, dim=-1)
    cosine = unit @ unit.transpose(1, 2)
    edge = (cosine >= similarity) & there[:, :, None] & there[:, None]
    # A graph's padding has no edge; its rows are of no account, only no NaN.
    weight = (cosine / temperature).masked_fill(~edge, -torch.inf).softmax(-1).masked_fill(~edge, 0)
    held = features.norm(dim=-1) * there
    for _ in range(steps):
        held = (held[:, None] @ weight)[:, 0]
    return held / edge.sum(-1).clamp(min=1)


def _gathered(group: torch.Tensor) -> torch.Tensor:
    """LongTensor (groups, most): for each number in `group` (n,), in ascending order, where it stands; -1 belongs to none."""
    order = group.argsort(stable=True)
    order = order[group[order] >= 0]
    counts = group[order].unique_consecutive(return_counts=True)[1]
    most = int(counts.max()) if len(counts) else 0
    places = group.new_full((len(counts), most), -1)
    places[torch.arange(most, device=group.device) < counts[:, None]] = order
    return places
