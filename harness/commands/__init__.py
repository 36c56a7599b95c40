"""What `python -m harness` can do, a file for each command: `add_arguments(parser)` and `run(options)`, which prints."""
