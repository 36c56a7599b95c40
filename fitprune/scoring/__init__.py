"""Statistics of attention that need no attention map: in blocks of query rows, and as Triton kernels on CUDA."""
