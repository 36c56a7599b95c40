"""The precision in which attention is scored."""

import torch

_HALF = (torch.float16, torch.bfloat16)


def in_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision as float32; every other type as it is.

    A product of queries and keys may exceed the largest float16 (65504) although its softmax is defined. Attention
    kernels such as SDPA sum such products in float32.
    """
    return tensor.float() if tensor.dtype in _HALF else tensor
