"""What trajectories tell."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure
from jaxprot.md import analysis


@pytest.fixture(scope="module")
def trpcage(example):
    return read_structure(example("trpcage"))


def test_couplings_of_helix_and_strand():
    """Karplus curve: about 4 Hz in a helix, 9 to 10 Hz in a strand."""
    helix, strand = analysis.karplus(-60.0), analysis.karplus(-120.0)
    assert helix == pytest.approx(6.51 * 0.25 - 1.76 * -0.5 + 1.60) and 3.5 < helix < 4.5
    assert strand == pytest.approx(6.51 + 1.76 + 1.60)
    np.testing.assert_allclose(analysis.karplus([60.0]), [6.51 - 1.76 + 1.60])


def test_a_helix_is_a_helix(trpcage):
    found = analysis.analyse(trpcage, trpcage.xyz[None])
    assert found.phi.shape == (1, 20) and len(found.backbone.residue) == 20
    helix = [i for i, row in enumerate(found.backbone.residue) if 4 <= trpcage.resid[row] <= 9]
    assert np.all(np.abs(found.phi[0, helix] + 63) < 20) and np.all(np.abs(found.psi[0, helix] + 42) < 25)
    assert np.nanmax(found.coupling[helix]) < 7.5
    names = trpcage.res_name[found.backbone.residue]
    np.testing.assert_array_equal(np.isnan(found.coupling), np.isin(names, ["PRO", "GLY"]))
    assert found.rmsd[0] < 1e-3


def test_turning_and_moving_is_no_change(trpcage):
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(8):
        turn = Rotation.random(random_state=rng).as_matrix()
        frames.append(trpcage.xyz @ turn.T + rng.normal(size=3) * 30)
    frames = np.array(frames)
    found = analysis.analyse(trpcage, frames, trpcage.xyz)
    assert found.rmsd.max() < 1e-2 and np.nanmax(found.rmsf) < 1e-2
    moving = frames + rng.normal(size=frames.shape) * np.where(trpcage.atom_residue == 5, 1.0, 0.0)[None, :, None]
    assert np.nanargmax(analysis.analyse(trpcage, moving, trpcage.xyz).rmsf) == 5
    assert np.isnan(found.rmsf[[0, -1]]).all()  # caps have no alpha carbon


def test_frames_of_another_molecule(trpcage):
    for frames in (np.zeros((0, trpcage.n_atoms, 3)), np.zeros((2, 5, 3))):
        with pytest.raises(InputError, match="frames"):
            analysis.analyse(trpcage, frames)


def test_native_contacts_break_as_the_chain_opens(trpcage):
    frames = np.stack([trpcage.xyz, trpcage.xyz * 1.05, trpcage.xyz * 2.5])
    found = analysis.native_contacts(trpcage, frames)
    assert found[0] > 0.99 and found[0] > found[1] > 0.95 and found[2] < 0.01
    with pytest.raises(InputError, match="no contacts"):
        analysis.native_contacts(trpcage, frames, apart=100)


@pytest.mark.parametrize(
    ("counts", "shown"), [(1, ["1", "2"]), (7, ["1", "2", "5"]), (4000, ["1", "10", "100", "1000"])]
)
def test_counts_of_torsions_are_plain_numbers(tmp_path, monkeypatch, counts, shown):
    from matplotlib.figure import Figure

    from jaxprot.plots import dynamics

    bars = []
    original = Figure.colorbar
    monkeypatch.setattr(Figure, "colorbar", lambda *a, **k: bars.append(original(*a, **k)) or bars[-1])
    dynamics.ramachandran(np.full(counts, 12.0), np.full(counts, 12.0), tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 1000
    assert [label.get_text() for label in bars[0].ax.get_yticklabels()] == shown
    assert not len(bars[0].ax.yaxis.get_ticklocs(minor=True))
