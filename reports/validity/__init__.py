"""How well a results folder foretells the tables that papers have printed: `fitprune validity results/`."""
