"""Writes the mini suites: `fitprune scenes [--out suites/data]`; in fine print with `--canvas 1x3`."""

from harness.scenes.mini.asking import POPE_SPLITS, class_statistics
from harness.scenes.mini.benchmarks import MAKERS, YES_NO_ENDING, textvqa
from harness.scenes.mini.table import encoder, fine_print, write
from harness.scenes.mini.videos import VIDEO_MAKERS, write_clip

__all__ = [
    "MAKERS",
    "POPE_SPLITS",
    "VIDEO_MAKERS",
    "YES_NO_ENDING",
    "class_statistics",
    "encoder",
    "fine_print",
    "textvqa",
    "write",
    "write_clip",
]
