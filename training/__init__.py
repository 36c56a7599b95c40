"""How the embedded models were made. Not part of the package: `python -m training llava-tiny` in a checkout."""
