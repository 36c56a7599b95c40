"""Videos as models are shown them."""
