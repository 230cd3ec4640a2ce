"""Structure-based dynamics: the potential against its formula, the thermostat, padding, batches, and the script."""

import dataclasses
import functools
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure
from jaxprot.md import structure_based as sb

pytestmark = pytest.mark.slow

SHORT = {"steps": 60, "equilibration": 0, "frames": 6}
FEW_STEPS = jax.jit(functools.partial(sb.fluctuations, **SHORT))
ENERGY_AND_GRADIENT = jax.jit(jax.value_and_grad(sb.energy))


@pytest.fixture(scope="module")
def structures(root):
    folder = root / "jaxprot" / "examples"
    return {name: read_structure(folder / f"{name}.pdb") for name in ("chignolin", "trpcage", "ubiquitin")}


@pytest.fixture(scope="module")
def models(structures):
    return {name: sb.go_model(one)[0] for name, one in structures.items()}


def device(model):
    return jax.tree.map(jnp.asarray, model)


def dihedral(a, b, c, d):
    u, v, w = b - a, c - b, d - c
    return np.arctan2(np.linalg.norm(v) * u @ np.cross(v, w), np.cross(u, v) @ np.cross(v, w))


def test_energy_is_its_formula(structures, models):
    model = models["ubiquitin"]
    native, rng = model.native.astype(np.float64), np.random.default_rng(0)
    xyz = native + rng.normal(size=native.shape) * 0.4
    n, total = len(native), 0.0
    for i in range(n - 1):
        total += 100 * (np.linalg.norm(xyz[i + 1] - xyz[i]) - np.linalg.norm(native[i + 1] - native[i])) ** 2
    for i in range(n - 2):
        cos = [(x[i] - x[i + 1]) @ (x[i + 2] - x[i + 1]) for x in (xyz, native)]
        cos = [
            c / np.linalg.norm(x[i] - x[i + 1]) / np.linalg.norm(x[i + 2] - x[i + 1])
            for c, x in zip(cos, (xyz, native), strict=True)
        ]
        total += 20 * (cos[0] - cos[1]) ** 2 / (1 - cos[1] ** 2)
    for i in range(n - 3):
        turn = dihedral(*xyz[i : i + 4]) - dihedral(*native[i : i + 4])
        sines = 1.0
        for k in (i, i + 1):
            u, v = xyz[k + 1] - xyz[k], xyz[k + 2] - xyz[k + 1]
            sines *= np.sum(np.cross(u, v) ** 2) / (u @ u) / (v @ v)
        total += sines**2 / (sines**2 + 0.05**2) * ((1 - np.cos(turn)) + 0.5 * (1 - np.cos(3 * turn)))
    one = structures["ubiquitin"]
    heavy = [one.xyz[(one.atom_residue == i) & (one.element != "H")].astype(np.float64) for i in range(n)]
    attracting = 0
    for i in range(n):
        for j in range(i + 4, n):
            r, r0 = (np.linalg.norm(x[i] - x[j]) for x in (xyz, native))
            if np.linalg.norm(heavy[i][:, None] - heavy[j][None], axis=-1).min() < 4.5:
                attracting += 1
                total += 5 * (r0 / r) ** 12 - 6 * (r0 / r) ** 10
            elif r0 < 8 and r < (s := min(4.5, r0)):
                total += 5 * (s / r) ** 12 - 6 * (s / r) ** 10 + 1
    assert attracting == model.contact.sum() > 100
    found, _ = ENERGY_AND_GRADIENT(jnp.asarray(xyz, jnp.float32), device(model))
    np.testing.assert_allclose(found, total, rtol=1e-4)


@pytest.mark.parametrize("name", ["chignolin", "trpcage", "ubiquitin"])
def test_native_structure_is_the_minimum(models, name, key):
    model = device(models[name])
    energy, gradient = ENERGY_AND_GRADIENT(model.native, model)
    np.testing.assert_allclose(energy, -float(model.contact.sum()), rtol=1e-5)
    assert jnp.abs(gradient).max() < 1e-3
    noise = jax.random.normal(key, (50, *model.native.shape))
    moved = model.native[None] + jnp.geomspace(0.01, 2, 50)[:, None, None] * noise
    assert jax.jit(jax.vmap(sb.energy, (0, None)))(moved, model).min() > energy


