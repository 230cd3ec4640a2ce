"""From coordinates and embeddings to padded arrays."""

import dataclasses

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.massa import featurize
from jaxprot.massa.config import MASSAConfig

CFG = MASSAConfig(seq_dim=4, go_dim=3, width=8, max_length=60, neighbours=5)


def helix(n, seed=0):
    """(n, 4, 3) coordinates of a rough chain."""
    rng = np.random.default_rng(seed)
    turn = np.arange(n)[:, None] * np.radians(100) + np.array([-0.4, 0, 0.5, 0.7])
    rise = 1.5 * np.arange(n)[:, None] + np.array([-0.9, 0, 1.2, 2.2])
    xyz = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), rise], -1)
    return (xyz + 0.1 * rng.normal(size=xyz.shape)).astype(np.float32)


def record(n=12, **changes):
    rng = np.random.default_rng(1)
    made = featurize.Record("a", "ACDEFGHIKLMNPQRSTVWY" * 4, np.zeros(0), helix(n), rng.normal(size=(2, 3)))
    made = dataclasses.replace(made, sequence=made.sequence[:n], embedding=rng.normal(size=(n, 4)))
    return dataclasses.replace(made, **changes)


@pytest.mark.golden
@pytest.mark.parametrize("protein", [0, 1, 2, "with missing residues"])
def test_graph_is_the_published_one(folder, protein):
    if isinstance(protein, int):
        golden = np.load(folder / "massa_full.npz")
        bounds = np.concatenate([[0], np.cumsum(golden["lengths"])])
        rows = slice(bounds[protein], bounds[protein + 1])
        target = golden["graph_edge_index"][1]
        edges = (target >= rows.start) & (target < rows.stop)
        parts = [golden[f"graph_{name}"] for name in ("node_s", "node_v", "edge_s", "edge_v")]
        coords, index = golden["coords"][rows], golden["graph_edge_index"][:, edges] - rows.start
        node_s, node_v, edge_s, edge_v = parts[0][rows], parts[1][rows], parts[2][edges], parts[3][edges]
    else:
        golden = np.load(folder / "featurizer_missing.npz")
        coords = golden["coords"][: int(golden["max_seq_len"])]
        node_s, node_v, edge_s, edge_v, index = (
            golden[name] for name in ("node_s", "node_v", "edge_s", "edge_v", "edge_index")
        )
        np.testing.assert_array_equal(np.isfinite(coords).all((1, 2)), golden["mask"])
    found = featurize.graph(coords, 30)
    np.testing.assert_array_equal(found.index[found.present], index[0])
    np.testing.assert_array_equal(np.nonzero(found.present)[0], index[1])
    np.testing.assert_allclose(found.node_s, node_s, atol=1e-5)
    np.testing.assert_allclose(found.node_v.swapaxes(1, 2), node_v, atol=1e-5)
    np.testing.assert_allclose(found.edge_s[found.present], edge_s, atol=1e-5)
    np.testing.assert_allclose(found.edge_v[found.present][..., 0], edge_v[:, 0], atol=1e-5)


def test_missing_residues_have_no_neighbours_and_are_none():
    coords = helix(10)
    coords[3, 3] = np.inf  # one oxygen is enough
    coords[7] = np.nan
    found = featurize.graph(coords, 4)
    assert not found.present[[3, 7]].any() and found.present[[0, 1, 2, 4, 5, 6, 8, 9]].all()
    assert not np.isin(found.index[found.present], [3, 7]).any()
    assert all(np.isfinite(array).all() for array in found)
    assert not found.node_v[3].any()
    np.testing.assert_array_equal(found.node_s[7], [1, 1, 1, 0, 0, 0])


def test_turning_a_protein_turns_its_vectors_alone():
    coords, turn = helix(20), np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    a, b = featurize.graph(coords, 6), featurize.graph((coords @ turn.T + 3).astype(np.float32), 6)
    np.testing.assert_array_equal(a.index, b.index)
    np.testing.assert_allclose(a.node_s, b.node_s, atol=1e-3)
    np.testing.assert_allclose(a.edge_s, b.edge_s, atol=1e-4)
    np.testing.assert_allclose(np.einsum("xy,nyc->nxc", turn, a.node_v), b.node_v, atol=1e-4)
    np.testing.assert_allclose(np.einsum("xy,nkyc->nkxc", turn, a.edge_v), b.edge_v, atol=1e-4)


def test_a_single_residue_and_few_residues():
    features, _ = featurize.featurize(record(1), CFG)
    assert features.mask.sum() == 1 and not features.present.any() and features.has_structure
    features, _ = featurize.featurize(record(3), CFG)
    np.testing.assert_array_equal(features.present.sum(1)[:3], 2)


def test_missing_modalities_are_told():
    features, labels = featurize.batch([record(), record(coords=None, go=None), record(9, go=np.zeros((0, 3)))], CFG)
    np.testing.assert_array_equal(features.has_structure, [True, False, True])
    np.testing.assert_array_equal(features.go_mask.sum(1), [2, 0, 0])
    assert features.seq.shape == (3, 32, 4) and features.go.shape == (3, 8, 3)
    assert not features.present[1].any() and (labels.go == -100).all()
    assert (labels.pro[2, :9] >= 0).all() and (labels.pro[2, 9:] == -100).all()


def test_letters_without_a_class_are_not_predicted():
    found = featurize.residue_labels("AXBZUOJYc", 20)
    np.testing.assert_array_equal(found, [0, -100, -100, -100, -100, -100, -100, 19, 1])
    np.testing.assert_array_equal(featurize.residue_labels("AXY", 21), [0, 19, 20])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"embedding": np.zeros((11, 4))}, r"a: the embedding is \(11, 4\), expected \(12, 4\)"),
        ({"embedding": np.full((12, 4), np.nan)}, "not finite"),
        ({"coords": np.zeros((13, 4, 3))}, r"the backbone is \(13, 4, 3\)"),
        ({"go": np.zeros((2, 5))}, r"GO terms are \(2, 5\)"),
        ({"labels": {"motif": np.zeros(11, int)}}, r"labels motif are \(11,\), expected \(12,\)"),
        ({"labels": {"region": np.full(12, 422)}}, "labels region hold 422, expected 0 to 421 or -100"),
        ({"labels": {"turns": np.zeros(12, int)}}, "labels 'turns'; known: pro, go"),
        ({"sequence": ""}, "an empty sequence"),
    ],
)
def test_records_that_do_not_fit_are_refused_as_a_whole(changes, told):
    with pytest.raises(InputError, match=told):
        featurize.featurize(record(**changes), CFG)


def test_long_sequences_are_refused_or_cropped():
    long = record(61, labels={"motif": np.arange(61) % 7})
    with pytest.raises(InputError, match="61 residues, the network has positions for 60"):
        featurize.batch([long], CFG)
    features, labels = featurize.batch([long], CFG, long="crop")
    assert features.mask.sum() == 60 and (labels.motif[0, :60] == np.arange(60) % 7).all()
    np.testing.assert_array_equal(features.index[0, :60], featurize.graph(long.coords[:60], 5).index)
