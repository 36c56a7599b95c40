"""Methods that take another method's choice and go on from there."""