def test_coinciding_and_straight_beads_have_finite_forces(models):
    model = device(models["trpcage"])
    straight = jnp.arange(20.0)[:, None] * jnp.array([3.8, 0.0, 0.0])[None]
    close = model.native.at[0].set(model.native[10])
    for xyz in (straight, close):
        energy, gradient = ENERGY_AND_GRADIENT(xyz, model)
        assert jnp.isfinite(energy) and jnp.isfinite(gradient).all() and jnp.abs(gradient).max() < 1e5


def test_padding_changes_nothing(models, key):
    model = models["trpcage"]
    wide = device(sb.padded(model, 32, len(model.pairs) + 40))
    model = device(model)
    # A short run: rounding grows along a chaotic path.
    expected, found = (FEW_STEPS(one, key) for one in (model, wide))
    assert expected.min() > 0.01
    np.testing.assert_allclose(found[:20], expected, rtol=1e-3)
    assert not found[20:].any()


def test_equal_keys_give_equal_results(models, key):
    model = device(models["trpcage"])
    np.testing.assert_array_equal(FEW_STEPS(model, key), FEW_STEPS(model, key))
    assert jnp.abs(FEW_STEPS(model, key) - FEW_STEPS(model, jax.random.key(1))).max() > 1e-3


def test_batch_is_a_loop(models, key):
    small, large = (sb.padded(models[name], 32, 96) for name in ("chignolin", "trpcage"))
    keys = jax.random.split(key, 2)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), small, large)
    loop = [FEW_STEPS(device(model), one) for model, one in zip((small, large), keys, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(FEW_STEPS))(stacked, keys), jnp.stack(loop), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kelvin", [150.0, 300.0])
def test_kinetic_temperature(models, key, kelvin):
    model = device(models["chignolin"])
    run = lambda key: sb.trajectory(  # noqa: E731
        model, key, temperature=kelvin, steps=2000, equilibration=1000, frames=20, dt_fs=4.0, friction_per_ps=5.0
    )[1]
    velocities = jax.jit(jax.vmap(run))(jax.random.split(key, 64))
    measured = sb.MASS * jnp.mean(velocities**2) / sb.BOLTZMANN
    # 38400 velocities, of which frames 0.4 ps apart are nearly independent: 0.7 % standard error, plus the step's 0.2 %
    assert abs(measured / kelvin - 1) < 0.03


def test_positions_follow_boltzmann(key):
    """A spring in three dimensions: the mean energy is 3 kT / 2."""
    spring, kt = 8.0, 0.6
    run = lambda key: sb.langevin(  # noqa: E731
        lambda x: spring / 2 * (x**2).sum(),
        jnp.zeros((50, 3)),
        jnp.full(50, sb.MASS),
        key,
        kt=kt,
        dt_fs=20.0,
        friction_per_ps=2.0,
        skip=500,
        frames=20,
        every=100,
    )[0]
    found = jnp.mean(jax.jit(jax.vmap(run))(jax.random.split(key, 8)) ** 2)
    assert abs(found / (kt / spring) - 1) < 0.05


def test_tail_moves_more_than_core(models, key):
    model = device(models["ubiquitin"])
    values = jax.jit(functools.partial(sb.fluctuations, steps=2000, equilibration=500, frames=100))(model, key)
    assert jnp.median(values) > 0.3
    assert values[73:].mean() > 2 * jnp.median(values)
    assert values[44] < 1.5 * jnp.median(values)  # PHE 45 in the core


def test_a_torn_chain_has_no_values(models, key):
    model = device(models["chignolin"])
    hot = jax.jit(functools.partial(sb.fluctuations, **SHORT, temperature=3e6))
    assert jnp.isnan(hot(model, key)).all()


def test_breaks_lack_backbone_terms(structures):
    one = structures["ubiquitin"]
    cut, residues = sb.go_model(one.select((one.atom_residue < 20) | (one.atom_residue > 29)))
    assert len(residues) == 66 and cut.bond[19] > 4.5
    assert cut.bond_constant[19] == 0.5 and (np.delete(cut.bond_constant[:-1], 19) == 100).all()
    assert not cut.angle_constant[18:20].any() and not cut.dihedral_constant[17:20].any()
    assert cut.angle_constant[17] > 0 and cut.dihedral_constant[16] > 0 and cut.dihedral_constant[20] > 0


@pytest.mark.slow
def test_many_chains(structures, key):
    names = ("ubiquitin", "chignolin", "trpcage")
    chains = [structures[name] for name in names]
    lacking = structures["trpcage"]
    lacking = dataclasses.replace(
        lacking, atom_name=np.where((lacking.atom_residue == 0) & (lacking.atom_name == "CA"), "CX", lacking.atom_name)
    )
    found = dict(sb.rmsf_of_chains([*chains, lacking], key, beads=64, **SHORT))
    assert sorted(found) == [0, 1, 2, 3]
    for number, one in enumerate(chains):
        assert found[number].shape == (one.n_residues,) and found[number].dtype == np.float32
        protein = one.letters != "X"
        assert np.isfinite(found[number][protein]).all() and np.nanmin(found[number]) > 0
    assert np.isnan(found[3][0]) and np.isfinite(found[3][1:20]).all()
    alone = dict(sb.rmsf_of_chains(chains[1:2], key, beads=64, **SHORT))
    np.testing.assert_allclose(alone[0], found[1], rtol=0.05, equal_nan=True)


def test_unusable_input_is_an_error(structures, key):
    one = structures["chignolin"]
    with pytest.raises(InputError, match="3 residues with an alpha carbon; dynamics need at least 4"):
        sb.go_model(one.select(one.atom_residue < 4))  # a cap and three residues
    with pytest.raises(InputError, match="0 residues"):
        sb.go_model(one.select(one.atom_name == "N"))
    with pytest.raises(ValueError, match="take a multiple"):
        sb.trajectory(device(sb.go_model(one)[0]), key, steps=50, frames=20)


def test_a_part_far_away_has_no_bead(structures):
    one = structures["trpcage"]
    chain = (np.arange(one.n_residues) >= 14).astype(np.int32)
    xyz = one.xyz + 100 * (chain[one.atom_residue] == 1)[:, None].astype(np.float32)
    apart = dataclasses.replace(one, xyz=xyz, res_chain=chain, chain_id=np.array(["A", "B"], "U8"))
    np.testing.assert_array_equal(sb.go_model(apart)[1], np.arange(1, 14))  # row 0 is a cap


@pytest.mark.slow
def test_script_goes_on_where_it_was(root, structures, tmp_path, monkeypatch, capsys):
    path = tmp_path / "structures" / "val.npz"
    path.parent.mkdir()
    pack = runpy.run_path(str(root / "tests" / "io" / "test_archives.py"))["pack"]
    chains = []
    for name in ("trpcage", "chignolin"):
        one = structures[name]
        chains.append(one.select(np.isin(one.element, ("C", "N", "O", "S")) & (one.letters != "X")[one.atom_residue]))
    pack(chains, path)
    monkeypatch.setenv("JAXPROT_DATA", str(tmp_path))
    script = runpy.run_path(str(root / "scripts" / "simulate_fluctuations.py"))
    output = tmp_path / "out"
    script["simulate"]("val", output, 15, None, 0, 200)
    with np.load(output / "val.npz") as first:
        assert [first[name].shape for name in first.files] == [(10,)]
        (name,) = first.files
        before = first[name]
    script["simulate"]("val", output, 300, None, 1, 200)  # another seed: what is there must stay
    with np.load(output / "val.npz") as second:
        assert len(second.files) == 2
        np.testing.assert_array_equal(second[name], before)
        assert all(second[one].dtype == np.float32 and np.isfinite(second[one]).all() for one in second.files)
    assert "2 chains" in capsys.readouterr().out
    assert [one.name for one in output.iterdir()] == ["val.npz"]
