"""Writes the mini suites: `fitprune scenes [--out suites/data]`; in fine print with `--canvas 1x3`."""

from harness.scenes.mini.asking import POPE_SPLITS, absent_classes, class_statistics
from harness.scenes.mini.benchmarks import (
    MAKERS,
    YES_NO_ENDING,
    calibration,
    gqa,
    mme,
    pope,
    scienceqa,
    textvqa,
    vqav2,
)
from harness.scenes.mini.table import Table, encoder, fine_print, write

__all__ = [
    "MAKERS",
    "POPE_SPLITS",
    "YES_NO_ENDING",
    "Table",
    "absent_classes",
    "calibration",
    "class_statistics",
    "encoder",
    "fine_print",
    "gqa",
    "mme",
    "pope",
    "scienceqa",
    "textvqa",
    "vqav2",
    "write",
]
