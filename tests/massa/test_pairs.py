"""Tasks of pairs: a protein and a small molecule, or two proteins."""

import gzip
import importlib.util
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.ligand import Ligand
from jaxprot.massa.tasks import pair_batches, pair_network, pair_predict, pair_tables, pairs
from jaxprot.massa.tasks.cnn import CNNConfig
from jaxprot.massa.tasks.metrics import average_precision, pair_figures
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel
from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.weights import portable

SMALL = MASSAConfig(
    seq_dim=49, max_length=64, width=16, convolutions=1, kernel=3, vectors=2, layers=1, neighbours=4, fusion_layers=1,
    heads=2, feedforward=16, go_dim=4, go_width=8, go_layers=1, go_heads=2, go_feedforward=8, cross_layers=1,
    sequence_dropout=0.0, dropout=0.0, go_classes=3, motif_classes=2, domain_classes=2, region_classes=2,
)  # fmt: skip
needs_rdkit = pytest.mark.skipif(importlib.util.find_spec("rdkit") is None, reason="needs rdkit")


def write(path, rows, header):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def molecule(kind, atoms=4):
    """A chain of atoms of one kind, as features."""
    made = Ligand(
        np.zeros((16, 39), np.float32), np.zeros((16, 10), np.float32), np.zeros((16, 6), np.int32),
        np.zeros((16, 6), np.int32), np.zeros((16, 6), bool), np.arange(16) < atoms,
    )  # fmt: skip
    made.atoms[:atoms, kind] = 1
    for i in range(atoms - 1):
        made.neighbours[i, 1], made.neighbours[i + 1, 0] = i + 1, i
        made.bonds_of[i, 1] = made.bonds_of[i + 1, 0] = i
        made.present[i, 1] = made.present[i + 1, 0] = True
        made.bonds[i, 0] = 1
    return made


@pytest.fixture
def no_rdkit(monkeypatch):
    """Strings of letters stand for molecules, whose first letter and length are told apart."""
    monkeypatch.setattr(pair_tables, "molecule", lambda text, at: molecule(ord(text[0]) % 39, len(text)))


