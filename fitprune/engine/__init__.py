"""How a live transformers model is pruned: where its layers are replaced, a pruned prefill, and decoding after it."""
