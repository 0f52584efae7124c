"""What surrounds a job's process."""

import platform
import subprocess
import sys

import pytest

FREED = """
import resource
from medbench.jobs import process
if {keep}:
    process.keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for step in range(10):
    [b"1" * 30_000_000 for buffer in range(3)]
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_freed_memory_is_there_for_the_next_step() -> None:
    run = [
        subprocess.run([sys.executable, "-c", FREED.format(keep=keep)], capture_output=True, text=True, check=True)
        for keep in (True, False)
    ]
    kept, given_back = (int(one.stdout) for one in run)
    assert kept < given_back / 3
