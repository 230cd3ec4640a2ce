"""The reference model as beads, and its pairs."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxprot.core.errors import InputError
from jaxprot.cryostar import gmm
from jaxprot.cryostar.gmm import Beads
from jaxprot.io.structures import read_structure


def beads(xyz, chain="A", resid=None, name="CA", icode=""):
    n = len(xyz)

    def each(value):
        return np.array([value] * n) if isinstance(value, str) else np.asarray(value)

    return Beads(
        "made", np.asarray(xyz, np.float32), np.full(n, 38.0, np.float32), each(name), each("ALA"), each(chain),
        np.arange(n) if resid is None else np.asarray(resid), each(icode),
    )  # fmt: skip


def test_beads_of_a_protein(example):
    structure = read_structure(example("trpcage"))
    found = gmm.beads_of(structure)
    assert len(found) == 20 and set(found.atom_name) == {"CA"} and not found.nucleic.any()
    first = structure.atom_residue == 1  # after the cap
    numbers = {"C": 6, "N": 7, "O": 8, "H": 1, "S": 16}
    assert found.electrons[0] == sum(numbers[e] for e in structure.element[first])


def test_residues_without_the_atom_and_ligands_are_left_out(example, caplog):
    structure = read_structure(example("trpcage"))
    cut = structure.select(~((structure.atom_name == "CA") & (structure.atom_residue == 3)))
    assert len(gmm.beads_of(cut)) == 19 and "1 residues without CA" in caplog.text
    with pytest.raises(InputError, match="nothing to make beads of"):
        gmm.beads_of(structure.select(structure.atom_name == "N"))


def test_pairs_are_those_of_all_distances():
    rng = np.random.default_rng(0)
    xyz, chain = rng.normal(size=(80, 3)) * 9, np.repeat(["A", "B"], 40)
    made = beads(xyz, chain, np.tile(np.arange(40), 2))
    found = gmm.pairs_of(made, protein=(12.0, 8.0), span=30)
    distance = cdist(made.xyz.astype(float), made.xyz.astype(float))
    connect = {(i, i + 1) for i in range(79) if i != 39}
    assert set(map(tuple, found.connect.tolist())) == connect

    def expected(keep):
        return sorted({(i, j) for i in range(80) for j in range(i + 1, 80) if keep(i, j)} - connect)

    def elastic(i, j):
        if chain[i] == chain[j]:
            return distance[i, j] <= 12 and abs(made.resid[i] - made.resid[j]) <= 30
        return distance[i, j] <= 8

    assert found.elastic.tolist() == [list(pair) for pair in expected(elastic)]
    assert found.clash.tolist() == [list(pair) for pair in expected(lambda i, j: 4 <= distance[i, j] <= 10)]
    first, second = chain[found.elastic.T]
    np.testing.assert_array_equal(found.chains, [(first == c) & (second == c) for c in "AB"])


def test_breaks_insertions_and_lone_beads():
    line = np.arange(5)[:, None] * np.array([[3.8, 0, 0]])
    made = beads(line, resid=[-2, -1, 5, 5, 6], icode=["", "", "", "A", ""])
    assert gmm.pairs_of(made).connect.tolist() == [[0, 1], [2, 3], [3, 4]]
    alone = gmm.pairs_of(beads(np.zeros((1, 3))))
    assert [part.shape for part in alone] == [(0, 2), (0, 2), (0, 2), (0, 0)]


def test_ten_thousand_beads_need_no_square():
    xyz = np.random.default_rng(0).uniform(0, 150, size=(10_000, 3))
    found = gmm.pairs_of(beads(xyz))
    assert len(found.connect) == 9999 and 10_000 < len(found.elastic) < 2_000_000


@pytest.mark.golden
def test_beads_and_pairs_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "01_structure.npz")
    made = Beads(
        "1ake", z["coord"], z["num_electron"].astype(np.float32), z["atom_name"], z["res_name"], z["chain_id"],
        z["res_id"], np.full(len(z["coord"]), ""),
    )  # fmt: skip
    found = gmm.pairs_of(made)
    np.testing.assert_array_equal(found.connect, z["connect_pairs"])
    np.testing.assert_array_equal(found.elastic, z["cutoff_pairs"])
    assert {tuple(sorted(pair)) for pair in z["clash_pairs"].tolist()} == set(map(tuple, found.clash.tolist()))
    np.testing.assert_array_equal(found.chains, z["cutoff_chain_mask"])
    z = np.load(goldens("cryostar") / "02_pairs_multichain.npz")
    made = beads(z["coord"], z["chain_id"], z["res_id"], z["atom_name"])
    found = gmm.pairs_of(made, protein=(12.0, 10.0))
    np.testing.assert_array_equal(found.connect, z["connect"])
    np.testing.assert_array_equal(found.elastic, z["elastic_pairs"])
    assert {tuple(sorted(pair)) for pair in z["clash_pairs"].tolist()} == set(map(tuple, found.clash.tolist()))
    np.testing.assert_array_equal(found.chains, z["chain_mask"])
