"""Scripts of MASSA's tables."""

import json
import runpy

import numpy as np
import pytest


def load(root, name):
    return runpy.run_path(str(root / "scripts" / f"{name}.py"))


def test_help_and_wrong_input(root, tmp_path, monkeypatch, capsys):
    script = load(root, "massa_downstream")
    for arguments, code, message in ((["--help"], 0, "usage:"), (["--output", "x"], 2, "name the folder")):
        monkeypatch.delenv("JAXPROT_TASKS", raising=False)
        with pytest.raises(SystemExit) as ended:
            script["main"](arguments)
        assert ended.value.code == code
        told = capsys.readouterr()
        assert message in told.out + told.err


def test_the_linear_row_and_a_restart(root, tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = ["sequence,label,split"]
    for i in range(100):
        text = "".join(rng.choice(list("ACDEW"), 20))
        rows.append(f"{text},{text.count('W') / 20:.3f},{('train', 'train', 'valid', 'test')[i % 4]}")
    (tmp_path / "stability.csv.gz").write_bytes(__import__("gzip").compress("\n".join(rows).encode()))
    script, out = load(root, "massa_downstream"), tmp_path / "out"
    arguments = ["--tasks", "stability", "--methods", "linear", "--folder", str(tmp_path), "--output", str(out)]
    assert script["main"](arguments) == 0
    (row,) = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert row["method"] == "linear" and row["test"] > 0.9
    assert script["main"](arguments) == 0  # nothing is done twice
    assert len((out / "results.jsonl").read_text().splitlines()) == 1
    shown = capsys.readouterr().out
    assert f"| linear | {row['test']:.3f} |" in shown and "| *TAPE one-hot* | 0.19 |" in shown
    with pytest.raises(SystemExit):
        script["main"]([*arguments, "--steps", "7"])
    assert "made with other settings (steps)" in capsys.readouterr().err


def test_mean_and_deviation_over_seeds(root):
    script = load(root, "massa_downstream")
    rows = [{"task": "gb1", "method": "cnn", "seed": i, "test": value} for i, value in enumerate((0.4, 0.6))]
    assert "| cnn | 0.500 ± 0.141 |" in script["table"](rows, ["gb1"])


def test_transfer_refuses_too_few_tasks(root, tmp_path, capsys):
    script = load(root, "massa_transfer")
    with pytest.raises(SystemExit):
        script["main"](["--folder", str(tmp_path), "--tasks", "gb1", "--output", str(tmp_path / "out")])
    assert "at least three" in capsys.readouterr().err


def test_what_is_read_off_is_what_features_tell(root):
    from jaxprot.massa.tasks.metrics import score

    script, rng = load(root, "massa_transfer"), np.random.default_rng(0)

    def read_off(kind, train, test):
        return score(kind, script["told"](kind, train, test[0]), test[1])

    x, u = rng.normal(size=(300, 6)), rng.normal(size=(200, 6))
    weights = rng.normal(size=6)
    told = read_off("regression", (x, x @ weights), (u, u @ weights))
    assert told > 0.99 and abs(read_off("regression", (x, rng.normal(size=300)), (u, u @ weights))) < 0.4
    labels = [np.array([3, 5, 9])[np.argmax(y[:, :3], 1)] for y in (x, u)]
    assert read_off("classes", (x, labels[0]), (u, labels[1])) > 0.9
    labels[1][:] = 77  # a class that was never seen cannot be told
    assert read_off("classes", (x, labels[0]), (u, labels[1])) == 0
    noise = x @ weights + rng.normal(size=300)  # in folds, none is told by a model that has seen it
    for y, least, most in ((x @ weights, 0.99, 1), (noise, 0.6, 0.98), (rng.normal(size=300), -0.3, 0.3)):
        assert least < score("regression", script["told_in_folds"]("regression", (x, y), 0), y) <= most
    found = {"shipped": noise, "good": x @ weights, "same": noise.copy()}
    measured = script["Measured"]("regression", x @ weights, found)
    assert measured.gain("good") > 2 * measured.error("good", 0) > 0 and measured.gain("same") == 0
    assert measured.error("same", 0) == 0


def test_rows_of_many_classes_and_of_new_ones(root):
    from jaxprot.massa.tasks.tables import Table

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 40, 2000)
    split = np.array(["train"] * 1800 + ["test"] * 200)
    labels[1800:] = 999  # all new
    table = Table("t", "classes", 1000, ["A"] * 2000, labels, split)
    train, test = load(root, "massa_transfer")["chosen"](table, 300, 200, 0)
    assert len(train) == 300 and len(np.unique(labels[train])) == 20 and not set(train) & set(test)
    assert len(test) == 200 and set(labels[test]) <= set(labels[train])


