"""Where a model keeps its parts, the sizes of its decoder, and the images of a forward."""
