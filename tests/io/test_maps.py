"""Maps in every layout, back out again, and damaged ones."""

import bz2
import gzip
import itertools
import resource

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from jaxprot.core.errors import InputError, OutputError
from jaxprot.core.volume import Volume
from jaxprot.io.maps import read_map, stem_of, write_map


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    return Volume(rng.normal(size=(4, 5, 6)), voxel=(1.0, 1.25, 2.0), origin=(-3.0, 10.0, 0.5), name="a")


def content(volume, *, order="<", axes=(1, 2, 3), mode=2, change=None, data=None):
    """Bytes of a map with columns, rows, sections along `axes`; `change(header)` alters the header."""
    header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    counts = volume.shape[::-1]
    for place, (key, axis) in enumerate(zip(("nx", "ny", "nz"), axes, strict=True)):
        header[key] = counts[axis - 1]
        header[("mapc", "mapr", "maps")[place]] = axis
    for axis, key in enumerate("xyz"):
        header[f"m{key}"] = counts[axis]
        header["cella"][key] = counts[axis] * volume.voxel[axis]
        header["origin"][key] = volume.origin[axis]
        header["cellb"][("alpha", "beta", "gamma")[axis]] = 90
    header["mode"], header["ispg"], header["map"] = mode, 1, b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    if change is not None:
        change(header)
    dtype = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}[mode]
    stored = volume.data.transpose([3 - axis for axis in axes[::-1]])
    return header.tobytes() + stored.astype(np.dtype(dtype).newbyteorder(order)).tobytes()


def put(key, value, *inner):
    def change(header):
        if inner:
            header[key][inner[0]] = value
        else:
            header[key] = value

    return change


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_axis_order_and_byte_order(volume, tmp_path, axes, order, caplog):
    def change(header):  # start indices belong to columns, rows, sections
        for place, axis in enumerate(axes):
            header[("nxstart", "nystart", "nzstart")[place]] = (10, 20, 30)[axis - 1]

    (tmp_path / "a.mrc").write_bytes(content(volume, axes=axes, order=order, change=change))
    found = read_map(tmp_path / "a.mrc")
    np.testing.assert_array_equal(found.data, volume.data)
    np.testing.assert_allclose(found.voxel, volume.voxel, rtol=1e-6)
    assert found.nstart.tolist() == [10, 20, 30] and found.header_origin.tolist() == [-3, 10, 0.5]
    np.testing.assert_allclose(found.origin, [-3 + 10, 10 + 25, 0.5 + 60])
    assert "both ORIGIN" in caplog.text
    caplog.clear()
    np.testing.assert_allclose(read_map(tmp_path / "a.mrc", "header").origin, [-3, 10, 0.5])
    np.testing.assert_allclose(read_map(tmp_path / "a.mrc", "nstart").origin, [10, 25, 60])
    assert not caplog.text


@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_every_mode_packed_or_not(volume, tmp_path, mode, pack):
    whole = volume.with_data(np.arange(120).reshape(volume.shape))
    (tmp_path / "a.map").write_bytes(pack(content(whole, mode=mode)))
    np.testing.assert_array_equal(read_map(tmp_path / "a.map").data, whole.data)


@pytest.mark.parametrize("name", ["b.mrc", "b.map.gz", "sub/b.ccp4"])
def test_written_maps_come_back_and_are_valid(volume, tmp_path, name):
    write_map(volume, tmp_path / name, label="test")
    found = read_map(tmp_path / name)
    np.testing.assert_array_equal(found.data, volume.data)
    np.testing.assert_allclose([found.voxel, found.origin], [volume.voxel, volume.origin], rtol=1e-6)
    assert found.name == "b" and not found.nstart.any()
    with mrcfile.open(tmp_path / name) as file:  # strict
        assert file.header.label[0] == b"test"
        np.testing.assert_allclose(file.header.rms, volume.data.std(), rtol=1e-5)
        assert file.header.ispg == 1 and file.voxel_size.y == 1.25
    assert mrcfile.validate(tmp_path / name)
    first = (tmp_path / name).read_bytes()
    write_map(volume, tmp_path / name, label="test")
    assert (tmp_path / name).read_bytes() == first


