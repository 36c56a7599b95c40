"""How long a prompt takes under a pruner, as a ratio to the dense model in the same run."""
