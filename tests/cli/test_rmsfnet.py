"""`jaxprot rmsfnet ...` as a user runs it, with a small network of random weights."""

import dataclasses
import gzip
import json

import numpy as np
import pytest

from jaxprot.io.maps import read_map, write_map
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.io.tables import read_table, write_table
from jaxprot.rmsfnet.simulate import simulate_map
from jaxprot.weights import registry

MODEL = {"atoms.csv", "residues.csv", "rmsf.pdb", "rmsf_z.pdb", "trace.png", "view.pml", "view.cxc", "run.json"}
ATOMS = ["serial", "name", "element", "altloc", "chain", "resid", "icode", "resname", "rmsf_angstrom"]
RESIDUES = ["chain", "resid", "icode", "resname", "rmsf_angstrom", "z"]


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """`weights("both")`: a file of a network of width 2."""
    from jaxprot.rmsfnet import weights as tables
    from jaxprot.rmsfnet.config import RMSFNetConfig
    from jaxprot.weights import portable

    folder = tmp_path_factory.mktemp("weights")

    def file(variant):
        path = folder / f"{variant}.safetensors"
        if not path.exists():
            cfg, rng = RMSFNetConfig(variant=variant, width=2), np.random.default_rng(0)
            tensors = {}
            for name, shape in tables.shapes(cfg).items():
                if ".norm" in name:
                    tensors[name] = np.full(shape, 1.0 if name.endswith(("scale", "var")) else 0.0, np.float32)
                else:
                    value = rng.random(shape) * np.where(rng.random(shape) < 0.15, -1, 1)
                    scale = 0.05 if name.endswith("bias") else 1.4 / np.abs(value).sum((0, 1, 2, 3))
                    tensors[name] = (value * scale).astype(np.float32)
            header = {"system": "rmsfnet", "config": {"variant": variant, "width": 2}}
            portable.save(path, tensors, header)
        return path

    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory, example):
    """A fold of 20 residues."""
    structure = read_structure(example("ubiquitin"))
    path = tmp_path_factory.mktemp("model") / "short.pdb"
    write_structure(structure.select((structure.resid <= 20)[structure.atom_residue]), path)
    return path


@pytest.fixture(scope="module")
def density(tmp_path_factory, model):
    """A map around it."""
    path = tmp_path_factory.mktemp("map") / "density.mrc"
    write_map(simulate_map(read_structure(model), 3.0, 1.2, padding=6), path)
    return path


def test_map_and_model(run, model, density, weights, tmp_path):
    out = tmp_path / "out"
    arguments = ["--model", model, "--map", density, "--weights", weights("both"), "-o", out]
    done = run("rmsfnet", "predict", *arguments)
    assert done.code == 0 and not done.err
    assert names(out) == MODEL | {"rmsf.mrc"}
    atoms, residues = read_table(out / "atoms.csv"), read_table(out / "residues.csv")
    assert list(atoms) == ATOMS and list(residues) == RESIDUES
    structure = read_structure(model)
    assert len(atoms["name"]) == structure.n_atoms and residues["resid"].tolist() == list(range(1, 21))
    assert np.isfinite(atoms["rmsf_angstrom"]).all() and np.ptp(atoms["rmsf_angstrom"]) > 0
    np.testing.assert_allclose(read_structure(out / "rmsf.pdb").bfactor, atoms["rmsf_angstrom"], atol=0.006)
    scored = read_structure(out / "rmsf_z.pdb")
    np.testing.assert_allclose(scored.bfactor, residues["z"][scored.atom_residue], atol=0.006)
    assert (out / "trace.png").read_bytes().startswith(b"\x89PNG")
    assert "rmsf.pdb" in (out / "view.pml").read_text() and "rmsf.pdb" in (out / "view.cxc").read_text()
    volume = read_map(out / "rmsf.mrc")
    np.testing.assert_allclose(volume.origin, read_map(density).origin, atol=1e-4)
    index = ((structure.xyz - volume.origin) / 1.5)[:, ::-1].astype(int)
    np.testing.assert_allclose(volume.data[tuple(index.T)], atoms["rmsf_angstrom"], atol=1e-4)
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "rmsfnet predict" and list(record["inputs"]) == [str(model), str(density)]
    assert len(record["weights"]["sha256"]) == 64
    assert set(record["timings"]) == {"start", "read", "load", "compute", "write"}
    assert run("rmsfnet", "predict", *arguments).code == 2
    assert run("rmsfnet", "predict", *arguments, "--overwrite").code == 0


