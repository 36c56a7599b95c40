"""Controls: what every method must beat."""
