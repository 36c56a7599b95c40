"""Charts of accuracy against cost, for the page and as SVG files."""
