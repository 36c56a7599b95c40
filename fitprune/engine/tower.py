"""One pass of images through the vision tower, under a pruner that looks into it or changes what runs in it.

What a method may see or change there: the pixels (`Pruner.before_tower`), the tokens after a layer's attention
(`Pruner.after_tower_attention`), queries and keys of the layers it observes. A tower that ends with fewer tokens than the
prompt has places fills these up with zeros after the projector; the places are dropped before the decoder's first layer.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fitprune.errors import UnsupportedModel
from fitprune.interface.trace import TowerCounts
from fitprune.models.parts import Anatomy, anatomy

if TYPE_CHECKING:
    from fitprune.pruner import Pruner

# Where towers of a known form keep their layers: transformers' CLIP and SigLIP, and LLaVA-HR's CLIP branch.
LAYER_HOMES = ("encoder.layers", "fast.encoder.layers")
KNOWN_LAYERS = frozenset({"CLIPEncoderLayer", "SiglipEncoderLayer"})


@dataclass
class TowerTokens:
    """The tokens of a tower after the attention and its residual of one layer.

    Attributes:
        hidden: (views, t, width).
        key: (views, heads, t, d), that attention's keys; None in what a method returns.
        size: (views, t): how many patches each token stands for.
        seat: LongTensor (views, t): the patch that a token is named by, -1 for [CLS].
        macs: multiply-accumulates spent on scoring.
    """

    hidden: torch.Tensor
    key: torch.Tensor | None
    size: torch.Tensor
    seat: torch.Tensor
    macs: int = 0

    def spend(self, macs: int) -> None:
        """Note multiply-accumulates that scoring took, for all views."""
        self.macs += int(macs)


@dataclass(frozen=True)
class Tower:
    """The parts of a tower of a known form.

    Attributes:
        module, layers, projector: the tower, its attention layers, and what turns its features into embeddings.
        has_cls: whether [CLS] is the first token.
        mixes: whether something beside the layers works on the grid of tokens between them (LLaVA-HR's adapters).
        feature_layer: index of the layer whose output is read.
    """

    module: Any
    layers: Any
    projector: Any
    has_cls: bool
    mixes: bool
    feature_layer: int

    @classmethod
    def of(cls, parts: Anatomy) -> "Tower | None":
        """The model's tower; None where its form is not known."""
        config = parts.parent.config
        for home in LAYER_HOMES:
            layers: Any = parts.tower
            for name in home.split("."):
                layers = getattr(layers, name, None)
            if isinstance(layers, nn.ModuleList) and {type(layer).__name__ for layer in layers} <= KNOWN_LAYERS:
                mixes = home.startswith("fast")
                read = -1 if mixes else getattr(config, "vision_feature_layer", None)
                projector = getattr(parts.parent, "multi_modal_projector", None)
                if not isinstance(read, int) or projector is None:
                    return None
                cls_first = not mixes and config.vision_config.model_type == "clip_vision_model"
                # hidden_states[i] is what enters layer i, and the last one what leaves the last layer.
                after = read - 1 if read >= 0 else len(layers) + read
                return cls(parts.tower, layers, projector, cls_first, mixes, after)
        return None


def looks_into_tower(pruner: "Pruner") -> bool:
    """Whether the method sees or changes anything before the decoder."""
    return pruner.vision or changes(pruner, "before_tower") or changes(pruner, "after_tower_attention")


def require_tower(model: Any, pruner: "Pruner") -> Tower:
    """The model's tower, in a form that `pruner` can work with; raises UnsupportedModel, saying why, where it is not."""
    tower = Tower.of(anatomy(model))
    name = type(model).__name__
    if tower is None:
        raise UnsupportedModel(f"{pruner.name} works on a CLIP or SigLIP tower; that of {name} has another form.")
    if tower.has_cls and getattr(model.config, "vision_feature_select_strategy", "default") != "default":
        raise UnsupportedModel(f"{pruner.name} needs visual tokens that are patches; {name} here has [CLS] among them.")
    if tower.mixes and changes(pruner, "after_tower_attention"):
        raise UnsupportedModel(
            f"{pruner.name} merges tokens between the tower's layers; {name} mixes them on their grid there, so they must stay."
        )
    return tower


def changes(pruner: "Pruner", name: str) -> bool:
    """Whether the method overrides `before_tower`, or `after_tower_attention`."""
    from fitprune.pruner import Pruner

    return getattr(type(pruner), name) is not getattr(Pruner, name)


@dataclass(frozen=True)
class TowerRecord:
    """What a method that changes nothing sees of the tower: the attributes of `TowerRun` of these names."""

    query: dict[int, torch.Tensor]
    key: dict[int, torch.Tensor]
    features: torch.Tensor
    cls_features: torch.Tensor | None
    grid: tuple[int, int]
    views: list[int]
    places: list[torch.Tensor]

    def joined(self, other: "TowerRecord") -> "TowerRecord":
        """With the layers of another record of the same images beside its own."""
        return dataclasses.replace(self, query={**other.query, **self.query}, key={**other.key, **self.key})


class TowerRun:
    """One call of a model's `get_image_features` under a pruner.

    Attributes:
        query, key: by layer, (views, heads, tokens, d), of the layers that the pruner observes.
        features: (views, patches, width), what entered the projector.
        cls_features: (views, width), [CLS] beside them; None where there is none.
        seats: LongTensor (views, m): the patch each feature is named by, where they are fewer than the prompt's places.
        grid: rows and columns of a view's patches, at full size.
        views: per image, how many of the views are of it.
        places: per image, LongTensor: the flat number (view × patches + patch) of each of its places in the prompt, -1 for
            newline tokens.
        macs: spent on scoring inside the tower.
        counts: what ran, where a method changed it; else None.
    """

    def __init__(self, tower: Tower, pruner: "Pruner") -> None:
        self.tower, self.pruner = tower, pruner
        self.active = True
        total = len(tower.layers)
        self.observed = {index % total for index in pruner.observed_tower_layers(total)}
        self.merges, self.resizes = (changes(pruner, name) for name in ("after_tower_attention", "before_tower"))
        self.query: dict[int, torch.Tensor] = {}
        self.key: dict[int, torch.Tensor] = {}
        self.features: torch.Tensor | None = None
        self.cls_features: torch.Tensor | None = None
        self.seats: torch.Tensor | None = None
        self.grid = (0, 0)
        self.views: list[int] = []
        self.places: list[torch.Tensor] | None = None
        self.macs = 0
        self.counts: TowerCounts | None = None
        self._tokens: TowerTokens | None = None
        self._key: torch.Tensor | None = None

    @property
    def changes(self) -> bool:
        """Whether the method changes what runs in the tower."""
        return self.merges or self.resizes

    def record(self) -> TowerRecord | None:
        """What the run has seen; None where it has seen nothing."""
        if self.features is None:
            return None
        self._number_places()
        places = self.places or []
        return TowerRecord(self.query, self.key, self.features, self.cls_features, self.grid, self.views, places)

    def restore(self, record: TowerRecord | None) -> bool:
        """Take over what an earlier run on the same images has seen; False where that is not all that is asked for."""
        if record is None or not self.observed <= record.query.keys():
            return False
        for field in dataclasses.fields(record):
            setattr(self, field.name, getattr(record, field.name))
        return True

    @property
    def patches(self) -> int:
        """Patches of a view, at full size."""
        return self.grid[0] * self.grid[1]

    def encode(self, forward: Callable[..., Any], pixels: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """The tower's forward, on other pixels where the method gives such."""
        patch = _patch_size(self.tower.module)
        self.grid = _grid(self.tower.module, pixels, patch)
        other = self.pruner.before_tower(pixels) if self.resizes else None
        if other is not None:
            if not self.tower.mixes:
                kwargs = {**kwargs, "interpolate_pos_encoding": True}
            rows, columns = _grid(self.tower.module, other, patch)
            if rows > self.grid[0] or columns > self.grid[1]:
                raise UnsupportedModel(f"{self.pruner.name} gave the tower larger pictures than the prompt has places for.")
            self.seats = _lattice(self.grid, (rows, columns)).to(pixels.device).expand(len(pixels), -1)
        pixels = pixels if other is None else other
        if other is not None or self.merges:
            self.counts = TowerCounts(len(pixels), (pixels.shape[-2], pixels.shape[-1]), [], [], 0)
        return forward(pixels, **kwargs)

    def run_layer(
        self, index: int, layer: Any, forward: Callable[..., Any], hidden: torch.Tensor, kwargs: dict[str, Any]
    ) -> Any:
        """One layer of the tower; in its two halves where the method merges tokens between them."""
        entered = hidden.shape[1]
        output = self._merge(index, layer, hidden, kwargs) if self.merges else forward(hidden, **kwargs)
        if self.counts is not None:
            self.counts.attended.append(entered)
            self.counts.fed.append(output.shape[1])
        if index == self.tower.feature_layer:
            if self.tower.has_cls:
                self.cls_features = output[:, 0]
            if self._tokens is not None and output.shape[1] < self.patches + self.tower.has_cls:
                self.seats = self._tokens.seat[:, int(self.tower.has_cls) :]
        return output

    def _merge(self, index: int, layer: Any, hidden: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        tokens = self._tokens
        if tokens is None:
            views, count = hidden.shape[:2]
            seat = torch.arange(count, device=hidden.device) - int(self.tower.has_cls)
            tokens = TowerTokens(hidden, None, hidden.new_ones(views, count), seat.expand(views, -1))
        mask = None
        if bool((tokens.size != 1).any()):
            implementation = layer.self_attn.config._attn_implementation
            if "flash" in str(implementation):
                raise UnsupportedModel(f"{self.pruner.name} weighs the tower's attention by size; load it with SDPA.")
            mask = tokens.size.log()[:, None, None].to(hidden.dtype)
        attended, _ = layer.self_attn(**{**kwargs, "hidden_states": layer.layer_norm1(hidden), "attention_mask": mask})
        hidden = hidden + attended
        merged = self.pruner.after_tower_attention(index, TowerTokens(hidden, self._key, tokens.size, tokens.seat))
        self._key = None
        if merged is not None:
            self.macs += merged.macs
            hidden = merged.hidden
        self._tokens = tokens if merged is None else merged
        return hidden + layer.mlp(layer.layer_norm2(hidden))

    def note_projection(self, index: int, part: str, output: torch.Tensor) -> None:
        """Queries or keys as they leave their projection, (views, tokens, width)."""
        heads = output.unflatten(-1, (self.tower.layers[index].self_attn.num_heads, -1)).transpose(1, 2)
        if index in self.observed:
            (self.query if part == "q_proj" else self.key)[index] = heads
        if self.merges and part == "k_proj":
            self._key = heads

    def before_projector(self, features: torch.Tensor) -> None:
        """Note the features that enter the projector."""
        self.features = features
        if self.counts is not None:
            self.counts.projected = features.shape[1]

    def after_projector(self, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings (views, patches, hidden_size): in place of fewer ones, these at their seats and zeros elsewhere."""
        if self.seats is None:
            return embeds
        full = embeds.new_zeros(len(embeds), self.patches, embeds.shape[-1])
        return full.scatter(1, self.seats[..., None].expand_as(embeds), embeds)

    def numbers(self, views: list[int]) -> list[torch.Tensor]:
        """Per image of so many views, the flat numbers of its patches, (views, patches, 1), as features that can be packed."""
        assert self.features is not None
        self.views = views
        numbers = torch.arange(sum(views) * self.patches, dtype=torch.float32, device=self.features.device)
        return list(numbers.view(-1, self.patches, 1).split(views))

    def note_packing(self, packed: list[torch.Tensor]) -> None:
        """What a model's packing made of `numbers`, newlines being -1."""
        if any(bool((image != image.round()).any()) for image in packed):
            raise UnsupportedModel(
                f"{self.pruner.name} needs to know which patch a visual token is; "
                "this image is so large that its tiles are resampled."
            )
        self.places = [image.flatten().long() for image in packed]

    def finish(self) -> None:
        """The images are encoded; from here on the run is read only."""
        self.active = False
        self._number_places()

    def _number_places(self) -> None:
        """Where nothing packs tiles, each picture is an image, and its patches are its places."""
        if self.places is None and self.features is not None:
            self.places = [image.flatten().long() for image in self.numbers([1] * len(self.features))]


def _patch_size(module: Any) -> int:
    config = module.config
    return getattr(config, "clip_config", config).patch_size


def _grid(module: Any, pixels: torch.Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of patches that the tower makes of `pixels`."""
    height, width = pixels.shape[-2:]
    own = getattr(module.config, "grid", None)  # LLaVA-HR's says it itself
    return own(height, width) if own is not None else (height // patch, width // patch)


def _lattice(full: tuple[int, int], coarse: tuple[int, int]) -> torch.Tensor:
    """LongTensor (rows × columns,): for each cell of the coarse grid, the patch of the full grid at its middle."""
    rows, columns = (((2 * torch.arange(few) + 1) * many) // (2 * few) for many, few in zip(full, coarse, strict=True))
    return (rows[:, None] * full[1] + columns).flatten()
