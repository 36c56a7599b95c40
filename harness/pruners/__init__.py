"""From a method's name and a budget to a pruner: solved, read from a recipe, or fitted once for a model."""
