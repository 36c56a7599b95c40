"""Slow and literal: the published rules in plain loops over full attention maps, written from the papers' rules and not from the package."""
