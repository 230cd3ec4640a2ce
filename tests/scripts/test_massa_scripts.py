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
