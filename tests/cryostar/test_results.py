"""Files of an analysis, read back."""

import dataclasses
import json

import matplotlib.image
import numpy as np
import pytest

from jaxprot.core.errors import InputError, OutputError
from jaxprot.core.particles import ArrayImages, Optics, ParticleStack
from jaxprot.cryostar import gmm, results
from jaxprot.cryostar.gmm import Beads
from jaxprot.cryostar.results import Heterogeneity
from jaxprot.io.maps import write_map
from jaxprot.io.particles import read_particles, write_particles
from jaxprot.io.structures import read_structure
from jaxprot.io.tables import read_table
from jaxprot.io.trajectories import read_trajectory


@pytest.fixture(scope="module")
def beads(example):
    return gmm.beads_of(read_structure(example("trpcage")))


def decode_of(beads):
    move = np.random.default_rng(0).normal(size=(3, len(beads), 3))
    return lambda z: beads.xyz + np.tensordot(z, move, 1)


@pytest.fixture(scope="module")
def latents():
    return (np.random.default_rng(1).normal(size=(60, 3)) * [2, 1, 0.2]).astype(np.float32)


@pytest.fixture
def star(tmp_path):
    """60 particles of two optics groups with columns that jaxprot does not know."""
    optics = (
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnVoltage #3\n_rlnSphericalAberration #4\n"
        "_rlnAmplitudeContrast #5\n_rlnImagePixelSize #6\n_rlnImageSize #7\n"
        "1 one 300.0 2.70 0.10 1.500 8\n2 two 200.0 2.00 0.07 1.500 8\n\n"
    )
    names = "ImageName OpticsGroup AngleRot AngleTilt AnglePsi DefocusU DefocusV DefocusAngle OriginXAngst OriginYAngst"
    head = "".join(f"_rln{name}\n" for name in [*names.split(), "MicrographName", "LogLikeliContribution"])
    rows = "".join(
        f"{k + 1:06d}@s.mrcs {1 + k % 2} {k}.50 10.000 -{k}.25 11000 10500 33.5 0.5 -0.25 mic{k // 7}.mrc 1e+0{k % 9}\n"
        for k in range(60)
    )
    (tmp_path / "p.star").write_text(f"{optics}data_particles\n\nloop_\n{head}{rows}")
    from jaxprot.io.stacks import write_stack

    write_stack(np.random.default_rng(0).normal(size=(60, 8, 8)), tmp_path / "s.mrcs", 1.5)
    return tmp_path / "p.star"


@pytest.fixture
def made(beads, latents, star):
    return Heterogeneity.of(latents, decode_of(beads), beads, read_particles(star), clusters=4)


def test_all_files_of_an_analysis(made, latents, beads, tmp_path, star):
    home = tmp_path / "out"
    names = made.write(home)
    assert sorted(names) == sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    assert [f"pca-{k}.pdb" in names for k in (1, 2, 3)] == [True] * 3
    np.testing.assert_array_equal(np.load(home / "latents.npy"), latents)
    for name, frames in (("pca-1", made.paths[0]), ("kmeans", made.centres)):
        found = read_trajectory(home / f"{name}.pdb")
        np.testing.assert_allclose(found.frames, frames, atol=6e-4)
        np.testing.assert_array_equal(found.structure.res_name, beads.res_name)
    still = read_structure(home / "mobility.pdb")
    np.testing.assert_allclose(still.bfactor, made.mobility, atol=0.006)
    np.testing.assert_allclose(still.xyz, beads.xyz, atol=6e-4)
    table = read_table(home / "mobility.csv")
    np.testing.assert_allclose(table["mobility_angstrom"], made.mobility, atol=1e-4)
    np.testing.assert_array_equal(table["resid"], beads.resid)
    done = json.loads((home / "analysis.json").read_text())
    assert sorted([*done["files"], "analysis.json"]) == sorted(names) and done["particles"] == 60
    assert sum(done["clusters"]) == 60 and done["clusters"] == read_table(home / "clusters.csv")["particles"].tolist()
    assert matplotlib.image.imread(home / "landscape.png").shape[0] > 300