def test_a_map_alone(run, density, weights, tmp_path):
    arguments = ["--map", density, "--weights", weights("map")]
    done = run("rmsfnet", "predict", *arguments, "--contour", 1.5, "-o", tmp_path / "a")
    assert done.code == 0 and not done.err and names(tmp_path / "a") == {"rmsf.mrc", "run.json"}
    held = read_map(tmp_path / "a" / "rmsf.mrc")
    done = run("rmsfnet", "predict", *arguments, "-o", tmp_path / "b")
    assert done.code == 0 and "no contour given; voxels above" in done.err
    assert 0 < (held.data != 0).sum() < (read_map(tmp_path / "b" / "rmsf.mrc").data != 0).sum() * 10


def test_a_model_alone(run, model, weights, tmp_path):
    arguments = ["--weights", weights("pdb"), "--format", "parquet", "-o", tmp_path / "out"]
    assert run("rmsfnet", "predict", "--model", model, *arguments).code == 0
    expected = {name.replace(".csv", ".parquet") for name in MODEL} | {"rmsf.mrc"}
    assert names(tmp_path / "out") == expected
    assert list(read_table(tmp_path / "out" / "atoms.parquet")) == ATOMS


@pytest.mark.parametrize("method", ["anm", "gnm", "contact", "bfactor"])
def test_methods_without_training(run, example, method, tmp_path):
    done = run("rmsfnet", "predict", "--model", example("ubiquitin"), "--method", method, "-o", tmp_path / "out")
    if method == "bfactor" and done.code:
        assert "no B factors" in done.err and "choose another method" in done.err
        return
    assert done.code == 0 and names(tmp_path / "out") == MODEL
    table = read_table(tmp_path / "out" / "residues.csv")
    rmsf = table["rmsf_angstrom"]
    assert len(rmsf) == 76 and np.nanargmax(rmsf) >= 70  # the tail
    assert json.loads((tmp_path / "out" / "run.json").read_text())["weights"] is None


def test_methods_without_training_say_what_they_do_not_use(run, example, tmp_path):
    arguments = ["--model", example("ubiquitin"), "--map", tmp_path / "none.mrc", "--views", "3", "--weights", "x.pth"]
    done = run("rmsfnet", "predict", *arguments, "--method", "contact", "-o", tmp_path / "out")
    assert done.code == 0 and "--map, --views, --weights: not used by --method contact" in done.err
    assert "stand-in" not in done.out


def test_methods_without_training_need_a_model(run, density, tmp_path):
    done = run("rmsfnet", "predict", "--map", density, "--method", "anm", "-o", tmp_path / "out")
    assert done.code == 2 and "--method anm needs --model" in done.err and not (tmp_path / "out").exists()


def test_nothing_given(run, tmp_path):
    done = run("rmsfnet", "predict", "-o", tmp_path / "out")
    assert done.code == 2 and "give --model, --map or both" in done.err and not (tmp_path / "out").exists()


def test_mmcif_and_packed_files(run, model, density, weights, tmp_path):
    structure = read_structure(model)
    write_structure(structure, tmp_path / "short.cif.gz")
    (tmp_path / "density.map.gz").write_bytes(gzip.compress(density.read_bytes()))
    common = ["--weights", weights("both")]
    for name, files in {
        "plain": (model, density),
        "packed": (tmp_path / "short.cif.gz", tmp_path / "density.map.gz"),
    }.items():
        done = run("rmsfnet", "predict", "--model", files[0], "--map", files[1], *common, "-o", tmp_path / name)
        assert done.code == 0, done.err
    first, second = (read_table(tmp_path / name / "atoms.csv") for name in ("plain", "packed"))
    np.testing.assert_allclose(first["rmsf_angstrom"], second["rmsf_angstrom"], atol=1e-4)
    assert read_structure(tmp_path / "packed" / "rmsf.pdb").n_atoms == structure.n_atoms


