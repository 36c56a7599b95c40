"""`DeepStack`: features of several layers of the vision tower, added to the visual tokens after the decoder's first layers.

Source: Meng et al. 2024, arXiv 2406.04334. Qwen3-VL's decoder adds them by the places of the prompt, which pruning changes: so
they are taken from it, and added here to the tokens that are left.
"""

from dataclasses import dataclass
from typing import Any

import torch

# The decoder's arguments: bool (batch, T), where visual tokens are; and per layer the features of all of them, in order.
PLACES, FEATURES = "visual_pos_masks", "deepstack_visual_embeds"


@dataclass(frozen=True)
class DeepStack:
    """What is added to the visual tokens of a prompt.

    Attributes:
        features: per decoder layer, from the first on, (visual tokens of the batch, hidden_size).
        index: LongTensor (batch, n): the row in these of each visual token of the prompt.
    """

    features: Any
    index: torch.Tensor

    @classmethod
    def taken_from(cls, kwargs: dict[str, Any], place: torch.Tensor) -> "tuple[DeepStack | None, dict[str, Any]]":
        """What a decoder called with `kwargs` would add, None for nothing; and its arguments without that.

        `place` is LongTensor (batch, n): where in the prompt each visual token is; any row in padding columns.
        """
        if kwargs.get(FEATURES) is None:
            return None, kwargs
        index = numbered(kwargs[PLACES].to(place.device)).gather(1, place)
        return cls(kwargs[FEATURES], index), {**kwargs, PLACES: None, FEATURES: None}

    def add(self, layer: int, hidden: torch.Tensor, position: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        """Hidden states (batch, T, hidden_size) that leave a layer, with what belongs to the visual tokens among them.

        Args:
            layer: index of the decoder layer.
            hidden: the hidden states.
            position, original: LongTensor (batch, m): the row of each visual token left, and its number in the prompt. A
                merged token is numbered by the one that it is named after; one of the number -1 is given nothing.
        """
        if layer >= len(self.features) or not position.shape[1]:
            return hidden
        index = self.index.to(hidden.device).gather(1, original.clamp(min=0))
        added = self.features[layer].to(hidden.device, hidden.dtype)[index].masked_fill((original < 0)[..., None], 0)
        return hidden.scatter_add(1, position.clamp(min=0)[..., None].expand_as(added), added)


def numbered(places: torch.Tensor) -> torch.Tensor:
    """LongTensor (batch, T): which of the features belongs to each place that is True in `places`, bool (batch, T)."""
    return (places.flatten().cumsum(0) - 1).view_as(places)


def left_of(inputs: dict[str, Any], rows: torch.Tensor, visual: torch.Tensor) -> dict[str, torch.Tensor]:
    """The decoder's arguments PLACES and FEATURES for what is left of a prompt; empty where it has none.

    Args:
        inputs: the decoder's arguments for the whole prompt.
        rows: LongTensor (batch, T'): which of its rows each row left is.
        visual: bool (batch, T'): which of them hold visual tokens.
    """
    if inputs.get(FEATURES) is None:
        return {}
    index = numbered(inputs[PLACES].to(rows.device)).gather(1, rows)[visual]
    return {PLACES: visual, FEATURES: inputs[FEATURES][:, index.to(inputs[FEATURES].device)]}
