"""The metrics file: valid lines, cut back when a run resumes."""

import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.core.errors import InputError, OutputError
from jaxprot.train.metrics import MetricsLog, read_metrics


def write(run, steps, resume_step=None, **options):
    with MetricsLog(run, resume_step=resume_step, tensorboard=False, **options) as log:
        for step in steps:
            log.write({"step": step, "loss": 1.0 / step})
            if step % 2 == 0:
                log.write({"step": step, "val_fit": step / 10})


def test_records_are_there_as_soon_as_they_are_written(tmp_path):
    with MetricsLog(tmp_path / "run", resume_step=None, tensorboard=False) as log:
        log.write({"step": 1, "loss": np.float32(0.5), "count": np.int64(3), "rate": jnp.float32(0.25)})
        assert read_metrics(tmp_path / "run") == [{"step": 1, "loss": 0.5, "count": 3, "rate": 0.25}]
        log.write({"step": 2})
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 2


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with MetricsLog(tmp_path, resume_step=None, tensorboard=False) as log:
        log.write(
            {"step": 1, "loss": float("nan"), "terms": {"a": np.inf, "b": [1.0, -np.inf]}, "norm": np.float32("nan")}
        )
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_metrics(tmp_path) == [{"step": 1, "loss": None, "terms": {"a": None, "b": [1.0, None]}, "norm": None}]


@pytest.mark.parametrize("torn", ["", '{"step": 7, "lo', '{"step": 7}', "\x00\x00\x00"], ids=str)
def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path, torn):
    write(tmp_path / "whole", range(1, 11))
    write(tmp_path / "cut", range(1, 7))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path / "cut", range(5, 11), resume_step=4)
    assert (tmp_path / "cut" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["metrics.jsonl"]


def test_resuming_from_the_start_and_without_a_file(tmp_path):
    write(tmp_path, range(1, 5))
    write(tmp_path, range(1, 3), resume_step=0)
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 2]
    write(tmp_path / "none", range(3, 5), resume_step=2)
    assert [r["step"] for r in read_metrics(tmp_path / "none")] == [3, 4, 4]


def test_a_new_run_starts_a_new_file(tmp_path):
    write(tmp_path, range(1, 5))
    write(tmp_path, [1])
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_other_processes_write_nothing(tmp_path):
    write(tmp_path / "run", range(1, 5), write=False)
    assert not (tmp_path / "run").exists()


def test_reading_passes_over_a_torn_last_line_only(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "l')
    assert read_metrics(tmp_path) == [{"step": 1}]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[2]\n{"step": 3}\n')
    with pytest.raises(InputError, match="line 2 is no JSON object"):
        read_metrics(tmp_path)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be read"):
        read_metrics(tmp_path)


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        MetricsLog(tmp_path / "run", resume_step=None, tensorboard=False)


@pytest.mark.skipif(not __import__("os").path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written \(No space left"):
        with MetricsLog(tmp_path, resume_step=None, tensorboard=False) as log:
            log.write({"step": 1})


def test_missing_tensorboard_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'jaxprot\[tensorboard\]'"):
        MetricsLog(tmp_path / "run", resume_step=None, tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_numbers_go_to_tensorboard_too(tmp_path, monkeypatch):
    seen = []

    class SummaryWriter:
        def __init__(self, folder, purge_step=None):
            seen.append(("open", folder, purge_step))

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    with MetricsLog(tmp_path, resume_step=4, tensorboard=True) as log:
        log.write({"step": 5, "loss": 0.5, "val_fit": 1.0, "bad": float("nan"), "note": "text", "best": True})
    folder = str(tmp_path / "tensorboard")
    assert seen == [("open", folder, 5), ("loss", 0.5, 5), ("val/fit", 1.0, 5), "closed"]


def test_event_files_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    with MetricsLog(tmp_path, resume_step=None, tensorboard=True) as log:
        log.write({"step": 1, "loss": 0.5})
    assert any(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir())
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 0.5}