def ligand_table(path, kind, count=96, seed=0):
    """Whether (or how much) a protein of few or many tryptophans meets a molecule of one kind or another."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        many, other = rng.random(2) < 0.5
        text = "".join(rng.choice(list("WWWA" if many else "DEKA"), int(rng.integers(8, 20))))
        smiles = ("N" if other else "C") * int(rng.integers(2, 6))
        label = int(many) + int(other)
        shown = f"{label + 0.25}" if kind == "regression" else str(int(label > 0))
        rows.append(f"{text},{smiles},{shown},{'valid' if i % 4 == 0 else 'train'}")
    return str(write(path, rows, "sequence,smiles,label,split"))


def protein_table(path, count=96, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        one, other = ("".join(rng.choice(list("ACDEW"), int(rng.integers(8, 20)))) for _ in range(2))
        value = one.count("W") / len(one) + other.count("W") / len(other)
        rows.append(f"{one},{other},{10 * value - 3:.4f},{'valid' if i % 4 == 0 else 'train'}")
    return str(write(path, rows, "sequence,sequence2,label,split"))


def train(task, folder, steps=40, seed=0):
    cfg = TrainConfig(
        task=task, optim=OptimConfig(lr=1e-2, warmup=5, ema=0.9), steps=steps, micro=0, evaluate_every=steps,
        save_every=steps, log_every=steps, workers=0, seed=seed, init_seed=seed,
    )  # fmt: skip
    records = []
    outcome = fit(cfg, folder, parallel=Parallel("single"), report=records.append, header=task.header())
    return outcome.best, next(r for r in records[::-1] if "val_score" in r)


def test_tables_of_both_kinds(tmp_path, no_rdkit):
    path = write(tmp_path / "t.csv", ["acd,CC,1,train", "ACE,CCO,0,valid", "AAA,CC,,train", "GGG,CC,0,train"],
                 "sequence,smiles,label,split")  # fmt: skip
    table = pair_tables.read_pairs(path)
    assert pair_tables.is_pairs(path) and pair_tables.is_pairs("davis") and not pair_tables.is_pairs("stability")
    assert (table.kind, table.partner, table.classes, table.monitor) == ("classes", "smiles", 2, "roc_auc")
    # A row without a label is gone from every column.
    assert table.sequences == ["ACD", "ACE", "GGG"] and table.partners == ["CC", "CCO", "CC"]
    assert list(table.labels) == [1, 0, 0] and list(table.split) == ["train", "valid", "train"]
    assert set(table.ligands) == {"CC", "CCO"}
    assert pair_tables.read_pairs(path, kind="regression").kind == "regression"
    path = write(tmp_path / "p.csv", ["ACD,aa,1,train", "ACE,GG,3,train"], "sequence,sequence2,label,split")
    table = pair_tables.read_pairs(path)
    assert (table.kind, table.partner, table.partners, table.monitor) == (
        "regression", "sequence2", ["AA", "GG"], "pearson",
    )  # fmt: skip
    many = write(tmp_path / "m.csv", ["ACD,CC,40", "ACE,CC,1000"] * 20, "sequence,smiles,label")
    assert pair_tables.read_pairs(many).kind == "regression"  # nM, no classes


def test_a_pair_is_always_in_one_part(tmp_path):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACDEFG"), 12)) for _ in range(600)]
    both = list(zip(texts[::2], texts[1::2], strict=True))
    rows = [f"{a},{b},{i / 7}" for i, (a, b) in enumerate(both + [(b, a) for a, b in both])]
    table = pair_tables.read_pairs(write(tmp_path / "t.csv", rows, "sequence,sequence2,label"))
    np.testing.assert_array_equal(table.split[:300], table.split[300:])
    assert 20 < len(table.part("test")) < 120 and 20 < len(table.part("valid")) < 120


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["ACD,1.5"], "sequence,label", "no column smiles or sequence2"),
        (["ACD,AA,C,1.5"], "sequence,sequence2,smiles,label", "both smiles and sequence2"),
        (["ACD,AA"], "sequence,sequence2", "no column label"),
        (["AC*,AA,1.5"], "sequence,sequence2,label", r"line 2: '\*' at place 3"),
        (["ACD,AA,1.5", "ACD,,2.5"], "sequence,sequence2,label", "line 3, sequence2: an empty sequence"),
        (["ACD,AA,1.5", "ACD,AA,strong"], "sequence,sequence2,label", "line 3: classes of two proteins"),
        (["ACD,AA,1,train", "ACD,AA,2,other"], "sequence,sequence2,label,split", "line 3: part 'other'"),
        (["ACD,AA,1,test", "ACD,AA,2,test"], "sequence,sequence2,label,split", "no row of the part 'train'"),
        (["ACD,AA,1,train", "ACD,AA,1,train"], "sequence,sequence2,label,split", "all training labels are the same"),
        (["ACD,AA,"], "sequence,sequence2,label", "no row has a label"),
        ([], "sequence,sequence2,label", "no rows"),
    ],
)
def test_bad_tables(tmp_path, rows, header, message):
    with pytest.raises(InputError, match=message):
        pair_tables.read_pairs(write(tmp_path / "t.csv", rows, header))


@needs_rdkit
def test_strings_that_are_no_molecules_are_named_by_line(tmp_path):
    path = write(tmp_path / "t.csv", ["ACD,CCO,1.5", "ACD,C1CC,2.5"], "sequence,smiles,label")
    with pytest.raises(InputError, match=r"t\.csv, line 3: 'C1CC' is no SMILES string"):
        pair_tables.read_pairs(path)


def test_without_rdkit_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    path = write(tmp_path / "t.csv", ["ACD,CCO,1.5"], "sequence,smiles,label")
    with pytest.raises(InputError, match=r'^small molecules need RDKit: pip install "jaxprot\[ligands\]"$'):
        pair_tables.read_pairs(path)


def davis(folder, affinity=("l1,p1,8.5,test", "l2,p1,5,train_fold0", "l1,p2,7,train_fold1", "l2,p2,6.9,train_fold2")):
    write(folder / "davis_affinity.csv.gz", affinity, "ligand_id,protein_id,pkd,split")
    write(folder / "davis_ligands.csv.gz", ["l1,CC", "l2,N"], "ligand_id,smiles")
    write(folder / "davis_proteins.csv.gz", ["p1,ACD", "p2,WW"], "protein_id,sequence")
    for path in folder.glob("*.gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return folder


def test_kinases_are_joined_with_their_inhibitors(tmp_path, no_rdkit):
    folder = davis(tmp_path)
    table = pair_tables.read_davis(folder, "pkd", fold=1)
    assert table.sequences == ["ACD", "ACD", "WW", "WW"] and table.partners == ["CC", "N", "CC", "N"]
    np.testing.assert_array_equal(table.labels, [8.5, 5, 7, 6.9])
    assert list(table.split) == ["test", "train", "valid", "train"]
    active = pair_tables.read_pairs("kinase", folder)
    assert list(active.labels) == [1, 0, 1, 0] and active.class_names == ("inactive", "active")
    assert list(active.split) == ["test", "valid", "train", "train"]
    with pytest.raises(ValueError, match="fold 5"):
        pair_tables.read_davis(folder, fold=5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("l3,p1,8,test", r"line 3: ligand 'l3' is not in davis_ligands\.csv\.gz"),
        ("l1,p3,8,test", r"line 3: protein 'p3' is not in davis_proteins\.csv\.gz"),
        ("l1,p1,strong,test", "line 3: label 'strong' is no finite number"),
        ("l1,p1,8,train_fold7", "line 3: part 'train_fold7'"),
    ],
)
def test_rows_that_cannot_be_joined(tmp_path, no_rdkit, row, message):
    with pytest.raises(InputError, match=message):
        pair_tables.read_davis(davis(tmp_path, ("l1,p1,8,test", row)))


def test_identifiers_that_occur_twice(tmp_path, no_rdkit):
    davis(tmp_path)
    (tmp_path / "davis_ligands.csv.gz").write_bytes(gzip.compress(b"ligand_id,smiles\nl1,CC\nl1,N\n"))
    with pytest.raises(InputError, match="line 3: 'l1' occurs a second time"):
        pair_tables.read_davis(tmp_path)


@needs_rdkit
def test_the_tables_of_davis(shared):
    folder = shared / "data" / "tasks"
    if not folder.is_dir():
        pytest.skip("no tables of tasks")
    table = pair_tables.read_pairs("kinase", folder, fold=2)
    assert len(table.labels) == 30056 and len(table.ligands) == 68 and len(set(table.sequences)) <= 442
    assert 0.03 < table.labels.mean() < 0.15
    assert [len(table.part(name)) for name in ("train", "valid", "test")] == [20037, 5009, 5010]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("classes", 0.8), ("regression", 0.7), ("proteins", 0.6)])
def test_what_both_partners_tell_is_learned(tmp_path, no_rdkit, kind, least):
    path = protein_table(tmp_path / "t.csv") if kind == "proteins" else ligand_table(tmp_path / "t.csv", kind)
    task = pairs.PairTask(table=path, model=SMALL, items=1536)
    # The sigmoid head of two proteins is slow to learn from some beginnings of so small a network: seed 0 is one.
    best, told = train(task, tmp_path / "run", *((80, 1) if kind == "proteins" else (40, 0)))
    assert told["val_score"] > least
    assert told["val_score"] == told[f"val_{task.data.monitor}"]
    predictor = pair_predict.load(best)
    rows = task.data.part("valid")
    found = predictor.predict([task.data.sequences[i] for i in rows], [task.data.partners[i] for i in rows])
    again = pair_figures(task.data.kind, found, task.data.labels[rows])
    assert abs(again[task.data.monitor] - told["val_score"]) < 1e-4  # in the units of the table
    if kind != "classes":
        assert abs(again["rmse"] - told["val_rmse"]) < 1e-3


def test_weights_of_something_else(tmp_path):
    portable.save(tmp_path / "other.safetensors", {"a": np.zeros(1)}, {"network": "massa"})
    with pytest.raises(CheckpointError, match="not weights of pairs"):
        pair_predict.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(("kind", "classes"), [("classes", 2), ("regression", 0), ("proteins", 0)])
def test_every_kind_has_its_head(tmp_path, no_rdkit, kind, classes):
    path = protein_table(tmp_path / "t.csv", 8) if kind == "proteins" else ligand_table(tmp_path / "t.csv", kind, 8)
    task = pairs.PairTask(table=path, model=SMALL, items=512)
    assert task.data.classes == classes and task.header()["task"]["classes"] == classes
    shape, members, _ = task.batches(0, 0)
    batch = task.load(shape, members)

    def losses(key):
        net = task.build(key)
        found = net(batch.chain, batch.partner, key)
        return found, task.batch_loss(net, batch, key[None], np.ones(len(members)), None)["loss"].total

    found, total = jax.eval_shape(losses, jax.random.key(0))
    assert found.shape == ((len(members), 2) if classes else (len(members),)) and total.shape == ()


def test_losses_leave_padding_out(tmp_path, no_rdkit):
    key = jax.random.key(0)[None]
    task = pairs.PairTask(table=ligand_table(tmp_path / "t.csv", "classes", 8), model=SMALL)
    logits = np.log(np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], np.float32))
    batch = pair_batches.Paired(None, None, np.array([1, 0, 1]))
    loss = task.batch_loss(lambda *_: logits, batch, key, np.array([1.0, 1, 0]), None)["loss"]
    assert float(loss.total) == pytest.approx(-np.log(0.8) - np.log(0.5), rel=1e-5) and float(loss.count) == 2
    task = pairs.PairTask(table=ligand_table(tmp_path / "t.csv", "regression", 8), model=SMALL)
    batch = pair_batches.Paired(None, None, np.array([1.0, 2, 3]))
    loss = task.batch_loss(lambda *_: np.array([1.5, 2, 9]), batch, key, np.array([1.0, 1, 0]), None)["loss"]
    assert float(loss.total) == pytest.approx(0.25) and float(loss.count) == 2


def test_outputs_are_in_the_order_of_the_pairs_whatever_their_shapes():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACW"), int(n))) for n in rng.integers(2, 150, 23)]
    names = ["C" * int(n) for n in rng.integers(1, 5, 23)]
    ligands = {name: molecule(3, len(name)) for name in names}
    found = pair_batches.run(
        lambda chain, partner: np.stack([chain.mask.sum(1), partner.mask.sum(1)], 1), texts, names, ligands,
        items=512, longest=100,
    )  # fmt: skip
    np.testing.assert_array_equal(found[:, 0], [min(100, len(text)) for text in texts])
    np.testing.assert_array_equal(found[:, 1], [len(name) for name in names])


@pytest.mark.slow
@pytest.mark.parametrize("partner", ["smiles", "sequence2"])
def test_padding_changes_nothing(partner):
    net = pair_network.PairNetwork(SMALL, partner, 0, rngs=nnx.Rngs(0))
    ligands = {"CC": molecule(3, 2)} if partner == "smiles" else {}
    run = jax.jit(lambda *inputs: net(*inputs))
    outputs = []
    for length, size in ((64, 32), (128, 64)):
        code = length * pair_batches.STRIDE + (size if ligands else 0)
        other = "CC" if ligands else "WWA"
        outputs.append(run(*pair_batches.inputs_of(["ACDW"], [other], ligands, code, 64)))
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_precision_and_recall():
    # By hand: thresholds 0.9 (1 of 1), 0.5 (2 of 4, a tie), 0.1 (2 of 5).
    score, label = [0.5, 0.9, 0.5, 0.1, 0.5], [True, True, False, False, False]
    assert average_precision(score, label) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert average_precision([3, 2, 1], [1, 1, 0]) == 1
    assert np.isnan(average_precision([1, 2], [0, 0]))


def test_figures_that_are_not_defined_are_left_out(tmp_path):
    table = pair_tables.PairTable("t", "classes", "smiles", 2, [], [], np.zeros(0), np.zeros(0))
    shares = np.array([[0.2, 0.8], [0.6, 0.4]])
    assert pair_figures(table.kind, shares, np.array([1, 0])) == {"roc_auc": 1, "pr_auc": 1, "accuracy": 1}
    assert pair_figures(table.kind, shares, np.array([1, 1])) == {"accuracy": 0.5}
    numbers = table._replace(kind="regression")
    assert set(pair_figures(numbers.kind, np.ones(3), np.arange(3))) == {"rmse", "mae"}
    with pytest.raises(InputError, match="not finite"):
        pair_figures(numbers.kind, np.array([np.nan, 1]), np.arange(2))


def test_labels_of_two_proteins_lie_between_0_and_1(tmp_path):
    task = pairs.PairTask(table=protein_table(tmp_path / "t.csv", 24), model=SMALL)
    batch = task.load(64 * pair_batches.STRIDE, np.arange(18))
    assert batch.label.min() == 0 and batch.label.max() == 1
    assert batch.chain.seq.shape == batch.partner.seq.shape == (18, 64, 49)
    # Predictions come back in the units of the table.
    values = batch.label * task.scale[1] + task.scale[0]
    np.testing.assert_allclose(values, task.data.labels[task.trained_rows], atol=1e-5)


def test_what_cannot_be_trained(tmp_path, no_rdkit):
    path = protein_table(tmp_path / "t.csv", 24)
    with pytest.raises(ValueError, match="convolutional network has none"):
        pairs.PairTask(table=path, model=CNNConfig())
    one = write(tmp_path / "one.csv", ["ACD,CC,1,train", "ACD,CC,0,train", "ACD,CC,1,valid"],
                "sequence,smiles,label,split")  # fmt: skip
    with pytest.raises(InputError, match="all validation labels are the same"):
        pairs.PairTask(table=str(one), model=SMALL).evaluator(None)
