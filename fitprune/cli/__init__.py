"""The commands of `python -m fitprune`."""
