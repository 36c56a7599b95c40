"""`python -m harness.scenes.mini`."""

import sys

from harness.scenes.mini.command import main

sys.exit(main())
