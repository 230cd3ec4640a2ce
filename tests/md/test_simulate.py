"""Ensembles, runs, restarts and what stops a run, on molecules of springs."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.units import BOLTZMANN_EV, KCAL_MOL
from jaxprot.io.dcd import read_frames
from jaxprot.io.structures import read_structure
from jaxprot.md import integrators, molecule, simulate
from jaxprot.md.integrators import Dynamics, Integrator, Restraint
from jaxprot.md.simulate import RunawayError, SimulationConfig

METHANOL = """\
ATOM      1  C   MOH A   1       0.000   0.000   0.000  1.00  0.00           C
ATOM      2  O   MOH A   1       1.430   0.000   0.000  1.00  0.00           O
ATOM      3  H1  MOH A   1      -0.360   1.030   0.000  1.00  0.00           H
ATOM      4  H2  MOH A   1      -0.360  -0.515   0.892  1.00  0.00           H
ATOM      5  H3  MOH A   1      -0.360  -0.515  -0.892  1.00  0.00           H
ATOM      6  HO  MOH A   1       1.750   0.910   0.000  1.00  0.00           H
END
"""
Z = np.array([6, 8, 1, 1, 1, 1])


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    path = tmp_path_factory.mktemp("md") / "moh.pdb"
    path.write_text(METHANOL)
    return read_structure(path)


def springs(structure, k=15.0):
    """All distances as springs: (field, leaves)."""
    rest = np.asarray(structure.xyz, np.float64)
    i, j = np.triu_indices(len(rest), 1)
    lengths = np.linalg.norm(rest[i] - rest[j], axis=-1)

    def energy(leaves, xyz):
        length = jnp.sqrt(jnp.sum((xyz[i] - xyz[j]) ** 2, -1))
        return 0.5 * jnp.sum(leaves * (length - lengths) ** 2)

    def field(leaves, xyz):
        value, slope = jax.value_and_grad(energy, 1)(leaves, xyz)
        return {"springs": value}, -slope

    return field, jnp.full(len(lengths), k)


def run(structure, dynamics, steps, field=None, replicas=None, every=None):
    """Observations of each stretch of `every` steps."""
    field, leaves = field or springs(structure)
    with integrators.wide():
        made = Integrator(field, molecule.masses(Z), dynamics, replicas)
        state, out = made.start(structure.xyz, jax.random.PRNGKey(0)), []
        state, _ = made.run(state, leaves, 0)
        for _ in range(steps // (every or steps)):
            state, seen = made.run(state, leaves, every or steps)
            out.append(jax.tree.map(np.asarray, seen))
    return out


def test_masses_bonds_and_names(structure):
    np.testing.assert_allclose(molecule.masses(Z), [12.011, 15.999, 1.008, 1.008, 1.008, 1.008], atol=1e-3)
    bonds = molecule.bonds(Z, structure.xyz).tolist()
    assert bonds == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 5]]
    assert molecule.label(structure, 5) == "A MOH 1 HO"


def test_energy_is_kept_and_nothing_drifts_away(structure):
    seen = run(structure, Dynamics(ensemble="nve", timestep=0.25), 4000, every=200)
    total = np.array([one.terms["springs"] + one.kinetic for one in seen])
    assert seen[0].positions.dtype == np.float64
    assert np.ptp(total) < 1e-3 and abs(total[-10:].mean() - total[:10].mean()) < 1.5e-4
    centre = [molecule.masses(Z) @ one.positions / molecule.masses(Z).sum() for one in seen]
    assert np.ptp(centre, 0).max() < 1e-9
    halved = run(structure, Dynamics(ensemble="nve", timestep=0.125), 4000, every=200)
    other = np.array([one.terms["springs"] + one.kinetic for one in halved])
    assert np.ptp(other) < 0.4 * np.ptp(total)  # second order


@pytest.mark.parametrize(
    "dynamics", [Dynamics(friction=20.0, timestep=0.5), Dynamics(ensemble="nose-hoover", relaxation=20, timestep=0.5)],
    ids=["langevin", "nose-hoover"],
)  # fmt: skip
def test_temperature_is_the_one_set(structure, dynamics):
    replicas = 64
    seen = run(structure, dynamics, 6000, replicas=replicas, every=200)[5:]
    mean = np.mean([one.temperature for one in seen])
    assert abs(mean - 300) < 12
    if dynamics.ensemble == "langevin":  # equipartition: springs hold half of what motion does, less rotations' share
        springs_energy = np.mean([one.terms["springs"] for one in seen])
        assert springs_energy == pytest.approx(12 / 2 * BOLTZMANN_EV * 300, rel=0.08)


def test_temperature_of_stiff_springs_is_not_too_low():
    """At w dt = 1 momenta at the end of a step would give 225 K."""
    n, dt = 400, 1.0
    stiff = (1.0 / (dt * integrators.FEMTOSECOND)) ** 2  # times a mass of 1 u

    def field(leaves, xyz):
        return {"springs": 0.5 * leaves * jnp.sum(xyz**2)}, -leaves * xyz

    with integrators.wide():
        made = Integrator(field, np.ones(n), Dynamics(timestep=dt, friction=50.0))
        state = made.start(np.zeros((n, 3)), jax.random.PRNGKey(0))
        found = []
        for _ in range(60):
            state, seen = made.run(state, jnp.float64(stiff), 50)
            found.append((float(seen.temperature), float(seen.terms["springs"])))
    kinetic, potential = np.mean(found[10:], axis=0)
    assert kinetic == pytest.approx(300, rel=0.02)
    # The positions are exact as well: each coordinate holds kT / 2.
    assert potential == pytest.approx(1.5 * n * BOLTZMANN_EV * 300, rel=0.02)


def test_restraints_hold_and_count_as_energy(structure):
    field, leaves = springs(structure)
    with integrators.wide():
        made = Integrator(field, molecule.masses(Z), Dynamics(), None)
        hold = Restraint(np.full(6, 0.5), np.asarray(structure.xyz, np.float64) + 0.1)
        _, seen = made.run(made.start(structure.xyz, jax.random.PRNGKey(0)), leaves, 0, hold)
        assert float(seen.terms["restraint"]) == pytest.approx(0.5 * 0.5 * 6 * 3 * 0.01, rel=1e-6)
        pull = np.asarray(seen.forces) - np.asarray(field(leaves, jnp.asarray(structure.xyz, jnp.float64))[1])
        np.testing.assert_allclose(pull, 0.05, atol=1e-6)


def test_a_minimum_without_an_energy_is_none(structure):
    field, leaves = springs(structure)

    def lost(where):
        def one(leaves, xyz):
            terms, forces = field(leaves, xyz)
            here = jnp.sqrt(jnp.max(jnp.sum(forces**2, -1))) < where
            return {**terms, "solvent": jnp.where(here, jnp.nan, 0.0)}, forces

        return one

    off = structure.xyz + 0.1 * np.random.default_rng(0).normal(size=structure.xyz.shape)
    with integrators.wide():
        with pytest.raises(InputError, match=r"minimisation, [1-9]\d* steps: energy not finite: solvent \(nan\)"):
            integrators.minimise(lost(0.1), leaves, off, tolerance=1e-3)
        with pytest.raises(InputError, match="minimisation, 0 steps: energy not finite: solvent"):
            integrators.minimise(lost(np.inf), leaves, off)


def test_minimum_is_found(structure):
    field, leaves = springs(structure)
    off = structure.xyz + 0.1 * np.random.default_rng(0).normal(size=structure.xyz.shape)
    with integrators.wide():
        found, told = integrators.minimise(field, leaves, off, tolerance=1e-3)
        few = integrators.minimise(field, leaves, off, most=3)[1]
    i, j = np.triu_indices(6, 1)
    lengths = [np.linalg.norm(np.asarray(x)[i] - np.asarray(x)[j], axis=-1) for x in (found, structure.xyz)]
    np.testing.assert_allclose(*lengths, atol=1e-4)
    assert told["largest_force"] <= 1e-3 < 0.1 < told["largest_force_before"]
    assert few["steps"] == 3 and few["largest_force"] > 1e-3


CONFIG = SimulationConfig(
    dynamics=Dynamics(timestep=0.5), steps=50, record=10, equilibration=15, stages=(5.0, 1.0), seed=3
)


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*")) if p.is_file()}


def test_a_run_and_its_files(structure, tmp_path):
    pytest.importorskip("mdtraj")
    from jaxprot.io.trajectories import read_trajectory

    field, leaves = springs(structure)
    rows = []
    out = simulate.simulate(
        field, leaves, structure, Z, CONFIG, tmp_path, offsets={"springs": -100.0}, report=rows.append
    )
    assert (out.step, out.frames) == (50, 6) and out.positions.shape == (1, 6, 3)
    with open(tmp_path / "energies.csv") as file:
        table = list(csv.DictReader(file))
    assert [int(row["step"]) for row in table] == [-30, -20, -15, -5, 0, 10, 20, 30, 40, 50]
    assert float(table[-1]["time_ps"]) == 0.025 and len(rows) == 10
    assert float(table[0]["springs_ev"]) == pytest.approx(-100, abs=1e-6)
    for row in table:
        parts = float(row["springs_ev"]) + float(row["restraint_ev"])
        assert float(row["potential_ev"]) == pytest.approx(parts, abs=1e-9)
    assert float(table[1]["restraint_ev"]) > 0 == float(table[-1]["restraint_ev"])
    trajectory = read_trajectory(tmp_path / "trajectory.dcd", tmp_path / "topology.pdb")
    assert trajectory.frames.shape == (6, 6, 3)
    np.testing.assert_allclose(trajectory.frames[-1], out.positions[0], atol=1e-4)
    np.testing.assert_allclose(read_structure(tmp_path / "final.pdb").xyz, out.positions[0], atol=1e-3)


def test_mdanalysis_gives_frames_the_times_of_the_table(structure, tmp_path):
    MDAnalysis = pytest.importorskip("MDAnalysis")
    field, leaves = springs(structure)
    simulate.simulate(field, leaves, structure, Z, CONFIG, tmp_path)
    universe = MDAnalysis.Universe(str(tmp_path / "topology.pdb"), str(tmp_path / "trajectory.dcd"))
    with open(tmp_path / "energies.csv") as file:
        told = [float(row["time_ps"]) for row in csv.DictReader(file) if int(row["step"]) >= 0]
    assert told[:2] == [0, 0.005]
    np.testing.assert_allclose([frame.time for frame in universe.trajectory], told, rtol=1e-5, atol=1e-12)


def test_a_run_that_begins_removes_what_an_earlier_one_left(structure, tmp_path):
    field, leaves = springs(structure)
    cfg = dataclasses.replace(CONFIG, steps=10, equilibration=0)
    two = dataclasses.replace(cfg, replicas=2)
    out = simulate.simulate(field, leaves, structure, Z, two, tmp_path)
    for number, xyz in enumerate(out.positions):  # each replica has its end
        np.testing.assert_allclose(read_structure(tmp_path / f"final_{number:02d}.pdb").xyz, xyz, atol=1e-3)
    assert not (tmp_path / "final.pdb").exists()
    for name in ("last.pdb", "trajectory_07.dcd", "trajectory_aligned.dcd", "notes.txt"):
        (tmp_path / name).write_text("older")
    simulate.simulate(field, leaves, structure, Z, two, tmp_path, resume=True)
    assert (tmp_path / "trajectory_07.dcd").exists()
    simulate.simulate(field, leaves, structure, Z, cfg, tmp_path)
    kept = {"trajectory_aligned.dcd", "notes.txt"}
    assert set(files(tmp_path)) == {"trajectory.dcd", "topology.pdb", "energies.csv", "final.pdb"} | kept


@pytest.mark.parametrize(("replicas", "ensemble"), [(1, "langevin"), (2, "langevin"), (2, "nve")])
def test_a_run_that_was_killed_ends_as_one_that_was_not(structure, tmp_path, replicas, ensemble):
    field, leaves = springs(structure)
    dynamics = dataclasses.replace(CONFIG.dynamics, ensemble=ensemble)
    cfg = dataclasses.replace(CONFIG, replicas=replicas, dynamics=dynamics)
    simulate.simulate(field, leaves, structure, Z, cfg, tmp_path / "whole")

    class Killed(BaseException):
        pass

    # In the equilibration, at its end and in production, after more was written than the state knows of.
    for row in (3, 4, 7):
        seen = []

        def report(values, row=row, seen=seen):
            seen.append(values)
            if len(seen) > row:
                raise Killed

        folder = tmp_path / f"killed{row}"
        with pytest.raises(Killed):
            simulate.simulate(field, leaves, structure, Z, cfg, folder, report=report)
        with open(folder / "energies.csv", "a") as file:
            file.write("45,0.1,half a ro")
        with open(next(folder.glob("trajectory*.dcd")), "ab") as file:
            file.write(b"half a frame")
        simulate.simulate(field, leaves, structure, Z, cfg, folder, resume=True)
        assert files(folder) == files(tmp_path / "whole")
    done = simulate.simulate(field, leaves, structure, Z, cfg, folder, resume=True)
    assert done.step == 50 and files(folder) == files(tmp_path / "whole")
    longer = simulate.simulate(field, leaves, structure, Z, dataclasses.replace(cfg, steps=70), folder, resume=True)
    assert longer.step == 70 and longer.frames == 8


def test_constant_energy_begins_at_the_temperature(structure, tmp_path):
    """From the minimum, which takes half of the first heat; with springs and noise, and none of them in production."""
    field, leaves = springs(structure)
    dynamics = Dynamics(ensemble="nve", timestep=0.25)
    cfg = SimulationConfig(
        dynamics=dynamics, steps=400, record=10, equilibration=400, stages=(0.5, 0.1), damping=100.0, replicas=32
    )
    out = simulate.simulate(field, leaves, structure, Z, cfg, tmp_path)
    assert out.temperature == pytest.approx(300, abs=45)  # 150 without a thermostat
    with open(tmp_path / "energies.csv") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) > 0]
    assert np.mean([float(row["temperature_kelvin"]) for row in rows]) == pytest.approx(out.temperature)
    for replica in range(cfg.replicas):
        total = [float(row["total_ev"]) for row in rows if int(row["replica"]) == replica]
        assert len(total) == 40 and np.ptp(total) < 3e-3
    centres = [molecule.masses(Z) @ frame / molecule.masses(Z).sum() for frame in read_frames(
        tmp_path / "trajectory_03.dcd")]  # fmt: skip
    assert np.ptp(centres, 0).max() < 1e-4  # noise moved it


def test_speed_is_not_that_of_the_compiler(structure, tmp_path):
    field, leaves = springs(structure)
    cfg = dataclasses.replace(CONFIG, equilibration=0)
    simulate.simulate(field, leaves, structure, Z, dataclasses.replace(cfg, steps=20), tmp_path)
    rows = []
    again = simulate.simulate(field, leaves, structure, Z, cfg, tmp_path, resume=True, report=rows.append)
    assert rows[0]["ns_per_day"] is None and rows[1]["ns_per_day"] > 0 and again.ns_per_day > 0


def test_a_potential_explains_why_it_has_no_energy(structure, tmp_path):
    field, leaves = springs(structure)

    def full(leaves, xyz):
        terms, forces = field(leaves, xyz)
        forces = forces.at[5].add(jnp.array([0.0, 0, 3.0]))
        lost = jnp.sum((xyz[5] - xyz[1]) ** 2) > 1.2**2
        return {name: jnp.where(lost, jnp.nan, value) for name, value in terms.items()}, jnp.where(
            lost, jnp.nan, forces
        )

    def explain(xyz):
        return "the table is full" if np.sum((xyz[5] - xyz[1]) ** 2) > 1.2**2 else None

    cfg = dataclasses.replace(CONFIG, steps=400, record=100, equilibration=0, runaway=1e6)
    with pytest.raises(RunawayError, match=r"step \d+: the table is full; --resume .*last\.pdb$") as told:
        simulate.simulate(full, leaves * 0.1, structure, Z, cfg, tmp_path, explain=explain)
    assert "too close" not in str(told.value) and "timestep" not in str(told.value)
    with integrators.wide(), pytest.raises(InputError, match=r"minimisation, \d+ steps: the table is full$"):
        integrators.minimise(full, leaves * 0.1, structure.xyz, explain=explain)


def test_only_the_same_run_goes_on(structure, tmp_path):
    field, leaves = springs(structure)
    with pytest.raises(InputError, match="no state to go on from"):
        simulate.simulate(field, leaves, structure, Z, CONFIG, tmp_path, resume=True)
    cfg = dataclasses.replace(CONFIG, steps=10, equilibration=0)
    simulate.simulate(field, leaves, structure, Z, cfg, tmp_path, identity="a")
    with pytest.raises(InputError, match="another potential, seed"):
        simulate.simulate(
            field, leaves, structure, Z, dataclasses.replace(cfg, seed=4), tmp_path, identity="b", resume=True
        )
    (tmp_path / simulate.STATE).write_bytes(b"rubbish")
    with pytest.raises(InputError, match="not the state of a run"):
        simulate.simulate(field, leaves, structure, Z, cfg, tmp_path, identity="a", resume=True)


def test_a_broken_bond_stops_the_run_and_the_last_good_state_stays(structure, tmp_path):
    field, leaves = springs(structure)

    def torn(leaves, xyz):
        terms, forces = field(leaves, xyz)
        return terms, forces.at[5].add(jnp.array([4.0, 0, 0]))  # pulls the hydroxyl hydrogen away

    cfg = dataclasses.replace(CONFIG, steps=400, equilibration=0, runaway=1e6)
    with pytest.raises(RunawayError, match="bond A MOH 1 O - A MOH 1 HO is .* Å long"):
        simulate.simulate(torn, leaves * 0.05, structure, Z, cfg, tmp_path)
    with np.load(tmp_path / simulate.STATE) as state:
        assert 0 <= state["step"] < 400
        assert len((tmp_path / "energies.csv").read_text().splitlines()) == state["rows"] + 1
        step = int(state["step"])
    last = read_structure(tmp_path / "last.pdb").xyz
    np.testing.assert_allclose(last, read_frames(tmp_path / "trajectory.dcd")[-1], atol=1e-3)
    assert not (tmp_path / "final.pdb").exists()
    (tmp_path / "last.pdb").unlink()
    told = rf"repeat it: start in another folder .*\(step {step}\), .*last\.pdb, with a smaller --timestep"
    with pytest.raises(RunawayError, match=told):
        simulate.simulate(torn, leaves * 0.05, structure, Z, cfg, tmp_path, resume=True)
    np.testing.assert_array_equal(read_structure(tmp_path / "last.pdb").xyz, last)


def test_bonds_are_those_given(structure, tmp_path):
    field, leaves = springs(structure)

    def torn(leaves, xyz):
        terms, forces = field(leaves, xyz)
        return terms, forces.at[5].add(jnp.array([4.0, 0, 0]))

    cfg = dataclasses.replace(CONFIG, steps=200, equilibration=0, runaway=1e6)
    none = np.zeros((0, 2), int)
    out = simulate.simulate(torn, leaves * 0.05, structure, Z, cfg, tmp_path / "a", bonds=none)
    assert np.linalg.norm(out.positions[0, 5] - out.positions[0, 1]) > 2
    with pytest.raises(RunawayError, match="bond A MOH 1 H1 - A MOH 1 HO is"):
        simulate.simulate(torn, leaves * 0.05, structure, Z, cfg, tmp_path / "b", bonds=np.array([[2, 5]]))


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "on the way"])
def test_an_energy_that_is_none_stops_the_run(structure, tmp_path, late):
    field, leaves = springs(structure)
    first = np.asarray(structure.xyz, np.float64)

    def lost(leaves, xyz):
        terms, forces = field(leaves, xyz)
        here = jnp.abs(xyz - first).max() > 1e-6 if late else True
        return {**terms, "solvent": jnp.where(here, jnp.nan, 0.0)}, forces

    cfg = dataclasses.replace(CONFIG, steps=20, equilibration=0, replicas=2)
    step = 1 if late else 0
    with pytest.raises(RunawayError, match=rf"step {step}, replica 0: energy not finite: solvent \(nan\); ") as told:
        simulate.simulate(lost, leaves, structure, Z, cfg, tmp_path)
    assert ("last_00.pdb (each replica has one" in str(told.value)) == late
    assert ("atoms that are too close" in str(told.value)) != late
    for name in ("last_00.pdb", "last_01.pdb"):
        assert (tmp_path / name).exists() == late


def test_heat_and_numbers_that_are_none_stop_the_run(structure, tmp_path):
    field, leaves = springs(structure)

    def heated(leaves, xyz):
        terms, forces = field(leaves, xyz)
        return terms, forces * 1.0 + 30 * jnp.sign(jnp.sin(1e4 * xyz))

    cfg = dataclasses.replace(CONFIG, steps=2000, equilibration=0)
    with pytest.raises(RunawayError, match="K, set were 300|times its usual length"):
        simulate.simulate(heated, leaves, structure, Z, cfg, tmp_path / "a")

    def broken(leaves, xyz):
        terms, forces = field(leaves, xyz)
        return terms, forces.at[2].set(jnp.nan)

    with pytest.raises(RunawayError, match="step 0: A MOH 1 H1 not finite; the run begins so: look at"):
        simulate.simulate(broken, leaves, structure, Z, cfg, tmp_path / "b")


def test_numbers_lost_within_a_chunk_are_followed_to_their_step_and_atom(structure, tmp_path):
    field, leaves = springs(structure)

    def torn(leaves, xyz):
        terms, forces = field(leaves, xyz)
        forces = forces.at[5].add(jnp.array([0.0, 0, 3.0]))
        gone = jnp.sum((xyz[5] - xyz[1]) ** 2) > 1.2**2  # then all is lost, as in a potential of many bodies
        return terms, jnp.where(gone, jnp.nan, forces)

    def told(record, folder):
        cfg = dataclasses.replace(CONFIG, steps=400, record=record, equilibration=0, runaway=1e6)
        with pytest.raises(RunawayError) as caught:
            simulate.simulate(torn, leaves * 0.1, structure, Z, cfg, folder)
        return str(caught.value)

    one, whole = told(1, tmp_path / "one"), told(100, tmp_path / "chunk")
    step = int(whole.split(":")[0].removeprefix("step "))
    assert 5 < step < 100 and whole.split("; ")[:2] == one.split("; ")[:2]
    assert "no atom's position and force are finite; at the step before the largest force, " in whole
    assert "is on A MOH 1 HO;" in whole and "last good frame (step 0)" in whole and f"frame (step {step - 1})" in one
    assert np.isfinite(read_structure(tmp_path / "chunk" / "last.pdb").xyz).all()
    for folder, frames in (("one", step), ("chunk", 1)):
        seen = read_frames(tmp_path / folder / "trajectory.dcd")
        assert len(seen) == frames and np.isfinite(seen).all()


@pytest.mark.parametrize(("z", "first", "rest"), [((16, 16), 3.0, 2.05), ((8, 1), 0.5, 0.97)], ids=["S-S", "O-H"])
def test_a_strained_bond_may_relax_and_a_parted_one_stops_the_run(structure, z, first, rest):
    pair = structure.select(np.arange(6) < 2)
    pair = dataclasses.replace(pair, xyz=np.array([[0, 0, 0], [first, 0, 0]], np.float32))
    guard = simulate.Guard(pair, np.array(z), np.array([[0, 1]]), CONFIG, 6)

    def seen(length):
        xyz = np.array([[[0, 0, 0], [length, 0, 0]]], float)
        return simulate.Observed({"e": np.zeros(1)}, np.zeros(1), np.full(1, 300.0), xyz, np.zeros((1, 2, 3)))

    for length in (first, rest, rest - 0.2, rest + 0.35):
        guard(seen(length), 1)
    for length in (1.9 * rest, 0.4 * rest):
        with pytest.raises(RunawayError, match=f"bond .* is {length:.2f} Å long"):
            guard(seen(length), 1)


def test_springs_of_equilibration_are_those_of_the_stages(structure, tmp_path):
    field, leaves = springs(structure)
    cfg = dataclasses.replace(CONFIG, steps=0, equilibration=200, record=200, stages=(50.0, 1e-6))
    simulate.simulate(field, leaves, structure, Z, cfg, tmp_path)
    with open(tmp_path / "energies.csv") as file:
        table = list(csv.DictReader(file))
    strong, weak = float(table[1]["restraint_ev"]), float(table[2]["restraint_ev"])
    assert strong > 1e-3 * KCAL_MOL and weak < 1e-4 * strong


@pytest.mark.parametrize(
    "wrong",
    [{"steps": -1}, {"steps": 150}, {"record": 0}, {"replicas": 0}, {"runaway": 1.0}],
    ids=lambda w: "-".join(map(str, *w.items())),
)
def test_numbers_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulationConfig(**wrong)
    with pytest.raises(ValueError, match="ensemble"):
        Dynamics(ensemble="npt")
    for name, value in (("timestep", 0.0), ("temperature", -1.0), ("timestep", np.inf), ("relaxation", np.nan)):
        with pytest.raises(ValueError, match=f"^{name} must be above 0 and finite, got {value:g}$"):
            Dynamics(**{name: value})
    with pytest.raises(ValueError, match="^friction must be at least 0"):
        Dynamics(friction=-0.1)