@pytest.mark.slow
def test_transfer_from_end_to_end(root, tmp_path, capsys):
    import gzip

    from flax import nnx

    from jaxprot.massa import weights
    from jaxprot.massa.config import MASSAConfig
    from jaxprot.massa.model import Pretraining
    from jaxprot.weights import module

    cfg = MASSAConfig(
        seq_dim=49, max_length=64, width=16, convolutions=1, kernel=3, vectors=2, layers=1, neighbours=4,
        fusion_layers=1, heads=2, feedforward=16, go_width=8, go_layers=1, go_heads=2, go_feedforward=8, cross_layers=1,
        go_classes=1, motif_classes=1, domain_classes=1, region_classes=1,
    )  # fmt: skip
    net = Pretraining(cfg, rngs=nnx.Rngs(0))
    weights.save(tmp_path / "w.safetensors", cfg, module.flatten(nnx.to_pure_dict(nnx.state(net))))
    rng = np.random.default_rng(0)
    for name, label in (("stability", "W"), ("fluorescence", "A"), ("enzyme_class", "C")):
        rows = ["sequence,label,split"]
        for i in range(400):
            text = "".join(rng.choice(list("ACDEW"), 20))
            value = int(text.count(label) > 4) if name == "enzyme_class" else text.count(label) / 20 + 0.001
            rows.append(f"{text},{value},{('train', 'train', 'valid', 'test')[i % 4]}")
        file = {"fluorescence": "fluorescence_subset"}.get(name, name)
        (tmp_path / f"{file}.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    arguments = ["--tasks", "stability", "fluorescence", "enzyme_class", "--folder", str(tmp_path), "--steps", "20"]
    arguments += ["--samples", "120", "--tested", "100", "--weights", str(tmp_path / "w.safetensors")]
    script, out = load(root, "massa_transfer"), tmp_path / "out"
    assert script["main"]([*arguments, "--output", str(out)]) == 0
    assert {"gains.csv", "report.json", "variants.csv", "matrix.png", "map.png"} <= {p.name for p in out.iterdir()}
    assert len((out / "gains.csv").read_text().splitlines()) == 7
    shown = capsys.readouterr().out
    assert shown.count("best variant of the distance") == 2 and "of 6 are more than two standard errors" in shown


def test_chains_that_resemble_tested_proteins_are_told(root, tmp_path, capsys):
    rng = np.random.default_rng(0)
    one, other, third = ("".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 60)) for _ in range(3))
    changed = "".join("A" if i % 6 == 0 else letter for i, letter in enumerate(one))
    (tmp_path / "chains.fasta").write_text(f">near\n{changed}\n>far\n{other}\n>trained\n{third}\n")
    (tmp_path / "t.csv").write_text(f"sequence,label,split\n{one},1,test\n{third},0,train\n")
    script, out = load(root, "massa_apart"), tmp_path / "apart.txt"
    arguments = [str(tmp_path / "t.csv"), "--chains", str(tmp_path / "chains.fasta"), "--output", str(out)]
    assert script["main"](arguments) == 0
    assert out.read_text() == "near\n" and "1 of 3 chains resemble one of 1 tested" in capsys.readouterr().out
    (tmp_path / "t.csv").write_text("sequence,label\nACD,1\n")
    with pytest.raises(SystemExit):
        script["main"](arguments)
    assert "no column split" in capsys.readouterr().err


def test_fine_tuning_brings_the_head_that_it_begins_with(root, tmp_path, capsys):
    script = load(root, "massa_downstream")
    with pytest.raises(SystemExit):
        script["main"](
            ["--tasks", "gb1", "--methods", "finetuned", "--folder", str(tmp_path), "--output", str(tmp_path / "x")]
        )
    assert "gb1.csv.gz: no such file" in capsys.readouterr().err
