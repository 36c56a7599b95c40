"""The parts of a vision tower of CLIP's or SigLIP's form, which methods may look into or change."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from fitprune.models.parts import ModelParts
from fitprune.models.sizes import layer_read

# Where towers of a known form keep their layers: transformers' CLIP and SigLIP, and LLaVA-HR's CLIP branch.
LAYER_PATHS = ("encoder.layers", "fast.encoder.layers")
KNOWN_LAYERS = frozenset({"CLIPEncoderLayer", "SiglipEncoderLayer"})


@dataclass(frozen=True)
class TowerParts:
    """The parts of a tower of a known form.

    Attributes:
        module: the tower.
        layers: its attention layers.
        projector: turns the tower's features into embeddings.
        has_cls: whether [CLS] is the first token.
        mixes: whether adapters work on the grid of tokens between the layers (LLaVA-HR).
        feature_layer: index of the layer whose output is read.
    """

    module: Any
    layers: Any
    projector: Any
    has_cls: bool
    mixes: bool
    feature_layer: int


def tower_parts(parts: ModelParts, asked: Any = None) -> TowerParts | None:
    """Find the parts of the model's tower; None where its form is not known.

    Args:
        asked: `vision_feature_layer` as the call has it; None leaves it to the configuration.

    Raises:
        UnsupportedModel: several layers of the tower are read.
    """
    config = parts.parent.config
    for path in LAYER_PATHS:
        layers: Any = parts.tower
        for name in path.split("."):
            layers = getattr(layers, name, None)
        if isinstance(layers, nn.ModuleList) and {type(layer).__name__ for layer in layers} <= KNOWN_LAYERS:
            mixes = path.startswith("fast")
            named = getattr(config, "vision_feature_layer", None) if asked is None else asked
            projector = getattr(parts.parent, "multi_modal_projector", None)
            if projector is None or (named is None and not mixes):
                return None
            read = -1 if mixes else layer_read(named)
            cls_first = not mixes and config.vision_config.model_type == "clip_vision_model"
            # hidden_states[i] enters layer i; the last hidden state leaves the last layer.
            after = read - 1 if read >= 0 else len(layers) + read
            return TowerParts(parts.tower, layers, projector, cls_first, mixes, after)
    return None
