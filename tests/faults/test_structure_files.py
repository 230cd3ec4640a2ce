"""Damaged and odd structure files: a result or one clear error, never a traceback."""

import gzip

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.proteinmpnn.featurize import featurize, parse_chains


def use(path):
    """What every prediction does first."""
    return featurize(parse_chains(read_structure(path)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdb", b"", "a.pdb: the file is empty"),
        ("a.cif", b"\n \n", "a.cif: the file is empty"),
        ("a.pdb", b"hello, this is a letter\n" * 9, "a.pdb: no ATOM records; is this a structure file"),
        ("a.pdb", b"<html><body>404</body></html>", "no ATOM records"),
        ("a.pdb", b"\x89PNG\r\n\x1a\n\x00\x00" + bytes(range(256)), "no ATOM records|cannot be read"),
        ("a.cif", b"data_x\n_entry.id x\n", "a.cif: no ATOM records .no _atom_site loop"),
        ("a.cif", b"data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1\n", "a.cif: cannot be read"),
        ("a.pdb.gz", gzip.compress(b"ATOM\n" * 999, mtime=0)[:40], "a.pdb.gz: the gzip file is truncated or damaged"),
        ("a.pdb.gz", b"\x1f\x8b", "truncated or damaged"),
    ],
)
def test_no_structure(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        use(tmp_path / name)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="none.pdb: no such file"):
        use(tmp_path / "none.pdb")
    with pytest.raises(InputError, match="cannot be opened"):
        use(tmp_path)


def test_unknown_chain_lists_those_there_are(example):
    structure = read_structure(example("ubiquitin"))
    with pytest.raises(InputError, match="ubiquitin: no chain 'a'; chains in the file: A .*case-sensitive"):
        parse_chains(structure, "a")
    with pytest.raises(InputError, match="no chain 'B', 'C'"):
        parse_chains(structure, ["A", "B", "C"])


def test_chain_without_backbone(example):
    structure = read_structure(example("ubiquitin"))
    with pytest.raises(InputError, match="ubiquitin: chain 'A' has no residue with a complete backbone"):
        parse_chains(structure.select(structure.atom_name != "C"), "A")
    with pytest.raises(InputError, match="ubiquitin: no chain has a residue with a complete protein backbone"):
        parse_chains(structure.select(structure.atom_name == "CB"))


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flips bytes, cuts lines, drops or repeats lines, or ends the file early."""
    kind = rng.integers(6)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind in (1, 2):
        array = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(array), rng.integers(1, 60))
        new = rng.integers(0, 256, len(places)) if kind == 1 else rng.choice(list(b" 0123456789.-ANCO\n"), len(places))
        array[places] = new
        return array.tobytes()
    lines = data.split(b"\n")
    for at in rng.integers(0, len(lines), rng.integers(1, 30)):
        if kind == 3:
            lines[at] = lines[at][: rng.integers(0, 81)]
        elif kind == 4:
            lines[at] = b""
        else:
            other = rng.integers(len(lines))
            lines[at], lines[other] = lines[other], lines[at][: rng.integers(20, 81)] + b"\n" + lines[at]
    return b"\n".join(lines)


@pytest.mark.parametrize("kind", ["pdb", "cif", "pdb.gz"])
def test_random_damage(example, tmp_path, kind):
    small = read_structure(example("ubiquitin"))
    small = small.select((small.element != "H") & (small.atom_residue < 30))
    write_structure(small, tmp_path / f"small.{kind}")
    data = (tmp_path / f"small.{kind}").read_bytes()
    rng = np.random.default_rng(7)
    results = errors = 0
    for number in range({"pdb": 1000, "cif": 300, "pdb.gz": 100}[kind]):
        damaged = mutate(data, rng)
        try:
            features = use(damaged)
        except InputError as error:
            errors += 1
            assert len(str(error)) > 20
        except BaseException as error:
            raise AssertionError(f"damage {number}: {type(error).__name__}: {error}") from error
        else:
            results += 1
            assert np.isfinite(features.X).all() and len(features.S) < 20_000
    assert errors > 10
    assert results > 10 or kind == "pdb.gz"


def test_written_files_are_whole_or_absent(example, tmp_path, monkeypatch):
    structure = read_structure(example("chignolin"))
    monkeypatch.setattr(gzip, "compress", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_structure(structure, tmp_path / "a.pdb.gz")
    assert list(tmp_path.iterdir()) == []
