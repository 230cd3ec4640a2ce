"""From files to files: the published numbers, and what is done with atoms, boxes and residues without a value."""

import dataclasses
from collections import OrderedDict

import jax
import numpy as np
import pytest
from flax import nnx

import jaxprot
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.core.volume import Volume
from jaxprot.io.maps import read_map
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.rmsfnet import featurize, predict, results
from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.simulate import simulate_map
from jaxprot.weights import inspect

# our variant -> name in the stored results
OFFICIAL = {"both": "pdb_plus_cryoem", "map": "only_cryoem", "pdb": "only_pdb"}


@pytest.fixture(scope="module")
def golden(goldens):
    return dict(np.load(goldens("rmsfnet") / "pipeline.npz"))


@pytest.fixture(scope="module")
def files(goldens):
    return goldens("rmsfnet") / "fragment.pdb", goldens("rmsfnet") / "map.mrc"


@pytest.fixture(scope="module")
def inputs(files):
    return read_structure(files[0]), read_map(files[1])


@pytest.fixture(scope="module")
def predicted(network, files):
    """Of a variant: cores in the order of the boxes, and the result."""
    made = {}

    def of(variant):
        if variant not in made:
            predictor, cores = predict.Predictor(network(variant)), []
            run = predictor.cores
            predictor.cores = lambda boxes: (cores.append(core) or core for core in run(boxes))
            result = predictor.predict(*files)
            made[variant] = np.stack(cores), result
        return made[variant]

    return of


