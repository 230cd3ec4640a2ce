"""Labels of local structure."""

import numpy as np

from jaxprot.core.geometry import dihedrals
from jaxprot.massa.featurize import IGNORE
from jaxprot.massa.local import CLASSES, EDGES, local_labels


def chain(count, seed=0):
    """Backbones of residues that follow each other at a peptide's distance, in no particular fold."""
    rng = np.random.default_rng(seed)
    points, last = [], np.zeros(3)
    for _ in range(count):
        for length in (1.33, 1.46, 1.52):
            step = rng.normal(size=3)
            last = last + length * step / np.linalg.norm(step)
            points.append(last)
    backbone = np.array(points).reshape(count, 3, 3)
    return np.concatenate([backbone, backbone[:, 2:] + [[[0.0, 0.0, 1.23]]]], 1)


def test_bins_hold_their_angles():
    coords = chain(60)
    found = local_labels("A" * 60, coords)
    n, ca, c = coords[:, 0], coords[:, 1], coords[:, 2]
    phi = dihedrals(np.stack([c[:-2], n[1:-1], ca[1:-1], c[1:-1]], 1))
    psi = dihedrals(np.stack([n[1:-1], ca[1:-1], c[1:-1], n[2:]], 1))
    assert found["torsion"][0] == found["torsion"][-1] == IGNORE
    inner = found["torsion"][1:-1]
    for number, first, angles in ((inner // 6, -150, phi), (inner % 6, -75, psi)):
        assert ((angles - (first + 60 * number)) % 360 < 60).all() and len(np.unique(number)) == 6
    for name, classes in CLASSES.items():
        values = found[name][found[name] != IGNORE]
        assert found[name].dtype == np.int32 and values.min() >= 0 and values.max() < classes


def test_burial_counts_neighbours():
    far = chain(1)
    many = np.concatenate([far + [[[100.0 * (i >= 10), 0, 0]]] for i in range(13)])
    found = local_labels("A" * 13, many)["burial"]
    assert (found[:10] == np.searchsorted(EDGES, 9, "right")).all() and (found[10:] == 0).all()


def test_missing_atoms_and_gaps_have_no_labels():
    coords = chain(12)
    coords[4, 2] = np.nan
    coords[8:] += 50
    found = local_labels("A" * 12, coords)
    assert found["secondary"][4] == found["burial"][4] == IGNORE and (found["burial"][5:] != IGNORE).all()
    ignored = set(np.flatnonzero(found["torsion"] == IGNORE).tolist())
    assert ignored == {0, 3, 4, 5, 7, 8, 11}
    assert (local_labels("AC", chain(2))["torsion"] == IGNORE).all()
