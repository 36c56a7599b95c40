"""Methods that merge tokens inside the vision tower: ToMe."""