@pytest.mark.golden
def test_boxes_equal_the_published_ones(inputs, golden):
    structure, volume = inputs
    grid, simulated = featurize.resample(volume), simulate_map(structure)
    np.testing.assert_allclose(grid.data, golden["resampled_map"], rtol=0, atol=2e-5 * golden["resampled_map"].max())
    np.testing.assert_allclose(grid.origin, golden["info_origin"] + golden["info_nstart"] * golden["info_voxel"])
    occupied = featurize.atom_map(structure, grid)
    np.testing.assert_array_equal(occupied, golden["atom_map"].astype(bool))
    np.testing.assert_array_equal(featurize.keep(occupied), golden["keep_list"])
    np.testing.assert_allclose(simulated.data, golden["sim_map"], rtol=0, atol=1e-5 * golden["sim_map"].max())
    boxes = featurize.Boxes(grid, simulated, "both", featurize.keep(occupied))
    assert np.prod(boxes.tiles) == golden["n_total"]
    cut = boxes.cut(np.arange(len(boxes)))
    for channel, name in enumerate(("exp", "sim")):
        largest = golden[f"box_{name}_max"]
        np.testing.assert_allclose(cut[..., channel].max((1, 2, 3)), largest, rtol=2e-5)
        total = cut[..., channel].sum((1, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(total, golden[f"box_{name}_sum"], rtol=1e-4, atol=1e-2)


@pytest.mark.golden
@pytest.mark.parametrize("variant", OFFICIAL)
def test_cores_and_atoms_equal_the_published_ones(predicted, golden, variant):
    cores, result = predicted(variant)
    np.testing.assert_allclose(cores, golden[f"{OFFICIAL[variant]}_boxes_out"], rtol=0, atol=5e-5)
    scored = np.isfinite(result.rmsf)
    assert scored.sum() == 293 and np.isnan(result.rmsf[result.structure.hetero[result.structure.atom_residue]]).all()
    if variant == "both":
        expected = golden["rmsf_atom_mode3"]
        assert (np.abs(result.rmsf[scored] - expected) <= 2e-4 * (1 + np.abs(expected))).all()
        log = np.log10(np.nan_to_num(result.volume.data) + 1)
        np.testing.assert_allclose(log, golden["log_rmsf_map_mode3"], rtol=0, atol=5e-5)


@pytest.mark.golden
@pytest.mark.parametrize("variant", OFFICIAL)
def test_files_hold_the_published_numbers(predicted, golden, goldens, variant, tmp_path):
    _, result = predicted(variant)
    result.write(tmp_path)
    raw, normal = read_structure(tmp_path / "rmsf.pdb"), read_structure(tmp_path / "rmsf_z.pdb")
    assert raw.n_atoms == result.structure.n_atoms and normal.n_atoms == 293
    protein = featurize.protein_atoms(raw)
    np.testing.assert_allclose(raw.bfactor[protein], golden[f"{OFFICIAL[variant]}_rmsf_B"], rtol=0, atol=0.011)
    np.testing.assert_allclose(normal.bfactor, golden[f"{OFFICIAL[variant]}_rmsf_nor_B"], rtol=0, atol=0.011)
    assert (raw.bfactor[~protein] == results.UNSCORED).all()
    if variant == "both":
        for ours, name in ((raw.select(protein), "rmsf_raw_mode3.pdb"), (normal, "rmsf_nor_mode3.pdb")):
            theirs = read_structure(goldens("rmsfnet") / name)
            np.testing.assert_array_equal(ours.atom_name, theirs.atom_name)
            np.testing.assert_array_equal(ours.resid[ours.atom_residue], theirs.resid[theirs.atom_residue])
            np.testing.assert_allclose(ours.xyz, theirs.xyz, atol=2e-3)
            np.testing.assert_allclose(ours.bfactor, theirs.bfactor, rtol=0, atol=0.011)


def permuted(source, target, order):
    """The same map with columns, rows and sections along other axes; `order` says which axis (0 x) each has."""
    import mrcfile

    with mrcfile.open(source) as file:
        data, header = file.data.copy(), file.header.copy()
    assert [int(header[key]) for key in ("mapc", "mapr", "maps")] == [1, 2, 3]
    start = [int(header[key]) for key in ("nxstart", "nystart", "nzstart")]
    with mrcfile.new(target) as file:
        file.set_data(np.ascontiguousarray(data.transpose([2 - axis for axis in reversed(order)])))
        file.header.cella, file.header.cellb, file.header.origin = header.cella, header.cellb, header.origin
        file.header.mx, file.header.my, file.header.mz = header.mx, header.my, header.mz
        file.header.mapc, file.header.mapr, file.header.maps = (axis + 1 for axis in order)
        file.header.nxstart, file.header.nystart, file.header.nzstart = (start[axis] for axis in order)
    return target


@pytest.mark.golden
@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_a_map_with_permuted_axes_is_the_same_map(files, inputs, order, tmp_path):
    structure, volume = inputs
    other = read_map(permuted(files[1], tmp_path / "map.mrc", order))
    np.testing.assert_array_equal(other.data, volume.data)
    np.testing.assert_array_equal(other.origin, volume.origin)
    np.testing.assert_array_equal(other.voxel, volume.voxel)


# From here on with a small network of random weights, and without stored results.


@pytest.fixture(scope="module")
def small(random_network):
    made = {}

    def of(variant):
        if variant not in made:
            made[variant] = predict.Predictor(random_network(variant), batch=2)
        return made[variant]

    return of


@pytest.fixture(scope="module")
def trpcage(example):
    return read_structure(example("trpcage"))


@pytest.fixture(scope="module")
def density(trpcage):
    volume = simulate_map(trpcage, 3.0, 1.1, padding=5)
    noise = np.random.default_rng(0).normal(size=volume.shape).astype(np.float32)
    return volume.with_data(volume.data + 0.02 * volume.data.max() * noise, "density")


def test_boxes_are_numbered_along_z_first_and_come_back_to_their_places():
    occupied = np.zeros((25, 31, 12), bool)
    occupied[3, 4, 5] = occupied[12, 0, 0] = occupied[0, 30, 11] = True
    numbers = featurize.keep(occupied)
    z, y, x = 3, 4, 2
    assert numbers.tolist() == [0, 1, 0 + 3 * z + 1 * z * y]
    data = np.random.default_rng(0).normal(size=occupied.shape).astype(np.float32)
    grid = Volume(data, 1.5, np.zeros(3))
    boxes = featurize.Boxes(grid, None, "map", np.arange(z * y * x))
    assert boxes.tiles == (z, y, x)
    cores = boxes.cut(np.arange(len(boxes)))[:, 15:25, 15:25, 15:25, 0]
    np.testing.assert_array_equal(featurize.merge(cores, boxes), data)
    some = dataclasses.replace(boxes, kept=numbers)
    merged = featurize.merge(cores[numbers], some)
    known = np.isfinite(merged)
    assert known.sum() == 10 * 10 * 10 + 10 * 10 * 10 + 10 * 1 * 2  # the last core reaches over the edge
    np.testing.assert_array_equal(merged[known], data[known])


def test_resampling_follows_each_axis():
    z, y, x = np.meshgrid(*(np.arange(n) for n in (12, 16, 20)), indexing="ij")
    volume = Volume((x + 10 * y + 100 * z).astype(np.float32), (3.0, 1.5, 0.75), (1, 2, 3))
    grid = featurize.resample(volume)
    assert grid.shape == (6, 16, 40) and (grid.voxel == 1.5).all()
    for corner in ((0, 0, 0), (-1, -1, -1), (0, -1, 0)):
        np.testing.assert_allclose(grid.data[corner], volume.data[corner], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("voxel", [(3.0, 1.5, 0.75), (1.06, 1.06, 1.06)])
def test_exact_resampling_takes_densities_where_they_are(voxel):
    size = np.ceil(24 / np.array(voxel)).astype(int)[::-1]

    def blob(step, shape):
        z, y, x = np.meshgrid(*(np.arange(n) * d for n, d in zip(shape, step[::-1], strict=True)), indexing="ij")
        return np.exp(-((x - 11) ** 2 + (y - 12.3) ** 2 + (z - 12) ** 2) / (2 * 3.5**2)).astype(np.float32)

    grid = featurize.resample(Volume(blob(voxel, size), voxel, (1, 2, 3)), exact=True)
    np.testing.assert_allclose(grid.data, blob((1.5,) * 3, grid.shape), atol=0.01)
    for n, step, whole in zip(grid.shape, voxel[::-1], size, strict=True):
        assert (n - 1) * 1.5 <= (whole - 1) * step + 1e-6 < n * 1.5


def test_exact_geometry_puts_map_and_model_on_one_grid(small, trpcage, density):
    module = small("both").module
    exact = predict.Predictor(module)
    exact.config = dataclasses.replace(exact.config, geometry="exact", hydrogens=False)
    boxes = exact.boxes(trpcage, density)
    np.testing.assert_array_equal(boxes.model.origin, boxes.grid.origin)
    assert boxes.model.shape == boxes.grid.shape
    heavy = trpcage.select(trpcage.element != "H")
    assert heavy.n_atoms < trpcage.n_atoms
    np.testing.assert_allclose(boxes.model.data, simulate_map(heavy, on_grid=boxes.grid).data, atol=1e-6)
    result = exact.predict(trpcage, density)
    np.testing.assert_array_equal(np.isfinite(result.rmsf), featurize.protein_atoms(trpcage))


def test_of_several_models_the_first_counts(small, trpcage, density, caplog, tmp_path):
    twice = dataclasses.replace(
        trpcage,
        **{
            field.name: np.concatenate([getattr(trpcage, field.name)] * 2)
            for field in dataclasses.fields(trpcage)
            if field.name != "name"
        },
    )
    late = np.arange(twice.n_atoms) >= trpcage.n_atoms
    twice = dataclasses.replace(
        twice,
        model=np.where(late, 2, twice.model).astype(np.int32),
        atom_residue=twice.atom_residue + np.where(late, trpcage.n_residues, 0).astype(np.int32),
        res_chain=twice.res_chain + (np.arange(twice.n_residues) >= trpcage.n_residues).astype(np.int32),
    )
    result = small("both").predict(twice, density)
    assert "several models; the first is taken" in caplog.text
    caplog.clear()
    write_structure(twice, tmp_path / "twice.cif")
    np.testing.assert_array_equal(small("both").predict(tmp_path / "twice.cif", density).rmsf, result.rmsf)
    assert "several models; the first is taken" in caplog.text
    np.testing.assert_array_equal(result.rmsf, small("both").predict(trpcage, density).rmsf)


def test_the_edge_of_a_mask_does_not_ring_into_empty_boxes():
    data = np.zeros((40, 40, 200), np.float32)
    data[:, :, :60] = np.random.default_rng(0).uniform(size=(40, 40, 60))
    volume = Volume(data, 1.35, np.zeros(3), "masked")
    grid = featurize.resample(volume)
    assert np.abs(grid.data[:, :, 75:]).max() > 0
    boxes = featurize.Boxes(grid, None, "map", np.arange(4 * 4 * 18), featurize.support(volume, grid))
    numbers = np.arange(len(boxes))
    filled = boxes.filled(numbers, boxes.cut(numbers))
    first = boxes.corners[:, 2] - 15  # voxel at which a box begins along x
    np.testing.assert_array_equal(filled, first * 1.5 < 60 * 1.35 + 1.5)
    assert featurize.support(Volume(data + 1, 1.35, np.zeros(3)), grid) is None


def test_maps_that_have_no_grid_are_refused():
    flat = Volume(np.ones((50, 50, 1), np.float32), (0.5, 1, 1), np.zeros(3), "flat")
    with pytest.raises(InputError, match="flat: .* less than one of 1.5 Å"):
        featurize.resample(flat)
    wide = Volume(np.ones((60, 60, 60), np.float32), 100.0, np.zeros(3), "wide")
    with pytest.raises(InputError, match="wide: .* voxels of 1.5 Å"):
        featurize.resample(wide)


@pytest.mark.parametrize("variant", ["both", "map", "pdb"])
def test_every_variant_scores_every_atom(small, trpcage, density, variant):
    result = small(variant).predict(trpcage, density)
    protein = featurize.protein_atoms(trpcage)
    np.testing.assert_array_equal(np.isfinite(result.rmsf), protein)
    assert result.volume.voxel.tolist() == [1.5] * 3
    np.testing.assert_allclose(result.volume.origin, density.origin)
    assert np.ptp(result.rmsf[protein]) > 0.01
    held = result.residues()
    assert list(held) == ["chain", "resid", "icode", "resname", "rmsf_angstrom", "z"]
    assert np.isfinite(held["rmsf_angstrom"]).all() and np.isfinite(held["z"]).all()


def test_a_model_alone(small, trpcage):
    result = small("pdb").predict(trpcage)
    np.testing.assert_array_equal(np.isfinite(result.rmsf), featurize.protein_atoms(trpcage))


def test_a_map_alone(small, density, caplog):
    result = small("map").predict(map=density, contour=0.5)
    grid = featurize.resample(density)
    np.testing.assert_array_equal(np.isfinite(result.volume.data), grid.data > 0.5)
    assert result.structure is None and "contour" not in caplog.text
    default = small("map").predict(map=density)
    assert "voxels above" in caplog.text and "mean + 3 sd" in caplog.text
    limit = density.data.mean() + 3 * density.data.std()
    np.testing.assert_array_equal(np.isfinite(default.volume.data), grid.data > limit)
    with pytest.raises(ValueError, match="no atoms"):
        result.residues()


def test_batches_and_progress_change_nothing(small, trpcage, density):
    one = predict.Predictor(small("both").module, batch=3)
    seen = []
    again = one.predict(trpcage, density, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(again.rmsf, small("both").predict(trpcage, density).rmsf, atol=1e-5)
    assert seen == [(i + 1, seen[-1][1]) for i in range(len(seen))] and seen[-1][0] == seen[-1][1]


@pytest.mark.slow
def test_views_average_over_orientations(small, trpcage, density):
    """With all 24 views the prediction turns with its input: it no longer depends on how the model lies."""
    module = small("pdb").module
    one = predict.Predictor(module, batch=2)
    boxes = one.boxes(trpcage, None)
    few, all_of_them = (predict.Predictor(module, batch=2, views=n) for n in (2, 24))
    plain, half, first = (next(p.cores(boxes)) for p in (one, few, all_of_them))
    box = boxes.cut(np.array([0]))[0]
    turned = featurize.rotate(box, 12)[None]
    other = featurize.rotate(np.asarray(module(turned))[0], 12, back=True)
    np.testing.assert_allclose(half, (plain + other) / 2, atol=1e-5)
    by_hand = [featurize.rotate(np.asarray(module(featurize.rotate(box, n)[None]))[0], n, back=True) for n in range(24)]
    np.testing.assert_allclose(first, np.mean(by_hand, axis=0), atol=1e-5)
    assert np.abs(first - plain).max() > 1e-3
    with pytest.raises(ValueError, match="views must be 1 to 24"):
        predict.Predictor(module, views=25)


def test_the_scale_of_the_stand_in(small, trpcage, density):
    plain = small("both").predict(trpcage, density).rmsf
    scaled = predict.Predictor(small("both").module, (2.0, 0.5), batch=2).predict(trpcage, density).rmsf
    np.testing.assert_allclose(scaled, 2 * plain + 0.5, atol=1e-5)


def test_as_plain_functions(small):
    apply, leaves = small("both").pure()
    boxes = np.random.default_rng(0).normal(size=(2, 40, 40, 40, 2)).astype(np.float32)
    found = jax.jit(apply)(leaves, boxes)
    assert found.shape == (2, 10, 10, 10)
    np.testing.assert_allclose(found, small("both").runner(predict._apply, boxes), atol=1e-5)


def test_atoms_outside_the_map_have_no_value_and_are_counted(small, trpcage, density, caplog):
    cut = Volume(density.data[: density.shape[0] // 2], density.voxel, density.origin, "half")
    result = small("both").predict(trpcage, cut)
    grid = featurize.resample(cut)
    place = (trpcage.xyz.astype(np.float64) - grid.origin) / 1.5
    outside = (place[:, 2] >= grid.shape[0]) & featurize.protein_atoms(trpcage)
    assert outside.any()
    np.testing.assert_array_equal(np.isnan(result.rmsf), outside | ~featurize.protein_atoms(trpcage))
    assert f"{outside.sum()} of {featurize.protein_atoms(trpcage).sum()} protein atoms lie outside" in caplog.text


def test_boxes_without_density_have_no_value_and_are_counted(small, trpcage, density, caplog):
    """The published network divides by the box's maximum, 0."""
    structure = dataclasses.replace(trpcage, xyz=trpcage.xyz + np.float32([200, 0, 0]))
    half = structure.atom_residue >= 10
    structure = dataclasses.replace(structure, xyz=np.where(half[:, None], structure.xyz, trpcage.xyz))
    wide = np.zeros((*density.shape[:2], density.shape[2] + 200), np.float32)
    wide[:, :, : density.shape[2]] = density.data
    result = small("both").predict(structure, Volume(wide, density.voxel, density.origin, "wide"))
    protein = featurize.protein_atoms(structure)
    assert np.isnan(result.rmsf[half]).all() and np.isfinite(result.rmsf[~half & protein]).all()
    assert "hold no density" in caplog.text


def test_indices_are_cut_towards_zero_as_published():
    grid = Volume(np.zeros((4, 5, 6), np.float32), 1.5, np.zeros(3))
    xyz = np.float32([[-1.4, 0, 0], [-1.6, 0, 0], [8.9, 7.4, 5.9], [9.0, 0, 0], [np.nan, 0, 0]])
    atoms = dataclasses.make_dataclass("Atoms", ["xyz"])(xyz)
    index, inside = featurize.atom_voxels(atoms, grid)
    assert inside.tolist() == [True, False, True, False, False]
    assert index[0].tolist() == [0, 0, 0] and index[2].tolist() == [3, 4, 5]


def test_residue_means_and_published_z_scores(trpcage):
    structure = trpcage.select((trpcage.resid >= 3)[trpcage.atom_residue])
    rmsf = np.linspace(0.5, 2.0, structure.n_atoms)
    rmsf[structure.atom_residue == 1] = np.nan
    rmsf[np.flatnonzero(structure.atom_residue == 2)[:-1]] = np.nan
    rmsf[np.flatnonzero(structure.atom_residue == 4)] = 0.001  # 0 after rounding: missing, as published
    means = results.residue_means(rmsf, structure)
    assert np.isnan(means[1]) and means[2] == rmsf[np.flatnonzero(structure.atom_residue == 2)[-1]]
    z = results.published_z(rmsf, structure)
    two = np.round(rmsf, 2)
    used = two[np.isfinite(two) & (two != 0)]
    row = structure.atom_residue == 5
    np.testing.assert_allclose(z[5], np.mean((two[row] - used.mean()) / used.std()))
    assert np.isnan(z[[1, 4]]).all() and np.isfinite(z[2])
    assert np.isnan(results.published_z(np.full(structure.n_atoms, np.nan), structure)).all()
    same = results.published_z(np.full(structure.n_atoms, 0.7), structure)
    np.testing.assert_allclose(same, 0, atol=1e-9)  # no spread, no crash


def test_insertion_codes_tell_residues_apart(small, trpcage):
    resid, icode = trpcage.resid.copy(), trpcage.icode.copy()
    rows = np.flatnonzero(np.isin(resid, (7, 8, 9)))
    resid[rows], icode[rows] = 7, ["", "A", "B"]
    table = small("pdb").predict(dataclasses.replace(trpcage, resid=resid, icode=icode)).residues()
    at = np.flatnonzero(table["resid"] == 7)
    assert table["icode"][at].tolist() == ["", "A", "B"] and len(set(table["z"][at])) == 3


def test_nucleic_acids_ligands_and_residues_without_backbone_are_passed_through(small, trpcage, tmp_path):
    names, hetero = trpcage.res_name.copy(), trpcage.hetero.copy()
    names[5], hetero[5] = "ATP", True
    structure = dataclasses.replace(trpcage, res_name=names, hetero=hetero)
    structure = structure.select((structure.atom_residue != 5) | (structure.atom_name != "CA"))
    result = small("pdb").predict(structure)
    assert np.isnan(result.rmsf[structure.atom_residue == 5]).all()
    assert 5 not in np.flatnonzero(np.isfinite(result.z))
    assert "ATP" not in result.residues()["resname"] and "ATP" in result.atoms()["resname"]
    result.write(tmp_path)
    model = read_structure(tmp_path / "rmsf.pdb")
    assert model.n_atoms == structure.n_atoms
    assert (model.bfactor[np.isnan(result.rmsf)] == -1).all() and (model.bfactor[np.isfinite(result.rmsf)] != -1).all()


def test_what_is_missing_is_named(small, trpcage, density):
    with pytest.raises(InputError, match="give a model, a map, or both"):
        small("both").predict()
    with pytest.raises(InputError, match="there is only a model; give a map .*--weights rmsfnet:pdb"):
        small("both").predict(trpcage)
    with pytest.raises(InputError, match="there is only a map; give a model .*--weights rmsfnet:map"):
        small("both").predict(map=density)
    with pytest.raises(InputError, match="these weights read a model"):
        small("pdb").predict(map=density)
    with pytest.raises(InputError, match="these weights read a map"):
        small("map").predict(trpcage)


def test_weights_files(small, goldens, trpcage, density, tmp_path):
    from jaxprot.weights import portable
    from jaxprot.weights.module import flatten

    tensors = flatten(nnx.state(small("both").module))
    header = {"system": "rmsfnet", "config": {"variant": "both", "width": 2}, "scale": [2.0, 0.1]}
    portable.save(tmp_path / "mine.safetensors", tensors, header)
    loaded = predict.load(tmp_path / "mine.safetensors")
    assert loaded.scale == (2.0, 0.1) and loaded.config == RMSFNetConfig(width=2)
    expected = 2 * small("both").predict(trpcage, density).rmsf + 0.1
    np.testing.assert_allclose(loaded.predict(trpcage, density).rmsf, expected, atol=1e-5)
    for name, wrong in {
        "system": {**header, "system": "thermompnn"},
        "key": {**header, "config": {"depth": 3}},
        "value": {**header, "config": {"variant": "neither"}},
        "scale": {**header, "scale": "two"},
        "width": {**header, "config": {"variant": "both", "width": 3}},
    }.items():
        portable.save(tmp_path / f"{name}.safetensors", tensors, wrong)
        with pytest.raises(CheckpointError, match=f"{name}.safetensors: "):
            predict.load(tmp_path / f"{name}.safetensors")
    partial = {**tensors, "conv0_0.norm1.scale": np.ones(2, np.float32)}
    portable.save(tmp_path / "partial.safetensors", partial, header)
    with pytest.raises(CheckpointError, match="partial.safetensors: .*conv0_0.norm1"):
        predict.load(tmp_path / "partial.safetensors")


@pytest.mark.golden
@pytest.mark.parametrize(("name", "variant"), [("sim_model.pth", "pdb"), ("exp_model.pth", "map")])
def test_published_files_of_one_channel_are_told_by_their_name(goldens, writer, tmp_path, name, variant):
    from jaxprot.weights import torch_file

    tensors = torch_file.read_torch_file(goldens("rmsfnet") / "small_n4_exp_sim_model.pth")
    tensors = {key: np.asarray(value) for key, value in tensors.items()}
    tensors["conv0_0.conv1.weight"] = np.ascontiguousarray(tensors["conv0_0.conv1.weight"][:, :1])
    kinds = {"f": "f4", "i": "i8"}
    described = {
        key: writer.Tensor(key, one.size, kinds[one.dtype.kind], one.shape, [n // one.itemsize for n in one.strides])
        for key, one in tensors.items()
    }
    writer.write(tmp_path / name, OrderedDict(described), tensors)
    assert predict.load(tmp_path / name).config == RMSFNetConfig(variant=variant, width=4)
    assert predict.load(tmp_path / name, "map").config.variant == "map"
    assert jaxprot.load(tmp_path / name).config.variant == variant
    # The converted file remembers what it was called.
    inspect.convert(tmp_path / name, tmp_path / "ours.safetensors")
    assert jaxprot.load(tmp_path / "ours.safetensors").config == RMSFNetConfig(variant=variant, width=4)
