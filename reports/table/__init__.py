"""What a leaderboard says, before it is Markdown, LaTeX or HTML."""
