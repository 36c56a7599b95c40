"""Procedurally drawn scenes and questions about them: what the mini suites are made of, and the embedded models learnt."""
