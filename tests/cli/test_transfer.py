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
        labels = np.arange(60) % 3
        features = rng.normal(size=(60, 5)) + labels[:, None] + (8 if name == "far" else 0.1 * number)
        if name == "near":
            columns = {f"f{k}": column for k, column in enumerate(features.T)}
            write_table({"name": [f"p{i}" for i in range(60)], **columns, "target": labels}, path / f"{name}.csv")
        else:
            np.savez(path / f"{name}.npz", features=features, labels=labels)
    return path


def test_matrix(run, folder, tmp_path):
    done = run("transfer", "matrix", folder, "-o", tmp_path / "out")
    assert done.code == 0 and not done.err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"distances.csv", "floors.csv", "matrix.png", "map.png", "run.json"}
    table = read_table(tmp_path / "out" / "distances.csv")
    assert list(zip(table["task1"], table["task2"], strict=True)) == [
        ("far", "near"),
        ("far", "nearer"),
        ("near", "nearer"),
    ]
    assert table["distance"][2] < min(table["distance"][:2]) and (table["low"] < table["high"]).all()
    np.testing.assert_allclose(table["sqrt_distance"] ** 2, table["distance"])
    assert table["converged"].tolist() == ["True"] * 3 and "near    nearer" in done.out
    assert "near    60       3 classes" in done.out and "--unequal" not in done.out
    floors = read_table(tmp_path / "out" / "floors.csv")
    assert list(floors["task"]) == ["far", "near", "nearer"] and list(floors["half"]) == [30] * 3
    assert "same task, two halves of 30 samples each: root of the distance" in done.out
    assert (floors["distance"] < min(table["distance"][:2])).all()
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
    assert set(found["floors"]) == set(names) and found["samples"]["far"] == 60 and found["settings"]["equal"]
    table = read_table(tmp_path / "out" / "report.csv")
    assert list(table) == ["source", "target", "distance", "logme", "leep", "nce", "hscore", "transrate", "gain"]
    assert len(table["gain"]) == 6 and all(np.isfinite(table[name]).all() for name in list(table)[2:])


def test_which_source_for_mine(run, folder, tmp_path):
    done = run("transfer", "report", folder, "--target", "near", "-o", tmp_path / "out")
    assert done.code == 0 and not done.err
    lines = [line.split() for line in done.out.partition("source (by distance)")[2].splitlines()]
    assert lines[1][:2] == ["near", "nearer"] and lines[2][0] == "far"
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
    assert (table["leep"][::2] >= table["leep"][1::2]).all()
    assert len(done.out.partition("source (by leep)")[2].splitlines()) == 6  # of each target one


def test_gains_of_some_pairs_stand_under_their_heading(run, folder, tmp_path):
    write_table({"source": ["nearer", "near"], "target": ["near", "far"], "gain": [0.125, 0.25]}, tmp_path / "g.csv")
    done = run("transfer", "report", folder, "--gains", tmp_path / "g.csv", "-o", tmp_path / "out")
    head, *rows = done.out[done.out.index("target") :].splitlines()
    assert head.split()[-1] == "gain" and len(rows) >= 3
    told = {row.split()[0]: row[head.index("gain") - 8 :].strip() for row in rows[:3]}
    assert told["near"] == "0.125" and told["nearer"] == ""


def test_a_source_that_cannot_be_told(run, folder, tmp_path):
    out = ("-o", tmp_path / "out")
    done = run("transfer", "report", folder, "--target", "mine", *out)
    assert done.code == 2 and "--target mine: no such task; there are far, near, nearer" in done.err
    done = run("transfer", "report", folder, "--rank", "logme", *out)
    assert done.code == 2 and "logme tells no source for far from another" in done.err
    assert not (tmp_path / "out").exists()


def saved(path, features, labels):
    np.savez(path, features=features, labels=labels)
    return path


def test_size_does_not_rank(run, tmp_path):
    rng = np.random.default_rng(0)
    for name, n, shift in (("mine", 600, 0), ("same", 80, 0), ("shifted", 600, 0.35)):
        saved(tmp_path / f"{name}.npz", rng.normal(size=(n, 32)) + shift, np.arange(n) % 2)
    tasks = sorted(tmp_path.glob("*.npz"))
    done = run("transfer", "report", *tasks, "--target", "mine", "-o", tmp_path / "out")
    assert done.code == 0 and not done.err
    assert "all tasks at 80 samples, as many as the smallest (same) has; --unequal takes more" in done.out
    assert "mine     80 of 600  2 classes" in done.out and "two halves of 40 samples each: distance" in done.out
    assert list(read_table(tmp_path / "out" / "recommendations.csv")["source"]) == ["same", "shifted"]
    done = run("transfer", "report", *tasks, "--target", "mine", "--unequal", "-o", tmp_path / "unequal")
    assert done.code == 0 and "all tasks at" not in done.out and "halves of 40 to 300 samples" in done.out
    assert list(read_table(tmp_path / "unequal" / "recommendations.csv")["source"]) == ["shifted", "same"]


