"""From a results folder to leaderboards: `python -m reports results/ --markdown leaderboard.md --html leaderboard.html`."""
