"""Runs that are killed, asked to stop, or out of disk: nothing is lost, and the rest is as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxprot.weights import portable

HERE = Path(__file__).parent
STEPS = 60


def start(run, *arguments):
    known = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, HERE / "killed.py", run, *map(str, arguments)],
        env=known,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(run, *arguments):
    process = start(run, *arguments)
    out, said = process.communicate(timeout=200)
    return process.returncode, out, said


def steps_of(run):
    ckpt = run / "ckpt"
    return [int(item.name) for item in ckpt.iterdir() if item.name.isdigit()] if ckpt.is_dir() else []


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    code, out, said = finish(run)
    assert code == 0, said[-2000:]
    assert f"step {STEPS}" in out
    return run


def records(run):
    changing = ("seconds_per_step", "data_wait", "programs")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["step"], "loss" in line): {k: v for k, v in line.items() if k not in changing} for line in lines
    }, len(lines)


def assert_same(run, whole):
    found, expected = portable.load(run / "best.safetensors"), portable.load(whole / "best.safetensors")
    assert found[1] == expected[1]
    for name, value in expected[0].items():
        np.testing.assert_array_equal(found[0][name], value)
    last, reference = weights(run), weights(whole)
    assert last.keys() == reference.keys()
    for name, value in reference.items():
        np.testing.assert_array_equal(last[name], value, err_msg=name)
    # The metrics hold each step once, with the same figures.
    kept, lines = records(run)
    same, count = records(whole)
    assert kept.keys() == same.keys() and lines == count
    assert kept == same


def weights(run):
    """All arrays of the last checkpoint by name."""
    with ocp.CheckpointManager(run / "ckpt") as manager:
        assert manager.latest_step() == STEPS
        tree = manager.restore(STEPS, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
    flat = {}

    def note(value, name):
        if isinstance(value, dict):
            for key, item in value.items():
                note(item, f"{name}.{key}")
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                note(item, f"{name}.{number}")
        elif value is not None:
            flat[name] = np.asarray(value if "key" not in name else [0])

    note(tree, "state")
    assert any("trained" in name for name in flat)
    return flat


def killed(run, times, seed):
    """How often the run was killed, at random moments of its saving; then it is left to end."""
    rng, kills = random.Random(seed), 0
    while kills < times:
        process = start(run)
        # From the moment it saves: the many seconds of the start would take most of the kills.
        held = set(steps_of(run))
        wait_for(lambda held=held: set(steps_of(run)) - held, process)
        time.sleep(rng.uniform(0.0, 0.15))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        kills += 1
    code, out, said = finish(run)
    assert code == 0, said[-2000:]
    assert f"step {STEPS}" in out
    assert not [item.name for item in (run / "ckpt").iterdir() if not item.name.isdigit()]


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_like_another(tmp_path, whole):
    killed(tmp_path / "run", 2, seed=0)
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_run_that_is_killed_at_twenty_moments_ends_like_another(tmp_path, whole):
    killed(tmp_path / "run", 20, seed=1)
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGUSR1", "SIGINT"))]
)
@pytest.mark.slow
def test_a_signal_saves_and_ends_the_run(tmp_path, whole, name):
    run = tmp_path / "run"
    process = start(run)
    wait_for(lambda: len(steps_of(run)) > 1, process)
    process.send_signal(getattr(signal, name))
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said[-2000:]
    assert f"stopped by {name}" in out
    stopped = int(out.split()[1])
    assert 0 < stopped < STEPS
    assert max(steps_of(run)) == stopped
    assert finish(run)[0] == 0
    assert_same(run, whole)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_leaves_the_checkpoints_before(tmp_path, whole):
    run = tmp_path / "run"
    code, _, said = finish(run, 100)
    assert code == 3, said[-2000:]
    assert str(run) in said and ("could not be written" in said or "cannot be written" in said)
    assert max(steps_of(run)) >= 9
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert finish(copy)[0] == 0
    assert_same(copy, whole)
