"""Models: from a name, a hub id or a folder to a loaded model and its processor."""
