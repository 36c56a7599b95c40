"""What every part of LLaVA-HR shares as a transformers model."""

from transformers import PreTrainedModel

from harness.models.llava_hr.configuration import LlavaHrConfig


class LlavaHrPreTrainedModel(PreTrainedModel):
    """Loading, saving, and what the attention of its parts supports."""

    config: LlavaHrConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    # The tower's branches feed each other at every turn, so a device map keeps it on one device.
    _no_split_modules = ["LlavaHrVisionTower"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False
