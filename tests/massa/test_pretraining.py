"""Pre-training on users' files."""

import jax
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.data import PretrainingTask, read_all
from jaxprot.massa.featurize import IGNORE
from jaxprot.massa.local import local_labels
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel
from jaxprot.train.task import OptimConfig, TrainConfig

SMALL = MASSAConfig(
    seq_dim=49, max_length=128, width=16, convolutions=1, kernel=3, vectors=2, layers=1, neighbours=4, fusion_layers=1,
    heads=2, feedforward=16, go_dim=4, go_width=8, go_layers=1, go_heads=2, go_feedforward=8, cross_layers=1,
    sequence_dropout=0.0, structure_dropout=0.0, dropout=0.0,
)  # fmt: skip
ENTRY = """ID   {name}               Reviewed;          20 AA.
AC   {name};
DR   GO; GO:2; C:two; IEA:Test.
FT   DOMAIN          3..6
FT                   /note="Fold"
SQ   SEQUENCE   20 AA;  4000 MW;  0000000000000000 CRC64;
     {sequence}
//
"""
OBO = "\n[Term]\nid: GO:1\nname: root\n\n[Term]\nid: GO:2\nname: two\nis_a: GO:1\n"


@pytest.fixture
def folder(tmp_path, example):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACDE"), 20)) for _ in range(60)]
    (tmp_path / "a.fasta").write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(texts[:40])))
    entries = [ENTRY.format(name=f"P{i}", sequence=text) for i, text in enumerate(texts[40:])]
    (tmp_path / "b.dat").write_text("".join(entries))
    (tmp_path / "c.csv").write_text(f"sequence,split\n{texts[0]},train\nMMMM,test\nGGGGG,train\n")
    write_structure(read_structure(example("chignolin")), tmp_path / "d.pdb")
    return tmp_path


def test_every_kind_of_file(folder):
    proteins = read_all((str(folder),))
    assert len(proteins) == 40 + 20 + 3 + 1
    assert len(read_all((str(folder),), training=True)) == 40 + 20 + 2 + 1
    assert sum(p.entry is not None for p in proteins) == 20 and sum(p.coords is not None for p in proteins) == 1
    task = PretrainingTask(data=(str(folder),), model=SMALL)
    assert len(task.proteins) == 62  # the row of the table that is in the FASTA file counts once
    with pytest.raises(InputError, match="absent"):
        read_all((str(folder / "absent.fasta"),))
    with pytest.raises(InputError, match="no file of sequences"):
        read_all(())


def test_what_cannot_be_used_is_left_out_and_told(folder, caplog):
    """Of full Swiss-Prot with models of another release some never fit: they do not end the run."""
    known = len(PretrainingTask(data=(str(folder),), model=SMALL).proteins)
    with open(folder / "a.fasta", "a") as file:
        file.write(">gap\nAC-DE\n>more\nWWWWW\n")
    (folder / "e.pdb").write_text("ATOM cut")
    models = folder / "afdb"
    models.mkdir()
    (models / "AF-P0-F1-model_v4.pdb").write_bytes((folder / "d.pdb").read_bytes())
    failed = {}
    read = read_all((str(folder),), str(models), failed)
    assert len(read) == 40 + 1 + 19 + 3 + 1 and "P0" not in {protein.name for protein in read}
    assert [reason for reason in failed.values() if "'-' at place 3" in reason]
    assert [reason for reason in failed.values() if "another sequence than entry P0" in reason] and len(failed) == 3
    with pytest.raises(InputError, match="'-' at place 3"):
        read_all((str(folder),), str(models))
    task = PretrainingTask(data=(str(folder),), structures=str(models), model=SMALL)
    assert len(task.proteins) == known - 1 + 1 and "3 files or records are left out: " in caplog.text


def test_proteins_without_structure_need_no_graph(folder):
    (folder / "go.obo").write_text(OBO)
    task = PretrainingTask(data=(str(folder),), obo=str(folder / "go.obo"), model=SMALL, held=0.2)
    assert task.sizes.go_classes == 2 and task.sizes.domain_classes == 2 and task.sizes.motif_classes == 1
    seen = set()
    for step in range(task._batches.per_epoch):
        batch = task.batches(step, 0)
        hidden = task.load(batch.shape, batch.members)
        slots = hidden.features.index.shape[-1]
        assert slots == (4 if hidden.features.has_structure.all() else 0)
        assert slots or not hidden.features.has_structure.any()
        seen |= set(batch.members.tolist())
    assert seen == set(range(len(task._split[0])))
    row = next(i for i, p in enumerate(task.proteins) if p.entry is not None)
    one = task._loaded(task._views(row))
    assert one.features.go_mask.sum() == 2 and list(one.labels.go[0][:2]) == [0, 1]
    np.testing.assert_array_equal(one.labels.domain[0][:8], [0, 0, 1, 1, 1, 1, 0, 0])
    other = task._loaded(task._views(0))
    assert (other.labels.domain == IGNORE).all() and (other.labels.go == IGNORE).all()


