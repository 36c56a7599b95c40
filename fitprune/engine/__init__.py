"""How a live model is pruned: its forwards replaced for a while, a prefill that is cut, and decoding after it."""
