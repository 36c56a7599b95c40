"""The other pruning methods, one file each, with the same `Pruner` interface as FitPrune: `from baselines import FastV`.

A class is imported when it is first used. The names are those of `baselines.registry.CLASS_PATHS`.
"""

from typing import TYPE_CHECKING

from baselines.registry import CLASS_PATHS
from fitprune.lazy import importing

if TYPE_CHECKING:
    from baselines.before_decoder.cdpruner import CDPruner as CDPruner
    from baselines.before_decoder.cdpruner import CDPrunerEmbeddings as CDPrunerEmbeddings
    from baselines.before_decoder.cosine import Cosine as Cosine
    from baselines.before_decoder.dart_embeddings import DARTEmbeddings as DARTEmbeddings
    from baselines.before_decoder.divprune import DivPrune as DivPrune
    from baselines.before_decoder.fastervlm import FasterVLM as FasterVLM
    from baselines.before_decoder.gprune import GPrune as GPrune
    from baselines.before_decoder.hiprune import HiPrune as HiPrune
    from baselines.before_decoder.hired import HiRED as HiRED
    from baselines.before_decoder.holov import HoloV as HoloV
    from baselines.before_decoder.mmtok import MMTok as MMTok
    from baselines.before_decoder.prumerge import PruMerge as PruMerge
    from baselines.before_decoder.scope import SCOPE as SCOPE
    from baselines.before_decoder.trim import TRIM as TRIM
    from baselines.before_decoder.visionzip import VisionZip as VisionZip
    from baselines.before_decoder.vispruner import VisPruner as VisPruner
    from baselines.between_layers.dart import DART as DART
    from baselines.between_layers.fastv import FastV as FastV
    from baselines.between_layers.pyramiddrop import PyramidDrop as PyramidDrop
    from baselines.between_layers.sparsevlm import SparseVLM as SparseVLM
    from baselines.between_layers.sparsevlm import SparseVLMPlus as SparseVLMPlus
    from baselines.between_layers.vtw import VTW as VTW
    from baselines.controls.dense import Dense as Dense
    from baselines.controls.downsample import Downsample as Downsample
    from baselines.controls.pool import Pool as Pool
    from baselines.controls.random_pruning import Random as Random
    from baselines.controls.uniform import Uniform as Uniform
    from baselines.in_tower.tome import ToMe as ToMe
    from baselines.on_videos.evs import EVS as EVS
    from baselines.on_videos.vidcom2 import VidCom2 as VidCom2
    from baselines.wrappers.restore import RestoreDivPrune as RestoreDivPrune
    from baselines.wrappers.restore import RestoreHoloV as RestoreHoloV
    from baselines.wrappers.restore import RestoreVisPruner as RestoreVisPruner

_HOMES = {
    name: home for home, _, name in (path.partition(":") for path in CLASS_PATHS.values()) if home.startswith("baselines.")
}

__all__ = list(_HOMES)

if not TYPE_CHECKING:  # a type checker reads the imports above, and reports names that are not among them
    __getattr__ = importing(__name__, _HOMES)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
