"""Which model a family's name stands for on this machine: `llava-hr` is llava-hr-7b where that is, else llava-hr-tiny.

A family's file (`families/`) names its standard checkpoint and its sibling that ships with the package. Which of them was
taken is never silent: `ChosenModel.note` says it, and how to get the other.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from fitprune.errors import FitPruneError
from harness.models.checkpoint import checkpoint_folder
from harness.models.families import FAMILY_NAMES
from harness.models.registry import MODELS, embedded_models
from harness.models.spec import NO_UNPAD, FamilyName, ModelSpec


@dataclass(frozen=True)
class ChosenModel:
    """A model as it was asked for, and what was taken.

    Attributes:
        asked: what was typed.
        name: what `find_model` and `load_model` take; the same as `asked`, unless that is a family's name.
        note: one line for people, which model was taken for a family's name and how to get the other; empty otherwise.
    """

    asked: str
    name: str
    note: str = ""

    @property
    def label(self) -> str:
        """`llava-hr-tiny (for llava-hr)`; for a model that was asked for by its own name, that name."""
        return self.name if self.asked == self.name else f"{self.name} (for {self.asked})"


def choose_model(asked: str, weights: bool = True) -> ChosenModel:
    """What a name stands for here: of a family its standard checkpoint if that is on this machine, else its embedded sibling.

    Any other name stands for itself, whether there is such a model or not. With `weights` false, a family without either
    gives its standard checkpoint, whose configuration ships with the package.
    Raises FitPruneError, in one line that says how to download, for a family of which nothing is here.
    """
    base, colon, variant = asked.rpartition(":")
    if variant == NO_UNPAD and base in FAMILY_NAMES:
        chosen = choose_model(base, weights)
        return replace(chosen, asked=asked, name=chosen.name + colon + variant)
    if asked not in FAMILY_NAMES:
        return ChosenModel(asked, asked)
    family = FAMILY_NAMES[asked]
    standard = MODELS[family.standard]
    if (name := _here(standard)) is not None:
        return ChosenModel(asked, name, _taken(family, name))
    how = f"{family.standard} is not on this machine; {how_to_get(standard)}"
    if family.embedded:
        return ChosenModel(asked, family.embedded, f"{asked}: {family.embedded} is taken, which ships with the package; {how}")
    if not weights:
        return ChosenModel(asked, family.standard, f"{asked}: {family.standard} is taken, by its configuration alone")
    raise FitPruneError(
        f"'{asked}' names a family of which no model is here: {how}, "
        f"or take a model that ships with the package: --model {', '.join(embedded_models())}"
    )


def announced(asked: str, weights: bool = True) -> ChosenModel:
    """`choose_model`, with its note on the standard error: for commands."""
    chosen = choose_model(asked, weights)
    if chosen.note:
        print(chosen.note, file=sys.stderr)
    return chosen


def how_to_get(spec: ModelSpec) -> str:
    """The commands that bring a registered model onto this machine."""
    size = f" ({spec.size})" if spec.size else ""
    convert = f", then '{spec.convert.replace('SOURCE', 'FOLDER').replace('TARGET', spec.name)}'" if spec.convert else ""
    return f"get it with 'fitprune download {spec.name}'{size}{convert}"


def _taken(family: FamilyName, name: str) -> str:
    other = f"; the small one that ships with the package: --model {family.embedded}" if family.embedded else ""
    return f"{family.name}: {name} is taken, which is on this machine{other}"


def _here(spec: ModelSpec) -> str | None:
    """The name by which a registered hub model can be loaded; None where its weights are not on this machine.

    One that is to be converted is looked for where its conversion is told to write it, in a folder of its name here.
    """
    if spec.convert:
        return f"./{spec.name}" if any(Path(spec.name).glob("*.safetensors")) else None
    try:
        folder = checkpoint_folder(spec)
    except FitPruneError:
        return None
    return spec.name if any(folder.glob("*.safetensors")) else None
