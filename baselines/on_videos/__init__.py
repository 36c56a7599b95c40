"""Methods that prune videos, by what changes from frame to frame, between projector and decoder."""
