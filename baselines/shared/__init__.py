"""Parts that several methods share: budgets, counts, grids, stages, the tower's attention, clustering, padded batches."""