def test_clusters_hold_the_rows_of_their_particles(made, tmp_path, star):
    made.write(tmp_path / "out")
    whole = read_particles(star)
    labels = np.load(tmp_path / "out" / "labels.npy")
    seen = []
    for number in range(4):
        path = tmp_path / "out" / "clusters" / f"cluster_{number:02d}.star"
        found, rows = read_particles(path), np.flatnonzero(labels == number)
        seen += rows.tolist()
        for one, other in zip(found.tables, whole.select(rows).tables, strict=True):
            assert list(one.columns) == list(other.columns)
            for name, values in one.columns.items():
                np.testing.assert_array_equal(values, other.columns[name])
        np.testing.assert_array_equal(found.images.read(np.arange(len(rows))), whole.images.read(rows))
    assert sorted(seen) == list(range(60))


def test_an_analysis_that_breaks_off_does_not_look_complete(made, tmp_path, monkeypatch):
    home = tmp_path / "out"
    made.write(home)
    (home / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="already holds"):
        made.write(home)
    fewer = Heterogeneity.of(made.landscape.latents, decode_of(made.beads), made.beads, made.stack, clusters=2)
    names = fewer.write(home, overwrite=True)
    kept = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert kept == {*names, "notes.txt"} and not (home / "clusters" / "cluster_02.star").exists()

    def full(*args, **kwargs):
        raise OutputError("no space left on device")

    monkeypatch.setattr(results, "write_particles", full)
    with pytest.raises(OutputError, match="no space"):
        made.write(home, overwrite=True)
    assert not (home / "analysis.json").exists() and not list(home.rglob(".part-*"))


def test_latents_and_particles_must_be_as_many(made, latents):
    with pytest.raises(InputError, match="60 particles, but 59 latents"):
        Heterogeneity.of(latents[:59], decode_of(made.beads), made.beads, made.stack)
    with pytest.raises(InputError, match="20 beads, but conformations of 19"):
        Heterogeneity.of(latents, lambda z: decode_of(made.beads)(z)[:, 1:], made.beads)


def test_scripts_name_what_is_there(made, tmp_path):
    home = tmp_path / "out"
    made.write(home)
    for name in ("view.pml", "view.cxc"):
        text = (home / name).read_text()
        assert all(f"pca-{k}.pdb" in text for k in (1, 2, 3)) and "kmeans.pdb" in text and "vol" not in text
    assert "mset 1 -10" in (home / "view.pml").read_text() and "coordset slider #1" in (home / "view.cxc").read_text()
    from jaxprot.core.volume import Volume

    write_map(Volume(np.ones((4, 4, 4)), 2.0, np.zeros(3)), home / "vol_000.mrc")
    results.write_views(home)
    assert "load vol_000.mrc, vol_000" in (home / "view.pml").read_text()
    cxc = (home / "view.cxc").read_text()
    assert "open vol_000.mrc\ntransparency #6 60" in cxc and "mseries" not in cxc
    # pca-1, pca-2 and pca-3 are the models 1 to 3, kmeans and mobility 4 and 5.
    assert [line for line in cxc.splitlines() if line.startswith("coordset #")] == [
        f"coordset #{k} 1,10" for k in (1, 2, 3)
    ]
    for name in ("vol_pca_1_000", "vol_pca_1_001", "vol_pca_2_000", "vol_pca_2_001", "vol_pca_3_000"):
        write_map(Volume(np.ones((4, 4, 4)), 2.0, np.zeros(3)), home / f"{name}.mrc")
    results.write_views(home)
    lines = (home / "view.cxc").read_text().splitlines()
    start = lines.index("volume #7-8 sdLevel 3")
    assert lines[start + 1 : start + 4] == ["mseries slider #7-8", "volume #9-10 sdLevel 3", "mseries slider #9-10"]
    assert lines.index("open vol_pca_1_000.mrc") < lines.index("open vol_pca_2_001.mrc") < start
    hidden = [int(line.split()[1][1:]) for line in lines[start:] if line.startswith("hide")]
    assert hidden == [7, 8, 9, 10, 11]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert results.write_views(empty) == ["view.pml", "view.cxc"]


