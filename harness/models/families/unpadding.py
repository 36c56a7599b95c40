"""LLaVA-NeXT without unpadding, as published tables run it: 2880 visual tokens on every canvas of 2×2 tiles.

Their authors take `_unpad` out of LLaVA's `mm_patch_merge_type`: the features of the padding around an image stay, and no
newline token stands after a row of them. `spec.NO_UNPAD` ends the name of a model that is run so.
"""

from functools import cache
from typing import Any

from harness.models.families.anyres import best_resolution


def keep_padding(model: Any) -> None:
    """Make a loaded LLaVA-NeXT one that `whole_canvas` prepares prompts for."""
    model.config.image_unpad = False
    model.model.image_newline = None


@cache
def whole_canvas(processor_class: type) -> Any:
    """A LLaVA-NeXT processor class for models without newlines that cut no padding off.

    Images count as large as the canvas of tiles that they are fitted into: so nothing of it is padding to the model.
    """

    class WholeCanvas(processor_class):  # type: ignore[misc]
        def _get_unpadded_features(
            self, height: int, width: int, patches_height: int, patches_width: int, scale_height: int, scale_width: int
        ) -> tuple[int, int]:
            return patches_height * scale_height * patches_width * scale_width, 0

        def __call__(self, *given: Any, **options: Any) -> Any:
            made = super().__call__(*given, **options)
            if "image_sizes" in made:
                sizes, canvases = made["image_sizes"], self.image_processor.image_grid_pinpoints
                made["image_sizes"] = sizes.new_tensor([best_resolution(int(w), int(h), canvases) for h, w in sizes])
            return made

    WholeCanvas.__name__ = processor_class.__name__
    return WholeCanvas
