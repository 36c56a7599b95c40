"""The registry of pruning methods, by the name that the command line takes.

Other packages add methods by entry points of the group `fitprune.pruners`, name = "module:Class".
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fitprune.errors import FitPruneError, unknown_name
from fitprune.registries import Registry

if TYPE_CHECKING:
    from fitprune import Pruner

GROUP = "fitprune.pruners"

# In the order of the tables: the controls first, then by where they prune.
CLASS_PATHS = {
    "dense": "baselines.controls.dense:Dense",
    "fitprune": "fitprune:FitPrune",
    "random": "baselines.controls.random_pruning:Random",
    "uniform": "baselines.controls.uniform:Uniform",
    "pool": "baselines.controls.pool:Pool",
    "downsample": "baselines.controls.downsample:Downsample",
    "tome": "baselines.in_tower.tome:ToMe",
    "fastv": "baselines.between_layers.fastv:FastV",
    "vtw": "baselines.between_layers.vtw:VTW",
    "pyramiddrop": "baselines.between_layers.pyramiddrop:PyramidDrop",
    "sparsevlm": "baselines.between_layers.sparsevlm:SparseVLM",
    "sparsevlm-plus": "baselines.between_layers.sparsevlm:SparseVLMPlus",
    "dart": "baselines.between_layers.dart:DART",
    "visionzip": "baselines.before_decoder.visionzip:VisionZip",
    "fastervlm": "baselines.before_decoder.fastervlm:FasterVLM",
    "vispruner": "baselines.before_decoder.vispruner:VisPruner",
    "prumerge": "baselines.before_decoder.prumerge:PruMerge",
    "hired": "baselines.before_decoder.hired:HiRED",
    "divprune": "baselines.before_decoder.divprune:DivPrune",
    "gprune": "baselines.before_decoder.gprune:GPrune",
    "scope": "baselines.before_decoder.scope:SCOPE",
    "holov": "baselines.before_decoder.holov:HoloV",
    "hiprune": "baselines.before_decoder.hiprune:HiPrune",
    "trim": "baselines.before_decoder.trim:TRIM",
    "cdpruner": "baselines.before_decoder.cdpruner:CDPruner",
    "mmtok": "baselines.before_decoder.mmtok:MMTok",
    "cdpruner-embeddings": "baselines.before_decoder.cdpruner:CDPrunerEmbeddings",
    "restore-holov": "baselines.wrappers.restore:RestoreHoloV",
    "restore-vispruner": "baselines.wrappers.restore:RestoreVisPruner",
    "restore-divprune": "baselines.wrappers.restore:RestoreDivPrune",
    "cosine": "baselines.before_decoder.cosine:Cosine",
    "dart-embeddings": "baselines.before_decoder.dart_embeddings:DARTEmbeddings",
    "evs": "baselines.on_videos.evs:EVS",
    "vidcom2": "baselines.on_videos.vidcom2:VidCom2",
}

# What `--pruner composed` stands for, the pairs that UniPruneBench's code can run (arXiv 2511.02650; controls left out): each
# of its methods before the decoder, and after it each between layers.
COMPOSED = tuple(f"{first}+{then}" for first in ("divprune", "gprune") for then in ("fitprune", "fastv", "pyramiddrop", "dart"))


def _fault(loaded: object) -> str:
    from fitprune import Pruner

    return "" if isinstance(loaded, type) and issubclass(loaded, Pruner) else "is no subclass of fitprune.Pruner"


# A class is imported when it is looked up, so listing names does not load torch.
PRUNERS: Mapping[str, "type[Pruner]"] = Registry(CLASS_PATHS, GROUP, "pruner", _fault)


def get_pruner_class(name: str) -> "type[Pruner]":
    """The class registered under `name`; for several names joined by a plus sign, the class of these one after the other.

    The latter's `for_reduction` solves all of them together (`baselines.shared.together`).

    Raises:
        FitPruneError: as `check_name`; another package's class that cannot be loaded.
    """
    check_name(name)
    if "+" not in name:
        return PRUNERS[name]
    from baselines.shared.together import together

    return together(tuple(PRUNERS[part] for part in name.split("+")))


def check_name(name: str) -> None:
    """Raise FitPruneError for a name that no pruner has (the message lists the nearest); for one that stands twice in a
    sequence, or `dense` in one. Imports no pruner.
    """
    parts = name.split("+")
    for part in parts if len(parts) > 1 else ():
        if not part:
            raise FitPruneError(f"'{name}' has a plus sign with no pruner beside it; write it as visionzip+fitprune.")
        if part == "dense":
            raise FitPruneError(f"dense prunes nothing, before or after another pruner; leave it out of '{name}'.")
        if parts.count(part) > 1:
            raise FitPruneError(f"'{name}' names {part} twice; ask {part} by itself for the whole reduction.")
    for part in parts:
        if part not in PRUNERS:
            raise unknown_name("pruner", part, PRUNERS)
