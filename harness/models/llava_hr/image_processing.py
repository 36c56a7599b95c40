"""Images to pixel values, on PIL alone."""

from typing import Any

import numpy as np
from PIL.Image import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil


class LlavaHrImageProcessor(LlavaImageProcessorPil):
    """RGB, padded to a square in CLIP's mean colour, resized to `size` by PIL's bicubic filter on bytes, normalised.

    LLaVA's own steps with padding switched on: (122, 116, 104) is 255 × the OpenAI CLIP mean, rounded down; the image stands
    in the middle, at offset (side − width) // 2.
    """

    size = {"shortest_edge": 1024}  # noqa: RUF012
    crop_size = {"height": 1024, "width": 1024}  # noqa: RUF012
    do_pad = True

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """A picture as (3, height, width). The authors drop transparency, where transformers would blend it with white."""
        if isinstance(image, Image) and (args[0] if args else kwargs.get("do_convert_rgb")):
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        return super().process_image(image, *args, **kwargs)
