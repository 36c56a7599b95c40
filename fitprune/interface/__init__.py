"""What a method sees of a prefill, and what it may say: hooks, tokens, layout, attention, tower, selections, the trace."""
