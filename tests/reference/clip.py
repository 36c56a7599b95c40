"""CLIP's space, literally: one text and one patch at a time."""

import torch


@torch.no_grad()
def text_of(clip, tokenizer, text):
    """The embedding (d,) of a text that CLIP takes whole."""
    return clip.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output[0].double()


@torch.no_grad()
def patches_of(clip, features):
    """The embeddings of features (P, width) of CLIP's vision tower, one by one."""
    norm, projection = clip.vision_model.post_layernorm, clip.visual_projection
    return torch.stack([projection(norm(row.float())).double() for row in features])


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())
