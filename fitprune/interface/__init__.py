"""What a method sees of a prefill, and what it may say: tokens, attention, the vision tower, selections, the trace."""
