"""`jaxprot massa`: vectors of proteins, training on a table, predictions."""

import json

import numpy as np
import pandas as pd
import pytest
from flax import nnx

from jaxprot.cli.main import main
from jaxprot.io.outputs import sha256
from jaxprot.massa import weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.model import Pretraining
from jaxprot.weights import module, portable

SMALL = MASSAConfig(
    seq_dim=49, max_length=64, width=16, convolutions=1, kernel=3, vectors=2, layers=1, neighbours=4, fusion_layers=1,
    heads=2, feedforward=16, go_dim=64, go_width=8, go_layers=1, go_heads=2, go_feedforward=8, cross_layers=1,
    go_classes=1, motif_classes=1, domain_classes=1, region_classes=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "massa.safetensors"
    net = Pretraining(SMALL, rngs=nnx.Rngs(0))
    weights.save(path, SMALL, module.flatten(nnx.to_pure_dict(nnx.state(net))))
    return path


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["sequence,label,split"]
    for i in range(120):
        text = "".join(rng.choice(list("ACDEW"), 20))
        part = ("train", "train", "train", "valid", "test")[i % 5]
        rows.append(f"{text},{text.count('W') / 20:.3f},{part}")
    path = tmp_path / "tryptophans.csv"
    path.write_text("\n".join(rows))
    return path


def test_vectors_of_every_kind_of_file(small, tmp_path, example, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "two.fasta").write_text(">a\nACDEFG\n>a\nMKV\n")
    (tmp_path / "in" / "chignolin.pdb").write_bytes(example("chignolin").read_bytes())
    out = tmp_path / "out"
    assert main(["massa", "embed", str(tmp_path / "in"), "--weights", str(small), "--residues", "-o", str(out)]) == 0
    assert "3 proteins (1 with structure, 0 with GO terms), 16 channels" in capsys.readouterr().out
    with np.load(out / "embeddings.npz") as found, np.load(out / "residues.npz") as residues:
        names = list(found["names"])
        assert len(names) == 3 and {"a", "a-2"} < set(names) and found["features"].shape == (3, 16)
        assert residues["a"].shape == (6, 16) and residues["a-2"].shape == (3, 16)
    assert json.loads((out / "run.json").read_text())["command"] == "massa embed"


def test_vectors_of_a_table_carry_its_labels(small, table, tmp_path):
    out = tmp_path / "out"
    assert main(["massa", "embed", str(table), "--weights", str(small), "-o", str(out)]) == 0
    with np.load(out / "embeddings.npz") as found:
        assert found["features"].shape == (120, 16) and found["labels"].shape == (120,)
        assert set(found["split"]) == {"train", "valid", "test"}


@pytest.mark.slow
def test_training_metrics_and_predictions(table, tmp_path, capsys):
    out = tmp_path / "run"
    code = main(["massa", "finetune", str(table), "--network", "cnn", "--steps", "40", "--lr", "0.01", "-o", str(out)])
    assert code == 0
    told = json.loads((out / "metrics.json").read_text())
    assert told["kind"] == "regression" and told["rows"] == {"valid": 24, "test": 24}
    assert told["test"]["spearman"] > 0.7 and "spearman" in capsys.readouterr().out
    tested = pd.read_csv(out / "predictions.csv")
    assert np.corrcoef(tested.label, tested.predicted)[0, 1] > 0.6
    new = tmp_path / "new.fasta"
    new.write_text(">few\nACDEACDEACDEACDEACDE\n>many\nWACWDEWACWDEWACWDEWA\n")
    assert main(["massa", "predict", str(new), "--weights", str(out), "-o", str(tmp_path / "said")]) == 0
    said = pd.read_csv(tmp_path / "said" / "predictions.csv").set_index("name").predicted
    assert said["many"] > said["few"] + 0.03


def scores(run):
    """Validation score by step."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["val_score"] for line in lines if "val_score" in line}


def moved(run, last):
    """The network was trained to the last step, and the best is kept, be it that of the start."""
    found = scores(run)
    assert max(found) == last and found[last] != found[0]
    best = max(found, key=found.get)
    assert portable.load(run / "best.safetensors")[1]["step"] == best
    assert json.loads((run / "metrics.json").read_text())["step"] == best


@pytest.mark.slow
def test_a_frozen_backbone_stays(small, table, tmp_path, capsys):
    from jaxprot.massa.tasks import predict

    out = tmp_path / "run"
    args = ["massa", "finetune", str(table), "--weights", str(small), "--frozen", "--steps", "10", "-o", str(out)]
    assert main(args) == 0
    backbone = module.flatten(nnx.to_pure_dict(nnx.state(predict.load(out).module.backbone, nnx.Param)))
    before = weights.read(small).tensors
    for name, value in backbone.items():
        np.testing.assert_array_equal(value, before[f"backbone.{name}"], err_msg=name)
    vectors = []
    for number, given in enumerate((small, out)):  # the folder of a run stands for its weights
        to = tmp_path / f"vectors{number}"
        assert main(["massa", "embed", str(table), "--weights", str(given), "-o", str(to)]) == 0
        with np.load(to / "embeddings.npz") as stored:
            vectors.append(stored["features"])
    np.testing.assert_array_equal(*vectors)
    both, command = tmp_path / "both", ["massa", "finetune", str(table), "--weights", str(small), "--steps", "3"]
    assert main([*command, "-o", str(both)]) == 0  # the head first, then the whole
    head = module.flatten(nnx.to_pure_dict(nnx.state(predict.load(both / "head").module)))
    assert all(np.array_equal(head[f"backbone.{name}"], value) for name, value in backbone.items())
    moved(both, 3)
    assert scores(both)[0] == max(scores(both / "head").values())
    shown = capsys.readouterr().out
    assert "kept is the network that training began with" in shown or "kept are the weights of step" in shown
    assert main([*command, "-o", str(both), "--resume"]) == 0
    noted = (both / "run.json").read_text()
    assert main([*command, "-o", str(both), "--resume", "--lr", "0.1"]) == 2
    assert "made with other settings (lr)" in capsys.readouterr().err and (both / "run.json").read_text() == noted
    assert main([*command[:-1], "5", "-o", str(both), "--resume"]) == 0  # more steps go on
    moved(both, 5)
    assert main([*command, "-o", str(both)]) == 2
    assert "holds a run; go on with it (--resume)" in capsys.readouterr().err
    inside = ["massa", "finetune", str(table), "--start", str(both), "--steps", "3", "--overwrite", "-o", str(both)]
    assert main(inside) == 2 and "lies in the output folder" in capsys.readouterr().err
    assert (both / "best.safetensors").is_file()
    later = tmp_path / "later"
    whole = ["massa", "finetune", str(table), "--start", str(out), "--steps", "5", "-o", str(later)]
    assert main(whole) == 0
    told = json.loads((later / "run.json").read_text())["weights"]
    assert told == {
        "name": "--start",
        "file": str(out / "best.safetensors"),
        "sha256": sha256(out / "best.safetensors"),
    }
    moved(later, 5)


def test_a_start_brings_its_readout_and_its_scale(tmp_path, table, small, capsys):
    """A network that reads as published goes on so; labels that are unlike those that it learned are told."""
    from jaxprot.massa.tasks.finetune import FinetuneTask, recipe
    from jaxprot.train.loop import fit

    task = FinetuneTask(table=str(table), weights=str(small), readout="published", hidden=16, kind="regression")
    fit(recipe(task, steps=2), tmp_path / "run", header={"system": "massa", **task.header()})
    command = ["massa", "finetune", "--kind", "regression", "--start", str(tmp_path / "run"), "--steps", "2", "-o"]
    assert main([*command, str(tmp_path / "later"), str(table)]) == 0
    assert "learned numbers" not in capsys.readouterr().err
    meta = portable.load(tmp_path / "later" / "best.safetensors")[1]["task"]
    assert (meta["readout"], meta["hidden"], tuple(meta["scale"])) == ("published", 16, task.scale)
    other = tmp_path / "other.csv"
    rows = table.read_text().splitlines()
    place = rows[0].split(",").index("label")
    cells = [row.split(",") for row in rows[1:]]
    shifted = [",".join([*c[:place], str(float(c[place]) * 100 + 7), *c[place + 1 :]]) for c in cells]
    other.write_text("\n".join([rows[0], *shifted]) + "\n")
    assert main([*command, str(tmp_path / "unlike"), str(other)]) == 0
    assert "learned numbers of mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed"], "no input"),
        (["embed", "absent.fasta"], "absent.fasta: no such file"),
        (["finetune"], "name a task or a table"),
        (["finetune", "absent.csv"], "no such file; tasks by name are stability"),
        (["finetune", "x.csv", "--network", "cnn", "--frozen"], "nothing that is pre-trained"),
        (["predict"], "no input"),
        (["interactions"], "0 tables; give that of the proteins and that of the pairs"),
        (["interactions", "absent.csv", "e.csv"], "absent.csv: no such file"),
        (["interactions", "p.csv", "e.csv", "--epochs", "0"], "--epochs must be at least 1"),
        (["finetune", "x.csv", "--embedder", "absent.pt"], "--embedder absent.pt: no such file; give physchem"),
        (["finetune", "kinase", "--embedder", "x.pt"], "--embedder: for MASSA on tasks of single proteins"),
        (["finetune", "x.csv", "--network", "cnn", "--start", "run"], "--start: for MASSA on tasks of single proteins"),
        (["finetune", "x.csv", "--weights", "none", "--frozen"], "leaves nothing that is pre-trained"),
        (["finetune", "x.csv", "--weights", "w", "--start", "run"], "--start: brings a backbone of its own"),
        (["finetune", "kinase", "--network", "cnn"], "the heads of pairs are for MASSA"),
    ],
)
def test_wrong_input(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["massa", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_embedder_of_another_width(small, tmp_path, capsys):
    path, stored = tmp_path / "a.fasta", tmp_path / "a.npz"
    path.write_text(">a\nACD\n")
    np.savez(stored, a=np.zeros((3, 8)))
    args = ["massa", "embed", str(path), "--weights", str(small), "--embedder", str(stored), "-o", str(tmp_path / "o")]
    assert main(args) == 2
    assert "gives 8 channels, the weights read 49" in capsys.readouterr().err


@pytest.fixture
def complexes(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["sequence,sequence2,label,split"]
    for i in range(60):
        one, other = ("".join(rng.choice(list("ACDEW"), 12)) for _ in range(2))
        part = ("train", "train", "train", "valid", "test")[i % 5]
        rows.append(f"{one},{other},{(one + other).count('W') / 2},{part}")
    path = tmp_path / "complexes.csv"
    path.write_text("\n".join(rows))
    return path


@pytest.mark.slow
def test_training_on_pairs(small, complexes, tmp_path, capsys):
    out = tmp_path / "run"
    args = ["massa", "finetune", str(complexes), "--weights", str(small), "--frozen", "--steps", "5", "-o", str(out)]
    assert main(args) == 0
    told = json.loads((out / "metrics.json").read_text())
    assert told["kind"] == "regression" and told["rows"] == {"valid": 12, "test": 12} and told["test"]["rmse"] < 10
    assert "rmse" in capsys.readouterr().out
    tested = pd.read_csv(out / "predictions.csv")
    assert list(tested) == ["sequence", "sequence2", "label", "predicted"] and len(tested) == 12
    said = tmp_path / "said"
    asked = tmp_path / "asked.csv"
    tested[["sequence2", "sequence"]].to_csv(asked, index=False)
    assert main(["massa", "predict", str(asked), "--weights", str(out), "-o", str(said)]) == 0
    assert "12 pairs" in capsys.readouterr().out
    np.testing.assert_allclose(pd.read_csv(said / "predictions.csv").predicted, tested.predicted, atol=1e-4)
    fasta = tmp_path / "a.fasta"
    fasta.write_text(">a\nACD\n")
    assert main(["massa", "predict", str(fasta), "--weights", str(out), "-o", str(tmp_path / "no")]) == 2
    assert "give one table with the columns sequence and sequence2" in capsys.readouterr().err
    asked.write_text("sequence,sequence2\nACD,ACE\nACD,A-E\n")
    assert main(["massa", "predict", str(asked), "--weights", str(out), "-o", str(tmp_path / "no")]) == 2
    assert "asked.csv: pair 2, sequence2: '-' at place 2" in capsys.readouterr().err


def test_types_of_interactions(small, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(20)]
    texts = ["".join(rng.choice(list("ACDEW"), 12)) for _ in names]
    proteins, edges = tmp_path / "proteins.csv", tmp_path / "edges.csv"
    proteins.write_text("\n".join(["protein,sequence", *map(",".join, zip(names, texts, strict=True))]))
    rows = [f"p{a},p{b},{int(a % 2 == b % 2)},1" for a in range(20) for b in range(a) if rng.random() < 0.5]
    edges.write_text("\n".join(["protein_a,protein_b,binding,catalysis", *rows[:-1], rows[-1][:-3] + ","]))
    out = tmp_path / "run"
    args = ["massa", "interactions", str(proteins), str(edges), "--split", "bfs", "--epochs", "3", "--width", "8"]
    assert main([*args, "--weights", str(small), "-o", str(out)]) == 0
    assert "tested pairs," in capsys.readouterr().out
    told = json.loads((out / "metrics.json").read_text())
    tested = int(0.2 * (len(rows) - 1))
    assert told["pairs"]["test"] == tested and told["pairs"]["asked"] == 1 and 1 <= told["epoch"] <= 3
    assert 0 <= told["test"] <= 1 and set(told["types"]) == {"binding", "catalysis"}
    found = pd.read_csv(out / "predictions.csv")
    assert list(found) == ["protein_a", "protein_b", "part", "p_binding", "p_catalysis"]
    assert list(found.part) == ["test"] * tested + ["asked"] and found.p_binding.between(0, 1).all()
    assert len(pd.read_csv(out / "history.csv")) == 3

    # Vectors that were made before need no network, and the published choices are named where they are taken.
    stored = tmp_path / "embeddings.npz"
    np.savez(stored, names=names, features=rng.normal(size=(20, 4)))
    more = ["--embeddings", str(stored), "--messages", "all", "--select", "test", "-o", str(tmp_path / "other")]
    assert main([*args, *more]) == 0
    assert "with the leak of the published evaluation" in capsys.readouterr().out


@pytest.mark.slow
def test_the_way_of_features_during_training(table, tmp_path):
    out = tmp_path / "run"
    args = ["massa", "finetune", str(table), "--network", "cnn", "--steps", "20", "--lr", "0.01"]
    assert main([*args, "--trajectory", "20", "-o", str(out)]) == 0
    found = pd.read_csv(out / "trajectory.csv")
    assert list(found.step) == [0, *range(2, 21, 2)] and (out / "trajectory.png").stat().st_size > 5000
    assert found.from_start[0] == 0 and found.to_end[10] == 0
    assert (found.from_start[1:] > 0).all() and found.to_end[9] < found.to_end[1:9].min()
    np.testing.assert_allclose(found.from_start[10], found.to_end[0], rtol=1e-3)
    np.testing.assert_allclose(found.sqrt_from_start**2, found.from_start, rtol=1e-5)
    noted = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert found.val_score[10] == pytest.approx([one["val_score"] for one in noted if "val_score" in one][-1])
    told = json.loads((out / "metrics.json").read_text())["trajectory"]
    assert told["proteins"] == 20 and told["snapshots"] == 11
    with np.load(out / "trajectory" / "step_000000.npz") as start:
        assert start["features"].shape[0] == 20 and start["labels"].shape == (20,)


def test_what_a_user_should_know_of_a_table(tmp_path):
    from jaxprot.cli.massa_finetune import _concerns
    from jaxprot.massa.tasks.finetune import FinetuneTask

    path = tmp_path / "t.csv"
    path.write_text(f"sequence,label,split\nACD,0.5,train\n{'A' * 513},7.5,train\nMKV,1.5,train\n")
    told = " | ".join(_concerns(FinetuneTask(table=str(path))))
    assert "1 of 3 sequences are longer than 512 residues" in told
    assert "t: no rows for validation" in told and "t: no rows for testing" in told
    path.write_text("sequence,sequence2,label,split\nACD,AA,1,train\nA,AA,2,train\nA,A,3,valid\nA,A,3,test\n")
    from jaxprot.massa.tasks.pairs import PairTask

    assert _concerns(PairTask(table=str(path))) == []
    assert _concerns(PairTask(table=str(path), longest=2)) == [
        "1 of 8 sequences are longer than 2 residues; of these the first are read"
    ]


def test_what_cannot_be_followed(table, complexes, tmp_path, capsys):
    for args, message in (([complexes, "--trajectory", "9"], "tasks of single proteins"),
                          ([table, "--trajectory", "1"], "at least 2 proteins")):  # fmt: skip
        assert main(["massa", "finetune", *map(str, args), "-o", str(tmp_path / "no")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_proteins_that_do_not_fit_are_left_out_whole(small, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.fasta").write_text(f">first\nACDEFG\n>stop\nAC*D\n>odd\nMBZUOJX\n>long\n{'A' * 65}\n>last\nWWKV\n")
    (folder / "b.pdb").write_text("ATOM this is no structure\n")
    arguments = ["massa", "embed", str(folder), "--weights", str(small)]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "3 proteins" in said.out and "3 of 6 proteins or files failed" in said.err
    for message in ("'*' at place 3", "long: 65 residues, the network has positions for 64", "b.pdb"):
        assert message in said.err
    alone = tmp_path / "alone.fasta"
    alone.write_text(">last\nWWKV\n")
    assert main([*arguments[:2], str(alone), *arguments[3:], "-o", str(tmp_path / "alone")]) == 0
    with np.load(tmp_path / "out" / "embeddings.npz") as found, np.load(tmp_path / "alone" / "embeddings.npz") as one:
        assert list(found["names"]) == ["first", "odd", "last"] and np.isfinite(found["features"]).all()
        np.testing.assert_allclose(found["features"][2], one["features"][0], atol=1e-5)  # nothing is shifted
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())["failed"]) == 3
    # Where nothing is left there is nothing to write.
    alone.write_text(f">long\n{'A' * 65}\n")
    assert main([*arguments[:2], str(alone), *arguments[3:], "-o", str(tmp_path / "no")]) == 2
    assert "--long crop or window" in capsys.readouterr().err and not (tmp_path / "no").exists()
    for how in ("crop", "window"):
        assert main([*arguments[:2], str(alone), *arguments[3:], "--long", how, "-o", str(tmp_path / how)]) == 0


def test_labels_stay_with_their_rows(small, tmp_path, capsys):
    path, out = tmp_path / "t.csv", tmp_path / "out"
    path.write_text(f"sequence,label,split\nACD,0.5,train\n{'A' * 65},7.5,test\nMKV,,train\nWWW,2.5,train\n")
    assert main(["massa", "embed", str(path), "--weights", str(small), "-o", str(out)]) == 1
    assert "t_line3: 65 residues" in capsys.readouterr().err
    with np.load(out / "embeddings.npz") as found:
        assert list(found["names"]) == ["t_line2", "t_line5"] and list(found["labels"]) == [0.5, 2.5]
        assert found["features"].shape == (2, 16) and list(found["split"]) == ["train", "train"]


def test_stored_embeddings_that_do_not_fit(small, tmp_path, capsys):
    fasta, stored = tmp_path / "a.fasta", tmp_path / "stored.npz"
    fasta.write_text(">good\nACD\n>shorter\nACDE\n>nan\nAC\n>absent\nACD\n")
    rows = {"good": np.ones((3, 49)), "shorter": np.ones((3, 49)), "nan": np.full((2, 49), np.nan)}
    np.savez(stored, **rows)
    out = tmp_path / "out"
    args = ["massa", "embed", str(fasta), "--weights", str(small), "--embedder", str(stored), "-o", str(out)]
    assert main(args) == 1
    said = capsys.readouterr().err
    assert "shorter: 3 rows of the embedding for 4 residues" in said and "no embedding of 'absent'" in said
    assert "nan: the embedding holds values that are not finite" in said
    with np.load(out / "embeddings.npz") as found:
        assert list(found["names"]) == ["good"]


UNIPROT = """ID   {name}               Reviewed;          8 AA.
AC   {name};
{go}FT   DOMAIN          3..6
FT                   /note="Fold"
SQ   SEQUENCE   8 AA;  900 MW;  0000000000000000 CRC64;
     {sequence}
//
"""


def test_entries_with_terms_in_one_command(small, tmp_path, capsys):
    """Entries with GO terms, without, and of a sequence that is not that of its structure."""
    entries, obo = tmp_path / "entries.dat", tmp_path / "go.obo"
    go = "DR   GO; GO:2; C:two; IEA:Test.\n"
    entries.write_text(UNIPROT.format(name="P1", go=go, sequence="ACDEFGHI") +
                       UNIPROT.format(name="P2", go="", sequence="ACDEFGHI") +
                       UNIPROT.format(name="P3", go=go, sequence="ACDEFGHI"))  # fmt: skip
    obo.write_text("\n[Term]\nid: GO:1\nname: root\n\n[Term]\nid: GO:2\nname: two\nis_a: GO:1\n")
    models = tmp_path / "afdb"
    models.mkdir()
    atoms = "".join(
        f"ATOM  {i + 1:>5}  {name:<3} GLY A   1    {i:8.3f}{0:8.3f}{i % 2:8.3f}  1.00  0.00           {name[0]}\n"
        for i, name in enumerate(("N", "CA", "C", "O"))
    )
    (models / "AF-P3-F1-model_v4.pdb").write_text(atoms + "END\n")
    args = ["massa", "embed", str(entries), "--weights", str(small), "--structures", str(models)]
    assert main([*args, "--obo", str(obo), "-o", str(tmp_path / "with")]) == 1
    said = capsys.readouterr()
    assert "2 proteins (0 with structure, 1 with GO terms)" in said.out and "another sequence than entry P3" in said.err
    assert main([*args, "-o", str(tmp_path / "without")]) == 1
    with np.load(tmp_path / "with" / "embeddings.npz") as one, np.load(tmp_path / "without" / "embeddings.npz") as two:
        assert list(one["names"]) == list(two["names"]) == ["P1", "P2"]
        np.testing.assert_allclose(one["features"][1], two["features"][1], atol=1e-5)
        assert np.abs(one["features"][0] - two["features"][0]).max() > 1e-3  # terms count
    # A graph of one residue has no neighbour, and is no failure.
    assert main(["massa", "embed", str(models), "--weights", str(small), "-o", str(tmp_path / "single")]) == 0
    with np.load(tmp_path / "single" / "embeddings.npz") as found:
        assert np.isfinite(found["features"]).all() and found["features"].shape == (1, 16)


def embedded(folder):
    with np.load(folder / "embeddings.npz") as found:
        return {name: found[name] for name in found.files}


def test_all_rows_of_a_table_with_parts(small, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("id,sequence,split\np1,ACDE,train\np2,ACDF,test\n,ACDG,valid\n")
    assert main(["massa", "embed", str(table), "--weights", str(small), "-o", str(tmp_path / "out")]) == 0
    assert list(embedded(tmp_path / "out")["names"]) == ["p1", "p2", "t_line4"]


def test_texts_of_classes_and_one_value_are_embedded(small, tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("sequence,label\nACDE,soluble\nACDF,\nACDG,soluble\n")
    assert main(["massa", "embed", str(table), "--weights", str(small), "-o", str(tmp_path / "out")]) == 0
    assert "1 rows without a label are left out" in capsys.readouterr().err
    assert list(embedded(tmp_path / "out")["labels"]) == ["soluble", "soluble"]


def test_records_fail_one_by_one_and_names_never_collide(small, tmp_path, capsys):
    inputs = tmp_path / "in"
    inputs.mkdir()
    (inputs / "a.fasta").write_text(">a\nACDE\n>a\nACDEF\n>a-2\nACDEFG\n>file\nACD\n>empty\n>z\nA1\n>z\nA2\n")
    atoms = "ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00  0.00           N\nEND\n"
    (inputs / "noca.pdb").write_text(atoms)
    out = tmp_path / "out"
    assert main(["massa", "embed", str(inputs), "--weights", str(small), "--residues", "-o", str(out)]) == 1
    told = capsys.readouterr().err
    assert "noca.pdb: no protein chain with CA atoms" in told and "empty" in told and "4 of 8" in told
    with np.load(out / "residues.npz") as residues:
        assert {name: len(residues[name]) for name in residues.files} == {"a": 4, "a-3": 5, "a-2": 6, "file": 3}
    assert main(["massa", "embed", str(inputs / "noca.pdb"), "--weights", str(small), "-o", str(tmp_path / "b")]) == 2
    assert "no protein chain with CA atoms" in capsys.readouterr().err


def test_terms_that_weights_never_learned_from_are_left_out(small, tmp_path, capsys):
    path = tmp_path / "untrained.safetensors"
    weights.save(path, SMALL, weights.read(small).tensors, untrained=["go"])
    (tmp_path / "go.obo").write_text("format-version: 1.2\n\n[Term]\nid: GO:0000001\nname: one\n")
    entry = (
        "ID   X_TEST   Reviewed;   4 AA.\nAC   P00001;\nDR   GO; GO:0000001; F:one; IEA:X.\n"
        "DR   GO; GO:9999999; F:none; IEA:X.\nSQ   SEQUENCE   4 AA;  500 MW;  0 CRC64;\n     ACDE\n//\n"
    )
    (tmp_path / "x.dat").write_text(entry)
    command = ["massa", "embed", str(tmp_path / "x.dat")]
    obo = ["--obo", str(tmp_path / "go.obo")]
    for name, file, more in (("with", small, obo), ("left", path, obo), ("none", path, [])):
        assert main([*command, "--weights", str(file), *more, "-o", str(tmp_path / name)]) == 0
        told = capsys.readouterr()
        assert ("1 with GO terms" in told.out) == (name == "with")
        assert ("never seen GO terms" in told.err) == (name == "left")
        assert ("1 of 2 GO terms are not in the ontology" in told.err) == bool(more)
    given, left, none = (embedded(tmp_path / name)["features"] for name in ("with", "left", "none"))
    np.testing.assert_array_equal(left, none)
    assert np.abs(given - none).max() > 1e-3


def test_predictions_name_classes_and_rows(tmp_path, capsys):
    table = tmp_path / "t.csv"
    rng = np.random.default_rng(0)
    made = [("".join(rng.choice(list("ACDEW"), 12)), ("soluble", "membrane")[i % 2]) for i in range(40)]
    rows = [f"p{i},{text},{label},{('train', 'test')[i > 30]}" for i, (text, label) in enumerate(made)]
    table.write_text("\n".join(["id,sequence,label,split", *rows]))
    run = tmp_path / "run"
    command = ["massa", "finetune", str(table), "--network", "cnn", "--steps", "2", "-o", str(run)]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "labels are 2 classes" in told.err and "of 9 rows" in told.out
    tested = pd.read_csv(run / "predictions.csv")
    assert list(tested.name) == [f"p{i}" for i in range(31, 40)]
    assert set(tested.label) == {"soluble", "membrane"} and set(tested.predicted) <= {"soluble", "membrane"}
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0  # begins anew
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()][-1] == 2
    said = tmp_path / "said"
    assert main(["massa", "predict", str(table), "--weights", str(run), "-o", str(said)]) == 0
    assert list(pd.read_csv(said / "predictions.csv").name) == [f"p{i}" for i in range(40)]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sequence,sequence2\nACD,ACE\n")
    assert main(["massa", "predict", str(pairs), "--weights", str(run), "-o", str(tmp_path / "no")]) == 2
    assert "a table of pairs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0: give at least 1"),
        (["--share", "2"], "--share 2.0: give a number above 0"),
        (["--lr", "0"], "--lr 0.0: give a number above 0"),
        (["--frozen", "--trajectory", "10"], "features stay where they are"),
    ],
)
def test_numbers_that_make_no_training(table, tmp_path, capsys, arguments, message):
    assert main(["massa", "finetune", str(table), *arguments, "-o", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
