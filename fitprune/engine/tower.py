"""`TowerRun`: one pass of images through the vision tower, under a pruner that looks into it or changes what runs in it.

A method may change the pixels (`Hooks.before_tower`) and the tokens after a layer's attention (`Hooks.after_tower_attention`),
and see queries and keys of the layers that it observes. Where the tower ends with fewer tokens than the prompt has positions,
the other positions are filled with zeros after the projector, and dropped before the decoder's first layer.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from fitprune.errors import UnsupportedModel
from fitprune.interface.hooks import Hooks
from fitprune.interface.tower import TowerRecord, TowerTokens
from fitprune.interface.trace import TowerCounts
from fitprune.models.execution import execution_device, moved, own_precision
from fitprune.models.parts import model_parts
from fitprune.models.tower import TowerParts, tower_parts


def require_tower(model: Any, pruner: Hooks) -> TowerParts:
    """The parts of the model's tower.

    Raises:
        UnsupportedModel: its form is not known, or it is one that `pruner` cannot work with; one line that says why.
    """
    tower = tower_parts(model_parts(model))
    name = type(model).__name__
    if tower is None:
        raise UnsupportedModel(f"{pruner.name} works on a CLIP or SigLIP tower; that of {name} has another form.")
    require_patches(tower, pruner, getattr(model.config, "vision_feature_select_strategy", "default"))
    if tower.mixes and pruner.merges_in_tower:
        raise UnsupportedModel(
            f"{pruner.name} merges tokens between the tower's layers; {name} mixes them on their grid there, so they must stay."
        )
    return tower


def require_patches(tower: TowerParts, pruner: Hooks, strategy: str) -> None:
    """Raise UnsupportedModel where the features that are selected have [CLS] among them."""
    if tower.has_cls and strategy != "default":
        raise UnsupportedModel(
            f"{pruner.name} needs visual tokens that are patches; with vision_feature_select_strategy='{strategy}' [CLS] is "
            "among them."
        )


class TowerRun:
    """One call of a model's `get_image_features` under a pruner.

    Attributes:
        tower, query, key, features, cls_features, patch_index, grid, views, global_index: see `TowerRecord`; None or empty
            until they are known.
        active: whether images are still being encoded.
        macs: spent on scoring inside the tower.
        counts: what ran, where the method changes it; else None.
    """

    def __init__(self, tower: TowerParts, pruner: Hooks) -> None:
        self.tower, self.pruner = tower, pruner
        self.active = True
        total = len(tower.layers)
        self.observed = {index % total for index in pruner.observed_tower_layers(total)}
        self.merges, self.resizes = pruner.merges_in_tower, pruner.resizes_pictures
        self.query: dict[int, torch.Tensor] = {}
        self.key: dict[int, torch.Tensor] = {}
        self.features: torch.Tensor | None = None
        self.cls_features: torch.Tensor | None = None
        self.patch_index: torch.Tensor | None = None
        self.grid = (0, 0)
        self.views: list[int] = []
        self.global_index: list[torch.Tensor] | None = None
        self.macs = 0
        self.counts: TowerCounts | None = None
        self._tokens: TowerTokens | None = None
        self._merged = False  # so that sizes differ from 1
        self._key: torch.Tensor | None = None

    def record(self) -> TowerRecord | None:
        """What the run has seen; None where it has seen nothing."""
        if self.features is None:
            return None
        self._index_whole_images()
        return TowerRecord(
            self.tower,
            self.query,
            self.key,
            self.features,
            self.cls_features,
            self.grid,
            self.views,
            self.global_index or [],
            self.patch_index,
        )

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
        with own_precision(pixels):
            other = self.pruner.before_tower(pixels) if self.resizes else None
        if other is not None:
            if not self.tower.mixes:
                if any(weight.is_meta for weight in self.tower.module.parameters()) and not pixels.is_meta:
                    raise UnsupportedModel(
                        f"{self.pruner.name} has the tower's position embeddings interpolated, and they are offloaded: "
                        "transformers cannot. Keep the vision tower on a device."
                    )
                kwargs = {**kwargs, "interpolate_pos_encoding": True}
            rows, columns = _grid(self.tower.module, other, patch)
            if rows > self.grid[0] or columns > self.grid[1]:
                raise UnsupportedModel(f"{self.pruner.name} gave the tower larger pictures than the prompt has positions for.")
            self.patch_index = _lattice(self.grid, (rows, columns), pixels.device).expand(len(pixels), -1)
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
                self.patch_index = self._tokens.patch_index[:, int(self.tower.has_cls) :]
        return output

    def _merge(self, index: int, layer: Any, hidden: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        tokens, hidden = self._tokens, hidden.to(execution_device(layer))
        if tokens is None:
            views, count = hidden.shape[:2]
            patches = torch.arange(count, device=hidden.device) - int(self.tower.has_cls)
            tokens = TowerTokens(hidden, None, hidden.new_ones(views, count), patches.expand(views, -1))
        size, patch_index = moved((tokens.size, tokens.patch_index), hidden.device)
        mask = None
        if self._merged:
            implementation = layer.self_attn.config._attn_implementation
            if "flash" in str(implementation):
                raise UnsupportedModel(f"{self.pruner.name} weighs the tower's attention by size; load it with SDPA.")
            mask = size.log()[:, None, None].to(hidden.dtype)
        attended, _ = layer.self_attn(**{**kwargs, "hidden_states": layer.layer_norm1(hidden), "attention_mask": mask})
        hidden = hidden + attended
        with own_precision(hidden):
            tower = TowerTokens(hidden, self._key, size, patch_index, has_cls=bool(self.tower.has_cls))
            merged = self.pruner.after_tower_attention(index, tower)
        self._key = None
        if merged is not None:
            self.macs += merged.macs
            hidden = merged.hidden
            self._merged = True
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
        """Embeddings (views, patches, hidden_size): fewer embeddings are put at their patch index, with zeros elsewhere."""
        if self.patch_index is None:
            return embeds
        full = embeds.new_zeros(len(embeds), self.patches, embeds.shape[-1])
        return full.scatter(1, self.patch_index.to(embeds.device)[..., None].expand_as(embeds), embeds)

    def indices(self, views: list[int]) -> list[torch.Tensor]:
        """The global patch indices of images with so many views: (views, patches, 1) each, as features that can be packed."""
        assert self.features is not None
        self.views = views
        indices = torch.arange(sum(views) * self.patches, dtype=torch.float32, device=self.features.device)
        return list(indices.view(-1, self.patches, 1).split(views))

    def note_packing(self, packed: list[torch.Tensor]) -> None:
        """What the model's packing made of `indices`, newlines being -1."""
        if bool(torch.stack([(image != image.round()).any() for image in packed]).any()):
            raise UnsupportedModel(
                f"{self.pruner.name} needs to know which patch a visual token is; "
                "this image is so large that its tiles are resampled."
            )
        self.global_index = [image.flatten().long() for image in packed]

    def finish(self) -> None:
        """The images are encoded; from here on the run is read only."""
        self.active = False
        self._index_whole_images()

    def _index_whole_images(self) -> None:
        """Where nothing packs tiles, each view is an image, and its patches are its prompt positions."""
        if self.global_index is None and self.features is not None:
            self.global_index = [image.flatten().long() for image in self.indices([1] * len(self.features))]


def _patch_size(module: Any) -> int:
    config = module.config
    return getattr(config, "clip_config", config).patch_size


def _grid(module: Any, pixels: torch.Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of patches that the tower makes of `pixels`."""
    height, width = pixels.shape[-2:]
    own = getattr(module.config, "grid", None)  # LLaVA-HR's tower says it itself
    return own(height, width) if own is not None else (height // patch, width // patch)


def _lattice(full: tuple[int, int], coarse: tuple[int, int], device: torch.device) -> torch.Tensor:
    """LongTensor (rows × columns,): for each cell of the coarse grid, the patch of the full grid at its middle."""
    rows, columns = (
        ((2 * torch.arange(few, device=device) + 1) * many) // (2 * few) for many, few in zip(full, coarse, strict=True)
    )
    return (rows[:, None] * full[1] + columns).flatten()
