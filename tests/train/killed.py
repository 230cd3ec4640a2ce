"""Run by test_interruptions.py in a process of its own: RUN [bytes] trains the toy task, going on where it was killed.

With a number, files may not grow beyond so many bytes after the tenth step: what a full disk does.
"""

import pathlib
import resource
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy

from jaxprot.core.errors import OutputError
from jaxprot.train.loop import fit

CONFIG = toy.config(toy.Toy(pause=0.02), steps=60, save_every=1, evaluate_every=7, log_every=3, keep=2)


def main(run, limit=None):
    """Trains to the end; exit code 3 and the message where a checkpoint cannot be written."""

    def fill(record):
        if limit is not None and record["step"] >= 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))

    try:
        outcome = fit(CONFIG, run, resume=True, report=fill)
    except OutputError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 3
    print("step", outcome.step, "stopped by", outcome.stopped, flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
