"""Where results lie: in a folder, or in an object store; and who may work at what."""
