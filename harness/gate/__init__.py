"""What passes and what fails: thresholds, saved runs to compare with, and the words of a verdict."""
