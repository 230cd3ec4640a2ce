"""Odd and damaged maps, models and weights given to RMSF-net: values, NaN or one clear line, never a silent 0."""

import dataclasses
import shutil

import numpy as np
import pytest

from jaxprot.cli import main
from jaxprot.io.maps import read_map, write_map
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.io.tables import read_table
from jaxprot.rmsfnet import weights as tables
from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.simulate import simulate_map
from jaxprot.weights import portable


@pytest.fixture(scope="module")
def folder(tmp_path_factory, example):
    """A model of 12 residues, a map around it, and weights of the three variants."""
    home = tmp_path_factory.mktemp("inputs")
    structure = read_structure(example("ubiquitin"))
    structure = structure.select((structure.resid <= 12)[structure.atom_residue])
    write_structure(structure, home / "model.pdb")
    write_map(simulate_map(structure, 3.0, 1.5, padding=6), home / "map.mrc")
    for variant in ("both", "map", "pdb"):
        rng, tensors = np.random.default_rng(0), {}
        for name, shape in tables.shapes(RMSFNetConfig(variant=variant, width=2)).items():
            value = rng.random(shape).astype(np.float32)
            tensors[name] = value if ".norm" in name else value / np.prod(shape[:-1] or (20,))
        portable.save(
            home / f"{variant}.safetensors",
            {name: value.astype(np.float32) for name, value in tensors.items()},
            {"system": "rmsfnet", "config": {"variant": variant, "width": 2}},
        )
    return home


@pytest.fixture
def run(folder, tmp_path, capsys):
    """`run(map=FILE)`: exit code, stderr and folder of `rmsfnet predict`; None leaves an input out."""

    def predict(*more, **changed):
        files = {
            "model": folder / "model.pdb", "map": folder / "map.mrc", "weights": folder / "both.safetensors", **changed
        }  # fmt: skip
        arguments = [str(part) for name, path in files.items() if path is not None for part in (f"--{name}", path)]
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        capsys.readouterr()
        code = main.main(["rmsfnet", "predict", *arguments, "-o", str(out), *map(str, more)])
        err = capsys.readouterr().err
        assert "Traceback" not in err and "internal" not in err
        assert code in (0, 2) and (code == 0 or not out.exists())
        return code, err, out

    return predict


def refused(result, *words):
    code, err, _ = result
    assert code == 2 and err.count("\n") == 1, err
    for word in words:
        assert word in err, err


def header(folder, path, **words):
    """A copy of the map with other numbers in its header."""
    import mrcfile

    shutil.copy(folder / "map.mrc", path)
    with mrcfile.mmap(path, "r+", permissive=True) as file:
        for name, value in words.items():
            part, _, field = name.partition("__")
            if field:
                file.header[part][field] = value
            else:
                file.header[part] = value
    return path


def test_skewed_map(run, shared):
    refused(run(map=shared / "data" / "flexibility" / "EMD-3001.map"), "EMD-3001.map", "skewed", "94.3", "resample")


def test_map_of_zeros(run, folder, tmp_path):
    volume = read_map(folder / "map.mrc")
    write_map(volume.with_data(volume.data * 0), tmp_path / "zeros.mrc")
    refused(run(map=tmp_path / "zeros.mrc"), "zeros", "zero everywhere")
    refused(run(map=tmp_path / "zeros.mrc", model=None, weights=folder / "map.safetensors"), "zero everywhere")


def test_inverted_map(run, folder, tmp_path):
    volume = read_map(folder / "map.mrc")
    write_map(volume.with_data(-volume.data), tmp_path / "negative.mrc")
    refused(run(map=tmp_path / "negative.mrc"), "negative everywhere", "inverted")


def test_no_density_around_the_model(run, folder, tmp_path):
    """All of it lies elsewhere: a file without values, and a line that says so."""
    volume = read_map(folder / "map.mrc")
    data = np.pad(volume.data * 0, [(0, 0), (0, 0), (0, 60)])
    data[:, :, -8:] = 1.0
    write_map(dataclasses.replace(volume, data=data), tmp_path / "elsewhere.mrc")
    code, err, out = run(map=tmp_path / "elsewhere.mrc")
    assert code == 0 and "boxes hold no density; what lies there has no value" in err
    assert (read_table(out / "atoms.csv")["rmsf_angstrom"] == "").all()  # no cell of the column has a number
    assert (read_structure(out / "rmsf.pdb").bfactor == -1).all()