def test_written_in_place_of_the_input(volume, tmp_path):
    """A result keeps its place, whatever the input's axes and start indices were."""
    raw = content(volume, axes=(3, 1, 2), change=put("nystart", 7))
    (tmp_path / "a.mrc").write_bytes(raw)
    found = read_map(tmp_path / "a.mrc")
    write_map(found, tmp_path / "b.mrc")
    for origin in ("sum", "header"):
        np.testing.assert_allclose(read_map(tmp_path / "b.mrc", origin).origin, found.origin, rtol=1e-6)


def test_values_that_are_not_finite_are_written(volume, tmp_path):
    volume.data[0, 0, 0] = np.nan
    write_map(volume, tmp_path / "a.mrc")
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert np.isfinite([file.header.dmin, file.header.rms]).all() and np.isnan(file.data[0, 0, 0])
    with pytest.raises(InputError, match="1 of 120 densities are not finite"):
        read_map(tmp_path / "a.mrc")


def test_wrong_targets(volume, tmp_path):
    with pytest.raises(InputError, match="unknown suffix '.png'"):
        write_map(volume, tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_map(volume, tmp_path / "file" / "a.mrc")


def test_old_files_are_read_with_a_word(volume, tmp_path, caplog):
    def change(header):
        header["mapc"] = header["mapr"] = header["maps"] = 0
        header["mx"] = header["my"] = header["mz"] = 0
        header["cellb"] = (0, 0, 0)
        header["map"], header["machst"] = b"", (0, 0, 0, 0)

    for order in "<>":
        (tmp_path / "old.mrc").write_bytes(content(volume, change=change, order=order) + b"\0" * 100)
        found = read_map(tmp_path / "old.mrc")
        np.testing.assert_array_equal(found.data, volume.data)
        np.testing.assert_allclose(found.voxel, volume.voxel)
    for word in ("no MAP word", "machine stamp", "order of axes", "no sampling", "no cell angles", "100 bytes after"):
        assert word in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("cellb", 94.3, "beta"), "skewed .beta = 94.30°"),
        (put("cellb", np.nan, "gamma"), "skewed .gamma = nan"),
        (put("cella", 0, "x"), "no voxel size in the header"),
        (put("cella", np.nan, "z"), "no voxel size"),
        (put("cella", -5, "z"), "no voxel size"),
        (put("cella", 1e30, "y"), "out of range"),
        (put("nx", 0), "0 x 5 x 4 voxels in the header; the file is damaged"),
        (
            put("nx", 100),
            "truncated: the header promises 100 x 5 x 4 voxels of 4 bytes .9024 bytes in all., the file has",
        ),
        (put("nz", 2**31 - 1), "truncated"),
        (put("nsymbt", 4096), "truncated"),
        (put("nsymbt", -4), "extended header of -4"),
        (put("mapc", 2), "axis order .2, 2, 3."),
        (put("mode", 4), "mode 4 .complex numbers"),
        (put("mode", 77), "mode 77 .unknown"),
        (put("origin", np.inf, "x"), "ORIGIN words are not finite"),
        (put("origin", 1e20, "x"), "voxel 0 lies at"),
        (put("nystart", -(2**31)), "voxel 0 lies at"),
        (put("ispg", 401), None),  # a stack of one
        (lambda header: (put("ispg", 0)(header), put("mz", 1)(header)), "a stack of 4 images"),
    ],
)
def test_one_clear_line(volume, tmp_path, change, message):
    (tmp_path / "a.mrc").write_bytes(content(volume, change=change))
    if message is None:
        read_map(tmp_path / "a.mrc")
        return
    with pytest.raises(InputError, match=f"a.mrc: .*{message}") as caught:
        read_map(tmp_path / "a.mrc")
    assert "\n" not in str(caught.value)
    (tmp_path / "a.mrc").write_bytes(gzip.compress(content(volume, change=change)))
    with pytest.raises(InputError, match="a.mrc: "):
        read_map(tmp_path / "a.mrc")


