"""Methods that prune between decoder layers: FastV, VTW, PyramidDrop, SparseVLM, DART."""
