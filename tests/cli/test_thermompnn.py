"""`jaxprot thermompnn scan|predict|doubles` as users run them: files, columns, exit codes, damaged inputs."""

import csv
import gzip
import json
import shutil

import numpy as np
import pytest

from jaxprot.io.structures import read_structure, write_structure
from jaxprot.io.tables import read_table
from jaxprot.weights import portable

SCAN = ["chain", "resid", "icode", "index", "wt", "mut", "ddg_kcal_mol", "flag"]
FILES = {"scan.csv", "uncertainty.csv", "heatmap.png", "ddg.pdb", "view.pml", "view.cxc", "run.json"}


def header(path):
    with open(path, newline="") as file:
        return next(csv.reader(file))


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def short(fold):
    """A structure of 20 residues."""
    return fold("short.pdb", 20)


def test_scan_writes_exactly_its_files(run, short, tmp_path):
    out = tmp_path / "out"
    done = run("thermompnn", "scan", short, "-o", out)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{out}: 1 of 1 structures scanned\n"
    assert names(out) == FILES
    assert header(out / "scan.csv") == SCAN
    table = read_table(out / "scan.csv")
    assert len(table["mut"]) == 20 * 20
    assert "".join(table["mut"][:20]) == "ACDEFGHIKLMNPQRSTVWY"
    assert table["index"].tolist() == np.repeat(np.arange(20), 20).tolist()
    assert (table["resid"] == table["index"] + 1).all()
    assert not table["ddg_kcal_mol"][table["wt"] == table["mut"]].any()
    assert np.isfinite(table["ddg_kcal_mol"]).all()
    assert set(table["flag"][table["mut"] == "C"]) >= {"cysteine"}
    spread = read_table(out / "uncertainty.csv")
    assert list(spread) == [*SCAN[:-1], "sd_kcal_mol"]
    assert (spread["sd_kcal_mol"][spread["wt"] != spread["mut"]] > 0).all()
    model = read_structure(out / "ddg.pdb")
    mean = table["ddg_kcal_mol"].reshape(20, 20).sum(1) / 19
    ca = model.atom_name == "CA"
    np.testing.assert_allclose(model.bfactor[ca], mean, atol=0.006)
    assert (out / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert "ddg.pdb" in (out / "view.pml").read_text() and "ddg.pdb" in (out / "view.cxc").read_text()
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "thermompnn scan"
    assert list(record["inputs"]) == [str(short)] and len(record["inputs"][str(short)]) == 64
    assert record["weights"]["name"] == "thermompnn" and len(record["weights"]["sha256"]) == 64
    assert {"read", "featurize", "compute", "write"} <= set(record["timings"])
    assert record["arguments"]["samples"] == 4 and record["seed"] == 0 and record["versions"]["jax"]


@pytest.mark.golden
def test_scan_with_published_weights_equals_the_reference_table(run, goldens, golden_checkpoint, tmp_path):
    folder = goldens("thermompnn")
    weights = golden_checkpoint("thermoMPNN_default.pt")
    arguments = ["--chains", "A", "--weights", weights, "-o", tmp_path / "out"]
    assert run("thermompnn", "scan", folder / "inputs" / "2OCJ.pdb", *arguments).code == 0
    ours = read_table(tmp_path / "out" / "scan.csv")
    theirs = read_table(folder / "thermompnn_2OCJ_A_ssm.csv")
    assert len(ours["mut"]) == 3880
    assert ours["index"].tolist() == theirs["position"].tolist()
    assert ours["wt"].tolist() == [str(x) for x in theirs["wildtype"]]
    assert ours["mut"].tolist() == [str(x) for x in theirs["mutation"]]
    np.testing.assert_allclose(ours["ddg_kcal_mol"], theirs["ddG_pred"], atol=5e-4)
    assert ours["resid"][0] == 96


def test_options_of_scan(run, short, tmp_path):
    arguments = ["--no-cysteine", "--best", "--samples", 0, "--format", "parquet", "-o", tmp_path / "out"]
    assert run("thermompnn", "scan", short, *arguments).code == 0
    assert names(tmp_path / "out") == FILES - {"scan.csv", "uncertainty.csv"} | {"scan.parquet", "best.parquet"}
    table, best = (read_table(tmp_path / "out" / f"{name}.parquet") for name in ("scan", "best"))
    assert "C" not in table["mut"] and len(table["mut"]) == 20 * 19
    assert list(best) == [*SCAN[:-1], "sd_kcal_mol", "neighbours"]
    for row in range(20):
        of = (table["index"] == row) & (table["mut"] != table["wt"])
        assert best["ddg_kcal_mol"][row] == table["ddg_kcal_mol"][of].min()
    assert 3 <= best["neighbours"].min() and best["neighbours"].max() < 20


def test_results_are_not_overwritten_unasked(run, short, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    done = run("thermompnn", "scan", short, "-o", tmp_path / "out")
    assert done.code == 2 and "--overwrite" in done.err
    assert names(tmp_path / "out") == {"mine.txt"}
    assert run("thermompnn", "scan", short, "-o", tmp_path / "out", "--overwrite", "--samples", 0).code == 0
    assert names(tmp_path / "out") == FILES - {"uncertainty.csv"} | {"mine.txt"}


def test_seed_and_process_do_not_change_values(run, short, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("thermompnn", "scan", short, "-o", tmp_path / name, "--seed", seed).code == 0
    scans = [(tmp_path / name / "scan.csv").read_bytes() for name in "abc"]
    assert scans[0] == scans[1] == scans[2]
    spread = [(tmp_path / name / "uncertainty.csv").read_bytes() for name in "abc"]
    assert spread[0] == spread[1] != spread[2]


def _odd_structures(fold, folder):
    """Structures that must give a result, by name, with the flag or letter that shows how they were understood."""

    def rename(old, new, record=None):
        def change(line):
            return (record or line[:6]) + line[6:17] + new + line[20:] if line[17:20] == old else line

        return change

    def without(*pairs):
        return lambda line: None if (int(line[22:26]), line[12:16].strip()) in pairs else line

    def nan(line):
        if int(line[22:26]) == 7 and line[12:16].strip() == "CA":
            return line[:30] + "     nan" * 3 + line[54:]
        return line

    def inserted(line):
        number = int(line[22:26])
        return line if number <= 8 else f"{line[:22]}{8:4d}{'ABCDEFGHIJKL'[number - 9]}{line[27:]}"

    for length in (48, 47, 2, 1):
        fold(f"length{length}.pdb", length)
    fold("mse.pdb", 20, rename("MET", "MSE"))
    fold("mse_hetatm.pdb", 20, rename("MET", "MSE", "HETATM"))
    fold("hie.pdb", 76, rename("HIS", "HIE"))
    fold("missing_o.pdb", 20, without((5, "O")))
    fold("nan.pdb", 20, nan)
    fold("gap.pdb", 20, lambda line: None if 8 <= int(line[22:26]) <= 10 else line)
    fold("icodes.pdb", 20, inserted)
    fold("lower.pdb", 20, lambda line: line[:21] + "a" + line[22:])
    fold("blank.pdb", 20, lambda line: line[:21] + " " + line[22:])
    fold("negative.pdb", 20, lambda line: f"{line[:22]}{int(line[22:26]) - 10:4d}{line[26:]}")
    altlocs = fold("altlocs.pdb", 20).read_text().splitlines()
    doubled = [line[:16] + code + line[17:] for line in altlocs if line.startswith("ATOM") for code in "AB"]
    (folder / "altlocs.pdb").write_text("\n".join([*doubled, "END", ""]))
    atoms = [line for line in altlocs if line.startswith("ATOM")]
    models = [text for n in (1, 2) for text in (f"MODEL     {n:4d}", *atoms, "ENDMDL")]
    (folder / "models.pdb").write_text("\n".join([*models, "END", ""]))


@pytest.fixture(scope="module")
def odd(fold):
    """A folder of odd but usable structures."""
    folder = fold("length48.pdb", 48).parent
    _odd_structures(fold, folder)
    return folder


def test_odd_structures_give_results_and_broken_ones_do_not_stop_them(run, odd, tmp_path):
    folder = tmp_path / "inputs"
    shutil.copytree(odd, folder)
    structure = read_structure(folder / "length48.pdb")
    write_structure(structure, folder / "as_cif.cif.gz")
    (folder / "empty.pdb").write_text("")
    (folder / "text.pdb").write_text("no structure at all\n")
    (folder / "cut.pdb.gz").write_bytes(gzip.compress((folder / "length48.pdb").read_bytes())[:500])
    (folder / "only_cb.pdb").write_text(
        "".join(f"{line}\n" for line in (folder / "length48.pdb").read_text().splitlines() if line[12:16] == " CB ")
    )
    bad = {"empty.pdb", "text.pdb", "cut.pdb.gz", "only_cb.pdb"}
    out = tmp_path / "out"
    done = run("thermompnn", "scan", folder, "-o", out, "--samples", 0)
    assert done.code == 1
    lines = done.err.splitlines()
    total = len(list(folder.iterdir()))
    assert lines[0] == f"jaxprot: {len(bad)} of {total} structures failed:"
    assert {name for name in bad for line in lines[1:] if str(folder / name) in line} == bad
    assert len(lines) == 1 + len(bad)
    record = json.loads((out / "run.json").read_text())
    assert {path.rpartition("/")[2] for path in record["failed"]} == bad
    good = {path.name.partition(".")[0] for path in folder.iterdir() if path.name not in bad}
    assert names(out) == good | {"run.json"}
    tables = {}
    for name in good:
        assert FILES - {"uncertainty.csv", "run.json"} == names(out / name), name
        tables[name] = read_table(out / name / "scan.csv")
        assert np.isfinite(tables[name]["ddg_kcal_mol"]).all(), name

    def letters(name):
        return "".join(tables[name]["wt"][::20])

    def flags(name, resid):
        table = tables[name]
        return {one for text in table["flag"][table["resid"] == resid] for one in str(text).split(";") if one}

    native = letters("short") if "short" in tables else "MQIFVKTLTGKTITLEVEPS"
    for length in (48, 47, 2, 1):
        assert len(letters(f"length{length}")) == length
    for name in ("mse", "mse_hetatm", "altlocs", "models", "lower", "blank", "icodes", "negative", "missing_o", "nan"):
        assert letters(name) == native, name
    assert letters("hie")[67] == "H"
    assert letters("gap") == native[:7] + native[10:]
    assert "missing_backbone" in flags("missing_o", 5) and "missing_backbone" not in flags("missing_o", 6)
    assert "missing_backbone" in flags("nan", 7)
    assert "gap_neighbour" in flags("gap", 7) & flags("gap", 11)
    assert "gap_neighbour" not in flags("gap", 6)
    assert tables["gap"]["index"][20 * 7] == 10
    assert tables["icodes"]["icode"].tolist()[::20] == [""] * 8 + list("ABCDEFGHIJKL")
    assert set(tables["icodes"]["resid"][20 * 8 :]) == {8}
    assert tables["negative"]["resid"][0] == -9
    assert set(tables["lower"]["chain"]) == {"a"}
    # Ways to write the same atoms.
    for name in ("altlocs", "models", "lower", "blank", "icodes", "negative", "mse"):
        np.testing.assert_allclose(tables[name]["ddg_kcal_mol"], tables["short"]["ddg_kcal_mol"], atol=2e-4)
    np.testing.assert_allclose(tables["as_cif"]["ddg_kcal_mol"], tables["length48"]["ddg_kcal_mol"], atol=2e-3)


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("x.pdb", b"", [], "x.pdb: the file is empty"),
        ("x.pdb", b"hello\n", [], "x.pdb: no ATOM records"),
        ("x.pdb.gz", gzip.compress(b"ATOM  " * 500, mtime=0)[:30], [], "x.pdb.gz: the gzip file is truncated"),
        ("x.pdb", None, ["--chains", "B"], "no chain 'B'; chains in the file: A"),
        ("x.pdb", None, ["--chains", "a"], "case-sensitive"),
        ("x.pdb", None, ["--tie", "A"], "at least two chains"),
        ("x.pdb", None, ["--tie", "A,B"], "no chain B to tie"),
        ("x.pdb", None, ["--samples", "1"], "at least 2"),
        ("x.pdb", None, ["--weights", "bogus"], "no weights of this name"),
        ("x.pdb", None, ["--weights", "proteinmpnn"], "not of thermompnn"),
    ],
)
def test_wrong_input_of_scan_is_one_line_and_nothing_is_written(
    run, short, tmp_path, name, content, arguments, message
):
    path = tmp_path / name
    path.write_bytes(short.read_bytes() if content is None else content)
    done = run("thermompnn", "scan", path, "-o", tmp_path / "out", *arguments)
    assert done.code == 2
    assert done.err.startswith("jaxprot: error: ") and done.err.count("\n") == 1
    assert message in done.err
    assert done.out == ""
    assert names(tmp_path) == {name}


def test_chain_without_backbone(run, fold, tmp_path):
    path = fold("ca_only.pdb", 20, lambda line: line if line[12:16] == " CA " else None)
    done = run("thermompnn", "scan", path, "--chains", "A", "-o", tmp_path / "out")
    assert done.code == 2 and "no residue with a complete backbone" in done.err
    path.unlink()
    assert not (tmp_path / "out").exists()


@pytest.mark.golden
def test_checkpoints_that_cannot_be_used(run, short, golden_checkpoint, writer, tmp_path):
    mark = tmp_path / "mark"
    malicious = writer.write(tmp_path / "bad.pt", {"x": writer.Call(writer.Global("os", "system"), f"touch {mark}")})
    cut = tmp_path / "cut.pt"
    cut.write_bytes(golden_checkpoint("v_48_020.pt").read_bytes()[:100_000])
    other = tmp_path / "other.safetensors"
    portable.save(other, {"a": np.zeros(3)}, {"system": "proteinmpnn"})
    shipped, _ = __import__("jaxprot.weights.registry", fromlist=["resolve"]).resolve("thermompnn")
    tensors, header_ = portable.load(shipped)
    tensors.pop(next(iter(tensors)))
    lacking = tmp_path / "lacking.safetensors"
    portable.save(lacking, tensors, header_)
    for path, message in (
        (malicious, "refused"),
        (cut, "truncated"),
        (golden_checkpoint("v_48_020.pt"), "not a ThermoMPNN checkpoint"),
        (other, "not of thermompnn"),
        (lacking, "parameters: 1 missing"),
        (short, "short.pdb"),
    ):
        done = run("thermompnn", "scan", short, "--weights", path, "-o", tmp_path / "out")
        assert done.code == 2 and message in done.err and str(path) in done.err, done.err
        assert not (tmp_path / "out").exists()
    assert not mark.exists()
    done = run(
        "thermompnn", "scan", short, "--weights", golden_checkpoint("ThermoMPNN-D-ens1.ckpt"), "-o", tmp_path / "o"
    )
    assert done.code == 2 and "double-mutant model" in done.err


def _dimer(fold, folder):
    """Two copies of 20 residues, 60 Å apart."""
    lines = [line for line in fold("half.pdb", 20).read_text().splitlines() if line.startswith("ATOM")]
    (fold("half.pdb", 20)).unlink()
    moved = [f"{line[:21]}B{line[22:30]}{float(line[30:38]) + 60:8.3f}{line[38:]}" for line in lines]
    path = folder / "dimer.pdb"
    path.write_text("\n".join([*lines, "TER", *moved, "END", ""]))
    return path


def test_tied_chains_mutate_together(run, fold, tmp_path):
    path = _dimer(fold, tmp_path)
    arguments = ["thermompnn", "scan", path, "--samples", 0, "-o"]
    assert run(*arguments, tmp_path / "free").code == 0
    assert run(*arguments, tmp_path / "tied", "--tie", "A,B").code == 0
    free, tied = (read_table(tmp_path / name / "scan.csv") for name in ("free", "tied"))
    values = free["ddg_kcal_mol"].reshape(2, -1)
    np.testing.assert_allclose(tied["ddg_kcal_mol"].reshape(2, -1), values.sum(0)[None].repeat(2, 0), atol=1e-5)


@pytest.fixture
def library(short, fold, tmp_path):
    """A folder of two structures: `short` and `dimer.pdb`."""
    folder = tmp_path / "library"
    folder.mkdir()
    shutil.copy(short, folder)
    _dimer(fold, folder)
    return folder


def test_predict_list_over_structures(run, library, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text(
        "structure,chain,mutation,ddg,note\n"
        "short,A,M1A,0.5,first\n"
        'dimer.pdb,B,Q2A,1.0,"a, b"\n'
        "short,,I3A:F4A,2.0,\n"
        "short.pdb,A,A:T7C,,\n"
        "dimer,,A:M1A:B:M1A,1.5,\n"
    )
    out = tmp_path / "out"
    done = run("thermompnn", "predict", table, "--structures", library, "-o", out)
    assert done.code == 0, done.err
    assert names(out) == {"predictions.csv", "uncertainty.csv", "metrics.json", "run.json"}
    found = read_table(out / "predictions.csv")
    assert list(found) == ["structure", "chain", "mutation", "ddg", "note", "ddg_kcal_mol", "flag"]
    assert found["mutation"].tolist() == ["M1A", "Q2A", "I3A:F4A", "A:T7C", "A:M1A:B:M1A"]
    assert found["note"].tolist()[:2] == ["first", "a, b"]
    assert found["flag"].tolist()[2].startswith("additive") and "cysteine" in found["flag"][3]
    assert np.isfinite(found["ddg_kcal_mol"]).all()
    assert run("thermompnn", "scan", library / "short.pdb", "-o", tmp_path / "scan").code == 0
    scan = read_table(tmp_path / "scan" / "scan.csv")
    value = {
        f"{w}{r}{m}": d for w, r, m, d in zip(*(scan[k] for k in ("wt", "resid", "mut", "ddg_kcal_mol")), strict=True)
    }
    expected = [value["M1A"], value["Q2A"], value["I3A"] + value["F4A"], value["T7C"]]
    np.testing.assert_allclose(found["ddg_kcal_mol"][:4], expected, atol=1e-3)
    assert (read_table(out / "uncertainty.csv")["sd_kcal_mol"] > 0).all()
    figures = json.loads((out / "metrics.json").read_text())
    assert set(figures) == {"n", "pearson", "spearman", "rmse", "r2", "per_protein"}
    assert figures["n"] == 4
    assert figures["per_protein"]["short"]["n"] == 2 and figures["per_protein"]["dimer"]["pearson"] is None
    assert len(json.loads((out / "run.json").read_text())["inputs"]) == 3


def test_predict_gathers_every_wrong_row(run, library, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text(
        "structure,chain,mutation\nshort,A,M1A\nshort,A,A1G\nshort,A,M99A\nshort,Q,M1A\ngone,A,M1A\nshort,A,M1A:Q2A\n"
    )
    done = run("thermompnn", "predict", table, "--structures", library, "-o", tmp_path / "out")
    assert done.code == 2
    lines = done.err.splitlines()
    assert lines[0] == f"jaxprot: error: {table}: 4 rows do not fit their structures"
    parts = [
        "line 3: short: A:A1G: residue 1 of chain A is M, not A",
        "line 4: short: A:M99A: chain 'A' has no residue 99; it has residues 1 to 20",
        "line 5: Q:M1A is of chain 'Q'",
        "line 6: no file of structure 'gone'",
    ]
    assert [part in line for part, line in zip(parts, lines[1:], strict=True)] == [True] * 4, done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("structure,chain,mutation\nshort,A,hello\n", "line 2"),
        ("structure,chain\nshort,A\n", "no column 'mutation'"),
        ("", "list.csv"),
        ("structure,chain,mutation,flag\nshort,A,M1A,x\n", "has a column 'flag' already"),
        ("structure,mutation,reverse_mutation\nshort,M1A,A1M\n", "reverse_structure"),
        ("structure,mutation,reverse_structure,reverse_mutation\nshort,M1A,short,?\n", "line 2, reverse_mutation"),
    ],
)
def test_wrong_tables(run, library, tmp_path, content, message):
    (tmp_path / "list.csv").write_text(content)
    done = run("thermompnn", "predict", tmp_path / "list.csv", "--structures", library, "-o", tmp_path / "out")
    assert done.code == 2 and message in done.err
    assert not (tmp_path / "out").exists()


def test_folders_of_structures(run, library, tmp_path):
    (tmp_path / "list.csv").write_text("structure,mutation\nshort,M1A\n")
    shutil.copy(library / "short.pdb", library / "short.ent")
    done = run("thermompnn", "predict", tmp_path / "list.csv", "--structures", library, "-o", tmp_path / "out")
    assert done.code == 2 and "short.ent or short.pdb" in done.err
    for wrong in ("absent", "list.csv"):
        done = run("thermompnn", "predict", tmp_path / "list.csv", "--structures", tmp_path / wrong)
        assert done.code == 2 and wrong in done.err


def test_antisymmetry_of_pairs(run, library, fold, tmp_path):
    lines = (library / "short.pdb").read_text()
    (library / "mutant.pdb").write_text(lines.replace(" MET A   1", " ALA A   1"))
    table = tmp_path / "list.csv"
    table.write_text(
        "structure,chain,mutation,reverse_structure,reverse_mutation,reverse_chain\n"
        "short,A,M1A,mutant,A1M,A\nshort,A,Q2A,short,Q2G,\nshort,A,I3A,short,I3G,A\n"
    )
    out = tmp_path / "out"
    assert run("thermompnn", "predict", table, "--structures", library, "-o", out, "--samples", 0).code == 0
    assert names(out) == {"predictions.csv", "antisymmetry.csv", "antisymmetry.json", "run.json"}
    report = json.loads((out / "antisymmetry.json").read_text())
    pairs = read_table(out / "antisymmetry.csv")
    assert set(report) == {"n", "pearson", "bias", "rmse"} and report["n"] == 3
    np.testing.assert_allclose(report["bias"], pairs["sum_kcal_mol"].mean() / 2, rtol=1e-5)
    total = pairs["ddg_kcal_mol"] + pairs["reverse_ddg_kcal_mol"]
    np.testing.assert_allclose(total, pairs["sum_kcal_mol"], atol=1e-5)


def test_additive_doubles(run, short, tmp_path):
    out = tmp_path / "out"
    assert run("thermompnn", "doubles", short, "-o", out, "--max-ddg", "inf", "--max-distance", 6).code == 0
    assert names(out) == {"doubles.csv", "uncertainty.csv", "run.json"}
    columns = [f"{name}{n}" for n in (1, 2) for name in ("chain", "resid", "icode", "wt", "mut")]
    assert header(out / "doubles.csv") == [*columns, "ca_distance", "ddg_kcal_mol"]
    table = read_table(out / "doubles.csv")
    assert len(table["wt1"]) % 361 == 0 and len(table["wt1"]) > 361
    assert (table["ca_distance"] < 6).all() and (table["resid1"] < table["resid2"]).all()
    assert (table["wt1"] != table["mut1"]).all() and (table["wt2"] != table["mut2"]).all()
    assert run("thermompnn", "scan", short, "-o", tmp_path / "scan", "--samples", 0).code == 0
    scan = read_table(tmp_path / "scan" / "scan.csv")
    value = dict(zip(zip(scan["resid"], scan["mut"], strict=True), scan["ddg_kcal_mol"], strict=True))
    expected = [
        value[a, b] + value[c, d]
        for a, b, c, d in zip(*(table[k] for k in ("resid1", "mut1", "resid2", "mut2")), strict=True)
    ]
    np.testing.assert_allclose(table["ddg_kcal_mol"], expected, atol=1e-4)
    done = run("thermompnn", "doubles", short, "-o", tmp_path / "e", "--mode", "epistatic")
    assert done.code == 2 and "thermompnn-d" in done.err and not (tmp_path / "e").exists()
    assert run("thermompnn", "doubles", short, "-o", tmp_path / "e", "--max-distance", -1).code == 2


@pytest.mark.golden
def test_epistatic_doubles_and_pairs_of_a_list(run, short, golden_checkpoint, tmp_path):
    weights = golden_checkpoint("ThermoMPNN-D-ens1.ckpt")
    out = tmp_path / "out"
    arguments = ["--weights", weights, "--mode", "epistatic", "--max-ddg", "inf", "-o", out]
    assert run("thermompnn", "doubles", short, *arguments).code == 0
    table = read_table(out / "doubles.csv")
    first = {key: values[0] for key, values in table.items()}
    (tmp_path / "list.csv").write_text(
        "structure,mutation\nshort,{wt1}{resid1}{mut1}:{wt2}{resid2}{mut2}\n".format(**first)
    )
    arguments = ["--weights", weights, "--structures", short.parent, "-o", tmp_path / "list"]
    assert run("thermompnn", "predict", tmp_path / "list.csv", *arguments).code == 0
    found = read_table(tmp_path / "list" / "predictions.csv")
    np.testing.assert_allclose(found["ddg_kcal_mol"][0], first["ddg_kcal_mol"], atol=1e-4)
    assert names(tmp_path / "list") == {"predictions.csv", "run.json"}
    (tmp_path / "list.csv").write_text("structure,mutation\nshort,M1A\n")
    done = run("thermompnn", "predict", tmp_path / "list.csv", *arguments, "--overwrite")
    assert done.code == 2 and "takes pairs only" in done.err


@pytest.mark.slow
def test_demo(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("demo")
    assert (done.code, done.err) == (0, "")
    assert names(tmp_path / "jaxprot-demo" / "thermompnn") == FILES
    assert "scan.csv" in done.out
    assert run("demo").code == 0  # again: its own results are replaced
