"""The predictor on odd and damaged inputs, its lists, and its ranking of designs."""

import numpy as np
import pytest

import jaxprot
from jaxprot.core.errors import InputError
from jaxprot.io.mutations import parse_mutations
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn.featurize import parse_chains
from jaxprot.thermompnn import lists
from jaxprot.thermompnn.design import symmetrised
from jaxprot.thermompnn.results import Scan


@pytest.fixture(scope="module")
def predictor():
    return jaxprot.load("thermompnn")


@pytest.fixture(scope="module")
def lines(example):
    """Lines of 24 residues of ubiquitin."""
    text = example("ubiquitin").read_text().splitlines()
    return [line for line in text if line.startswith("ATOM") and int(line[22:26]) <= 24]


@pytest.fixture(scope="module")
def path(lines, tmp_path_factory):
    path = tmp_path_factory.mktemp("structure") / "short.pdb"
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def damaged(text: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, lines cut, doubled or shuffled."""
    rows = text.split(b"\n")
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(rows)))
        kind = int(rng.integers(5))
        if kind == 0 and rows[at]:
            row = bytearray(rows[at])
            row[int(rng.integers(len(row)))] = int(rng.integers(256))
            rows[at] = bytes(row)
        elif kind == 1:
            rows[at] = rows[at][: int(rng.integers(len(rows[at]) + 1))]
        elif kind == 2:
            rows.insert(at, rows[int(rng.integers(len(rows)))])
        elif kind == 3 and len(rows) > 2:
            del rows[at : at + int(rng.integers(1, 40))]
            rows = rows or [b""]
        else:
            rows[at] = b"HETATM" + rows[at][6:]
    return b"\n".join(rows)


@pytest.mark.slow
def test_damaged_files_give_a_scan_or_an_error_that_names_them(predictor, path, tmp_path, monkeypatch):
    monkeypatch.setattr(Scan, "plot", lambda self, path: None)
    rng = np.random.default_rng(0)
    files = []
    for number in range(150):
        files.append(tmp_path / f"damaged{number}.pdb")
        files[-1].write_bytes(damaged(path.read_bytes(), rng))
    scanned = 0
    seen = set()
    for number, result in predictor.scan_many(files, samples=0):
        seen.add(number)
        if isinstance(result, Exception):
            assert isinstance(result, InputError), repr(result)
            assert f"damaged{number}" in str(result)
            continue
        scanned += 1
        assert np.isfinite(result.ddg[result.sites.predicted]).all()
        result.write(tmp_path / "out" / str(number))
    assert seen == set(range(150))
    assert 75 < scanned < 150


@pytest.mark.slow
def test_batch_equals_one_by_one(predictor, example, path):
    structures = [example("ubiquitin"), path, example("trpcage")]
    many = dict(predictor.scan_many(structures, samples=3, seed=5))
    for number, structure in enumerate(structures):
        one = predictor.scan(structure, samples=3, seed=5)
        np.testing.assert_allclose(many[number].ddg, one.ddg, atol=2e-4)
        np.testing.assert_allclose(many[number].sd, one.sd, atol=2e-4)
    own = dict(predictor.scan_many([(structures[0], "A"), (structures[1], "Q")], samples=0))
    np.testing.assert_allclose(own[0].ddg, many[0].ddg, atol=2e-4)
    assert "no chain 'Q'" in str(own[1])


def test_one_bucket_is_one_program(predictor, lines, tmp_path):
    from jaxprot.thermompnn.predict import scan_and_spread

    files = []
    for length in (10, 13, 17, 24):
        files.append(tmp_path / f"{length}.pdb")
        files[-1].write_text("\n".join([line for line in lines if int(line[22:26]) <= length]))
    assert len(list(predictor.scan_many(files, samples=0))) == 4
    compiled = predictor.runner._compiled[scan_and_spread, False]
    before = compiled._cache_size()
    assert len(list(predictor.scan_many(files, samples=0, seed=3))) == 4
    assert compiled._cache_size() == before


def test_predictions_of_a_list_of_texts(predictor, path):
    scan = predictor.scan(path, samples=0)
    found = predictor.predict(path, ["M1A", "A:Q2G", "M1A:Q2G"], samples=0)
    np.testing.assert_allclose(found.ddg[2], found.ddg[0] + found.ddg[1], atol=1e-5)
    assert found.flag[2].startswith("additive")
    assert np.isnan(found.sd).all()
    again = predictor.lookup(scan, [parse_mutations("M1A")])
    assert again.ddg[0] == found.ddg[0]
    with pytest.raises(InputError) as caught:
        predictor.predict(path, ["A1M", "M99A", "Z:M1A", "M1A"])
    message = str(caught.value)
    assert "is M, not A" in message and "no residue 99" in message and "names chain 'Z'" in message
    with pytest.raises(InputError, match="mutates a residue that another part"):
        predictor.predict(path, ["M1A:A:M1G"])


def test_neighbours_are_counted_by_ca(predictor, path):
    scan = predictor.scan(path, samples=0)
    ca = parse_chains(read_structure(path))[0].xyz[:, 1]
    apart = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
    assert scan.neighbours().tolist() == ((apart < 10).sum(1) - 1).tolist()
    best = scan.best(cysteine=False)
    assert "C" not in best["mut"] and (best["wt"] != best["mut"]).all()


def test_symmetrised_estimate():
    native, letters = np.array([0, 1, 20, 3]), np.array([[0, 2, 4, 20], [5, 1, 6, 4]])
    there = np.arange(80.0).reshape(4, 20)
    back = -np.stack([there, 2 * there])
    np.testing.assert_allclose(
        symmetrised(there, back, native, letters),
        [(there[1, 2] + there[1, 1]) / 2, (there[0, 5] + 2 * there[0, 0] + there[3, 4] + 2 * there[3, 3]) / 2],
    )


def test_structures_are_found_by_every_name(tmp_path):
    for name in ("1abc.pdb", "2def.cif.gz", "3ghi.PDB", "notes.txt", ".hidden.pdb"):
        (tmp_path / name).write_text("")
    files = lists.structure_files(tmp_path)
    for name, found in (
        ("1abc", "1abc.pdb"),
        ("1ABC.pdb", "1abc.pdb"),
        ("2def.cif", "2def.cif.gz"),
        ("3ghi", "3ghi.PDB"),
    ):
        assert lists.find_structure(files, name, tmp_path).name == found
    with pytest.raises(InputError, match="no file of structure 'hidden'"):
        lists.find_structure(files, "hidden", tmp_path)


def test_agreement_leaves_unknown_values_out():
    found = lists.agreement(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, np.nan, 5]), ["a", "a", "a", "b"])
    assert found["n"] == 3 and found["per_protein"]["a"] == {
        "n": 2, "pearson": 1.0, "spearman": 1.0, "rmse": 0.0, "r2": 1.0
    }  # fmt: skip
    assert found["rmse"] == pytest.approx(np.sqrt(1 / 3))
