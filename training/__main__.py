"""`python -m training llava-tiny`."""

import sys

from training.train import main

sys.exit(main())
