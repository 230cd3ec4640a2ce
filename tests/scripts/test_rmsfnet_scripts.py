"""RMSF-net's cross-validation and interpretation: their parts, and short runs from files to tables."""

import json
import runpy

import numpy as np
import pytest

from jaxprot.io.structures import read_structure, write_structure
from jaxprot.rmsfnet.data import make_entry, write_entry
from jaxprot.rmsfnet.simulate import simulate_map

SCRIPTS = ("rmsfnet_cross_validation", "rmsfnet_interpret")


@pytest.fixture(autouse=True)
def _cache_as_before():
    """The scripts turn on the cache of compiled programs for their process, which here is that of all tests."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_compilation_cache_dir
    yield
    if jax.config.jax_compilation_cache_dir != before:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


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
    entry = entry._replace(origin=None)
    for shift in (0.0, 137.3):
        atoms, row = validation["placed"](entry, dataclasses.replace(moved, xyz=moved.xyz + np.float32(shift)))
        assert len(np.unique(row)) >= 0.97 * len(entry.voxels)
        target = 10 ** entry.target.astype(np.float64) - 1
        residues = validation["by_residue"](target, moved, atoms, row)
        expected = np.full(moved.n_residues, np.nan)
        expected[moved.atom_residue] = rmsf
        assert validation["pearson"](residues, expected) > 0.9
    assert validation["placed"](entry, dataclasses.replace(moved, xyz=moved.xyz * 1.4)) is None


def test_a_model_lies_where_the_entry_says(validation, trpcage):
    """And is not searched for: an entry with its place knows a model that lies elsewhere."""
    import dataclasses

    from jaxprot.rmsfnet import featurize

    moved, _, entry = triple(trpcage, 3)
    atoms, row = validation["located"](entry, moved)
    assert len(np.unique(row)) == len(entry.voxels)
    np.testing.assert_array_equal(atoms, np.flatnonzero(featurize.protein_atoms(moved)))
    index = np.floor((moved.xyz[atoms] - entry.origin) / 1.5)[:, ::-1]
    np.testing.assert_array_equal(entry.voxels[row], index)
    elsewhere = dataclasses.replace(moved, xyz=moved.xyz + np.float32(137.3))
    assert validation["located"](entry, elsewhere) is None
    assert validation["located"](entry._replace(origin=None), elsewhere) is not None


def test_residues_and_baselines_from_what_dataset_wrote(validation, trpcage, tmp_path):
    import dataclasses

    from jaxprot.cli import main
    from jaxprot.io.maps import write_map

    moved, rmsf, _ = triple(trpcage, 1)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(1, 9):
        xyz = moved.xyz + 0.6 * rmsf[:, None] * rng.normal(size=moved.xyz.shape)
        write_structure(dataclasses.replace(moved, xyz=xyz.astype(np.float32)), tmp_path / "one.pdb")
        atoms = [line for line in (tmp_path / "one.pdb").read_text().splitlines() if line.startswith("ATOM")]
        lines += [f"MODEL     {number:4d}", *atoms, "ENDMDL"]
    (tmp_path / "frames.pdb").write_text("\n".join([*lines, "END", ""]))
    write_structure(moved, tmp_path / "model.cif")
    write_map(simulate_map(moved, 3.0, 1.2), tmp_path / "map.mrc")
    (tmp_path / "e.csv").write_text("name,map,model,trajectory\na.1,map.mrc,model.cif,frames.pdb\n")
    assert main.main(["rmsfnet", "dataset", str(tmp_path / "e.csv"), "-o", str(tmp_path / "data")]) == 0
    held = validation["Held"](tmp_path / "data", ["a.1"])
    for method in ("anm", "gnm", "contact", "bfactor"):
        (figures,) = held.figures(validation["Baseline"](method)).values()
        assert all(value is not None for value in figures.values())
    assert figures["residue"] > 0.4  # the B factors go with the spread
    (figures,) = held.figures(lambda entry, structure: entry.target).values()
    assert figures["residue"] > 0.95


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


@pytest.mark.parametrize("geometry", ["published", "exact"])
def test_networks_read_what_the_entries_hold(validation, trpcage, tmp_path, geometry):
    moved, rmsf, _ = triple(trpcage, 0)
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        write_entry(make_entry(moved, rmsf, simulate_map(moved), "P0.a", geometry=geometry), tmp_path / part)
    call = ["--data", str(tmp_path / "train"), "--output", str(tmp_path / "out"), "--steps", "2", "--width", "2"]
    call += ["--size", "2"]
    cfg, header = validation["run_config"]("both", tmp_path, validation["arguments"](call)[1])
    assert len(cfg.task.entries) == 1  # refused where the network reads another geometry
    assert header["config"]["geometry"] == geometry and header["config"]["hydrogens"] == (geometry == "published")


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


@pytest.fixture(scope="module")
def explaining(root):
    return load(root, "rmsfnet_interpret")


class Linear:
    """Stands in for a network: every voxel of a core is the sum of the weighted box."""

    batch = 4

    def __init__(self, weight):
        self.weight = weight

    def cores(self, boxes):
        return np.broadcast_to((boxes * self.weight).sum((1, 2, 3, 4))[:, None, None, None], (len(boxes), 10, 10, 10))


@pytest.mark.parametrize("edge", [8, 15])
def test_occlusion_of_a_sum_is_what_the_cube_held(explaining, edge):
    rng = np.random.default_rng(0)
    box, weight = rng.random((40, 40, 40, 2)), rng.random((40, 40, 40, 2))
    box[:edge, :, :, 1] = 0
    network, mask = Linear(weight), np.ones((10, 10, 10), bool)
    assert len(explaining["cubes"](box, edge, 0)) == (-(-40 // edge)) ** 3 > len(explaining["cubes"](box, edge, 1))
    found = explaining["occlusion"](network, box, mask, edge, network.cores(box[None])[0])
    held = box * weight
    for cube in (np.s_[:edge, :edge, :edge], np.s_[edge : 2 * edge, -(40 % edge or edge) :, :edge]):
        for channel in range(2):
            here = found[(*cube, channel)]
            assert here == pytest.approx(np.full(here.shape, held[(*cube, channel)].sum()), rel=1e-4, abs=1e-4)


def test_boxes_are_pasted_from_their_cores(explaining):
    grid, box = np.zeros((50, 12, 30), np.float32), np.random.default_rng(0).random((40, 40, 40))
    explaining["paste"](grid, box, np.array([20, 0, 10]))
    assert grid[20, 0, 10] == pytest.approx(box[15, 15, 15])
    assert grid[49, 11, 29] == 0 and grid[44, 11, 29] == pytest.approx(box[39, 26, 34])
    assert explaining["shares"]([1.0, 3.0]) == [0.25, 0.75] and explaining["shares"]([0.0]) == [None]


@pytest.fixture(scope="module")
def tiny():
    """A folded network of width 2 on map and model, drawn by numpy, which compiles nothing."""
    from jaxprot.rmsfnet import weights
    from jaxprot.rmsfnet.config import RMSFNetConfig
    from jaxprot.rmsfnet.model import RMSFNet
    from jaxprot.weights import module

    cfg, rng = RMSFNetConfig(width=2), np.random.default_rng(3)
    drawn = {}
    for key, shape in sorted(module.shapes(module.Blueprint(lambda rngs: RMSFNet(cfg, True, rngs=rngs))).items()):
        value = rng.random(shape) * np.where(rng.random(shape) < 0.15, -1, 1)
        drawn[key] = 0.05 * value if key.endswith("bias") else 1.4 * value / np.abs(value).sum((0, 1, 2, 3))
    return weights.folded_model(cfg, {key: value.astype(np.float32) for key, value in drawn.items()})


def test_interpretation_is_told_where_the_map_is(explaining, tiny, trpcage, example, tmp_path, capsys):
    import dataclasses

    from flax import nnx

    from jaxprot.io.maps import write_map
    from jaxprot.weights import module, portable

    header = {"system": "rmsfnet", "config": dataclasses.asdict(tiny.cfg)}
    portable.save(tmp_path / "w.safetensors", module.flatten(nnx.state(tiny, nnx.Param)), header)
    volume = simulate_map(trpcage, 3.0)
    write_map(dataclasses.replace(volume, origin=volume.origin + 300), tmp_path / "map.mrc")
    call = ["--model", example("trpcage"), "--map", tmp_path / "map.mrc", "--weights", tmp_path / "w.safetensors"]
    call = [*map(str, call), "--output", str(tmp_path / "out")]
    for more, message in (
        (["--origin", "nstart"], r"its corner is at [0.0, 0.0, 0.0]"),
        (["--voxel", "0"], "must be positive"),
        ([], "choose another --origin"),
    ):
        with pytest.raises(SystemExit) as ended:
            explaining["main"]([*call, *more])
        assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_an_interpretation_from_files_to_files(explaining, tiny, trpcage, example, tmp_path, capsys):
    import dataclasses

    from flax import nnx

    from jaxprot.io.maps import read_map, write_map
    from jaxprot.weights import module, portable

    weights = tmp_path / "w.safetensors"
    header = {"system": "rmsfnet", "config": dataclasses.asdict(tiny.cfg)}
    portable.save(weights, module.flatten(nnx.state(tiny, nnx.Param)), header)
    volume = simulate_map(trpcage, 3.0)
    write_map(volume, tmp_path / "map.mrc")
    call = ["--model", example("trpcage"), "--weights", weights, "--output", tmp_path / "out", "--cube", 20]
    call = [*map(str, call), "--boxes", "1"]
    assert explaining["main"]([*call, "--map", str(tmp_path / "map.mrc")]) == 0
    told = capsys.readouterr().out
    assert "| map |" in told and "| model |" in told
    report = json.loads((tmp_path / "out" / "interpret.json").read_text())
    for measure in ("gradient_share", "occlusion_share"):
        assert report["map"][measure] + report["model"][measure] == pytest.approx(1)
    assert report["occluded_boxes"] == 1 and report["boxes"] >= 1 and report["model"]["removal_change"] > 0
    for kind in ("gradient", "occlusion"):
        for channel in ("map", "model"):
            found = read_map(tmp_path / "out" / f"{kind}_{channel}.mrc")
            assert found.shape == volume.shape and found.data.any()
    assert (tmp_path / "out" / "interpret.png").stat().st_size > 1000
    with pytest.raises(SystemExit) as ended:
        explaining["main"](call)
    assert ended.value.code == 2 and "--map" in capsys.readouterr().err


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(explaining, tiny):
    from jaxprot.rmsfnet.predict import Predictor

    network = explaining["Network"](Predictor(tiny, batch=4))
    rng = np.random.default_rng(0)
    box, mask = rng.random((40, 40, 40, 2)).astype(np.float32), rng.random((10, 10, 10)) < 0.3
    largest = (20, 21, 22)
    box[(*largest, 0)] = 2  # and stays the largest when others are scaled
    found = network.gradient_times_input(box, mask)
    assert found[(*largest, 0)] == 0 and found.any((0, 1, 2)).all()
    # Scaled down a whole channel changes the sum by the gradient times input, to first order.
    for channel in range(2):
        scale = np.where(np.arange(2) == channel, 0.002, 0.0).astype(np.float32)
        part = np.zeros((40, 40, 40, 1), np.float32)
        part[10:30, 10:30, 10:30] = 1
        part[largest] = 0
        less, more = network.cores(np.stack([box * (1 - scale * part), box * (1 + scale * part)]))
        change = float((more - less)[mask].sum(dtype=np.float64)) / 0.004
        assert (found * part)[..., channel].sum() == pytest.approx(change, rel=0.05, abs=0.02)