def test_part_of_the_boxes_is_empty(run, folder, tmp_path):
    structure = read_structure(folder / "model.pdb")
    far = (structure.resid > 6)[structure.atom_residue]
    moved = dataclasses.replace(structure, xyz=structure.xyz + np.float32([150, 0, 0]) * far[:, None])
    write_structure(moved, tmp_path / "moved.pdb")
    volume = read_map(folder / "map.mrc")
    wide = np.pad(volume.data, [(0, 0), (0, 0), (0, 110)])
    write_map(dataclasses.replace(volume, data=wide), tmp_path / "wide.mrc")
    code, err, out = run(model=tmp_path / "moved.pdb", map=tmp_path / "wide.mrc")
    assert code == 0 and "boxes hold no density; what lies there has no value" in err
    np.testing.assert_array_equal(np.isnan(read_table(out / "atoms.csv")["rmsf_angstrom"]), far)
    np.testing.assert_array_equal(read_structure(out / "rmsf.pdb").bfactor == -1, far)


def test_atoms_outside_the_map(run, folder, tmp_path):
    volume = read_map(folder / "map.mrc")
    write_map(dataclasses.replace(volume, data=volume.data[:12]), tmp_path / "half.mrc")
    code, err, out = run(map=tmp_path / "half.mrc")
    rmsf = read_table(out / "atoms.csv")["rmsf_angstrom"]
    missing = np.isnan(rmsf)
    assert code == 0 and 0 < missing.sum() < len(missing)
    assert f"{missing.sum()} of {len(missing)} protein atoms lie outside the map" in err
    table = read_table(out / "residues.csv")
    assert len(table["resid"]) == 12 and np.isnan(table["z"]).any()
    shifted = dataclasses.replace(volume, origin=volume.origin + 500)
    write_map(shifted, tmp_path / "far.mrc")
    refused(run(map=tmp_path / "far.mrc"), "none of its atoms lies inside the map far", "--origin")


def test_model_without_protein(run, folder, tmp_path):
    structure = read_structure(folder / "model.pdb")
    carbons = structure.select(structure.atom_name == "CA")
    write_structure(carbons, tmp_path / "trace.pdb")
    refused(run(model=tmp_path / "trace.pdb"), "trace", "no residue with N, CA, C and O", "proteins only")
    water = "HETATM    1  O   HOH A   1       0.000   0.000   0.000  1.00 10.00           O\nEND\n"
    (tmp_path / "water.pdb").write_text(water)
    refused(run(model=tmp_path / "water.pdb"), "water", "no residue with N, CA, C and O")
    (tmp_path / "empty.pdb").write_text("REMARK nothing\nEND\n")
    refused(run(model=tmp_path / "empty.pdb"), "empty.pdb", "no ATOM records")
    (tmp_path / "blank.pdb").write_text("")
    refused(run(model=tmp_path / "blank.pdb"), "the file is empty")
    refused(run(model=tmp_path / "none.pdb"), "none.pdb: no such file")
    refused(run(map=tmp_path / "none.mrc"), "none.mrc: no such file")


def test_coordinates_that_are_not_there(run, folder, tmp_path):
    structure = read_structure(folder / "model.pdb")
    xyz = structure.xyz.copy()
    xyz[::7] = np.nan
    write_structure(dataclasses.replace(structure, xyz=xyz), tmp_path / "gaps.cif")
    code, err, out = run(model=tmp_path / "gaps.cif")
    gaps = np.isnan(xyz).any(1)
    assert code == 0 and f"{gaps.sum()} of {len(gaps)} protein atoms" in err and "have no value" in err
    np.testing.assert_array_equal(np.isnan(read_table(out / "atoms.csv")["rmsf_angstrom"]), gaps)
    np.testing.assert_array_equal(read_structure(out / "rmsf.pdb").bfactor == -1, gaps)


def test_both_origin_and_start_indices(run, folder, tmp_path):
    volume = read_map(folder / "map.mrc")
    start = np.array([4, -3, 2])
    words = {f"n{axis}start": value for axis, value in zip("xyz", start, strict=True)}
    words |= {f"origin__{axis}": value for axis, value in zip("xyz", volume.origin - 1.5 * start, strict=True)}
    path = header(folder, tmp_path / "two.mrc", **words)
    _, _, plain = run()
    expected = read_table(plain / "atoms.csv")["rmsf_angstrom"]
    code, err, out = run(map=path)
    assert code == 0 and "both ORIGIN" in err and "are added" in err
    np.testing.assert_allclose(read_table(out / "atoms.csv")["rmsf_angstrom"], expected, atol=1e-3)
    code, err, _ = run("--origin", "header", map=path)
    assert code == 0 and "both ORIGIN" not in err


def test_multi_model_input(run, folder, tmp_path):
    atoms = [line for line in (folder / "model.pdb").read_text().splitlines() if line.startswith("ATOM")]
    lines = [line for number in (1, 2, 3) for line in (f"MODEL     {number:4d}", *atoms, "ENDMDL")]
    (tmp_path / "nmr.pdb").write_text("\n".join([*lines, "END", ""]))
    _, _, plain = run()
    expected = (plain / "atoms.csv").read_text()
    code, err, out = run(model=tmp_path / "nmr.pdb")
    assert code == 0 and "nmr.pdb: the first of its 3 models is taken" in err
    assert (out / "atoms.csv").read_text() == expected


