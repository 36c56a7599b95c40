"""How often intervals miss the truth and the gate errs, in simulation and on a results folder's own answers."""
