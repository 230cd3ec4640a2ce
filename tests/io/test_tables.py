import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxprot.core.errors import InputError
from jaxprot.io.tables import FORMATS, read_table, write_table

TABLE = {
    "chain": ["1", "NA", ""],
    "resid": np.array([1, -3, 52], np.int32),
    "icode": ["", "A", ""],
    "ddg_kcal_mol": np.array([0.1, np.nan, -1e-7], np.float32),
    "flag": ["", "cysteine", 'a,b;"c"'],
}


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(format, tmp_path):
    path = write_table(TABLE, tmp_path / "t", format)
    assert path == tmp_path / f"t.{format}"
    read = read_table(path)
    assert list(read) == list(TABLE)
    for name in ("chain", "icode", "flag"):
        assert read[name].tolist() == TABLE[name]
    assert read["resid"].tolist() == [1, -3, 52]
    np.testing.assert_allclose(read["ddg_kcal_mol"], TABLE["ddg_kcal_mol"], rtol=1e-6)


def test_csv_is_short_and_plain(tmp_path):
    text = write_table(TABLE, tmp_path / "t.csv").read_text()
    assert text.splitlines()[:3] == ["chain,resid,icode,ddg_kcal_mol,flag", "1,1,,0.1,", "NA,-3,A,,cysteine"]


@pytest.mark.parametrize(
    ("given_path", "format", "written"),
    [
        ("t", None, "t.csv"),
        ("t.parquet", None, "t.parquet"),
        ("t.csv", "json", "t.json"),
        ("run.1", "csv", "run.1.csv"),
    ],
)
def test_suffix_follows_the_format(given_path, format, written, tmp_path):
    assert write_table({"a": [1]}, tmp_path / given_path, format).name == written


def test_data_frames_are_tables(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"chain": ["A", "B"], "n": [1, 2], "x": [0.5, None]})
    for format in FORMATS:
        read = read_table(write_table(frame, tmp_path / "t", format))
        assert read["chain"].tolist() == ["A", "B"]
        assert read["n"].tolist() == [1, 2]
        assert read["x"][0] == 0.5
        assert np.isnan(read["x"][1])


def test_empty_table_keeps_its_columns(tmp_path):
    for format in ("csv", "parquet"):
        read = read_table(write_table({"chain": [], "x": np.zeros(0)}, tmp_path / "t", format))
        assert [len(read[name]) for name in ("chain", "x")] == [0, 0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_spreadsheet_exports_are_read(delimiter, packed, tmp_path):
    rows = [delimiter.join(["structure", " mutation ", "ddg"]), delimiter.join(["1abc", "A10G", "1"]), "", ""]
    data = ("\ufeff" + "\r\n".join(rows)).encode()
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    read = read_table(path)
    assert {name: values.tolist() for name, values in read.items()} == {
        "structure": ["1abc"],
        "mutation": ["A10G"],
        "ddg": [1],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "empty table"),
        ("t.csv", b"a,b\n1\n1,2,3\n", r"2 columns in the header, but row 2 has 1, row 3 has 3"),
        ("t.csv", b"a,a\n1,2\n", "different column names"),
        ("t.csv", b"\x00\x01\xff", "not a readable table"),
        ("t.csv.gz", b"a,b\n", "not a readable table"),
        ("t.parquet", b"PAR1", "not a readable table"),
        ("t.json", b"{}", "list of rows"),
        ("t.json", b"[1", "not a readable table"),
    ],
)
def test_broken_tables_explain_themselves(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_wrong_use(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="unknown table format 'xls'"):
        write_table({"a": [1]}, tmp_path / "t", "xls")
    with pytest.raises(InputError, match="different lengths"):
        write_table({"a": [1], "b": [1, 2]}, tmp_path / "t")
    assert not list(tmp_path.iterdir())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_numbers_come_back_exactly(tmp_path_factory, values):
    path = write_table({"x": np.array(values, np.float32)}, tmp_path_factory.mktemp("t") / "t.csv")
    np.testing.assert_array_equal(read_table(path)["x"].astype(np.float32), np.array(values, np.float32))


def test_nothing_here_needs_pandas():
    import subprocess
    import sys

    code = (
        "import sys, tempfile, pathlib; from jaxprot.io.tables import *;"
        "p = write_table({'a': [1.5]}, pathlib.Path(tempfile.mkdtemp()) / 't'); read_table(p);"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
