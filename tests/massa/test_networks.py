"""Types of interactions: tables, parts, training."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import PhysicoChemical
from jaxprot.massa.model import MASSA
from jaxprot.massa.predict import Predictor
from jaxprot.massa.tasks import networks

SMALL = networks.GraphConfig(width=16, epochs=30, batch=64, dropout=0.1, lr=1e-2, split="random", seed=2)


def write(path, rows):
    path.write_text("\n".join(rows) + "\n")
    return path


def tables(folder, edges, proteins=("protein,sequence", "a,ACD", "b,wwk", "c,MKV", "d,GGG")):
    return write(folder / "proteins.csv", proteins), write(folder / "edges.csv", edges)


def test_tables(tmp_path):
    rows = ["protein_a,protein_b,binding,catalysis", "a,b,1,0", "c,b,,", "d,a,0,1"]
    found = networks.read_network(*tables(tmp_path, rows))
    assert found.names == ("a", "b", "c", "d") and found.sequences[1] == "WWK"
    assert found.type_names == ("binding", "catalysis")
    np.testing.assert_array_equal(found.pairs, [[0, 1], [3, 0]])
    np.testing.assert_array_equal(found.types, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(found.asked, [[2, 1]])


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (["protein_a,binding", "a,1"], "no column protein_b; it has protein_a, binding"),
        (["protein_a,protein_b", "a,b"], "no column of a type"),
        (["protein_a,protein_b,x", "a,b,1", "a,e,1"], r"line 3: protein 'e' is not in .*proteins\.csv"),
        (["protein_a,protein_b,x", "a,b,1", "c,d,0", "b,a,0"], "line 4: the pair of line 2 again"),
        (["protein_a,protein_b,x", "a,a,1"], "line 2: a pair of one protein"),
        (["protein_a,protein_b,x,score", "a,b,1,0.7"], "line 2: score '0.7'; a type is 0 or 1"),
        (["protein_a,protein_b,x,y", "a,b,1,"], "line 2: y ''; a type is 0 or 1"),
        (["protein_a,protein_b,x,y", "a,b,,"], "no pair has types"),
        (["protein_a,protein_b,x"], "no rows"),
    ],
)
def test_bad_pairs(tmp_path, edges, message):
    with pytest.raises(InputError, match=message):
        networks.read_network(*tables(tmp_path, edges))


def test_bad_proteins(tmp_path):
    edges = ["protein_a,protein_b,x", "a,b,1"]
    with pytest.raises(InputError, match="line 3: protein 'a' occurs a second time"):
        networks.read_network(*tables(tmp_path, edges, ["protein,sequence", "a,ACD", "a,ACE"]))
    with pytest.raises(InputError, match=r"line 2: '\*' at place 2"):
        networks.read_network(*tables(tmp_path, edges, ["protein,sequence", "a,A*"]))
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        networks.read_network(tmp_path / "absent.csv", tmp_path / "edges.csv")


def test_stored_vectors_are_found_by_name(tmp_path):
    network = networks.read_network(*tables(tmp_path, ["protein_a,protein_b,x", "a,b,1"]))
    path, rows = tmp_path / "e.npz", np.arange(10.0).reshape(5, 2)
    np.savez(path, names=["c", "x", "b", "a", "d"], features=rows)
    np.testing.assert_array_equal(networks.stored(network, path), rows[[3, 2, 0, 4]])
    np.savez(path, names=["c", "x", "b", "a"], features=rows[:4])
    with pytest.raises(InputError, match="1 proteins are not in it, such as 'd'"):
        networks.stored(network, path)
    np.savez(path, names=["c", "d", "b", "a"], features=rows)
    with pytest.raises(InputError, match="one row for each name"):
        networks.stored(network, path)
    with pytest.raises(InputError, match="no file of names and features"):
        networks.stored(network, tmp_path / "edges.csv")
    with pytest.raises(InputError, match="no such file"):
        networks.stored(network, tmp_path / "absent.npz")


def groups(proteins=60, count=500, seed=0):
    """Proteins of two kinds that their vectors tell; the type of a pair is whether both are of one kind."""
    rng = np.random.default_rng(seed)
    kind = rng.random(proteins) < 0.5
    x = rng.normal(size=(proteins, 8)).astype(np.float32)
    x[:, 0] += np.where(kind, 3, -3)
    pairs = np.sort(rng.integers(0, proteins, (count, 2)), 1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).astype(np.int32)
    same = kind[pairs[:, 0]] == kind[pairs[:, 1]]
    types = np.stack([same, ~same], 1).astype(np.float32)
    names = tuple(map(str, range(proteins)))
    asked = pairs[-20:]
    return (
        networks.Network(names, ("A",) * proteins, pairs[:-20], types[:-20], ("same", "other"), asked),
        x,
        types[-20:],
    )


def test_parts_do_not_meet():
    network, _, _ = groups()
    for mode in ("random", "bfs", "dfs"):
        cfg = dataclasses.replace(SMALL, split=mode, validation=0.25)
        part = networks.parts(network.pairs, cfg)
        n = len(part)
        assert (part == "test").sum() == int(0.2 * n)
        assert (part == "valid").sum() == int(0.25 * (n - int(0.2 * n)))
        published = networks.parts(network.pairs, dataclasses.replace(cfg, select="test"))
        assert "valid" not in published and ((published == "test") == (part == "test")).all()


@pytest.fixture(scope="module")
def fitted():
    network, x, truth = groups()
    records = []
    return network, x, truth, networks.fit(network, x, SMALL, records.append), records


def test_types_of_pairs_are_learned(fitted):
    network, _, truth, found, records = fitted
    told = networks.figures(network, found)
    assert told["test"] > 0.9 > told["all_positive"] and told["valid"] > 0.9
    assert networks.micro_f1(found.asked, truth) > 0.85
    assert found.history == records and len(records) == 30 and records[-1]["loss"] < records[0]["loss"]
    # The first of the best epochs is kept, chosen by the validation part.
    scores = [record["micro_f1"] for record in records]
    assert found.epoch == 1 + int(np.argmax(scores))
    assert told["valid"] == max(scores)
    assert sum(one["pairs"] for one in told["known"].values()) == (found.part == "test").sum()


def test_what_is_held_out_tells_nothing(fitted):
    """Types of tested pairs, and whether these are pairs at all, change nothing unless the leak is asked for."""
    network, x, _, found, _ = fitted
    cfg = dataclasses.replace(SMALL, epochs=3)
    tested = found.part == "test"
    other = network.types.copy()
    other[tested] = 1 - other[tested]
    first, second = (networks.fit(network._replace(types=types), x, cfg) for types in (network.types, other))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    edges = networks.carrying(network.pairs, found.part != "train")
    assert {tuple(pair) for pair in edges.tolist()} == {tuple(p) for p in network.pairs[found.part == "train"].tolist()}
    leaky = networks.fit(network, x, dataclasses.replace(cfg, messages="all"))
    assert np.abs(leaky.probabilities - first.probabilities).max() > 1e-3


def test_the_published_choice_is_by_the_tested_pairs():
    network, x, _ = groups(40, 200)
    found = networks.fit(network, x, dataclasses.replace(SMALL, epochs=4, select="test"))
    told = networks.figures(network, found)
    assert told["test"] == max(record["micro_f1"] for record in found.history) and "valid" not in told


def test_micro_f1():
    # 2 hits, 1 false alarm, 1 miss.
    found, labels = np.array([[0.9, 0.6], [0.7, 0.1]]), np.array([[1, 0], [1, 1]])
    assert networks.micro_f1(found, labels) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert networks.micro_f1(np.zeros((2, 2)), np.zeros((2, 2))) == 0


def test_wrong_settings():
    named = {"split": "half", "messages": "some", "select": "train", "share": 1.0, "epochs": 0, "lr": 0.0}
    for wrong in ({name: value} for name, value in named.items()):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            networks.GraphConfig(**wrong)


@pytest.mark.slow
def test_vectors_of_the_network(tmp_path):
    cfg = MASSAConfig(
        seq_dim=49, max_length=64, width=16, convolutions=1, kernel=3, vectors=2, layers=1, neighbours=4, heads=2,
        fusion_layers=1, feedforward=16, go_dim=4, go_width=8, go_layers=1, go_heads=2, go_feedforward=8,
        cross_layers=1,
    )  # fmt: skip
    predictor = Predictor(MASSA(cfg, rngs=nnx.Rngs(0)))
    rows = ["protein,sequence", "a,ACD", f"b,{'W' * 80}"]
    network = networks.read_network(*tables(tmp_path, ["protein_a,protein_b,x", "a,b,1"], rows))
    seen = []
    found = networks.vectors(network, predictor, PhysicoChemical(), advance=lambda: seen.append(1))
    assert found.shape == (2, 16) and len(seen) == 2 and np.isfinite(found).all()
    with pytest.raises(InputError):
        networks.vectors(network, predictor, PhysicoChemical(), long="refuse")


def test_the_network_of_27k(shared):
    folder = shared / "data" / "tasks"
    if not folder.is_dir():
        pytest.skip("no tables of tasks")
    network = networks.read_network(folder / "shs27k_proteins.csv.gz", folder / "shs27k_edges.csv.gz")
    assert len(network.names) == 1690 and network.types.shape == (7624, 7) and not len(network.asked)