def test_structures_are_told_of_their_sequences(folder):
    """A protein with structure is read with it, and as often as asked for without it, with labels then."""
    task = PretrainingTask(data=(str(folder),), model=SMALL, local=2, held=0.2)
    assert task.sizes.secondary_classes == 3 and task.sizes.burial_classes == 8
    row = next(i for i, p in enumerate(task.proteins) if p.coords is not None)
    read, *told = task._views(row)
    assert len(told) == 2 and told[0] == told[1] != read and len(task._views(0)) == 1
    one, other = (task._loaded([view]) for view in (read, told[0]))
    assert one.features.has_structure.all() and not other.features.has_structure.any()
    assert (one.labels.torsion == IGNORE).all() and not other.features.node_s.any()
    n = len(task.proteins[row].sequence)
    expected = local_labels(task.proteins[row].sequence, task.proteins[row].coords)
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(other.labels, name)[0, :n], values)
    net = task.build(jax.random.key(0))
    assert {"secondary", "torsion", "burial"} < set(net(other.features))
    weight = np.ones(1, np.float32)
    keys = jax.random.split(jax.random.key(1), 1)
    found = task.batch_loss(net, other, keys, weight, None)
    assert float(found["burial"].count) == (expected["burial"] != IGNORE).sum()
    assert float(task.batch_loss(net, one, keys, weight, None)["burial"].count) == 0


def test_names_are_left_out(folder):
    names = folder / "apart.list"
    whole = PretrainingTask(data=(str(folder),), model=SMALL)
    names.write_text(f"{whole.proteins[3].name}\n\n")
    less = PretrainingTask(data=(str(folder),), model=SMALL, apart=str(names))
    assert len(less.proteins) == len(whole.proteins) - 1 and whole.proteins[3].name not in {
        p.name for p in less.proteins
    }
    names.write_text("of_other_data\n")
    with pytest.raises(InputError, match="1 names are of no protein of the data"):
        _ = PretrainingTask(data=(str(folder),), model=SMALL, apart=str(names)).proteins
    with pytest.raises(InputError, match="no text file of names"):
        _ = PretrainingTask(data=(str(folder),), model=SMALL, apart=str(folder / "none")).proteins


@pytest.mark.slow
def test_without_neighbours_is_as_without_structure(folder):
    """Batches without slots for neighbours give what slots that hold none give."""
    task = PretrainingTask(data=(str(folder),), model=SMALL)
    net = task.build(jax.random.key(0))
    views = [*task._views(0), *task._views(1)]
    bare = task._loaded(views).features
    slots = task._loaded([view._replace(kind=1) for view in views]).features
    assert slots.index.shape[-1] == 4
    found, expected = (net.backbone(f).protein[0, :20] for f in (bare, slots))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_hidden_residues_are_learned(tmp_path):
    """Sequences of a period of three: what is hidden follows from what stands beside it."""
    rng = np.random.default_rng(1)
    periods = ["ACD", "EFG", "HIK", "LMN"]
    rows = [(periods[rng.integers(4)] * 9)[int(rng.integers(3)) :][:24] for _ in range(200)]
    names = [f">s{i}\n{text[: int(rng.integers(20, 25))]}\n" for i, text in enumerate(rows)]
    (tmp_path / "p.fasta").write_text("".join(names))
    task = PretrainingTask(data=(str(tmp_path),), model=SMALL, items=1024, held=0.2)
    cfg = TrainConfig(
        task=task, optim=OptimConfig(lr=2e-2, warmup=10, ema=0.9), steps=200, micro=0, evaluate_every=200,
        save_every=200, log_every=50,
    )  # fmt: skip
    records = []
    fit(cfg, tmp_path / "run", parallel=Parallel("single"), report=records.append)
    last = next(r for r in records[::-1] if "val_accuracy_pro" in r)
    assert last["val_accuracy_pro"] > 0.8 and last["val_neg_loss"] == pytest.approx(-last["val_loss_pro"])


def test_wrong_settings(folder):
    with pytest.raises(ValueError, match="held"):
        PretrainingTask(data=(str(folder),), model=SMALL, held=0.0)
    with pytest.raises(ValueError, match="seq_dim 768"):
        PretrainingTask(data=(str(folder),))


def test_vectors_do_not_depend_on_company(folder):
    from jaxprot.massa.embedders import PhysicoChemical
    from jaxprot.massa.predict import Predictor
    from jaxprot.massa.records import to_records

    task = PretrainingTask(data=(str(folder),), model=SMALL)
    predictor = Predictor(task.build(jax.random.key(0)).backbone)
    records = to_records(task.proteins[:40] + task.proteins[-1:], PhysicoChemical())
    together = predictor.embed(records)
    assert [one.name for one in together] == [record.name for record in records]
    assert max(map(len, predictor._groups(records))) == 40
    for row in (0, 17, 40):
        (alone,) = predictor.embed([records[row]])
        np.testing.assert_allclose(together[row].vector, alone.vector, atol=2e-6)
        np.testing.assert_allclose(together[row].residues, alone.residues, atol=2e-6)
        assert len(alone.residues) == len(records[row].sequence)
