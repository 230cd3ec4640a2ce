"""RMSF-net's cross-validation and interpretation: their parts, and short runs from files to tables."""

import json
import runpy

import numpy as np
import pytest

from jaxprot.io.structures import read_structure, write_structure
from jaxprot.rmsfnet.data import make_entry, write_entry
from jaxprot.rmsfnet.simulate import simulate_map

SCRIPTS = ("rmsfnet_cross_validation",)


def load(root, name):
    """The globals of a script, without running it."""
    return runpy.run_path(str(root / "scripts" / f"{name}.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_no_data_and_no_jax(root, name, capsys):
    with pytest.raises(SystemExit) as ended:
        load(root, name)["main"](["--help"])
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.fixture(scope="module")
def validation(root):
    return load(root, "rmsfnet_cross_validation")


def test_folds_keep_proteins_together(validation):
    names = [f"P{i}{end}" for i in range(13) for end in ("", ".a", "_B_2", ".c")]
    folds = validation["split"](names, 5, "._", 0)
    assert sorted(name for fold in folds for name in fold) == sorted(names)
    proteins = [{validation["protein"](name, "._") for name in fold} for fold in folds]
    assert sorted(map(len, proteins)) == [2, 2, 3, 3, 3]
    assert sum(map(len, proteins)) == len(set.union(*proteins)) == 13
    assert folds == validation["split"](names[::-1], 5, "._", 0) != validation["split"](names, 5, "._", 1)
    assert len({validation["protein"](name, "") for name in names}) == len(names)
    for held in folds:
        train, chosen = validation["parts"](names, held, "._", 0)
        assert sorted([*train, *chosen, *held]) == sorted(names)
        groups = [{validation["protein"](name, "._") for name in part} for part in (train, chosen, held)]
        assert all(groups) and sum(map(len, groups)) == 13


@pytest.fixture(scope="module")
def trpcage(example):
    return read_structure(example("trpcage"))


def triple(structure, seed):
    """An entry of a structure that was shifted, with fluctuations that go with the B factors."""
    import dataclasses

    rng = np.random.default_rng(seed)
    moved = dataclasses.replace(structure, xyz=structure.xyz + rng.uniform(-20, 20, 3).astype(np.float32))
    rmsf = 0.5 + rng.random(structure.n_residues)[structure.atom_residue]
    moved = moved.with_bfactor((10 * rmsf).astype(np.float32))
    volume = simulate_map(moved)
    return moved, rmsf, make_entry(moved, rmsf, volume, f"P{seed}.a", simulated=volume)


def test_a_model_finds_its_place_in_the_entry(validation, trpcage):
    import dataclasses

    moved, rmsf, entry = triple(trpcage, 3)
    for shift in (0.0, 137.3):
        atoms, row = validation["placed"](entry, dataclasses.replace(moved, xyz=moved.xyz + np.float32(shift)))
        assert len(np.unique(row)) >= 0.97 * len(entry.voxels)
        target = 10 ** entry.target.astype(np.float64) - 1
        residues = validation["by_residue"](target, moved, atoms, row)
        expected = np.full(moved.n_residues, np.nan)
        expected[moved.atom_residue] = rmsf
        assert validation["pearson"](residues, expected) > 0.9
    assert validation["placed"](entry, dataclasses.replace(moved, xyz=moved.xyz * 1.4)) is None


def test_the_table_has_the_layout_of_the_paper(validation):
    fold = {"voxel": 0.5, "residue": 0.25}
    methods = {"both": {"a": fold, "b": {"voxel": 0.75, "residue": None}}, "gnm": {"a": fold}}
    text = validation["table"]({"settings": {"folds": 5}, "folds": {"0": {"methods": methods}}})
    assert "| RMSF-net (map and model) | 0.625 ± 0.125 (2) | 0.250 ± 0.000 (1) |" in text
    assert "| GNM | 0.500 ± 0.000 (1) |" in text and "DEFMap |" not in text
    assert "1 of 5 folds" in text and "No rows for ANM, contact number, B factor" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "absent"], "absent: no such folder"),
        (["--data", "."], "0 proteins make no 5 folds"),
        (["--data", ".", "--folds", "1"], "give 2 or more"),
    ],
)
def test_wrong_input_is_one_message_and_code_two(validation, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        validation["main"]([*arguments, "--output", "out"])
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_cross_validation_goes_on_where_it_ended(validation, trpcage, tmp_path, capsys):
    (tmp_path / "data" / "models").mkdir(parents=True)
    for seed in range(3):
        moved, _, entry = triple(trpcage, seed)
        write_entry(entry, tmp_path / "data")
        write_structure(moved, tmp_path / "data" / "models" / f"{entry.name}.pdb")
    call = ["--data", tmp_path / "data", "--output", tmp_path / "out", "--folds", 3, "--steps", 2, "--width", 2]
    call = [*map(str, call), "--size", "2"]
    assert validation["main"]([*call, "--only", "0", "--methods", "map", "defmap", "gnm", "bfactor"]) == 0
    first = json.loads((tmp_path / "out" / "cross_validation.json").read_text())
    assert list(first["folds"]) == ["0"] and len(first["folds"]["0"]["methods"]) == 4
    (figures,) = first["folds"]["0"]["methods"]["bfactor"].values()
    assert figures["residue"] > 0.9 and figures["voxel"] > 0.7
    capsys.readouterr()
    assert validation["main"]([*call, "--only", "0", "1", "--methods", "defmap"]) == 0
    told = capsys.readouterr().out
    assert "fold 0" not in told and "fold 1  defmap" in told and "2 of 3 folds" in told
    again = json.loads((tmp_path / "out" / "cross_validation.json").read_text())
    assert again["folds"]["0"] == first["folds"]["0"]
    assert "| DEFMap |" in (tmp_path / "out" / "cross_validation.md").read_text()
    with pytest.raises(SystemExit):
        validation["main"]([*call, "--seed", "1"])
    assert "made with other settings" in capsys.readouterr().err
