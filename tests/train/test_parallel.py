"""The same training on one device, on eight, and in two processes: processes of their own with virtual CPU devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.train.parallel import Parallel, initialise

HERE = Path(__file__).parent


def environment(**more):
    known = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {**known, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3", **more}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    done = subprocess.run(
        [sys.executable, HERE / "on_devices.py", folder],
        env=environment(XLA_FLAGS="--xla_force_host_platform_device_count=8"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.multidevice
def test_shard_map_and_pmap_are_bitwise_equal(measured):
    assert measured["shard_map is pmap"]
    assert measured["batch norm: shard_map is pmap"]


@pytest.mark.multidevice
@pytest.mark.parametrize(
    "what",
    [
        "8 devices against 1",
        "4 devices against 1",
        "8 then 1",
        "8 then 4",
        "8 then 4 pmap",
        "chunks",
        "resident",
        "radam, lookahead, frozen",
    ],
)
def test_weights_after_20_steps_are_those_of_one_device(measured, what):
    assert measured[what] <= 1e-6


@pytest.mark.multidevice
def test_the_gradient_on_8_devices_is_that_on_one(measured):
    assert measured["gradient"] <= 1e-6


@pytest.mark.multidevice
def test_the_gradient_with_checked_replication_is_not(measured):
    """The trap that `check_vma=False` avoids: jax sums the gradient itself, and the step sums that over 8 again."""
    assert measured["gradient with check_vma"] == pytest.approx(7, rel=1e-4)


@pytest.mark.multidevice
def test_running_statistics_are_kept(measured):
    assert measured["batch norm moved"] > 0.01


@pytest.mark.multidevice
def test_variables_that_nothing_changes_keep_their_bits(measured):
    assert measured["what is fixed stays"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_in_processes(folder, count, mode):
    folder.mkdir()
    arguments = [sys.executable, HERE / "on_processes.py", folder, str(free_port())]
    started = [
        subprocess.Popen(
            [*arguments, str(number), str(count), mode], env=environment(), stderr=subprocess.PIPE, text=True
        )
        for number in range(count)
    ]
    try:
        said = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text[-3000:]
    return [dict(np.load(folder / f"weights{number}.npz")) for number in range(count)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_in_processes(tmp_path_factory.mktemp("one") / "run", 1, "shard_map")[0]


@pytest.mark.multidevice
@pytest.mark.parametrize("mode", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_two_processes_train_and_resume_as_one(tmp_path, alone, mode):
    for found in train_in_processes(tmp_path / "two", 2, mode):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6 * max(np.abs(value).max(), 1e-12))


def test_wrong_modes_and_halves_of_an_address_are_refused():
    with pytest.raises(InputError, match="shard_map"):
        Parallel("ddp")
    with pytest.raises(InputError, match="give all of --coordinator"):
        initialise("127.0.0.1:1")
