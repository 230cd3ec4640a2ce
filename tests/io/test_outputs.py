import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jaxprot.core.errors import InputError, OutputError
from jaxprot.io import outputs
from jaxprot.io.outputs import RunDirectory, atomic_path, hashes, sha256, write_json, write_run_json


def test_nothing_is_made_before_the_first_file(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    run.file("scan.csv", stem="1abc").write_text("x")
    assert (tmp_path / "a" / "b" / "1abc" / "scan.csv").is_file()


def test_folder_with_results_is_refused_unless_asked(tmp_path):
    (tmp_path / ".hidden").write_text("")
    RunDirectory(tmp_path)
    (tmp_path / "scan.csv").write_text("old")
    with pytest.raises(OutputError, match=r"already holds scan\.csv.*--overwrite"):
        RunDirectory(tmp_path)
    assert RunDirectory(tmp_path, overwrite=True).folder() == tmp_path
    with pytest.raises(OutputError, match="is a file"):
        RunDirectory(tmp_path / "scan.csv", overwrite=True)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        RunDirectory(tmp_path / "file" / "out").file("x")


def test_atomic_path_replaces_in_one_step(tmp_path):
    target = tmp_path / "new" / "a.csv.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith("a.csv.gz")
        assert temporary.parent == target.parent
        temporary.write_text("1")
        assert not target.exists()
    assert target.read_text() == "1"
    assert os.listdir(target.parent) == ["a.csv.gz"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")

    def fail(error):
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(OutputError, match=r"a\.csv: cannot be written \(No space left"):
        fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    with pytest.raises(InputError, match="wrong"):
        fail(InputError("wrong"))
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "a.csv"):
        pass


@dataclasses.dataclass
class Options:
    where: Path
    scale: float


def test_run_json_holds_what_a_repeat_needs(tmp_path):
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"w")
    content = {
        "command": "thermompnn scan",
        "arguments": Options(Path("out"), float("nan")),
        "seed": np.int64(3),
        "weights": hashes([weights, tmp_path / "absent"]),
        "timings": {"model": np.float32(0.5)},
        "values": np.arange(3),
        "names": {"b"},
    }
    record = json.loads(write_run_json(tmp_path, content).read_text())
    assert record["arguments"] == {"where": "out", "scale": None}
    assert record["seed"] == 3
    assert record["weights"] == {str(weights): sha256(weights), str(tmp_path / "absent"): None}
    assert record["timings"] == {"model": 0.5}
    assert (record["values"], record["names"]) == ([0, 1, 2], ["b"])
    assert {"jaxprot", "created", "versions", "platform"} <= set(record)
    assert record["versions"]["numpy"] == np.__version__


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"x": [float("inf"), 1.5], "é": None})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"x": [None, 1.5], "é": None}


def test_settings_of_prepared_data_are_kept(tmp_path):
    folder = tmp_path / "data"
    outputs.keep_settings(folder, {"steps": 3, "levels": (0.5, 1.0)})
    (folder / "a.npz").write_bytes(b"")
    outputs.keep_settings(folder, {"steps": 3, "levels": (0.5, 1.0)})
    with pytest.raises(OutputError, match=r"made with other settings \(seed, steps\)"):
        outputs.keep_settings(folder, {"steps": 4, "levels": (0.5, 1.0), "seed": 1})
    (folder / "settings.json").unlink()
    with pytest.raises(OutputError, match=r"no settings\.json"):
        outputs.keep_settings(folder, {"steps": 3})
