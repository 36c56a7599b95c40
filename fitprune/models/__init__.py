"""Where a model keeps its parts, its sizes, the images of a forward, and what differs between transformers releases."""
