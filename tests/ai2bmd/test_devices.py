"""Units shared by several devices; jax takes their number once per process, so these run in processes of their own."""

import os
import subprocess
import sys

import pytest

SHARED = """
import jax
import numpy as np
from flax import nnx
from jaxprot.ai2bmd.potential import Potential, PotentialConfig
from jaxprot.io.structures import read_structure
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet

network = ViSNet(ViSNetConfig(hidden=8, layers=2, heads=2, rbf=4, max_z=20), rngs=nnx.Rngs(0))
structure = read_structure({path!r})
alone = Potential(network, structure, PotentialConfig(solvent="gb")).evaluate()
both = Potential(network, structure, PotentialConfig(solvent="gb", devices=3))
shared = both.evaluate()  # 19 units: sizes do not go up in 3
assert sorted(alone.energies) == ["bonded", "constraints", "nonbonded", "solvent"]
for name in alone.energies:
    off = abs(alone.energies[name] - shared.energies[name])
    assert off < 1e-6 * max(1, abs(alone.energies[name])), (name, off)  # the solvent is float32
assert abs(alone.energy - shared.energy) < 1e-5 and alone.energy != 0
np.testing.assert_allclose(shared.total_forces, alone.total_forces, atol=1e-5)
with jax.enable_x64(True):
    at = np.stack([structure.xyz, structure.xyz + 0.01 * np.sin(structure.xyz)]).astype(np.float64)
    energies, forces = jax.jit(jax.vmap(both.field, (None, 0)))(both.leaves, at)  # replicas
np.testing.assert_allclose(forces[0], shared.total_forces, atol=1e-5)
total = float(np.sum([e[1] for e in energies.values()])) + both.references["bonded"]
assert abs(total - both.evaluate(at[1]).energy) < 1e-5
"""


def run(code, devices):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_shared_units_give_the_same_energy_and_forces(example):
    done = run(SHARED.format(path=str(example("chignolin"))), 3)
    assert not done.returncode, done.stderr


def test_more_devices_than_there_are(example):
    code = """
from jaxprot.cli import options
from jaxprot.cli.options import shared_devices
options.cores = lambda: 2
assert shared_devices(None) <= 2 and shared_devices(2) == 2
try:
    shared_devices(3)
except Exception as error:
    assert "from 1 to 2" in str(error)
else:
    raise AssertionError
"""
    done = run(code, 2)
    assert not done.returncode, done.stderr


def test_cores_become_devices_where_nothing_else_is_asked_for(monkeypatch):
    from jaxprot.cli import options

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    options.cores_as_devices()
    assert "JAX_NUM_CPU_DEVICES" not in os.environ
    monkeypatch.delenv("XLA_FLAGS")
    options.cores_as_devices(5)
    assert os.environ["JAX_NUM_CPU_DEVICES"] == "5"
    options.cores_as_devices(3)  # settled already
    assert os.environ["JAX_NUM_CPU_DEVICES"] == "5"
