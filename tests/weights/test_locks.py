"""One holder at a time, with the operating system's locks and with files."""

import contextlib
import subprocess
import sys
import threading
import time

import pytest

from jaxprot.weights import locks


@pytest.fixture(params=["system", "file"])
def kind(request, monkeypatch):
    if request.param == "system":
        pytest.importorskip("fcntl")
    else:
        monkeypatch.setattr(locks, "fcntl", None)
    return request.param


def test_threads_take_turns(kind, tmp_path):
    inside, most, waited = [], [], []

    @contextlib.contextmanager
    def waiting():
        waited.append(True)
        yield

    def work():
        with locks.held(tmp_path / "lock", waiting):
            inside.append(True)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert waited
    assert not list(tmp_path.iterdir())


def test_released_when_the_block_fails(kind, tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locks.held(tmp_path / "lock"):
            raise KeyError
    assert not list(tmp_path.iterdir())


def test_lock_of_a_killed_process_is_free(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_STALE", 1.0)
    code = "import sys, time; from jaxprot.weights import locks\n"
    code += "locks.fcntl = None\n" if kind == "file" else ""
    code += f"with locks.held({str(tmp_path / 'lock')!r}): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    assert list(tmp_path.iterdir())
    begin = time.monotonic()
    with locks.held(tmp_path / "lock"):
        assert time.monotonic() - begin < 10
    assert not list(tmp_path.iterdir())


def test_a_holder_that_works_long_keeps_its_file(tmp_path, monkeypatch):
    for name, value in {"fcntl": None, "_BEAT": 0.05, "_STALE": 0.5, "_PAUSE": 0.02}.items():
        monkeypatch.setattr(locks, name, value)
    order = []

    def second():
        with locks.held(tmp_path / "lock"):
            order.append("second")

    with locks.held(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(1.5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_file_system_without_locks(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.held(tmp_path / "lock"):
        assert [file.name for file in tmp_path.iterdir()] == ["lock.owned"]
    assert not list(tmp_path.iterdir())
