"""The vision tower as a method meets it: tokens between its layers (`TowerTokens`), and all that was seen (`TowerRecord`)."""

import dataclasses
from dataclasses import dataclass

import torch

from fitprune.models.tower import TowerParts


@dataclass
class TowerTokens:
    """The tokens of a tower after the attention and its residual of one layer.

    Attributes:
        hidden: (views, t, width).
        key: (views, heads, t, d), that attention's keys; None in what a method returns.
        size: (views, t): how many patches each token stands for.
        patch_index: LongTensor (views, t): the patch that each token is named by, -1 for [CLS].
        macs: multiply-accumulates spent on scoring.
        has_cls: whether the first token is [CLS].
    """

    hidden: torch.Tensor
    key: torch.Tensor | None
    size: torch.Tensor
    patch_index: torch.Tensor
    macs: int = 0
    has_cls: bool = False

    def spend(self, macs: int) -> None:
        """Note multiply-accumulates that scoring took, for all views."""
        self.macs += int(macs)


@dataclass(frozen=True)
class TowerRecord:
    """What was seen of one call of a model's `get_image_features`.

    Attributes:
        tower: the tower's parts.
        query, key: by layer, (views, heads, tokens, d), of the layers that the method observes.
        features: (views, patches, width), the input of the projector.
        cls_features: (views, width), the same for [CLS]; None where there is none.
        grid: rows and columns of a view's patches, at full size.
        views: per image, how many of the views are of it.
        global_index: per image, LongTensor: for each of its prompt positions, the global patch index `view * patches + patch`;
            -1 for newline tokens.
        patch_index: LongTensor (views, m): the patch that each feature is named by, where the tower ended with fewer tokens
            than a view has patches; else None.
    """

    tower: TowerParts
    query: dict[int, torch.Tensor]
    key: dict[int, torch.Tensor]
    features: torch.Tensor
    cls_features: torch.Tensor | None
    grid: tuple[int, int]
    views: list[int]
    global_index: list[torch.Tensor]
    patch_index: torch.Tensor | None = None

    @property
    def patches(self) -> int:
        """Patches of a view, at full size."""
        return self.grid[0] * self.grid[1]

    def joined(self, other: "TowerRecord") -> "TowerRecord":
        """This record with the observed layers of another record of the same images added to its own."""
        return dataclasses.replace(self, query={**other.query, **self.query}, key={**other.key, **self.key})
