"""What several methods share: budgets, counts, the attention of the tower, clustering, places in padded batches."""
