"""Hydrogen bonds and secondary structure of ideal backbones."""

import numpy as np

from jaxprot.core.secondary import HELIX, OTHER, hydrogen_bonds, secondary_structure


def extend(points, length, angle, torsion):
    """A fourth point: its distance from the third, angle (degrees) with the second, and torsion about 2-3."""
    a, b, c = points[-3:]
    angle, torsion = np.radians(angle), np.radians(torsion)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    x = np.array([-np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion)]) * length
    return c + np.stack([along, np.cross(normal, along), normal]).T @ x


def backbone(phi, psi, count):
    """(count, 4, 3) of standard bonds and angles and equal torsions."""
    points = [np.array(p, float) for p in ([0, 0, 0], [1.458, 0, 0], [2.0, 1.42, 0])]
    for _ in range(count):
        points.append(extend(points, 1.329, 116.6, psi))
        points.append(extend(points, 1.458, 121.7, 180))
        points.append(extend(points, 1.525, 111.0, phi))
    n, ca, c = (np.array(points[i::3][: count + 1]) for i in range(3))
    oxygen = []
    for i in range(count):  # in the plane of the peptide, away from CA and the next N
        to_n, to_ca = n[i + 1] - c[i], ca[i] - c[i]
        away = -(to_n / np.linalg.norm(to_n) + to_ca / np.linalg.norm(to_ca))
        oxygen.append(c[i] + 1.231 * away / np.linalg.norm(away))
    return np.stack([n[:count], ca[:count], c[:count], np.array(oxygen)], 1)


def test_an_alpha_helix_has_its_bonds():
    coords = backbone(-60, -45, 14)
    bonds = hydrogen_bonds(coords)
    assert np.diagonal(bonds, 4).all()
    found = secondary_structure(coords)
    assert (found[1:-1] == HELIX).all() and found[0] == found[-1] == OTHER
    donor = np.ones(14, bool)
    donor[8] = False  # a proline
    assert not hydrogen_bonds(coords, donor)[:, 8].any() and hydrogen_bonds(coords, donor)[5, 9]


def test_a_stretched_chain_alone_is_no_strand():
    assert (secondary_structure(backbone(-120, 135, 10)) == OTHER).all()


def test_missing_atoms_and_gaps():
    coords = backbone(-60, -45, 14)
    coords[6, 3] = np.nan
    found = secondary_structure(coords)
    assert len(found) == 14 and not hydrogen_bonds(coords)[6].any()
    apart = np.concatenate([backbone(-60, -45, 8), backbone(-60, -45, 8) + 100])
    assert (secondary_structure(apart)[:8] == secondary_structure(backbone(-60, -45, 8))).all()
    # Where a residue of a pi helix is not there, its turns of five look like turns of four; they lie over the gap.
    whole = backbone(-57, -70, 18)
    assert np.diagonal(hydrogen_bonds(whole), 5).all() and not np.diagonal(hydrogen_bonds(whole), 4).any()
    cut = np.delete(whole, 8, 0)
    assert np.diagonal(hydrogen_bonds(cut), 4)[4:8].any()
    assert (secondary_structure(cut)[7:9] == OTHER).all()
    assert not hydrogen_bonds(apart)[:, 8].any()  # its NH would point from a residue that is not there
    assert (secondary_structure(coords[:3]) == OTHER).all() and secondary_structure(coords[:0]).shape == (0,)


def test_real_chains_agree_with_the_published_assignment(shared):
    """Chains that share a stretch with a labelled sequence, which may come of another crystal."""
    from jaxprot.io.archives import read_chains
    from jaxprot.massa.records import of_structure
    from jaxprot.massa.tasks.tables import read_task

    table = read_task("secondary_structure", shared / "data" / "tasks")
    near = {s[k : k + 15]: (row, k) for row, s in enumerate(table.sequences) for k in range(len(s) - 14)}
    right = total = 0
    for chain in read_chains(shared / "data" / "structures" / "train.npz")[:150]:
        for protein in of_structure(chain.structure):
            starts = [k for k in range(0, len(protein.sequence) - 14, 5) if protein.sequence[k : k + 15] in near]
            if not starts:
                continue
            found = secondary_structure(protein.coords, np.array([c != "P" for c in protein.sequence]))
            row, place = near[protein.sequence[starts[0] : starts[0] + 15]]
            for k in range(len(found)):
                there = k + place - starts[0]
                if 0 <= there < len(table.sequences[row]) and table.sequences[row][there] == protein.sequence[k]:
                    label = table.labels[row][there]
                    right, total = right + (label == found[k]), total + (label >= 0)
    assert total > 1000 and right / total > 0.93
