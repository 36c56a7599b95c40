"""The leaderboard as text: Markdown, CSV, LaTeX, and the comparison of two results folders."""
