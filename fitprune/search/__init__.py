"""The published fitting rule at one alpha: on a live model (`drop_counts`), and from the unpruned model's attention alone."""

from fitprune.search.runs import drop_counts

__all__ = ["drop_counts"]
