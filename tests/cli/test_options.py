"""What commands share."""

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import numpy as np
from jaxprot.cli.options import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 24)  # 128 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults(), faults()
done = keep_memory()
faults()
print(done, min(first), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for the GNU C library")
def test_freed_memory_is_used_again():
    out = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "True"
    assert int(out[2]) < 0.1 * int(out[1])
