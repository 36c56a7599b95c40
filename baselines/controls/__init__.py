"""Controls, which every method must beat: the dense model, random and uniform pruning, pooling, smaller pictures."""