def test_no_voxel_size(run, folder, tmp_path):
    cell = {f"cella__{axis}": 0 for axis in "xyz"}
    path = header(folder, tmp_path / "unknown.mrc", **cell)
    refused(run(map=path), "no voxel size in the header", "--voxel")
    code, err, out = run("--voxel", 1.5, map=path)
    assert code == 0 and not err and np.isfinite(read_table(out / "atoms.csv")["rmsf_angstrom"]).all()
    refused(run("--voxel", 0, map=path), "must be positive", "--voxel")


def test_sizes_that_make_no_sense(run, folder, tmp_path):
    path = header(folder, tmp_path / "huge.mrc", **{f"cella__{axis}": 1e5 for axis in "xyz"})
    refused(run(map=path), "huge", "too many voxels of 1.5 Å")
    path = header(folder, tmp_path / "thin.mrc", cella__z=0.5)
    refused(run(map=path), "thin", "1.5 Å")


def test_damaged_maps(run, folder, tmp_path):
    whole = (folder / "map.mrc").read_bytes()
    for name, content in {"cut": whole[:-400], "head": whole[:600], "text": b"hello " * 400, "nothing": b""}.items():
        (tmp_path / f"{name}.mrc").write_bytes(content)
        refused(run(map=tmp_path / f"{name}.mrc"), f"{name}.mrc")
    volume = read_map(folder / "map.mrc")
    data = volume.data.copy()
    data[3, 3, 3] = np.nan
    write_map(volume.with_data(data), tmp_path / "nan.mrc")
    refused(run(map=tmp_path / "nan.mrc"), "1 of", "not finite")


def test_models_and_maps_in_each_others_place(run, folder):
    refused(run(map=folder / "model.pdb"), "model.pdb")
    refused(run(model=folder / "map.mrc"), "map.mrc")


def test_weights_that_do_not_fit_the_inputs(run, folder):
    refused(run(model=None), "there is only a map", "--model", "rmsfnet:map")
    refused(run(map=None), "there is only a model", "--map", "rmsfnet:pdb")
    refused(run(model=None, weights=folder / "pdb.safetensors"), "these weights read a model")
    refused(run(map=None, weights=folder / "map.safetensors"), "these weights read a map")


def test_contour(run, folder):
    only = {"model": None, "weights": folder / "map.safetensors"}
    refused(run("--contour", 1e6, **only), "no voxel is above the contour 1e+06", "the map reaches")
    refused(run("--contour", "nan", **only), "no voxel is above the contour")
    code, err, _ = run("--contour", 0.5)
    assert code == 0 and "the contour is not used" in err


def test_damaged_and_foreign_weights(run, folder, tmp_path, goldens, root):
    whole = (goldens("rmsfnet") / "small_n4_exp_sim_model.pth").read_bytes()
    for size in (100, 5000, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        refused(run(weights=tmp_path / "cut.pth"), "cut.pth")
    refused(run(weights=tmp_path / "none.pth"), "none.pth: no such file")
    refused(run(weights=folder / "model.pdb"), "model.pdb")
    thermompnn = root / "jaxprot" / "weights" / "default" / "thermompnn.safetensors"
    refused(run(weights=thermompnn), "thermompnn", "not of rmsfnet")
    refused(run(weights="thermompnn"), "weights of thermompnn, not of rmsfnet")
    tensors, told = portable.load(folder / "both.safetensors")
    del tensors["conv0_1.conv2.kernel"]
    portable.save(tmp_path / "part.safetensors", tensors, told)
    refused(run(weights=tmp_path / "part.safetensors"), "part.safetensors", "conv0_1.conv2.kernel")


def test_the_published_file_works(run, goldens):
    code, err, out = run(weights=goldens("rmsfnet") / "small_n4_exp_sim_model.pth")
    assert code == 0 and not err
    assert np.isfinite(read_table(out / "atoms.csv")["rmsf_angstrom"]).all()


@pytest.mark.slow
def test_random_damage_to_the_header(run, folder, tmp_path):
    rng = np.random.default_rng(0)
    whole = np.frombuffer((folder / "map.mrc").read_bytes(), np.uint8)
    done = {0: 0, 2: 0}
    for _ in range(40):
        content = whole.copy()
        places = rng.integers(0, 256, rng.integers(1, 6))
        content[places] = rng.integers(0, 256, len(places))
        (tmp_path / "damaged.mrc").write_bytes(content.tobytes())
        done[run(map=tmp_path / "damaged.mrc")[0]] += 1
    assert done[0] and done[2]
