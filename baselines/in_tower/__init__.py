"""Methods that change what runs in the vision tower."""
