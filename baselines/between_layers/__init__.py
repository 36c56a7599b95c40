"""Methods that prune between decoder layers."""