def test_a_voxel_size_can_be_given(volume, tmp_path):
    (tmp_path / "a.mrc").write_bytes(content(volume, change=put("cella", 0, "x")))
    assert read_map(tmp_path / "a.mrc", voxel=1.1).voxel.tolist() == [1.1] * 3
    with pytest.raises(InputError, match="must be positive"):
        read_map(tmp_path / "a.mrc", voxel=0.0)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 bytes, shorter than the header"),
        (b"x" * 2000, "no MRC or CCP4 map"),
        (b"ATOM      1  N   MET A   1" * 100, "no MRC or CCP4 map"),
        (b"\x1f\x8b" + b"x" * 99, "packed file is truncated or damaged|cannot be read"),
        (b"BZh" + b"x" * 99, "packed file is truncated or damaged|cannot be read"),
        (gzip.compress(b"x" * 5000, mtime=0)[:18], "packed file is truncated"),
    ],
    ids=["empty", "text", "pdb", "gzip", "bzip2", "cut"],
)
def test_no_map(tmp_path, raw, message):
    (tmp_path / "a.mrc").write_bytes(raw)
    with pytest.raises(InputError, match=f"a.mrc: .*({message})"):
        read_map(tmp_path / "a.mrc")


def test_no_file_and_wrong_options(volume, tmp_path):
    with pytest.raises(InputError, match="none.mrc: no such file"):
        read_map(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="cannot be opened"):
        read_map(tmp_path)
    with pytest.raises(InputError, match="choose 'sum', 'header' or 'nstart'"):
        read_map(tmp_path / "none.mrc", "middle")
    (tmp_path / "a.mrc").write_bytes(content(volume) + b"\0" * 3000)
    with pytest.raises(InputError, match="longer than its header says"):
        read_map(tmp_path / "a.mrc")


def test_stem():
    assert [stem_of(name) for name in ("x/emd_1.map.gz", "a.MRC", "b.mrc.bz2", "noext")] == ["emd_1", "a", "b", "noext"]


def test_a_thousand_damaged_headers(volume, tmp_path):
    """A map or one clear error; memory stays that of the file."""
    rng = np.random.default_rng(4)
    base = np.frombuffer(content(volume), np.uint8)
    pick = [0, 4, 8, 12, 16, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 88, 92, 196, 200, 204, 208, 212]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    good = 0
    for case in range(1000):
        data = base.copy()
        if case % 3 == 0:  # any bytes of the header
            at = rng.integers(0, 1024, rng.integers(1, 40))
            data[at] = rng.integers(0, 256, len(at))
        elif case % 3 == 1:  # a word that matters becomes anything
            at = int(rng.choice(pick))
            data[at : at + 4] = rng.integers(0, 256, 4)
        else:  # a word that matters becomes an extreme
            at = int(rng.choice(pick))
            extreme = rng.choice([0, 1, -1, 2**31 - 1, -(2**31), 0x7FC00000, 0x7F800000, 65536, 1 << 24])
            data[at : at + 4] = np.frombuffer(np.int32(extreme).tobytes(), np.uint8)
        raw = data.tobytes()
        if case % 5 == 4:
            raw = raw[: rng.integers(0, len(raw))]
        (tmp_path / "a.mrc").write_bytes(gzip.compress(raw, 1) if case % 7 == 6 else raw)
        try:
            found = read_map(tmp_path / "a.mrc")
        except InputError as error:
            assert "a.mrc: " in str(error) and "\n" not in str(error)
        else:
            good += 1
            assert found.data.size <= 120 * 4 and np.isfinite(found.origin).all() and (found.voxel > 0).all()
    assert 100 < good < 900
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kB


@pytest.mark.golden
@pytest.mark.filterwarnings("error")
def test_place_of_the_golden_map(goldens):
    """ORIGIN and start indices are both set, and the published program adds them."""
    golden = np.load(goldens("rmsfnet") / "pipeline.npz")
    found = read_map(goldens("rmsfnet") / "map.mrc")
    np.testing.assert_array_equal(found.header_origin, golden["info_origin"])
    np.testing.assert_array_equal(found.nstart, golden["info_nstart"])
    expected = found.header_origin + found.nstart * found.voxel
    np.testing.assert_array_equal(found.origin, expected)


def test_real_maps(shared, caplog):
    folder = shared / "data" / "flexibility"
    found = read_map(folder / "1ake.mrc")
    assert found.shape == (64, 64, 64) and found.origin.tolist() == [-64] * 3 and found.voxel.tolist() == [2] * 3
    np.testing.assert_allclose(read_map(folder / "EMD-3197.map").origin, [-22.8, 0, 0], rtol=1e-6)
    with pytest.raises(InputError, match=r"EMD-3001.map: the cell is skewed \(beta = 94.3"):
        read_map(folder / "EMD-3001.map")
    assert not caplog.text
