"""`Videos`: which visual tokens are of which frame, for methods that compare the frames of a video."""

from dataclasses import dataclass

import numpy as np
import torch

from fitprune.errors import UnsupportedModel
from fitprune.interface.layout import Layout
from fitprune.models.images import Images


@dataclass(frozen=True)
class Videos:
    """Those videos of a batch that have one shape. A frame is what the decoder is given of one: of two pictures in Qwen's.

    Attributes:
        sample: LongTensor (videos, 1, 1): the sample that each is of.
        column: LongTensor (videos, frames, tokens of a frame): their visual tokens, as columns of (batch, n), row by row.
    """

    sample: torch.Tensor
    column: torch.Tensor

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, n, …) what is the videos': (videos, frames, tokens of a frame, …)."""
        return values[self.sample, self.column]

    def put(self, values: torch.Tensor, own: torch.Tensor) -> None:
        """The inverse of `of`, into `values` (batch, n, …)."""
        values[self.sample, self.column] = own


def videos_of(layout: Layout, seen: tuple[Images, torch.Tensor] | None, visual_tokens: torch.Tensor | None) -> list[Videos]:
    """The videos of a batch by their shapes, in the order in which these come first; waits for the device once.

    Args:
        seen: the videos that were encoded, and their places in the prompts, bool (batch, T); None for none.
        visual_tokens: (batch,), of the whole prompts; None for those in the layout.

    Raises:
        UnsupportedModel: a sample has visual tokens, and no video; not all tokens of the prompts are there; whose frames the
            videos are is not known.
    """
    place = layout.place.device
    if seen is None:
        raise UnsupportedModel(
            "this method compares the frames of a video, and this prompt brings none that is known: give videos as the "
            "processor makes them (pixel_values_videos), or choose a method for images."
        )
    videos, own = seen[0], seen[1].to(place)
    whole = own.shape == layout.shape
    known = [own.sum(1, keepdim=True), (layout.total if visual_tokens is None else visual_tokens.to(place))[:, None]] + (
        [layout.columns(own)] if whole else []
    )
    counts, totals, *told = np.split(torch.cat(known, 1).cpu().numpy(), [1, 2], axis=1)
    if not whole or not tuple(totals[:, 0].tolist()) == layout.totals == layout.counts:
        raise UnsupportedModel(
            "this method compares whole frames, and another pruner has dropped tokens of theirs; let this one prune first."
        )
    of_samples = videos.of_samples(counts[:, 0].tolist())
    if of_samples is None:
        raise UnsupportedModel(
            "this method compares the frames of a video, and whose frames a prompt's videos are is not known."
        )
    shapes: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for sample, (numbers, own_columns) in enumerate(zip(of_samples, told[0], strict=True)):
        if layout.totals[sample] and not numbers:
            raise UnsupportedModel(
                "this method compares the frames of a video, and a prompt holds images alone; choose a method for images."
            )
        columns, first = np.flatnonzero(own_columns), 0
        newlines = len(columns) == counts[sample, 0]
        for number in numbers:
            shape = videos.frames[number]
            taken = shape[0] * shape[1]
            shapes.setdefault(shape, []).append((sample, columns[first : first + taken]))
            first += videos.tokens[number] if newlines else taken
    made = []
    for shape, found in shapes.items():
        at = torch.from_numpy(np.stack([columns for _, columns in found])).view(len(found), *shape)
        samples = torch.tensor([sample for sample, _ in found]).view(-1, 1, 1)
        made.append(Videos(samples.to(place, non_blocking=True), at.to(place, non_blocking=True)))
    return made
