"""From a folder to a processor of images, videos and text."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.models.families.unpadding import whole_canvas
from harness.models.spec import NO_UNPAD
from harness.models.videos.pixels import video_processor

if TYPE_CHECKING:
    from transformers import ProcessorMixin

# The PIL image processors are the authors' and need no torchvision: scores depend on nothing else installed.
BACKEND = "pil"


def load_processor(folder: Path, model_type: str, common: Mapping[str, Any], variant: str = "") -> "ProcessorMixin":
    """The processor saved in `folder`; where its class also takes videos, with that part for families whose videos are pruned
    (`harness.models.videos.pixels`), and without it for the others.

    Args:
        model_type: of the checkpoint's configuration.
        common: options of every `from_pretrained`.
        variant: NO_UNPAD gives each image of a LLaVA-NeXT the tokens of its whole canvas, and no newlines.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    found = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(model_type) or "", None)
    if found is not None and variant == NO_UNPAD:
        return whole_canvas(found).from_pretrained(folder, backend=BACKEND, **common)
    if found is None or "video_processor" not in found.get_attributes():
        return transformers.AutoProcessor.from_pretrained(folder, backend=BACKEND, **common)
    record, _ = found.get_processor_dict(folder, local_files_only=True)
    parts = {
        "image_processor": transformers.AutoImageProcessor.from_pretrained(folder, backend=BACKEND, **common),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder, **common),
    }
    with _numbers_as_digits(found):
        made = _images_only(found).from_args_and_dict([parts.get(name) for name in found.get_attributes()], record)
    made.video_processor = video_processor(folder, model_type)
    return made


@cache
def _images_only(processor_class: type) -> Any:
    """The class with one check relaxed: there may be no video processor. SmolVLM would ask it for a chat template's frames."""
    from transformers import ProcessorMixin

    class ImagesOnly(processor_class):  # type: ignore[misc]
        apply_chat_template = ProcessorMixin.apply_chat_template

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor" and argument is None:
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    ImagesOnly.__name__ = processor_class.__name__
    return ImagesOnly


@contextmanager
def _numbers_as_digits(processor_class: type) -> Iterator[None]:
    """Inside, SmolVLM's class can be made without the package that writes the number of a video's frames out in words."""
    module: Any = sys.modules[processor_class.__module__]
    absent = getattr(module, "num2words", str) is None
    if absent:
        module.num2words = str
    try:
        yield
    finally:
        if absent:
            module.num2words = None
