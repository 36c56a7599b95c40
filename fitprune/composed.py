"""`Composed`: several pruners at once, one after the other."""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fitprune.errors import FitPruneError
from fitprune.interface.tower import TowerTokens
from fitprune.pruner import Pruner

OWN = "own"


@dataclass
class Composed(Pruner):
    """Pruners that work one after the other on one model.

        with Composed([VisionZip(...), FitPrune(recipe)])(model) as trace:
            model.generate(**inputs)

    At every point of the model the pruners are asked in the order given, and each sees what the ones before it have left. So
    a method that works before the decoder comes before one between its layers, wherever they stand in the list; the order
    decides where two of them work at one point. What each means by "the prompt's visual tokens" (`VisualTokens.total`, from
    which most methods work out how many they keep) is what the others left before the decoder: a share is a share of these, and
    a FitPrune recipe for n tokens drops `recipe.schedule(m)` of the m that are there. Their indices (`VisualTokens.original`)
    count these alone. A token that an earlier pruner made by merging has the patch of the token that it is named by, and one
    that stands for no single token has none, as a newline.

    After a layer's attention, which is computed once, the later pruner reads the same attention at the tokens that the earlier
    one leaves. `trace.scoring_macs` adds up what all of them spend; `Trace.kept` has the indices of the whole prompt.

    Each cut numbers position ids anew or keeps them as its own pruner says. After a "repacked" cut the ids are 0, 1, … over the
    tokens left; a "kept" cut after it leaves gaps in these. A token decoded later counts on from the last "repacked" cut before
    its layer. All pruners must treat newline tokens alike, and only one may change what runs in the vision tower.

    Attributes:
        pruners: in the order in which they are asked; those of a `Composed` among them stand in its place.
        positions: "own": as each pruner says; "kept" or "repacked": all of them so.
        newlines: "own": as they say; "kept" or "pruned": all of them so.

    Raises:
        FitPruneError: none given, or pruners that cannot work together.
    """

    pruners: Sequence[Pruner]
    newlines: str = field(default=OWN, kw_only=True)
    positions: str = field(default=OWN, kw_only=True)

    def __post_init__(self) -> None:
        for each in self.pruners:
            if not isinstance(each, Pruner):
                raise FitPruneError(f"Composed takes pruners, not {each!r}.")
        wishes = {name: wish for name in ("newlines", "positions") if (wish := getattr(self, name)) != OWN}
        flat = (each for pruner in self.pruners for each in (pruner.pruners if isinstance(pruner, Composed) else [pruner]))
        self.pruners = tuple(dataclasses.replace(each, **wishes) if wishes else each for each in flat)
        if not self.pruners:
            raise FitPruneError("Composed needs at least one pruner.")
        changing = [each.name for each in self.pruners if each.changes_tower]
        if len(changing) > 1:
            raise FitPruneError(
                f"{' and '.join(changing)} change what runs in the vision tower; Composed takes one such pruner."
            )
        biasing = [each.name for each in self.pruners if each.biases_attention]
        if biasing and len(self.pruners) > 1:
            raise FitPruneError(f"{biasing[0]} changes the decoder's attention, which no other pruner expects; use it alone.")
        newlines = {each.newlines for each in self.pruners}
        if len(newlines) > 1:
            each_wish = ", ".join(f"{each.name}: {each.newlines}" for each in self.pruners)
            raise FitPruneError(f"composed pruners must treat newline tokens alike ({each_wish}); pass newlines= to Composed.")
        (self.newlines,) = newlines

    @property
    def name(self) -> str:  # type: ignore[override]  # of this one, not of its class
        """The names of the pruners, joined by a plus sign."""
        return "+".join(each.name for each in self.pruners)

    @property
    def members(self) -> tuple[Pruner, ...]:
        return tuple(self.pruners)

    @property
    def vision(self) -> bool:  # type: ignore[override]
        return any(each.vision for each in self.pruners)

    @property
    def merges_in_tower(self) -> bool:  # type: ignore[override]
        return any(each.merges_in_tower for each in self.pruners)

    @property
    def resizes_pictures(self) -> bool:  # type: ignore[override]
        return any(each.resizes_pictures for each in self.pruners)

    def require(self, model: nn.Module) -> None:
        for each in self.pruners:
            each.require(model)

    def notes(self, model: nn.Module) -> list[str]:
        return [note for each in self.pruners for note in each.notes(model)]

    def observed_tower_layers(self, layers: int) -> Collection[int]:
        return {layer % layers for each in self.pruners for layer in each.observed_tower_layers(layers)}

    def before_tower(self, pixels: torch.Tensor) -> torch.Tensor | None:
        return next((each.before_tower(pixels) for each in self.pruners if each.resizes_pictures), None)

    def after_tower_attention(self, layer: int, tower: TowerTokens) -> TowerTokens | None:
        return next((each.after_tower_attention(layer, tower) for each in self.pruners if each.merges_in_tower), None)

    def params(self) -> dict[str, Any]:
        recorded = [{"name": each.name, **each.params()} for each in self.pruners]
        # How parameters came to be stands apart from what they are, as in a single pruner's.
        origins = {record["name"]: record.pop("provenance") for record in recorded if "provenance" in record}
        origin = {"provenance": origins} if origins else {}
        return {"pruners": recorded, "positions": self.positions, "newlines": self.newlines, **origin}
