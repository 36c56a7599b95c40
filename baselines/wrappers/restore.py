"""RESTORE: half of the tokens by another method, the others merged; attention is told how many tokens each one stands for."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from baselines.before_decoder.divprune import DivPrune
from baselines.before_decoder.holov import HoloV
from baselines.before_decoder.vispruner import VisPruner, spent
from baselines.shared.budget import dropped_before_decoder
from baselines.shared.clustering import group_means
from baselines.shared.counts import check_counts, share
from baselines.shared.padded import group_sums, highest, indices_of, ranks_in_groups, rows_at
from baselines.shared.tower_attention import dropped_after_tower, salience_macs
from fitprune import FitPruneError, Pruner, Selection, UnsupportedModel
from fitprune.interface.bias import AttentionBias
from fitprune.interface.tokens import VisualTokens
from fitprune.models.parts import has_axes, model_parts
from fitprune.models.sizes import DecoderSizes

BLOCK = 1024
"""Rows of the cosine matrix that are held at once."""


@dataclass
class Restore(Pruner):
    """RESTORE (Cho et al., ICML 2026, arXiv 2606.01711; code github.com/cvlab-yonsei/RESTORE), training-free.

    Of the `retention` tokens that go on, another method chooses int(retention·(1 - merged)). The tokens that it drops are
    merged into the rest: anchors are the dropped tokens of highest density · distinctiveness. The density of a token is the
    sum of its cosines (projected embeddings) to all dropped tokens, and its distinctiveness is one minus the largest cosine to
    a token of lower density; one, where none has lower density. Every other dropped token joins the anchor of largest cosine.
    An anchor goes on as the mean of its group, at the position id of the group's middle member, the earlier of two. Position
    ids are kept. Stage: between projector and decoder.

    Attention is calibrated in every layer of the prefill. Where a query at position m sees a key at n, which stands for s
    tokens, log(s) + log(2 - D(m - n)) is added to their logit; D(d) is the mean of cos(d·f) over the frequencies f of the
    rotary embedding. In the first layer s is the same for all visual tokens, prompt's through left, as in the authors' code.
    Tokens decoded later add log(s) alone. Needs attention that takes a mask of numbers (SDPA or eager).

    The name of a variable in the authors' code says that a token is compared with those of *higher* density, as density-peak
    clustering does. The code compares with those of lower density. Their figures come from the code, and so does this.

    Deviations:

    - The frequencies of D are the decoder's. The authors write LLaVA-1.5's (128 channels, base 10 000).
    - The authors take 35 tokens to stand before the image, and one prompt at a time.
    - Density, cosines and means are float32 (the authors': the model's half precision).
    - In later turns of a conversation, which the authors do not have, queries add log(s) alone.
    - Position ids on three axes, and frequencies that differ between layers, are refused while attention is calibrated.
    - In Qwen3-VL, DeepStack adds to an anchor what belongs to its group's middle member; the authors have no such model.

    Attributes:
        retention: tokens that go on, of `visual_tokens` (authors': 64, 128 or 192).
        merged: share of these that are made by merging (authors': 0.5); 0 for none, as in a row of the authors' Table 4.
        calibrated: whether attention is calibrated. False is another row of that table.
        visual_tokens: the number that `retention` refers to. Other prompts keep the same share.
    """

    retention: int = 64
    merged: float = 0.5
    calibrated: bool = True
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("RESTORE", {"retention": self.retention}, self.visual_tokens)
        if not 0 <= self.merged <= 1:
            raise FitPruneError(f"RESTORE merges a share of the tokens that go on, 0 to 1, not {self.merged}.")

    @property
    def base(self) -> Pruner:
        """The method that chooses, for the tokens that go on as they are."""
        raise NotImplementedError

    @property
    def chosen(self) -> int:
        """Of `visual_tokens`, those that go on as they are."""
        return int(self.retention * (1 - self.merged))

    def check(self, model: nn.Module) -> None:
        super().check(model)
        self.base.check(model)
        if not self.calibrated:
            return
        kind = getattr(model.config, "model_type", "")
        if has_axes(model.config):
            raise UnsupportedModel(
                f"{self.name} calibrates attention by the distance of two positions; {kind} has three axes of them. Take "
                "calibrated=False."
            )
        if not hasattr(model_parts(model).decoder.rotary_emb, "inv_freq"):
            raise UnsupportedModel(
                f"{self.name} calibrates attention by the frequencies of the rotary embedding; {kind} has others in some "
                "layers. Take calibrated=False."
            )

    def notes(self, model: nn.Module) -> list[str]:
        return self.base.notes(model)

    def observed_tower_layers(self, layers: int) -> Any:
        return self.base.observed_tower_layers(layers)

    def before_layer(self, layer: int, tokens: VisualTokens) -> Selection | None:
        if layer != 0:
            return None
        choice = self.base.before_layer(0, tokens)
        assert isinstance(choice, torch.Tensor)
        totals = tokens.layout.totals
        left = tuple(round(total * self.retention / self.visual_tokens) for total in totals)
        chosen = [round(total * self.chosen / self.visual_tokens) for total in totals]
        made = [after - before for after, before in zip(left, chosen, strict=True)]
        stays, hidden, size = choice & tokens.present, tokens.features, choice.float()
        if any(made):
            loose = tokens.present & ~choice
            # Newline tokens are no patches, and a base that knows these alone may choose fewer tokens.
            most = max(made) if self.newlines == "kept" else max(left)
            anchors = share(tokens.total, self.retention, self.visual_tokens) - choice.sum(1)
            stays, hidden, size = merge(hidden, stays, loose, anchors, most)
            tokens.spend(sum(n * (n + 1 + 2 * most) for n in totals) * hidden.shape[-1])
        tokens.memory["length"] = tokens.hidden.shape[1]
        tokens.carried |= {"size": tokens.spread(size), "position": tokens.layout.position_ids()}
        index = indices_of(stays, max(left))
        return Selection(index, rows_at(hidden, index), counts=left)

    def attention_bias(self, layer: int, tokens: VisualTokens) -> AttentionBias | None:
        if not self.calibrated:
            return None
        if layer == 0:
            tokens.memory["pairs"] = self._distances(tokens)
        if layer < 2:
            same = (tokens.total / tokens.count)[:, None].expand_as(tokens.position)
            size = tokens.columns(tokens.carried["size"]) if layer else same
            tokens.memory["keys"] = size.log().masked_fill(~tokens.present, 0)
        return AttentionBias(tokens.memory["keys"], tokens.memory["pairs"])

    def _distances(self, tokens: VisualTokens) -> torch.Tensor:
        """(batch, T, T): log(2 - D) of each query and key."""
        assert tokens.parts is not None
        frequency = tokens.parts.decoder.rotary_emb.inv_freq.float().to(tokens.hidden.device)
        decay = torch.outer(torch.arange(tokens.memory["length"], device=frequency.device).float(), frequency).cos().mean(1)
        position = tokens.carried["position"]
        away = (position[:, :, None] - position[:, None]).clamp(min=0)
        return (2 - decay).log()[away] * tokens.present.any(1)[:, None, None]

    @classmethod
    def scoring(cls, model_config: Any, n: int, chosen: int) -> int:
        """What the base spends to choose so many of n tokens, in multiply-accumulates."""
        raise NotImplementedError

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        merged: float = 0.5,
        calibrated: bool = True,
    ) -> "Restore":
        """Solve `retention` for a FLOPs budget, the base's choice and the merging included."""
        width = DecoderSizes.of(model_config).hidden_size

        def scoring(n: int, dropped: int) -> int:
            chosen = int((n - dropped) * (1 - merged))
            made = n - dropped - chosen
            return cls.scoring(model_config, n, chosen) + (n * (n + 1 + 2 * made) * width if made else 0)

        solve = dropped_after_tower if cls.vision else dropped_before_decoder
        n, dropped = solve("RESTORE", model_config, reduction, visual_tokens, scoring)
        return cls(n - dropped, merged, calibrated, n)


@dataclass
class RestoreHoloV(Restore):
    """`Restore` on `HoloV`'s choice."""

    name: ClassVar[str] = "restore-holov"
    vision: ClassVar[bool] = True

    @property
    def base(self) -> Pruner:
        return HoloV(self.chosen, visual_tokens=self.visual_tokens)

    @classmethod
    def scoring(cls, model_config: Any, n: int, chosen: int) -> int:
        return salience_macs(model_config, n)


@dataclass
class RestoreVisPruner(Restore):
    """`Restore` on `VisPruner`'s choice."""

    name: ClassVar[str] = "restore-vispruner"
    vision: ClassVar[bool] = True

    @property
    def base(self) -> Pruner:
        return VisPruner(self.chosen, visual_tokens=self.visual_tokens)

    @classmethod
    def scoring(cls, model_config: Any, n: int, chosen: int) -> int:
        return spent(model_config, n, chosen, VisPruner.important_ratio)


@dataclass
class RestoreDivPrune(Restore):
    """`Restore` on `DivPrune`'s choice."""

    name: ClassVar[str] = "restore-divprune"

    @property
    def base(self) -> Pruner:
        return DivPrune(self.chosen / self.visual_tokens)

    @classmethod
    def scoring(cls, model_config: Any, n: int, chosen: int) -> int:
        return n**2 * DecoderSizes.of(model_config).hidden_size


@torch.no_grad()
def merge(
    features: torch.Tensor, chosen: torch.Tensor, loose: torch.Tensor, anchors: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """RESTORE's merging.

    Args:
        features: (batch, n, d), the projected embeddings.
        chosen, loose: bool (batch, n): the tokens that go on as they are; those that are merged.
        anchors: LongTensor (batch,): into how many; all loose tokens are anchors where they are fewer.
        most: at least 1, and no less than the largest of these.

    Returns:
        bool (batch, n): the chosen tokens, and of each group the one by which it is named; (batch, n, d): their features; and
        float (batch, n): how many tokens each stands for, 0 for those that leave.
    """
    unit = functional.normalize(features.float(), dim=-1).masked_fill(~loose[..., None], 0)
    density = (unit @ unit.sum(1, keepdim=True).mT)[..., 0]
    nearest = torch.cat(
        [
            (rows @ unit.mT).masked_fill(~((density[:, None] < own[..., None]) & loose[:, None]), -1).amax(2)
            for rows, own in zip(unit.split(BLOCK, 1), density.split(BLOCK, 1), strict=True)
        ],
        1,
    )
    score = density * (1 - nearest.masked_fill(nearest == -1, 0))
    anchor = highest(score, loose, anchors)
    index = indices_of(anchor, most)
    alike = (unit @ rows_at(unit, index).mT).masked_fill((index < 0)[:, None], -torch.inf)
    group = torch.where(anchor, anchor.cumsum(1) - 1, alike.argmax(2))
    group = group.masked_fill(~loose | (anchors < 1)[:, None], -1)
    size = group_sums(torch.ones_like(density), group, most)
    means = group_means(features.float(), group, most).to(features.dtype)
    rank = ranks_in_groups(torch.zeros_like(density), group, most)  # of equals, the earlier comes first
    own_size = size.gather(1, group.clamp(min=0))
    named = (group >= 0) & (rank == ((own_size - 1) // 2).long())
    hidden = torch.where(named[..., None], rows_at(means, group), features)
    return chosen | named, hidden, torch.where(named, own_size, chosen.to(density.dtype))
