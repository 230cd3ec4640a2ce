"""`jaxprot transfer ...` as a user runs it."""

import json

import numpy as np
import pytest

from jaxprot.io.tables import read_table, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three tasks: two npz, one csv with text beside the features."""
    path, rng = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    for number, name in enumerate(("near", "nearer", "far")):
        labels = np.arange(40) % 3
        features = rng.normal(size=(40, 5)) + labels[:, None] + (8 if name == "far" else 0.1 * number)
        if name == "near":
            columns = {f"f{k}": column for k, column in enumerate(features.T)}
            write_table({"name": [f"p{i}" for i in range(40)], **columns, "target": labels}, path / f"{name}.csv")
        else:
            np.savez(path / f"{name}.npz", features=features, labels=labels)
    return path


def test_matrix(run, folder, tmp_path):
    done = run("transfer", "matrix", folder, "-o", tmp_path / "out")
    assert done.code == 0 and not done.err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"distances.csv", "matrix.png", "map.png", "run.json"}
    table = read_table(tmp_path / "out" / "distances.csv")
    assert list(zip(table["task1"], table["task2"], strict=True)) == [
        ("far", "near"),
        ("far", "nearer"),
        ("near", "nearer"),
    ]
    assert table["distance"][2] < min(table["distance"][:2]) and (table["low"] < table["high"]).all()
    np.testing.assert_allclose(table["sqrt_distance"] ** 2, table["distance"])
    assert table["converged"].tolist() == ["True"] * 3 and "near    nearer" in done.out
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["command"] == "transfer matrix" and len(record["inputs"]) == 3


def test_names_and_options(run, folder, tmp_path):
    tasks = [f"one={folder / 'near.csv'}", f"two={folder / 'far.npz'}"]
    done = run("transfer", "matrix", *tasks, "--method", "features", "--value", "exact", "-o", tmp_path / "out")
    assert done.code == 0 and not done.err
    table = read_table(tmp_path / "out" / "distances.csv")
    assert (table["task1"][0], table["task2"][0]) == ("one", "two") and table["eps"][0] == ""  # no entropy, no eps


def test_report(run, folder, tmp_path):
    names = ("near", "nearer", "far")
    pairs = [(s, t) for s in names for t in names if s != t]
    gains = {"source": [s for s, _ in pairs], "target": [t for _, t in pairs]}
    gains["gain"] = [-0.5 if "far" in pair else 0.3 for pair in pairs]
    write_table(gains, tmp_path / "gains.csv")
    done = run("transfer", "report", folder, "--gains", tmp_path / "gains.csv", "-o", tmp_path / "out")
    assert done.code == 0 and not done.err and "spearman" in done.out
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["correlations"]["distance"]["spearman"] < -0.5 and found["correlations"]["distance"]["n"] == 6
    assert found["recommendations"]["near"] == ["nearer", "far"] and found["converged"]
    table = read_table(tmp_path / "out" / "report.csv")
    assert list(table) == ["source", "target", "distance", "logme", "leep", "nce", "hscore", "transrate", "gain"]
    assert len(table["gain"]) == 6 and all(np.isfinite(table[name]).all() for name in list(table)[2:])


def test_which_source_for_mine(run, folder, tmp_path):
    done = run("transfer", "report", folder, "--target", "near", "-o", tmp_path / "out")
    assert done.code == 0 and not done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[1][:2] == ["near", "nearer"] and lines[2][0] == "far" and "source (by distance)" in done.out
    table = read_table(tmp_path / "out" / "recommendations.csv")
    assert list(zip(table["target"], table["rank"], table["source"], strict=True)) == [
        ("near", 1, "nearer"),
        ("near", 2, "far"),
    ]
    assert (table["low"] <= table["distance"]).all() and (table["distance"] <= table["high"]).all()
    pairs = read_table(tmp_path / "out" / "report.csv")
    row = list(zip(pairs["source"], pairs["target"], strict=True)).index(("nearer", "near"))
    for name in ("distance", "leep", "nce", "logme", "hscore", "transrate"):
        assert table[name][0] == pairs[name][row]
    # Every task is a target if none is named, and LEEP ranks the other way round: the greatest first.
    done = run("transfer", "report", folder, "--rank", "leep", "--resamples", "0", "-o", tmp_path / "all")
    table = read_table(tmp_path / "all" / "recommendations.csv")
    assert list(table["target"]) == ["far", "far", "near", "near", "nearer", "nearer"]
    assert (table["leep"][::2] >= table["leep"][1::2]).all() and len(done.out.splitlines()) == 5


def test_a_source_that_cannot_be_told(run, folder, tmp_path):
    out = ("-o", tmp_path / "out")
    done = run("transfer", "report", folder, "--target", "mine", *out)
    assert done.code == 2 and "--target mine: no such task; there are far, near, nearer" in done.err
    done = run("transfer", "report", folder, "--rank", "logme", *out)
    assert done.code == 2 and "logme tells no source for far from another" in done.err
    assert not (tmp_path / "out").exists()


def broken(folder, kind):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(10, 5)), np.arange(10) % 2
    path = folder / f"{kind}.npz"
    if kind == "nan":
        features[3, 2] = np.nan
    if kind == "one_class":
        labels[:] = 1
    if kind == "lengths":
        labels = labels[:7]
    arrays = {"features": features} if kind == "no_labels" else {"features": features, "labels": labels}
    if kind == "no_features":
        arrays = {"embedding": features}
    np.savez(path, **arrays)
    if kind == "damaged":
        path.write_bytes(b"PK\x03\x04 cut")
    if kind == "text":
        path = folder / "text.csv"
        path.write_text("a,colour,label\n1,red,0\n2,blue,1\n")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "1 of 10 samples hold NaN or infinity (the first is sample 3)"),
        ("one_class", "one class only"),
        ("lengths", "labels of shape (7,) for 10 samples"),
        ("no_labels", "no labels; add them, or compare features alone"),
        ("no_features", "no array `features` in it; there are embedding"),
        ("damaged", "not a readable npz file"),
        ("text", "column colour is not of numbers"),
        ("missing", "no such file"),
    ],
)
def test_bad_tasks(run, folder, tmp_path, kind, message):
    bad = tmp_path / "missing.npz" if kind == "missing" else broken(tmp_path, kind)
    done = run("transfer", "matrix", folder / "far.npz", bad, "-o", tmp_path / "out")
    assert done.code == 2 and message in done.err and kind in done.err and "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_other_bad_input(run, folder, tmp_path):
    out = ("-o", tmp_path / "out")
    assert "at least two" in run("transfer", "matrix", folder / "far.npz", *out).err
    assert "occur twice" in run("transfer", "matrix", folder / "far.npz", folder / "far.npz", *out).err
    assert "above 0" in run("transfer", "matrix", folder, "--eps", "-1", *out).err
    (tmp_path / "gains.csv").write_text("source,target,gain\nnear,nowhere,1\n")
    done = run("transfer", "report", folder, "--gains", tmp_path / "gains.csv", *out)
    assert done.code == 2 and "unknown tasks nowhere" in done.err
    (tmp_path / "gains.csv").write_text("from,to,gain\nnear,far,1\n")
    assert "no column source, target" in run("transfer", "report", folder, "--gains", tmp_path / "gains.csv", *out).err
    assert not (tmp_path / "out").exists()