def test_names_that_a_pdb_file_cannot_hold_give_mmcif(run, model, tmp_path):
    structure = read_structure(model)
    arguments = ["--method", "anm"]
    long = dataclasses.replace(structure, chain_id=np.array(["AB1"], "U8"))
    ligand = dataclasses.replace(structure, res_name=np.where(structure.resid == 9, "A1BCD", structure.res_name))
    for name, one in {"chain": long, "ligand": ligand}.items():
        write_structure(one, tmp_path / f"{name}.cif")
        done = run("rmsfnet", "predict", "--model", tmp_path / f"{name}.cif", *arguments, "-o", tmp_path / name)
        assert done.code == 0, done.err
        assert {"rmsf.cif", "rmsf_z.cif"} <= names(tmp_path / name) and "rmsf.pdb" not in names(tmp_path / name)
        back = read_structure(tmp_path / name / "rmsf.cif")
        np.testing.assert_array_equal(back.chain_id, one.chain_id)
        np.testing.assert_array_equal(back.res_name, one.res_name)
        assert "rmsf.cif" in (tmp_path / name / "view.pml").read_text()


def test_chains_and_insertion_codes(run, model, density, weights, tmp_path):
    """Two chains with equal numbers, one of them with 7, 7A, 7B."""
    structure = read_structure(model)
    second = structure.resid > 10
    chain = np.where(second, 1, 0).astype(np.int32)
    resid = np.where(second, structure.resid - 10, structure.resid).astype(np.int32)
    icode = structure.icode.copy()
    rows = np.flatnonzero(second & np.isin(resid, (7, 8, 9)))
    resid[rows], icode[rows] = 7, ["", "A", "B"]
    odd = dataclasses.replace(structure, res_chain=chain, chain_id=np.array(["A", "B"], "U8"), resid=resid, icode=icode)
    write_structure(odd, tmp_path / "odd.pdb")
    files = ["--map", density, "--weights", weights("both")]
    for name, path in {"plain": model, "odd": tmp_path / "odd.pdb"}.items():
        assert run("rmsfnet", "predict", "--model", path, *files, "-o", tmp_path / name).code == 0
    plain, odd_table = (read_table(tmp_path / name / "residues.csv") for name in ("plain", "odd"))
    np.testing.assert_allclose(odd_table["z"], plain["z"], atol=2e-3)
    assert odd_table["chain"].tolist() == ["A"] * 10 + ["B"] * 10
    assert odd_table["icode"][rows].tolist() == ["", "A", "B"] and odd_table["resid"][rows].tolist() == [7] * 3
    back = read_structure(tmp_path / "odd" / "rmsf.pdb")
    assert back.icode[rows].tolist() == ["", "A", "B"]


def test_molmap(run, model, density, tmp_path):
    done = run("rmsfnet", "molmap", model, "-o", tmp_path / "a")
    assert done.code == 0 and names(tmp_path / "a") == {"sim.mrc", "run.json"}
    expected = simulate_map(read_structure(model, models="all"))
    found = read_map(tmp_path / "a" / "sim.mrc")
    np.testing.assert_allclose(found.data, expected.data, atol=1e-6)
    np.testing.assert_allclose(found.origin, expected.origin, atol=1e-4)
    arguments = ["--resolution", 3, "--on-grid", density, "--sigma-factor", 0.356]
    assert run("rmsfnet", "molmap", model, *arguments, "-o", tmp_path / "b").code == 0
    assert read_map(tmp_path / "b" / "sim.mrc").shape == read_map(density).shape
    done = run("rmsfnet", "molmap", model, "--spacing", 0, "-o", tmp_path / "c")
    assert done.code == 2 and "must be positive" in done.err and not (tmp_path / "c").exists()


def test_molmap_on_the_grid_of_a_map_that_does_not_tell_all(run, model, density, tmp_path):
    content = bytearray(density.read_bytes())
    content[40:52] = bytes(12)  # the lengths of the cell
    (tmp_path / "bare.mrc").write_bytes(content)
    arguments = [model, "--on-grid", tmp_path / "bare.mrc"]
    done = run("rmsfnet", "molmap", *arguments, "-o", tmp_path / "a")
    assert done.code == 2 and "--voxel ANGSTROM" in done.err
    assert run("rmsfnet", "molmap", *arguments, "--voxel", 1.2, "-o", tmp_path / "a").code == 0
    expected = simulate_map(read_structure(model), on_grid=read_map(density))
    np.testing.assert_allclose(read_map(tmp_path / "a" / "sim.mrc").data, expected.data, atol=1e-5)
    assert run("rmsfnet", "molmap", *arguments, "--voxel", 1.2, "--origin", "nstart", "-o", tmp_path / "b").code == 0
    assert (read_map(tmp_path / "b" / "sim.mrc").origin == 0).all()


