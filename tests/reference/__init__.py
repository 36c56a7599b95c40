"""The published rules in plain loops over full attention maps, written from the papers' rules, not from the package."""
