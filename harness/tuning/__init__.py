"""Tuning: the most pruning whose drop is certified on every suite, by few questions."""
