"""What is known of a model, and of the models of its kind, before anything is loaded. No torch here: listing is quick."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NO_UNPAD = "no-unpad"
"""Ends the name of a LLaVA-NeXT that keeps the features of the padding around an image and has no newline tokens:
`llava-next-7b:no-unpad` has 2880 visual tokens on a canvas of 2×2 tiles, as published tables count them.
"""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class View:
    """What a family's processor makes of one image.

    Attributes:
        tokens: visual tokens in the prompt: what a pruner chooses from.
        newlines: image tokens beside them that mark the ends of rows of tiles, and that no pruner drops.
        pixels: shape of `pixel_values`, in the dimensions that the processor gives for this one image.
        extra: the processor's other tensors for the image, as nested lists of ints (`image_sizes`, `image_grid_thw`).
    """

    tokens: int
    pixels: tuple[int, ...]
    newlines: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """What models of one `model_type` have in common. Configurations are dictionaries, as in a `config.json`. Where decoder and
    tower are in a live model is known to `fitprune.models.parts`.

    Attributes:
        model_type: as transformers names it.
        chat_template: Jinja template for checkpoints that bring none.
        view: (config, width, height) of an image to its `View`.
        processor: config to the attributes of the processor that must agree with it; older checkpoints lack some of them.
        nested: its processor takes a list of images for each prompt, for those without any an empty one.
        token_types: its decoder takes `token_type_ids`, which say where images are.
        registers: module whose import makes transformers know the family; empty for transformers' own.
    """

    model_type: str
    chat_template: str
    view: Callable[[Mapping[str, Any], int, int], View]
    processor: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda config: {}
    nested: bool = False
    token_types: bool = False
    registers: str = ""


@dataclass(frozen=True)
class FamilyName:
    """A family as people name it, and the models that the name may stand for.

    Attributes:
        name: what people type.
        standard: the registry name of the checkpoint that is meant: of 7B, else the family's first.
        embedded: the registry name of its sibling that ships with the package; empty where there is none.
    """

    name: str
    standard: str
    embedded: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """Where a model's weights are, and how it is spoken to.

    Attributes:
        name: what people type; results carry it.
        source: hub repository, or folder.
        revision: pinned commit of the hub repository; None for folders, whose revision is a digest of the weights, and
            for hub repositories that are not pinned: they take whatever `main` was when they were downloaded, and
            results carry that commit.
        kind: "embedded" (ships with the package), "hub" or "folder".
        family: a name of `harness.models.families`, which fills it in; None when only the checkpoint itself can tell.
        dtype: of the weights in the checkpoint.
        parameters: published number; None where it is read from the checkpoint.
        chat_template: Jinja template for a checkpoint without one of its own; None takes the family's.
        variant: how it is run other than its checkpoint says, as a name's ending tells: NO_UNPAD; empty for as it says.
        text_tower: hub repository and commit, or folder, of the CLIP model that the vision tower is of, for methods that
            compare text and patches in CLIP's space; None where there is none. It is not downloaded with the model.
        seed_of: registry name of the embedded model that this one is another seed of; results of such models may be averaged.
            Empty for all others.
        convert: command that makes a readable checkpoint of the download, with SOURCE and TARGET; empty where none is needed.
        notes: what a user should know.
    """

    name: str
    source: str
    revision: str | None = None
    kind: str = "hub"
    family: str | None = None
    dtype: str = "float16"
    parameters: int | None = None
    chat_template: str | None = None
    variant: str = ""
    text_tower: tuple[str, str] | None = None
    seed_of: str = ""
    convert: str = ""
    notes: str = ""

    @property
    def size(self) -> str:
        """Size of the download for people, e.g. "14 GB"; empty where it is unknown."""
        if self.parameters is None:
            return ""
        gigabytes = self.parameters * BYTES[self.dtype] / 1e9
        return f"{gigabytes:.0f} GB" if gigabytes >= 10 else f"{gigabytes:.1f} GB"


def embedded(name: str, **more: Any) -> ModelSpec:
    """The entry of a model that ships with the package."""
    return ModelSpec(name, name, kind="embedded", dtype="float32", notes="ships with the package", **more)
