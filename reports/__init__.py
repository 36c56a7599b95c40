"""From a results folder to leaderboards: `fitprune report results/ --markdown leaderboard.md --html leaderboard.html`."""
