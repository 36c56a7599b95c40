"""Published tables beside what is measured here: the command, and its page as Markdown and HTML."""
