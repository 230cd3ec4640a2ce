"""Run by test_parallel.py as one of two processes on loopback: FOLDER PORT PROCESS COUNT MODE; writes its weights."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
folder, port, process, count, mode = sys.argv[1:]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // int(count)}"

from jaxprot.train.parallel import Parallel, initialise  # noqa: E402

if int(count) > 1:
    initialise(f"127.0.0.1:{port}", int(count), int(process))

import numpy as np  # noqa: E402
import toy  # noqa: E402

from jaxprot.train.loop import fit  # noqa: E402
from jaxprot.weights import portable  # noqa: E402

run = pathlib.Path(folder) / "run"
parallel = Parallel(mode)
assert len(parallel.devices) == 4
fit(toy.config(steps=10), run, parallel=parallel)
outcome = fit(toy.config(), run, resume=True, parallel=parallel)
assert outcome.step == 20
tensors, header = portable.load(outcome.best)
np.savez(pathlib.Path(folder) / f"weights{process}.npz", step=header["step"], **tensors)
