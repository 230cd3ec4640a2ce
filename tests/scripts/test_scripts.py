"""The scripts run: help, wrong input, and short runs of the real thing."""

import csv
import json
import os
import runpy
import subprocess
import sys

import pytest

SCRIPTS = ("thermompnn_curate", "thermompnn_benchmarks", "thermompnn_ablation", "bench_thermompnn")
SHORT = {"JAX_PLATFORMS": "cpu"}


def run(root, name, *arguments, **environment):
    """A finished process of a script."""
    return subprocess.run(
        [sys.executable, str(root / "scripts" / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **SHORT, **environment},
    )


def load(root, name):
    """The globals of a script, without running it."""
    return runpy.run_path(str(root / "scripts" / f"{name}.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_no_data_and_no_jax(root, name, capsys):
    script = load(root, name)
    with pytest.raises(SystemExit) as ended:
        script["main"](["--help"])
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("thermompnn_curate", [], "give --megascale"),
        ("thermompnn_curate", ["--megascale", "absent.csv"], "absent.csv: no such file"),
        ("thermompnn_benchmarks", ["--data", "absent"], "no folder stability/"),
        ("bench_thermompnn", ["--structure", "absent.pdb"], "absent.pdb: no such file"),
        ("bench_thermompnn", ["--only", "throughput", "--data", "absent"], "no folder structures/"),
    ],
)
def test_wrong_input_is_one_message_and_code_two(root, tmp_path, monkeypatch, capsys, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        load(root, name)["main"](arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def write(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_curation_of_raw_tables(root, tmp_path, capsys):
    wild = {
        "1ABC.pdb": "MKVLEWAAQGTRNDYHIPSF",
        "2XYZ.pdb": "GSHMLEDPVDAFLQKARNWT",
        "HHH|rd1.pdb": "TTYKLLENKAPWQHRVIDSE",
    }
    rows = []
    for name, sequence in wild.items():
        rows.append(["x", sequence, "wt", name, "0"])
        rows += [
            ["x", sequence, f"{c}{i}{'A' if c != 'A' else 'G'}", name, f"{-i / 10}"] for i, c in enumerate(sequence, 1)
        ]
        rows += [["x", sequence, "delM1", name, "1"], ["x", sequence, f"{sequence[0]}1V", name, "-"]]
    raw = write(tmp_path / "mega.csv", ["dna_seq", "aa_seq", "mut_type", "WT_name", "ddG_ML"], rows)
    header = ["experiment_id", "pdb_id", "chain", "position", "wild_type", "mutation", "ddG", "dTm", "pH"]
    table = [[1, "1ABC|9ZZZ", "A", 5, "E", "A", 1.5, "", 7.0], [2, "1ABC", "A", 5, "E", "A", 2.5, "", 7.4]]
    fire = write(tmp_path / "fire.csv", header, table)
    out = tmp_path / "out"
    call = ["--megascale", raw, "--fireprot", fire, "--data", tmp_path, "--output", out]
    assert load(root, "thermompnn_curate")["main"]([str(c) for c in call]) == 0
    text = capsys.readouterr().out
    assert "Megascale: 60 mutations of 3 proteins" in text
    assert "pairs of homologues across its parts: 0" in text
    with open(out / "megascale.csv") as file:
        first = next(csv.DictReader(file))
    assert (first["protein"], first["position"], first["wt"], first["mut"], float(first["ddG"])) == (
        "1ABC",
        "1",
        "M",
        "A",
        0.1,
    )
    with open(out / "fireprot.csv") as file:
        (only,) = csv.DictReader(file)
    assert (only["protein"], float(only["ddG"])) == ("1ABCA", 2.5)


@pytest.mark.golden
@pytest.mark.slow
def test_the_list_of_extra_training_proteins_is_what_the_search_finds(root, shared):
    done = run(root, "thermompnn_curate", "--homologues")
    assert done.returncode == 0, done.stderr
    assert "lists 6 proteins: the same" in done.stdout
    assert "2kr3_A_5-69" in done.stdout


@pytest.mark.golden
@pytest.mark.slow
def test_the_linear_floor_gives_its_documented_figures(root, shared, tmp_path):
    done = run(
        root, "thermompnn_benchmarks", "--weights", "none", "--design", "none", "--resamples", "0", "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "benchmarks.json").read_text())
    documented = {
        "megascale_test": (12694, 0.558, 0.601, 0.803),
        "megascale_val": (7228, 0.598, 0.665, 0.792),
        "ssym_direct": (342, 0.471, 0.487, 1.367),
        "ssym_inverse": (342, -0.038, 0.026, 2.657),
        "p53": (42, 0.382, 0.455, 1.618),
        "myoglobin": (134, 0.532, 0.577, 1.038),
        "fireprot_all": (3298, 0.508, 0.526, 1.555),
        "fireprot_free": (2457, 0.426, 0.471, 1.669),
    }
    for name, expected in documented.items():
        found = report["sets"][name]["methods"]["linear floor"]
        # Half a unit of the last documented digit, and the rounding of another linear solver.
        assert [found[k] for k in ("n", "spearman", "pearson", "rmse")] == pytest.approx(expected, abs=7e-4)


@pytest.mark.slow
def test_timings_of_a_small_structure(root, tmp_path):
    out = tmp_path / "bench.json"
    done = run(root, "bench_thermompnn", "--only", "model", "--networks", "paper", "--repeats", 1, "--output", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["model"]["length"] == 76 and report["model"]["threads"] == 1
    assert set(report["model"]["paper"]) >= {"scan", "scan_with_uncertainty", "score", "sample_one", "sample_eight"}
    assert report["machine"]["jax"]


def test_structures_of_the_throughput_timing_are_read_back(root, shared, tmp_path):
    from jaxprot.io.structures import read_structure
    from jaxprot.proteinmpnn.featurize import parse_chains

    script = load(root, "bench_thermompnn")
    lengths = script["write_structures"](tmp_path, shared / "data", 3, 60, 120)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(lengths) == 3
    for path, expected in zip(files, lengths, strict=True):
        chain = parse_chains(read_structure(path))[0]
        assert chain.present.sum() == expected
