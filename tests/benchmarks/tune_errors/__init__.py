"""How often a search certifies what it should not, and how many questions it asks: in simulation and on asked answers."""
