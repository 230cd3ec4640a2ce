"""Reweighting against a protein whose density of states is known."""

import importlib.util
import json

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.units import BOLTZMANN_EV
from jaxprot.md import thermodynamics

# Two states with Gaussian densities of states: means and widths in eV, and the logarithm of the ratio of their sizes.
FOLDED, UNFOLDED, SIZE = (0.0, 0.10), (1.75, 0.16), 50.6
TEMPERATURES = (280.0, 310.0, 340.0, 370.0, 400.0)


def exact(temperature):
    """Free energy, enthalpy and heat capacities of unfolding (eV, eV, eV/K)."""
    beta = 1 / (BOLTZMANN_EV * temperature)
    (low, narrow), (high, broad) = FOLDED, UNFOLDED
    free = -(SIZE - beta * (high - low) + beta**2 * (broad**2 - narrow**2) / 2) / beta
    enthalpy = high - low - beta * (broad**2 - narrow**2)
    return free, enthalpy, (broad**2 - narrow**2) * beta / temperature


def sample(temperature, count, rng):
    share = 1 / (1 + np.exp(-exact(temperature)[0] / (BOLTZMANN_EV * temperature)))
    folded = rng.random(count) < share
    beta = 1 / (BOLTZMANN_EV * temperature)
    mean = np.where(folded, FOLDED[0] - beta * FOLDED[1] ** 2, UNFOLDED[0] - beta * UNFOLDED[1] ** 2)
    return rng.normal(mean, np.where(folded, FOLDED[1], UNFOLDED[1])), folded


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    return [sample(t, 4000, rng) for t in TEMPERATURES]


@pytest.fixture(scope="module")
def weighted(runs):
    return thermodynamics.reweighting([energy for energy, _ in runs], TEMPERATURES)


def test_free_energies_of_the_runs(weighted):
    beta = weighted.beta
    states = [-beta * m + beta**2 * s**2 / 2 + c for (m, s), c in ((FOLDED, 0.0), (UNFOLDED, SIZE))]
    expected = -np.logaddexp(*states)
    # The estimator's zero of energy is the mean of all configurations.
    expected = expected - beta * weighted.energies.mean()
    np.testing.assert_allclose(weighted.free, expected - expected[0], atol=0.15)


def test_folding_of_a_known_density_of_states(runs, weighted):
    at = np.arange(290.0, 391.0, 5.0)
    found = thermodynamics.folding(weighted, np.concatenate([folded for _, folded in runs]), at)
    free, enthalpy, heat = exact(at)
    near = np.abs(free) < 0.08
    assert near.sum() >= 5
    np.testing.assert_allclose(found.free_energy[near], free[near], atol=0.006)
    np.testing.assert_allclose(found.enthalpy[near], enthalpy[near], atol=0.03)
    np.testing.assert_allclose(found.heat_capacity_change[near], heat[near], rtol=0.35)
    melting = np.interp(0, -free, at)
    assert found.melting == pytest.approx(melting, abs=1.5)
    # At the melting temperature half is folded, and the heat capacity has its peak.
    assert np.interp(found.melting, at, found.folded) == pytest.approx(0.5, abs=0.01)
    assert at[np.argmax(found.heat_capacity)] == pytest.approx(melting, abs=10)


def test_weights_at_a_simulated_temperature_are_those_of_its_run(weighted, runs):
    weight = np.exp(thermodynamics.log_weights(weighted, TEMPERATURES[2]))
    assert weight.sum() == pytest.approx(1)
    assert np.sum(weight * weighted.energies) == pytest.approx(runs[2][0].mean(), abs=0.03)


def test_one_run_alone(runs):
    found = thermodynamics.reweighting([runs[1][0]], [TEMPERATURES[1]])
    np.testing.assert_allclose(np.exp(thermodynamics.log_weights(found, TEMPERATURES[1])), 1 / 4000)


def test_an_offset_of_the_energies_changes_nothing(runs, weighted):
    far = thermodynamics.reweighting([energy - 1e5 for energy, _ in runs], TEMPERATURES)
    np.testing.assert_allclose(far.free, weighted.free, atol=1e-5)


def test_intervals_hold_the_truth(runs):
    energies, folded = zip(*[(e[:800], f[:800]) for e, f in runs], strict=True)
    at = np.arange(320.0, 371.0, 5.0)
    found = thermodynamics.bootstrap(energies, folded, TEMPERATURES, at, draws=20)
    melting = [one.melting for one in found]
    free = exact(at)[0]
    assert len(found) == 20 and 0 < np.std(melting) < 5
    assert np.min(melting) - 2 < np.interp(0, -free, at) < np.max(melting) + 2


def test_the_script_says_why_a_run_is_none_and_leaves_nothing(root, tmp_path, capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("script", root / "scripts" / "ai2bmd_thermodynamics.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"arguments": {"temperature": 300, "ensemble": "nve"}}))
    (run / "energies.csv").write_text("step,time_ps,potential_ev\n0,0,1\n")

    def stopped(*more):
        with pytest.raises(SystemExit):
            script.main([str(run), "--output", str(out), *more])
        return capsys.readouterr().err.splitlines()[-1]

    assert stopped().endswith(f"error: {run}: simulated at constant energy; its temperature is not kept")
    frames = script.Frames("run/0", 300.0, np.arange(3.0), np.zeros(3), np.ones(3))
    monkeypatch.setattr(script, "read_run", lambda *_: [frames])
    assert "every configuration is folded" in stopped() and not out.exists()


@pytest.mark.parametrize(
    ("energies", "folded", "message"),
    [
        ([np.array([np.nan])], [False], "finite"),
        ([np.zeros(0)], [], "at least one"),
        ([np.zeros(3)], [True] * 3, "every configuration is folded"),
        ([np.zeros(3)], [False] * 3, "every configuration is unfolded"),
        ([np.zeros(3)], [False] * 2, "2 flags for 3"),
    ],
)
def test_bad_input(energies, folded, message):
    with pytest.raises(InputError, match=message):
        thermodynamics.folding(thermodynamics.reweighting(energies, [300.0]), np.array(folded), np.array([300.0]))
