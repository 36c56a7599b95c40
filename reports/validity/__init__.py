"""How well a results folder foretells the tables that papers have printed: `python -m reports validity results/`."""
