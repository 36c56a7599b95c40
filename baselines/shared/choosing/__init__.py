"""Choosing tokens by one another: greedily, in torch or Triton, and among duplicates."""
