"""Running cells: the models, recipes and answers of a run, in which order, and how far."""
