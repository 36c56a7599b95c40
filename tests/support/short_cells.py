"""A plugin for pytest under which cells are short: timed twice, one prompt at a time, and recipes fitted on eight samples.

What times come to, and what a fit makes of its samples, is tested where that is done. `PYTEST_PLUGINS` names the plugin in the
environment of commands that a test starts, so that they are typed as everywhere.
"""

import harness.bench.timing
import harness.tasks.calibration

harness.bench.timing.LATENCY_REPEATS = 2
harness.bench.timing.LATENCY_BATCH = 1
harness.tasks.calibration.SAMPLES = 8
harness.tasks.calibration.BATCH = 8
