"""`NoNan`: what this project computes must be numbers."""

import sys

import torch
from torch.overrides import TorchFunctionMode

_RESERVE = (torch.empty, torch.empty_like, torch.empty_strided, torch.Tensor.new_empty, torch.Tensor.new_empty_strided)


class NoNan(TorchFunctionMode):
    """Inside, an operation that the project itself calls fails where its result holds a NaN.

    Memory that the project reserves holds whatever stood there; here it holds NaN, so that reading it unwritten fails, always.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        caller = sys._getframe(1).f_globals["__name__"]
        if not isinstance(output, torch.Tensor) or not caller.startswith(("fitprune.", "baselines.")):
            return output
        if func in _RESERVE:
            return output.fill_(torch.nan) if output.is_floating_point() else output
        if output.isnan().any():
            raise AssertionError(f"{caller} computes a NaN by {func}")
        return output
