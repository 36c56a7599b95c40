"""LLaVA-HR (arXiv 2403.03003): two vision branches, 1024 visual tokens. Importing this registers it with transformers.

`convert_checkpoint` turns an authors' checkpoint into a folder that `AutoModelForImageTextToText` and `AutoProcessor` load.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

from harness.models.llava_hr.configuration import LlavaHrConfig, LlavaHrVisionConfig
from harness.models.llava_hr.convert import convert_checkpoint
from harness.models.llava_hr.image_processing import LlavaHrImageProcessor
from harness.models.llava_hr.modeling import LlavaHrForConditionalGeneration, LlavaHrModel
from harness.models.llava_hr.processing import LlavaHrProcessor

__all__ = [
    "LlavaHrConfig",
    "LlavaHrForConditionalGeneration",
    "LlavaHrImageProcessor",
    "LlavaHrModel",
    "LlavaHrProcessor",
    "LlavaHrVisionConfig",
    "convert_checkpoint",
]

AutoConfig.register(LlavaHrConfig.model_type, LlavaHrConfig)
AutoModel.register(LlavaHrConfig, LlavaHrModel)
AutoModelForImageTextToText.register(LlavaHrConfig, LlavaHrForConditionalGeneration)
AutoImageProcessor.register(LlavaHrConfig, image_processor_classes={"pil": LlavaHrImageProcessor})
AutoProcessor.register(LlavaHrConfig, LlavaHrProcessor)
