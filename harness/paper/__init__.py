"""A published table's cells, asked of a model here: what each row's budget is for its method, which cells run."""
