"""What a prompt costs: FLOPs of tower, projector and decoder, and bytes."""

from typing import TYPE_CHECKING

from fitprune.lazy import importing

if TYPE_CHECKING:
    from harness.cost.flops import FlopCount, count

__all__ = ["FlopCount", "count"]

__getattr__ = importing(__name__, dict.fromkeys(__all__, "harness.cost.flops"))
