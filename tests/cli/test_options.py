"""What commands share."""

import logging
import platform
import subprocess
import sys

import pytest

from jaxprot.cli import options

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


def test_warnings_are_shown_once(capsys):
    logger, root = logging.getLogger("jaxprot"), logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(root)  # as some packages do
    try:
        with options.warnings_shown(), options.warnings_shown():
            logging.getLogger("jaxprot.massa").warning("odd %d", 3)
            logger.info("no one asked")
    finally:
        logging.getLogger().removeHandler(root)
    assert capsys.readouterr().err == "jaxprot: warning: odd 3\n" and logger.propagate
