"""Tables of tasks."""

import gzip

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.massa.tasks import tables


def write(path, rows, header="sequence,label,split"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_numbers(tmp_path):
    table = tables.read_task(write(tmp_path / "t.csv", ["ACD,1.5,train", "ACE,2,valid", "ACF,,train", "GGG,-1,TEST",
                                                        "WWW,0.25,training"]))  # fmt: skip
    assert (table.kind, table.metric, table.classes) == ("regression", "spearman", 0)
    assert table.sequences == ["ACD", "ACE", "GGG", "WWW"]  # a row without a label is left out as a whole
    np.testing.assert_array_equal(table.labels, [1.5, 2, -1, 0.25])
    np.testing.assert_array_equal(table.split, ["train", "valid", "test", "train"])
    part = table.take(table.part("train"))
    assert part.sequences == ["ACD", "WWW"] and list(part.labels) == [1.5, 0.25]


def test_classes_by_number_and_by_text(tmp_path):
    table = tables.read_task(write(tmp_path / "t.csv", ["ACD,0,train", "ACE,2,train", "AEE,1,test"]))
    assert (table.kind, table.classes, table.metric) == ("classes", 3, "accuracy") and not table.class_names
    # Identifiers are no numbers of a class: the largest would be the size of the head.
    table = tables.read_task(write(tmp_path / "t.csv", ["ACD,9606,train", "ACE,559292,train", "AEE,10090,test"]))
    assert (table.kind, table.classes) == ("classes", 3) and table.class_names == ("9606", "10090", "559292")
    np.testing.assert_array_equal(table.labels, [0, 2, 1])
    table = tables.read_task(write(tmp_path / "t.csv", ["ACD,lyase,train", "ACE,kinase,train", "AAA,lyase,test"]))
    assert table.class_names == ("kinase", "lyase") and list(table.labels) == [1, 0, 1]


def test_what_is_no_number_among_numbers(tmp_path):
    rows = [f"AC{'DEFGHIKLMN'[i % 10]},{i / 4},train" for i in range(20)]
    table = tables.read_task(write(tmp_path / "t.csv", [*rows, "AAA,NA,train", "AAG,null,test"]))
    assert table.kind == "regression" and len(table.sequences) == 20 and table.unlabelled == 2
    with pytest.raises(InputError, match="line 22: label '1.2x' is no number, as most are.*--kind classes"):
        tables.read_task(write(tmp_path / "t.csv", [*rows, "AAA,1.2x,train"]))
    assert tables.read_task(tmp_path / "t.csv", kind="classes").kind == "classes"
    table = tables.read_task(write(tmp_path / "t.csv", ["ACD,none,train", "ACE,lyase,train", "ACF,NA,test"]))
    assert table.class_names == ("NA", "lyase", "none")  # texts among texts are classes


def test_whole_numbers_that_are_measured(tmp_path):
    rows = [f"AC{'DEFGHIKLMN'[i % 10]},{35 + i},train" for i in range(40)]
    assert tables.read_task(write(tmp_path / "t.csv", rows)).kind == "regression"


def test_names_of_rows(tmp_path):
    rows = ["p1,ACD,1.5,train", "p2,ACE,,train", ",AEE,2.5,test", "p4,AED,3.5,train"]
    table = tables.read_task(write(tmp_path / "t.csv", rows, "id,sequence,label,split"))
    assert table.names == ("p1", "t_line4", "p4")
    assert table.take(table.part("test")).names == ("t_line4",)
    one = write(tmp_path / "one.csv", ["ACD,1.5,train", "ACE,1.50,train"])
    with pytest.raises(InputError, match="all training labels are the same"):
        tables.read_task(one)
    assert len(tables.read_task(one, trained=False).sequences) == 2


def test_residue_classes(tmp_path):
    table = tables.read_task(write(tmp_path / "t.csv", ["ACDE,HH-C,train", "ACE,EEC,test"]))
    assert table.kind == "residue_classes" and table.class_names == ("C", "E", "H")
    np.testing.assert_array_equal(table.labels[0], [2, 2, tables.IGNORE, 0])
    digits = tables.read_task(write(tmp_path / "d.csv", ["ACDE,0020,train", "ACE,001,test"]))
    assert digits.classes == 3
    greek = tables.read_task(write(tmp_path / "g.csv", ["ACDE,αα-β,train", "ACE,ββα,test"]))
    assert greek.class_names == ("α", "β") and greek.labels[1].tolist() == [1, 1, 0]
    raised = tables.read_task(write(tmp_path / "r.csv", ["ACDE,²,train", "ACE,³,train"]))  # no digits for `int`
    assert raised.kind == "classes" and raised.class_names == ("²", "³")


def test_without_parts_a_sequence_is_always_in_one(tmp_path):
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACDEFG"), 12)) for _ in range(400)]
    rows = [f"{s},{i / 10}" for i, s in enumerate(sequences)]
    first = tables.read_task(write(tmp_path / "t.csv", rows, "sequence,label"))
    assert 20 < len(first.part("test")) < 70 and 20 < len(first.part("valid")) < 70
    again = tables.read_task(write(tmp_path / "u.csv", rows[::-1], "sequence,label"))
    assert dict(zip(first.sequences, first.split, strict=True)) == dict(zip(again.sequences, again.split, strict=True))


@pytest.mark.parametrize(
    ("rows", "header", "kind", "message"),
    [
        (["ACD,1.5"], "sequence,value", None, "no column label; it has sequence, value"),
        (["AC*,1.5,train"], "sequence,label,split", None, r"line 2: '\*' at place 3"),
        (["ACD,1.5,train", "ACE,x,train"], "sequence,label,split", "regression", "line 3: label 'x'"),
        (["ACD,1.5,train", "ACE,inf,train"], "sequence,label,split", "regression", "line 3: label 'inf'"),
        (["ACD,HHH,train", "ACE,HH,train"], "sequence,label,split", "residue_classes", "line 3: 2 labels for 3"),
        (["ACD,1.5,train", "ACE,2.5,other"], "sequence,label,split", None, "line 3: part 'other'"),
        (["ACD,1.5,test", "ACE,2.5,test"], "sequence,label,split", None, "no row of the part 'train'"),
        (["ACD,1,train", "ACE,1,train"], "sequence,label,split", None, "all training labels are the same"),
        (["ACD,,train"], "sequence,label,split", None, "no row has a label"),
        (["ACD,1.5,train", "ACE,1e300,train"], "sequence,label,split", None, "line 3: label 1e300 is beyond 1e.15"),
    ],
)
def test_bad_tables(tmp_path, rows, header, kind, message):
    with pytest.raises(InputError, match=message):
        tables.read_task(write(tmp_path / "t.csv", rows, header), kind=kind)


def test_files_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXPROT_TASKS", raising=False)
    with pytest.raises(InputError, match="JAXPROT_TASKS"):
        tables.read_task("stability")
    with pytest.raises(InputError, match=r"no such file; tasks by name are stability"):
        tables.read_task("stabilty")
    with pytest.raises(InputError, match=r"stability\.csv\.gz: no such file"):
        tables.read_task("stability", tmp_path)
    (tmp_path / "stability.csv.gz").write_bytes(gzip.compress(b"sequence,label\n")[:-9])
    with pytest.raises(InputError, match="no table"):
        tables.read_task("stability", tmp_path)


@pytest.mark.parametrize("name", list(tables.BENCHMARKS))
def test_benchmarks(shared, name):
    folder = shared / "data" / "tasks"
    if not folder.is_dir():
        pytest.skip("no tables of tasks")
    table = tables.read_task(name, folder)
    known = tables.BENCHMARKS[name]
    assert table.kind == known.kind and table.classes == known.classes
    assert len(table.part("train")) > len(table.part("valid")) > 0 and len(table.part("test")) > 0


def test_returns_of_windows_and_stray_ones(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"sequence,label,note,split\r\nACD,1.5,a\r,train\r\nACE,2.5,b,train\r\n")
    table = tables.read_task(path)
    assert list(table.labels) == [1.5, 2.5] and list(table.split) == ["train", "train"]