def test_few_samples_are_warned_of(run, folder, tmp_path):
    few = saved(tmp_path / "few.npz", np.random.default_rng(0).normal(size=(30, 5)), np.arange(30) % 2)
    done = run("transfer", "matrix", folder / "far.npz", few, "-o", tmp_path / "out")
    assert done.code == 0 and f"few ({few}) has 30 samples only, at which all 2 tasks are compared" in done.err


def test_rare_classes_that_were_not_drawn(run, tmp_path):
    features = np.random.default_rng(0).normal(size=(600, 5))
    rare = saved(tmp_path / "rare.npz", features, np.arange(600) == 0)
    small = saved(tmp_path / "small.npz", features[:60], np.arange(60) % 2)
    done = run("transfer", "report", rare, small, "-o", tmp_path / "out")
    assert done.code == 2 and f"rare ({rare}): 60 of its 600 samples were drawn, all of one class" in done.err
    assert run("transfer", "report", rare, small, "--unequal", "-o", tmp_path / "unequal").code == 0
    # Features can be compared, scores cannot.
    done = run("transfer", "report", rare, small, "--method", "features", "-o", tmp_path / "features")
    assert done.code == 0 and set(read_table(tmp_path / "features" / "report.csv")["leep"]) == {""}


def test_equal_tasks(run, folder, tmp_path):
    tasks = [f"{name}={folder / 'far.npz'}" for name in ("a", "a2")] + [folder / "near.csv"]
    (tmp_path / "gains.csv").write_text("source,target,gain\na,near,1\na2,near,2\na,a2,0\n")
    done = run("transfer", "report", *tasks, "--gains", tmp_path / "gains.csv", "-o", tmp_path / "out")
    assert done.code == 0 and not done.err
    table = read_table(tmp_path / "out" / "recommendations.csv")
    assert list(zip(table["target"], table["source"], strict=True))[-2:] == [("near", "a"), ("near", "a2")]
    assert (tmp_path / "out" / "map.png").stat().st_size > 3000
    every = [*tasks[:2], f"a3={folder / 'far.npz'}"]
    assert run("transfer", "report", *every, "-o", tmp_path / "same").code == 0


def test_kinds_of_labels(run, tmp_path):
    rng = np.random.default_rng(0)
    features, whole = rng.normal(size=(200, 4)), rng.integers(30, 90, 200)
    zeros = np.where(np.arange(200) < 182, 0.0, rng.random(200) + 0.1)
    tasks = [
        saved(tmp_path / f"{n}.npz", features + i, y) for i, (n, y) in enumerate({"zeros": zeros, "tm": whole}.items())
    ]
    done = run("transfer", "matrix", *tasks, "-o", tmp_path / "auto")
    count = len(np.unique(whole))
    assert done.code == 0 and "zeros  200      numbers, 2 bins" in done.out
    assert f"tm     200      {count} classes (--kind tm=numbers if they are amounts)" in done.out
    done = run("transfer", "matrix", *tasks, "--kind", "tm=numbers", "-o", tmp_path / "one")
    assert done.code == 0 and "tm     200      numbers, 10 bins" in done.out
    done = run("transfer", "matrix", *tasks, "--kind", "numbers", "zeros=classes", "-o", tmp_path / "all")
    assert "zeros  200      19 classes\n" in done.out
    assert "tm     200      numbers, 10 bins" in done.out
    done = run("transfer", "matrix", *tasks, "--kind", "tm=classes", "-o", tmp_path / "said")
    assert f"tm     200      {count} classes\n" in done.out
    for kind, message in (("tn=numbers", "no task tn; there are zeros, tm"), ("amount", "the kind is auto, numbers")):
        done = run("transfer", "matrix", *tasks, "--kind", kind, "-o", tmp_path / "wrong")
        assert done.code == 2 and message in done.err


@pytest.mark.parametrize("head", ["", "Unnamed: 0", "__index_level_0__"])
def test_an_index_is_no_feature(run, folder, tmp_path, head):
    rows = (folder / "near.csv").read_text().splitlines()
    path = tmp_path / "near.csv"
    path.write_text("\n".join([f"{head},{rows[0]}", *(f"{i},{row}" for i, row in enumerate(rows[1:]))]) + "\n")
    done = run("transfer", "matrix", folder / "far.npz", path, "-o", tmp_path / "out")  # which has 5 features
    assert done.code == 0 and f"{path}: the column" in done.err and "(0, 1, 2, ...) is taken for an index" in done.err


def test_files_of_tasks_that_cannot_be_compared_are_named(run, folder, tmp_path):
    features = np.random.default_rng(0).normal(size=(60, 5))
    one, wide = (
        saved(tmp_path / "one.npz", features, np.ones(60)),
        saved(tmp_path / "wide.npz", np.repeat(features, 2, 1), np.arange(60) % 2),
    )
    np.savez(tmp_path / "none.npz", features=features)
    for path, message in ((one, "one class only"), (tmp_path / "none.npz", "no labels"), (wide, "different widths")):
        done = run("transfer", "report", folder / "far.npz", f"mine={path}", "-o", tmp_path / "out")
        assert done.code == 2 and message in done.err and f"mine ({path})" in done.err


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
    if kind == "letters":
        path = folder / "letters.fasta"
        path.write_text(">a\nACD\n")
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
        ("letters", "the suffix tells no kind of table"),
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