def test_compare_with_defmap(run, model, density, tmp_path):
    from flax import nnx

    from jaxprot.rmsfnet.defmap import DEFMap, DEFMapConfig
    from jaxprot.weights import module, portable

    network = DEFMap(DEFMapConfig(width=2, dense=8), rngs=nnx.Rngs(0))
    header = {"system": "defmap", "config": dataclasses.asdict(network.cfg), "resolution": 4.0}
    portable.save(tmp_path / "d.safetensors", module.flatten(nnx.state(network, nnx.Param)), header)
    write_table({"resid": np.arange(1, 21), "rmsf": np.linspace(1, 2, 20)}, tmp_path / "r.csv")
    arguments = ["--model", model, "--reference", tmp_path / "r.csv", "--methods", "defmap,contact"]
    for more in ([], ["--map", density], ["--defmap-weights", tmp_path / "d.safetensors"]):
        done = run("rmsfnet", "compare", *arguments, *more, "-o", tmp_path / "out")
        assert done.code == 2 and "defmap needs --map, and its weights (--defmap-weights FILE)" in done.err
    arguments += ["--map", density, "--defmap-weights", tmp_path / "d.safetensors", "-o", tmp_path / "out"]
    done = run("rmsfnet", "compare", *arguments)
    assert done.code == 0, done.err
    table = read_table(tmp_path / "out" / "compare.csv")
    assert table["method"].tolist() == ["defmap", "contact"] and (table["n"] == 20).all()
    assert str(tmp_path / "d.safetensors") in json.loads((tmp_path / "out" / "run.json").read_text())["inputs"]


def test_compare_with_ensemble_and_table(run, shared, tmp_path):
    folder = shared / "data" / "flexibility"
    arguments = ["--model", folder / "1ubi.pdb", "--methods", "anm,gnm,contact,bfactor"]
    for name in ("2k39_ca_rmsf.csv", "2k39_ca_ensemble.pdb"):
        done = run("rmsfnet", "compare", *arguments, "--reference", folder / name, "-o", tmp_path / name)
        assert done.code == 0, done.err
        assert names(tmp_path / name) == {"compare.csv", "residues.csv", "trace.png", "run.json"}
        table = read_table(tmp_path / name / "compare.csv")
        assert list(table) == ["method", "n", "pearson", "spearman", "rmse_angstrom"]
        assert table["method"].tolist() == ["anm", "gnm", "contact", "bfactor"] and (table["n"] == 76).all()
        assert (table["pearson"] > 0.3).all() and (table["spearman"] > 0.3).all()
        assert "contact" in done.out
    both = [read_table(tmp_path / name / "residues.csv") for name in ("2k39_ca_rmsf.csv", "2k39_ca_ensemble.pdb")]
    assert list(both[0]) == ["chain", "resid", "icode", "anm", "gnm", "contact", "bfactor", "reference"]
    # The table is superposed on residues 1-70, without the tail.
    assert np.corrcoef(both[0]["reference"], both[1]["reference"])[0, 1] > 0.95


