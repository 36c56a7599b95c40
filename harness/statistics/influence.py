"""How much each image moves a figure: what its standard error is made of, and what the errors of two suites have in common."""

import re
from dataclasses import dataclass

import numpy as np

_DIGEST = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, eq=False)
class Influence:
    """The images of one figure, and by how much each moves it.

    Attributes:
        pictures: (G,) uint64, digests of the decoded pictures.
        values: (G,), as a share; the figure's variance is the sum of their squares.
        unseen: by how much one image more, like none of these, would move it at most.
    """

    pictures: np.ndarray
    values: np.ndarray
    unseen: float

    @classmethod
    def of(cls, images: np.ndarray, values: np.ndarray, unseen: float) -> "Influence | None":
        """Of images by name (G,); None where a name is no digest of a picture, as in folders of other programs."""
        if images.dtype.kind != "U" or not all(map(_DIGEST.fullmatch, images)):
            return None
        return cls(np.array([int(name, 16) for name in images], dtype=np.uint64), values, unseen)
