"""Statistics of attention without an attention map: column sums, chosen rows, FitPrune's importances, and their cost."""
