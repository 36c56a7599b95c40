"""Methods that prune between the projector and the decoder."""
