"""The authors' tensor names and ours. Every rule exchanges one prefix for another, so that each name has one counterpart."""

import re

_TOWER = "model.vision_tower."
_CLIP = _TOWER + "fast_vision_tower.vision_tower.vision_model."
_CONVNEXT = _TOWER + "slow_vision_tower.vision_tower."
# The first rule that fits counts; the authors' prefix, then ours.
_PREFIXES = (
    (_CLIP, "model.vision_tower.fast."),
    (_CONVNEXT, "model.vision_tower.slow."),
    (_TOWER + "align_stages_latent.", "model.vision_tower.adapters."),
    (_TOWER + "align_stages.0.", "model.vision_tower.alignment."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.", "model.language_model."),
)
# In the checkpoints, and read by no forward: the ConvNeXt's classifier, CLIP's last norm, and two buffers that are
# computed anew (the rotary frequencies were rounded to bfloat16).
_IGNORED = re.compile(
    rf"{re.escape(_CONVNEXT)}head\..+"
    rf"|{re.escape(_CLIP)}(post_layernorm\.(weight|bias)|embeddings\.position_ids)"
    r"|model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
)


def is_ignored(name: str) -> bool:
    """Whether a tensor of the authors' checkpoint has no use."""
    return _IGNORED.fullmatch(name) is not None


def to_ours(name: str) -> str:
    """Our name for an authors' name (an unknown name comes back as one that no model has, or unchanged)."""
    return next((new + name.removeprefix(old) for old, new in _PREFIXES if name.startswith(old)), name)


def to_authors(name: str) -> str:
    """The inverse of `to_ours`."""
    return next((old + name.removeprefix(new) for old, new in _PREFIXES if name.startswith(new)), name)