def test_compare_with_the_network(run, model, density, weights, tmp_path):
    rows = {"chain": np.array(["A"] * 20), "resid": np.arange(1, 21), "rmsf_angstrom": np.linspace(0.4, 1.3, 20)}
    write_table(rows, tmp_path / "reference.csv")
    arguments = ["--model", model, "--map", density, "--weights", weights("both")]
    arguments += ["--reference", tmp_path / "reference.csv", "--methods", "rmsfnet,contact,bfactor"]
    done = run("rmsfnet", "compare", *arguments, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    table = read_table(tmp_path / "out" / "compare.csv")
    assert table["method"].tolist()[:2] == ["rmsfnet", "contact"] and (table["n"] == 20).all()
    assert done.out.startswith("RMSF of alpha carbons\n")
    timings = json.loads((tmp_path / "out" / "run.json").read_text())["timings"]
    assert set(timings) == {"start", "read", "load", "compute"}
    # The network has values of its own for alpha carbons.
    files = ["--model", model, "--map", density, "--weights", weights("both")]
    assert run("rmsfnet", "predict", *files, "-o", tmp_path / "whole").code == 0
    atoms = read_table(tmp_path / "whole" / "atoms.csv")
    found = read_table(tmp_path / "out" / "residues.csv")["rmsfnet"]
    np.testing.assert_allclose(found, atoms["rmsf_angstrom"][atoms["name"] == "CA"], atol=1e-4)
    done = run("rmsfnet", "compare", *arguments, "--atoms", "all", "-o", tmp_path / "all")
    assert done.out.startswith("RMSF of residues (mean over heavy atoms)\n")
    means = read_table(tmp_path / "all" / "residues.csv")["rmsfnet"]
    heavy = atoms["element"] != "H"
    expected = [atoms["rmsf_angstrom"][heavy & (atoms["resid"] == resid)].mean() for resid in range(1, 21)]
    np.testing.assert_allclose(means, expected, atol=2e-4)
    assert np.abs(means - found).max() > 1e-3


def test_scores_have_no_error_in_angstrom(run, model, tmp_path):
    rows = {"resid": np.arange(1, 21), "rmsf_z_residue_mean": np.linspace(-1, 2, 20)}
    write_table(rows, tmp_path / "z.csv")
    arguments = ["--model", model, "--reference", tmp_path / "z.csv", "--methods", "contact"]
    done = run("rmsfnet", "compare", *arguments, "-o", tmp_path / "out")
    assert done.code == 0 and "means over atoms; --atoms all" in done.err
    assert done.out.splitlines()[2].split()[-1] == "-"
    table = read_table(tmp_path / "out" / "compare.csv")
    assert (table["rmse_angstrom"] == "").all() and np.isfinite(table["pearson"]).all()


def test_timings_of_several_methods_are_summed(run, model, tmp_path, monkeypatch):
    import time

    from jaxprot.rmsfnet import baselines

    def slow(structure, method):
        time.sleep({"anm": 0.2, "contact": 0.05}[method])
        return np.linspace(1, 2, structure.n_residues)

    monkeypatch.setattr(baselines, "rmsf", slow)
    write_table({"resid": np.arange(1, 21), "rmsf": np.linspace(1, 2, 20) ** 2}, tmp_path / "r.csv")
    arguments = ["--model", model, "--reference", tmp_path / "r.csv", "--methods", "anm,contact"]
    assert run("rmsfnet", "compare", *arguments, "-o", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["timings"]["compute"] >= 0.25


def test_wrong_references(run, model, tmp_path):
    def message(content, *more):
        (tmp_path / "r.csv").write_text(content)
        arguments = ["--model", model, "--methods", "contact", "--reference", tmp_path / "r.csv", *more]
        done = run("rmsfnet", "compare", *arguments, "-o", tmp_path / "out")
        assert done.code == 2 and not (tmp_path / "out").exists() and "internal" not in done.err
        return done.err

    assert "needs the columns resid and one of" in message("chain,value\nA,1\n")
    assert "resid must be whole numbers" in message("chain,resid,rmsf\nA,52A,1.0\n")
    assert "resid must be whole numbers" in message("chain,resid,rmsf\nA,1,much\n")
    assert "no residue in common" in message("chain,resid,rmsf\nA,900,1.0\nA,901,2.0\n")
    done = run("rmsfnet", "compare", "--model", model, "--reference", tmp_path / "r.csv", "--methods", "magic")
    assert done.code == 2 and "known are rmsfnet, anm" in done.err
    (tmp_path / "r.txt").write_text("")
    done = run("rmsfnet", "compare", "--model", model, "--reference", tmp_path / "r.txt", "-o", tmp_path / "out")
    assert done.code == 2 and "a table (.csv), a file of several models" in done.err


def ensemble(structure, path, frames=6):
    """Models with a spread that grows along the chain."""
    rng = np.random.default_rng(0)
    spread = np.linspace(0.1, 0.9, structure.n_atoms)[:, None]
    lines = []
    for number in range(1, frames + 1):
        moved = structure.xyz + rng.normal(size=structure.xyz.shape) * spread
        one = dataclasses.replace(structure, xyz=moved.astype(np.float32))
        write_structure(one, path.with_suffix(".tmp.pdb"))
        atoms = [line for line in path.with_suffix(".tmp.pdb").read_text().splitlines() if line.startswith("ATOM")]
        lines += [f"MODEL     {number:4d}", *atoms, "ENDMDL"]
    path.write_text("\n".join([*lines, "END", ""]))
    return path


@pytest.fixture(scope="module")
def triple(tmp_path_factory, model, density):
    """A folder with a table of one entry: map, model and ensemble."""
    folder = tmp_path_factory.mktemp("triple")
    ensemble(read_structure(model), folder / "frames.pdb")
    (folder / "map.mrc").write_bytes(density.read_bytes())
    (folder / "model.pdb").write_bytes(model.read_bytes())
    (folder / "entries.csv").write_text("name,map,model,trajectory\nshort.1,map.mrc,model.pdb,frames.pdb\n")
    return folder


def test_dataset(run, triple, tmp_path):
    from jaxprot.rmsfnet.data import read_entry

    done = run("rmsfnet", "dataset", triple / "entries.csv", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == {"short.1.npz", "models", "run.json"}
    entry = read_entry(tmp_path / "out" / "short.1.npz")
    np.testing.assert_allclose(entry.origin, read_map(triple / "map.mrc").origin, atol=1e-4)
    written = read_structure(tmp_path / "out" / "models" / "short.1.pdb")
    np.testing.assert_array_equal(written.xyz, read_structure(triple / "model.pdb").xyz)
    assert entry.map.shape == entry.model.shape and len(entry.voxels) == len(entry.target) > 100
    assert 0.04 < entry.target.min() < 0.1 and 0.3 < entry.target.max() < 0.5  # the spread is 0.1 to 0.9 per axis


def test_dataset_of_a_simulation_with_hydrogens(run, example, tmp_path):
    """The atoms of a DCD file are those of its topology; the model has a chain name and no hydrogens."""
    formats = pytest.importorskip("mdtraj.formats")
    from jaxprot.rmsfnet import targets
    from jaxprot.rmsfnet.data import make_entry, read_entry

    whole = read_structure(example("trpcage"))
    rng = np.random.default_rng(0)
    frames = whole.xyz + np.linspace(0.1, 0.8, whole.n_atoms)[:, None] * rng.normal(size=(6, whole.n_atoms, 3))
    with formats.DCDTrajectoryFile(str(tmp_path / "md.dcd"), "w") as file:
        file.write(frames.astype(np.float32))
    write_structure(whole, tmp_path / "md.pdb")
    model = whole.select((whole.element != "H") & (whole.letters != "X")[whole.atom_residue])
    model = dataclasses.replace(model, chain_id=np.array(["A"], "U8"))
    write_structure(model, tmp_path / "model.pdb")
    cell = simulate_map(model, 3.0, 1.5)
    write_map(cell, tmp_path / "map.mrc")
    head = "name,map,model,trajectory"
    (tmp_path / "with.csv").write_text(f"{head},topology\na,map.mrc,model.pdb,md.dcd,md.pdb\n")
    assert run("rmsfnet", "dataset", tmp_path / "with.csv", "-o", tmp_path / "out").code == 0
    entry = read_entry(tmp_path / "out" / "a.npz")
    trajectory = targets.Trajectory(whole, frames.astype(np.float32))
    names = zip(whole.resid[whole.atom_residue].tolist(), whole.atom_name.tolist(), strict=True)
    by_name = dict(zip(names, targets.atom_rmsf(trajectory), strict=True))
    rmsf = np.array(
        [by_name[key] for key in zip(model.resid[model.atom_residue].tolist(), model.atom_name.tolist(), strict=True)]
    )
    expected = make_entry(read_structure(tmp_path / "model.pdb"), rmsf, read_map(tmp_path / "map.mrc"))
    np.testing.assert_array_equal(entry.voxels, expected.voxels)
    np.testing.assert_allclose(entry.target, expected.target, atol=1e-3)
    # Without the column, or with an empty cell, the model's atoms are taken for the trajectory's.
    (tmp_path / "without.csv").write_text(f"{head},topology\na,map.mrc,model.pdb,md.dcd,\n")
    done = run("rmsfnet", "dataset", tmp_path / "without.csv", "-o", tmp_path / "none")
    assert done.code == 2 and "give the structure that the trajectory was written with" in done.err
    (tmp_path / "wrong.csv").write_text(f"{head},topology\na,map.mrc,model.pdb,md.dcd,none.pdb\n")
    done = run("rmsfnet", "dataset", tmp_path / "wrong.csv", "-o", tmp_path / "none")
    assert done.code == 2 and "no such file: none.pdb" in done.err


def test_parts_of_a_dataset_are_what_experiments_read(run, triple, root, tmp_path, monkeypatch):
    from jaxprot.train.config import load_experiment

    write_structure(read_structure(triple / "model.pdb"), triple / "model.cif")
    row = "map.mrc,model.pdb,frames.pdb"
    lines = ["name,map,model,trajectory,part", f"a,{row},train", "b,map.mrc,model.cif,frames.pdb,val", f"c,{row},"]
    (triple / "parts.csv").write_text("\n".join([*lines, ""]))
    done = run("rmsfnet", "dataset", triple / "parts.csv", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == {"train", "val", "c.npz", "models", "run.json"}
    assert names(tmp_path / "out" / "train") == {"a.npz", "models"}
    assert names(tmp_path / "out" / "val" / "models") == {"b.cif"}
    exact = run("rmsfnet", "dataset", triple / "parts.csv", "--geometry", "exact", "-o", tmp_path / "exact")
    assert exact.code == 0, exact.err
    for name, folder in (("default", "exact"), ("paper", "out")):
        monkeypatch.setenv("JAXPROT_FLEXIBILITY", str(tmp_path / folder))
        task = load_experiment(root / "experiments" / "rmsfnet" / f"{name}.py").task
        assert [one.name for one in task.entries] == ["a"] and [one.name for one in task.held_out] == ["b"]
    (triple / "parts.csv").write_text("\n".join([lines[0], f"a,{row},test", ""]))
    done = run("rmsfnet", "dataset", triple / "parts.csv", "-o", tmp_path / "none")
    assert done.code == 2 and "part 'test'; it is train, val or empty" in done.err


def test_dataset_of_a_map_without_voxel_size(run, triple, tmp_path):
    content = bytearray((triple / "map.mrc").read_bytes())
    content[40:52] = bytes(12)  # the lengths of the cell
    (triple / "bare.mrc").write_bytes(content)
    (triple / "bare.csv").write_text("name,map,model,trajectory\na,bare.mrc,model.pdb,frames.pdb\n")
    done = run("rmsfnet", "dataset", triple / "bare.csv", "-o", tmp_path / "a")
    assert done.code == 2 and "--voxel ANGSTROM" in done.err
    assert run("rmsfnet", "dataset", triple / "bare.csv", "--voxel", 1.2, "-o", tmp_path / "b").code == 0


def test_compare_with_an_ensemble_of_the_model(run, triple, tmp_path):
    arguments = ["--model", triple / "model.pdb", "--reference", triple / "frames.pdb", "--methods", "contact"]
    assert run("rmsfnet", "compare", *arguments, "-o", tmp_path / "out").code == 0
    reference = read_table(tmp_path / "out" / "residues.csv")["reference"]
    assert np.corrcoef(reference, np.arange(20))[0, 1] > 0.8


def test_dataset_goes_on_after_a_broken_entry(run, triple, tmp_path):
    rows = ["name,map,model,trajectory", "good,map.mrc,model.pdb,frames.pdb", "bad,model.pdb,model.pdb,frames.pdb"]
    (triple / "two.csv").write_text("\n".join([*rows, "one,map.mrc,model.pdb,model.pdb", ""]))
    done = run("rmsfnet", "dataset", triple / "two.csv", "-o", tmp_path / "out")
    assert done.code == 1 and names(tmp_path / "out") == {"good.npz", "models", "run.json"}
    assert names(tmp_path / "out" / "models") == {"good.pdb"}
    assert "2 of 3 entries failed" in done.err and "one model only" in done.err
    assert "internal" not in done.err


def test_wrong_tables_of_a_dataset(run, triple, tmp_path):
    def message(*lines):
        (triple / "wrong.csv").write_text("\n".join([*lines, ""]))
        done = run("rmsfnet", "dataset", triple / "wrong.csv", "-o", tmp_path / "out")
        assert done.code == 2 and not (tmp_path / "out").exists()
        return done.err

    head, row = "name,map,model,trajectory", "map.mrc,model.pdb,frames.pdb"
    assert "no column map, trajectory" in message("name,model", "a,model.pdb")
    assert "no such file: none.mrc" in message(head, "a,none.mrc,model.pdb,frames.pdb")
    assert "names 'a'; each needs a name of its own" in message(head, f"a,{row}", f"a,{row}")
    assert "names '../a'" in message(head, f"../a,{row}")
    assert "no entries" in message(head)


def test_shipped_weights_follow_the_input(run, fold, density, tmp_path):
    """Without --weights those for a model alone, a map alone, or both."""
    files = {"pdb": ["--model", fold("short.pdb", 20)], "map": ["--map", density, "--contour", "1.5"]}
    for variant, arguments in files.items():
        done = run("rmsfnet", "predict", *arguments, "-o", tmp_path / variant)
        assert (done.code, done.err) == (0, "")
        record = json.loads((tmp_path / variant / "run.json").read_text())
        assert record["weights"]["name"] == f"rmsfnet:{variant}"
        assert "a stand-in, not trained on molecular dynamics" in done.out
    assert (read_table(tmp_path / "pdb" / "atoms.csv")["rmsf_angstrom"] > 0).all()


def test_published_weights_by_name_tell_where_to_fetch_them(run, fold, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path / "cache"))
    arguments = ["--model", fold("short.pdb", 20), "--weights", "official-pdb", "-o", tmp_path / "out"]
    done = run("rmsfnet", "predict", *arguments)
    assert done.code != 0
    assert "sim_model.pth" in done.err and "10.6084/m9.figshare.25893670" in done.err
    assert not (tmp_path / "out").exists()


def _register(monkeypatch, path):
    """Only `rmsfnet` is registered, as the file `path`; with None nothing is."""
    entry = path and registry.Entry(
        name="rmsfnet", system="rmsfnet", licence="", citation="", description="", file=path
    )
    monkeypatch.setattr(registry, "entries", lambda: {"rmsfnet": entry} if entry else {})


def _check_demo(done, out):
    assert (done.code, done.err) == (0, "")
    assert names(out) == MODEL | {"rmsf.mrc", "inputs"}
    assert names(out / "inputs") == {"ubiquitin.pdb", "ubiquitin.mrc"}
    structure, residues = read_structure(out / "inputs" / "ubiquitin.pdb"), read_table(out / "residues.csv")
    assert structure.n_residues == 76 and "H" not in structure.element
    rmsf = residues["rmsf_angstrom"]
    assert np.isfinite(read_table(out / "atoms.csv")["rmsf_angstrom"]).all() and np.ptp(rmsf) > 0
    lines = done.out.splitlines()
    rows = [line.split() for line in lines if line.endswith(("loosest", "stiffest"))]
    assert len(rows) == 10
    for row, extreme in ((rows[0], np.argmax(rmsf)), (rows[-1], np.argmin(rmsf))):
        assert row[0] == residues["resname"][extreme] and row[2] == f"{rmsf[extreme]:.2f}"
    assert f"mean {rmsf.mean():.2f} Å" in done.out


def test_demo(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _check_demo(run("demo", "rmsfnet"), tmp_path / "jaxprot-demo" / "rmsfnet")


def test_demo_with_random_weights(run, weights, tmp_path, monkeypatch):
    _register(monkeypatch, str(weights("both")))
    out = tmp_path / "demo"
    _check_demo(run("demo", "rmsfnet", "-o", out), out)
    volume = read_map(out / "inputs" / "ubiquitin.mrc")
    structure = read_structure(out / "inputs" / "ubiquitin.pdb")
    clean = simulate_map(structure, 3.0, on_grid=volume)
    noise = volume.data - clean.data
    np.testing.assert_allclose(noise.std() / clean.data.max(), 0.04, rtol=0.01)
    before = (out / "atoms.csv").read_bytes()
    (out / "atoms.csv").write_text("old")
    assert run("demo", "rmsfnet", "-o", out).code == 0  # again: its own results are replaced, by the same
    assert (out / "atoms.csv").read_bytes() == before


def test_demo_without_weights_leaves_nothing_behind(run, tmp_path, monkeypatch):
    _register(monkeypatch, None)
    done = run("demo", "rmsfnet", "-o", tmp_path / "demo")
    assert done.code == 2 and "no weights of rmsfnet are registered" in done.err
    assert not (tmp_path / "demo").exists()
