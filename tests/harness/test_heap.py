"""Memory that a batch frees is there for the next one."""

import subprocess
import sys

import pytest

# Three pieces together are more than what glibc keeps by default: twice the largest piece so far.
COUNT = """
import resource, sys
from harness.heap import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def batch():
    pieces = [bytearray(b"1") * (10 << 20) for _ in range(3)]
batch(), batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_no_page_is_asked_for_twice() -> None:
    again, kept = (
        int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True, text=True).stdout)
        for how in ("default", "kept")
    )
    assert again > 150  # megabytes in ten batches of 30
    assert kept < 3