def many(n, chain="A", name="ALA", resid=None):
    def each(value):
        return np.array([value] * n) if isinstance(value, str) else np.asarray(value)

    return Beads(
        "made", np.zeros((n, 3), np.float32), np.ones(n, np.float32), each("CA"), each(name), each(chain),
        np.arange(1, n + 1) if resid is None else np.asarray(resid), each(""),
    )  # fmt: skip


def shifted(beads, by):
    return np.stack([beads.xyz, beads.xyz + np.float32(by)])


def numbers(n):
    return [str(k) for k in range(n)]


@pytest.mark.parametrize(
    ("beads", "by", "suffix"),
    [
        (many(99), 1, ".pdb"),
        (many(3, name="A"), 1, ".pdb"),
        (many(10_000, np.repeat(["A", "B"], 5000), resid=np.tile(np.arange(5000), 2)), 1, ".cif"),
        (many(63, numbers(63)), 1, ".cif"),
        (many(3, "Long"), 1, ".cif"),
        (many(3, name="A1LU6"), 1, ".cif"),
        (many(3, resid=[1, 2, 10_000]), 1, ".cif"),
        (many(3), -2000, ".cif"),
    ],
    ids=["small", "nucleotides", "many beads", "many chains", "long chain", "long residue", "big number", "far away"],
)  # fmt: skip
def test_the_format_is_one_that_holds_the_model(beads, by, suffix, tmp_path):
    path = results.write_models(shifted(beads, by), beads, tmp_path / "m.pdb", np.arange(len(beads)) % 50)
    assert path.suffix == suffix and [one.name for one in tmp_path.iterdir()] == [path.name]
    found = read_structure(path, models="all")
    assert found.n_atoms == 2 * len(beads) and set(found.model) == {1, 2} and (found.occupancy == 1).all()
    np.testing.assert_allclose(found.xyz[-1], by)
    assert set(found.chain_id) == set(beads.chain)
    if len(set(beads.chain)) < 10:
        np.testing.assert_array_equal(found.resid, np.tile(beads.resid, 2))
        np.testing.assert_array_equal(found.res_name, np.tile(beads.res_name, 2))
        np.testing.assert_array_equal(found.bfactor, np.tile(np.arange(len(beads)) % 50, 2))


def test_models_must_be_of_the_beads(beads, tmp_path):
    with pytest.raises(ValueError, match=r"expected \(models, 20, 3\)"):
        results.write_models(np.zeros((2, 19, 3)), beads, tmp_path / "m.pdb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.golden
def test_models_are_those_of_the_published_file(goldens, tmp_path):
    home = goldens("cryostar")
    z, expected = np.load(home / "09_decode.npz"), read_structure(home / "pca-1_official.pdb", models="all")
    reference = gmm.beads_of(expected.first_model())
    results.write_models(z["pc1_struc"], reference, tmp_path / "pca-1.pdb")

    def atoms(path):
        return [line.rstrip() for line in path.read_text().splitlines() if line.startswith(("ATOM", "MODEL", "ENDMDL"))]

    assert atoms(tmp_path / "pca-1.pdb") == atoms(home / "pca-1_official.pdb")


def test_particles_from_elsewhere(beads, latents, tmp_path):
    """Particles that come from no file have clusters in RELION's layout."""
    stack = ParticleStack(
        images=ArrayImages(np.zeros((60, 8, 8))), shifts=np.zeros((60, 2)), optics_group=np.zeros(60, int),
        optics=Optics(names=("a",), pixel_size=np.ones(1), side=np.array([8])), angles=np.zeros((60, 3)),
        image_names=np.array([f"{k + 1:06d}@a.mrcs" for k in range(60)]),
    )  # fmt: skip
    made = Heterogeneity.of(latents, decode_of(beads), beads, stack, clusters=2)
    made.write(tmp_path / "out")
    write_particles(stack, tmp_path / "all.star")
    found = read_particles(tmp_path / "out" / "clusters" / "cluster_00.star", check_images=False)
    assert len(found) == (made.landscape.clusters.labels == 0).sum()
    none = dataclasses.replace(made, stack=None).write(tmp_path / "other")
    assert not any(name.startswith("clusters/") for name in none)
