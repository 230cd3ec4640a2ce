"""Particle files of RELION and cryoSPARC, their stacks, back out again, and damaged ones."""

import os
import re

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

import jaxprot
from jaxprot.core.errors import InputError, OutputError
from jaxprot.core.particles import ArrayImages, Optics, ParticleStack, rotations_from_vectors
from jaxprot.io.particles import read_particles, write_particles
from jaxprot.io.stacks import write_stack

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnAmplitudeContrast #3
_rlnSphericalAberration #4
_rlnVoltage #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
           2 second    0.070000     1.600000   200.000000     1.250000            8            2
           1 first     0.100000     2.700000   300.000000     1.500000            8            2

"""
COLUMNS = (
    "ImageName AngleRot AngleTilt AnglePsi OriginXAngst OriginYAngst DefocusU DefocusV DefocusAngle PhaseShift "
    "CtfBfactor CtfScalefactor OpticsGroup ClassNumber RandomSubset LogLikeliContribution"
).split()


def rows_of(n=5, stack="st ack.mrcs"):
    name = f'"{{:06d}}@{stack}"' if " " in stack else f"{{:06d}}@{stack}"
    return [
        [name.format(k + 1), f"{10.5 * k}", f"{20 + k}.000", f"-{k}.25", f"{k}.5", "-1.25", f"1{k}000.0", "9000.50",
         "33.5", "0.000000", "60.0", "0.9", f"{1 + k % 2}", f"{1 + k % 3}", f"{1 + k % 2}",
         "nan" if k == 1 else "1e+05"]
        for k in range(n)
    ]  # fmt: skip


def star(rows, columns=COLUMNS, table="particles", optics=OPTICS, prefix="_rln"):
    head = "".join(f"{prefix}{name} #{k + 1}\n" for k, name in enumerate(columns))
    return f"{optics}\n# version 30001\n\ndata_{table}\n\nloop_\n{head}" + "".join(
        "  ".join(row) + " \n" for row in rows
    )


def without(rows, *names, columns=COLUMNS):
    keep = [k for k, name in enumerate(columns) if name not in names]
    return [[row[k] for k in keep] for row in rows], [columns[k] for k in keep]


def mrcs(images, *, mode=2, order="<", voxel=1.5, change=None):
    """Bytes of a stack."""
    header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    n, y, x = images.shape
    header["nx"], header["ny"], header["nz"], header["mx"], header["my"], header["mz"] = x, y, n, x, y, 1
    header["mode"], header["map"] = mode, b"MAP "
    header["cella"]["x"], header["cella"]["y"] = voxel * x, voxel * y
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    if change is not None:
        change(header)
    dtype = np.dtype({0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}[mode]).newbyteorder(order)
    return header.tobytes() + images.astype(dtype).tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 100, (5, 8, 8)).astype(np.float32)


@pytest.fixture
def files(tmp_path, images):
    (tmp_path / "st ack.mrcs").write_bytes(mrcs(images, voxel=0))
    (tmp_path / "p.star").write_text(star(rows_of()))
    return tmp_path


def equal_tables(found, expected):
    assert [(table.name, table.loop) for table in found.tables] == [(t.name, t.loop) for t in expected.tables]
    for one, other in zip(found.tables, expected.tables, strict=True):
        assert list(one.columns) == list(other.columns)
        for name, values in one.columns.items():
            assert values.dtype == other.columns[name].dtype
            np.testing.assert_array_equal(values, other.columns[name])


def test_everything_of_relion31_is_read(files, images, caplog):
    stack = jaxprot.read_particles(files / "p.star")
    assert not caplog.text
    assert len(stack) == 5 and stack.name == "p" and stack.optics.names == ("second", "first")
    np.testing.assert_array_equal(stack.images.read(np.array([3, 0, 3])), images[[3, 0, 3]])
    np.testing.assert_array_equal(stack.angles[2], [21, 22, -2.25])
    np.testing.assert_array_equal(stack.shifts[2], [2.5, -1.25])
    assert stack.optics_group.tolist() == [1, 0, 1, 0, 1]
    assert stack.pixel_size.tolist() == [1.5, 1.25, 1.5, 1.25, 1.5] and stack.side.tolist() == [8] * 5
    ctf = stack.ctf
    assert ctf.voltage.tolist() == [300, 200, 300, 200, 300] and ctf.cs.tolist() == [2.7, 1.6, 2.7, 1.6, 2.7]
    assert ctf.amplitude_contrast[1] == 0.07 and ctf.defocus_u[3] == 13000 and ctf.defocus_v[3] == 9000.5
    assert ctf.angle[0] == 33.5 and ctf.b_factor[0] == 60 and ctf.scale[0] == 0.9 and not stack.phase_plate
    assert stack.class_number.tolist() == [1, 2, 3, 1, 2] and stack.subset.tolist() == [1, 2, 1, 2, 1]
    assert stack.image_names[4] == "000005@st ack.mrcs" and stack.kind == "relion"
    assert stack.optics.aberrations == () and not stack.ctf_premultiplied.any()


def test_old_tables_with_shifts_in_pixels(files, images, caplog):
    columns = "ImageName AngleRot AngleTilt AnglePsi OriginX OriginY DefocusU DefocusV DefocusAngle Voltage "
    columns = (columns + "SphericalAberration DetectorPixelSize Magnification BeamTiltX").split()
    rows = [[f"{k + 1}@s.mrcs", "1", "2", "3", "2", "-4", "10000", "9000", "0", "300", "2.7", "14.0",
             "100000" if k < 3 else "50000", "0.5"] for k in range(5)]  # fmt: skip
    (files / "s.mrcs").write_bytes(mrcs(images, voxel=1.4))
    for table in ("images", ""):
        (files / "old.star").write_text(star(rows, columns, table=table, optics=""))
        stack = read_particles(files / "old.star")
        np.testing.assert_allclose(stack.pixel_size, [1.4, 1.4, 1.4, 2.8, 2.8])
        np.testing.assert_allclose(stack.shifts, np.outer(stack.pixel_size, [2, -4]))
        assert len(stack.optics) == 2 and stack.side.tolist() == [8] * 5
        assert stack.ctf.amplitude_contrast.tolist() == [0.1] * 5
        assert stack.optics.aberrations == ("rlnBeamTiltX",) and stack.optics.beam_tilt[:, 0].tolist() == [0.5, 0.5]
    for words in ("rlnAmplitudeContrast; 0.1 is assumed", "aberrations beyond the CTF: rlnBeamTiltX",
                  "2.8 Å per pixel for particle row 4, 1.4 Å in the header"):  # fmt: skip
        assert words in caplog.text
    assert read_particles(files / "old.star", pixel_size=3.0).shifts[4].tolist() == [6, -12]


def test_names_without_prefix_and_a_general_table(files):
    optics = OPTICS.replace("_rln", "_")
    text = "data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n_rlnNote 'two words'\n" + star(rows_of(), optics=optics)
    text = re.sub(r"(?m)^(_rlnLog.*)$", r"\1\n_rlnNote #17", text.replace("\n_rlnNote 'two", "\n_rlnFirst 'two"))
    text = re.sub(r"(?m)(nan|1e\+05) $", r"""\1 '' """, text)  # an empty value is none that is missing
    (files / "b.star").write_text(text.replace("_rlnAngle", "_Angle").replace("_rlnImageName", "_ImageName"))
    stack = read_particles(files / "b.star")
    np.testing.assert_array_equal(stack.angles, read_particles(files / "p.star").angles)
    assert stack.tables[0].columns["rlnFirst"].tolist() == ["two words"] and not stack.tables[0].loop
    assert stack.tables[2].columns["rlnNote"].tolist() == [""] * 5
    write_particles(stack, files / "c.star")
    equal_tables(read_particles(files / "c.star"), stack)


def test_written_rows_come_back_identical(files, images):
    stack = read_particles(files / "p.star")
    rows = np.array([4, 1, 1])
    write_particles(stack, files / "out.star", rows)
    found = read_particles(files / "out.star")
    equal_tables(found, stack.select(rows))
    assert found.tables[1].columns["rlnLogLikeliContribution"].tolist() == ["1e+05", "nan", "nan"]
    np.testing.assert_array_equal(found.images.read(np.arange(3)), images[rows])
    np.testing.assert_array_equal(found.optics.pixel_size, stack.optics.pixel_size)  # also of groups without particles
    first = (files / "out.star").read_bytes()
    write_particles(stack.select(rows), files / "out.star")
    assert (files / "out.star").read_bytes() == first
    one = np.arange(5) == 2
    write_particles(stack, files / "deep" / "out.star", one)
    assert read_particles(files / "deep" / "out.star", files).image_names.tolist() == ["000003@st ack.mrcs"]
    assert sorted(os.listdir(files / "deep")) == ["out.star"]


@pytest.mark.parametrize("name", ["it's.mrcs", "'tis a #1 d'or.mrcs", "a#b.mrcs", "x@y.mrcs", "é-µ.mrcs", "a'b'.mrcs"])
def test_odd_names_of_stacks(tmp_path, images, name):
    (tmp_path / name).write_bytes(mrcs(images))
    (tmp_path / "p.star").write_bytes(star(rows_of(stack=name)).replace("\n", "\r\n").encode())
    stack = read_particles(tmp_path / "p.star")
    assert stack.image_names[0] == f"000001@{name}"
    np.testing.assert_array_equal(stack.images.read(np.arange(5)), images)
    write_particles(stack, tmp_path / "q.star")
    equal_tables(read_particles(tmp_path / "q.star"), stack)


def test_folders_of_stacks(tmp_path, images):
    project = tmp_path / "project"
    for folder in ("Extract/job1", "Refine3D/job2"):
        (project / folder).mkdir(parents=True)
    (project / "Extract/job1/a.mrcs").write_bytes(mrcs(images))
    text = star(rows_of(stack="Extract/job1/a.mrcs"))
    (project / "Refine3D/job2/run_data.star").write_text(text)
    np.testing.assert_array_equal(
        read_particles(project / "Refine3D/job2/run_data.star").images.read(np.array([1])), images[[1]]
    )
    (tmp_path / "p.star").write_text(text)
    assert len(read_particles(tmp_path / "p.star", project)) == 5
    (tmp_path / "p.star").write_text(star(rows_of(stack=str(project / "Extract/job1/a.mrcs"))))
    assert len(read_particles(tmp_path / "p.star", project / "nowhere")) == 5
    (tmp_path / "p.star").write_text(text)
    with pytest.raises(InputError, match=r"p.star: 1 of 1 stacks missing.*a.mrcs .particle row 1.*dataset_dir"):
        read_particles(tmp_path / "p.star")
    stack = read_particles(tmp_path / "p.star", check_images=False)
    with pytest.raises(InputError, match=r"a.mrcs: stack cannot be opened .*dataset_dir"):
        stack.images.read(np.array([0]))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
def test_every_mode_and_byte_order(files, images, mode, order):
    def extended(header):
        header["nsymbt"] = 80

    raw = mrcs(images, mode=mode, order=order, change=extended)
    (files / "st ack.mrcs").write_bytes(raw[:1024] + b"\1" * 80 + raw[1024:])
    found = read_particles(files / "p.star").images.read(np.arange(5)[::-1])
    np.testing.assert_array_equal(found, images[::-1])
    assert found.dtype == np.float32 and found.dtype.isnative


def test_single_images_and_old_headers(files, images, caplog):
    for k in range(2):
        with mrcfile.new(files / f"{k}.mrc") as file:  # two-dimensional
            file.set_data(images[k])

    def old(header):
        header["map"], header["machst"] = b"", (0, 0, 0, 0)

    (files / "2.mrc").write_bytes(mrcs(images[2:3], change=old))
    rows = rows_of(3)
    for k, row in enumerate(rows):
        row[0] = f"{k}.mrc" if k else "1@0.mrc"
    (files / "p.star").write_text(star(rows))
    np.testing.assert_array_equal(read_particles(files / "p.star").images.read(np.arange(3)), images[:3])
    assert "no MAP word" in caplog.text


def test_nothing_is_read_before_it_is_asked_for(files, images):
    stack = read_particles(files / "p.star").select([2])
    with open(files / "st ack.mrcs", "r+b") as file:
        file.seek(1024)
        file.write((images + 1).tobytes())
    np.testing.assert_array_equal(stack.images.read(np.array([0])), images[[2]] + 1)


def test_what_is_missing_is_told_or_refused(files, caplog):
    (files / "a.star").write_text(star(*without(rows_of(), "AngleTilt", "OriginXAngst", "OriginYAngst")))
    with pytest.raises(InputError, match=r"a.star: no poses .rlnAngleTilt is missing"):
        read_particles(files / "a.star")
    stack = read_particles(files / "a.star", poses=False)
    assert stack.angles is None and not stack.shifts.any()
    assert "no shifts along x" in caplog.text and "no shifts along y" in caplog.text
    (files / "a.star").write_text(star(*without(rows_of(), "DefocusU", "PhaseShift", "ClassNumber", "RandomSubset")))
    stack = read_particles(files / "a.star")
    assert stack.ctf is None and "no CTF" in caplog.text and not stack.class_number.any() and not stack.subset.any()
    (files / "a.star").write_text(star(*without(rows_of(), "DefocusV", "DefocusAngle")))
    np.testing.assert_array_equal(
        read_particles(files / "a.star").ctf.defocus_v, stack.ctf or 10000 + 1000 * np.arange(5)
    )
    assert "no astigmatism" in caplog.text


def test_more_than_the_ctf_is_flagged(files, caplog):
    optics = OPTICS.replace(
        "_rlnImageDimensionality #8", "_rlnCtfDataAreCtfPremultiplied\n_rlnOddZernike\n_rlnMagMat00"
    )
    optics = re.sub(r"8            2\n           1", "8 1 [0,0.5,0] 1.01\n           1", optics)
    optics = re.sub(r"8            2\n", "8 0 [0,0,0] 1\n", optics)
    rows = rows_of()
    rows[3][COLUMNS.index("PhaseShift")] = "90.0"
    (files / "a.star").write_text(star(rows, optics=optics))
    stack = read_particles(files / "a.star")
    assert stack.ctf_premultiplied.tolist() == [False, True, False, True, False]
    assert stack.phase_plate and stack.ctf.phase_shift.tolist() == [0, 0, 0, 90, 0]
    assert stack.optics.aberrations == ("rlnOddZernike", "rlnMagMat00")
    assert stack.optics.magnification[0].tolist() == [[1.01, 0], [0, 1]]
    assert "ctf_premultiplied" in caplog.text and "rlnOddZernike, rlnMagMat00" in caplog.text


def test_the_voxel_of_the_stack_is_the_last_resort(files, images, caplog):
    optics = OPTICS.replace("_rlnImagePixelSize", "_rlnMicrographOriginalPixelSize")
    (files / "a.star").write_text(star(rows_of(), optics=optics))
    with pytest.raises(InputError, match=r"a.star: no pixel size .*voxel size 0 in the header of .*st ack.mrcs"):
        read_particles(files / "a.star")
    assert read_particles(files / "a.star", pixel_size=2).pixel_size.tolist() == [2] * 5
    (files / "st ack.mrcs").write_bytes(mrcs(images, voxel=1.75))
    assert read_particles(files / "a.star").pixel_size.tolist() == [1.75] * 5
    assert "1.75 Å is taken from the header" in caplog.text
    with pytest.raises(InputError, match="must be positive"):
        read_particles(files / "a.star", pixel_size=0)


def changed(row, name, value):
    rows = rows_of()
    rows[row][COLUMNS.index(name)] = value
    return star(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n\n", "is empty"),
        ("ATOM      1  N   MET A   1\n", "no STAR file"),
        (b"\xff\xfe\0\1" * 99, "no text at byte 0"),
        ("data_\n", "cannot be read as a STAR file"),
        (star([]), "has no rows"),
        (star(rows_of(), table="micrographs", columns=["MicrographName", *COLUMNS[1:]]), "no table of particles"),
        (star(rows_of(), columns=["MicrographName", *COLUMNS[1:]]), "no column rlnImageName"),
        (star(rows_of()) + star(rows_of(), optics=""), "two tables of the same name"),
        (star(rows_of(), table="images") + star(rows_of(), table="", optics=""), "more than one table"),
        (star(rows_of(), columns=[*COLUMNS[:-1], "ImageName"]), "twice|cannot be read"),
        (star([*rows_of(), rows_of()[0][:-2]]), "row 6 of table 'particles' has no value for rlnRandomSubset"),
        (star([*rows_of(), rows_of()[0][:4]], optics=""), "row 6 of table 'particles' has no value for rlnOriginX"),
        (star([*rows_of(), [*rows_of()[0], "1"]]), "as many values in each row"),
        (star(rows_of(), columns=COLUMNS[:-1]), "as many values in each row"),
        (changed(1, "AngleTilt", "nan"), "rlnAngleTilt of row 2 of table 'particles' is 'nan' and no finite number"),
        (changed(1, "AnglePsi", "inf"), "rlnAnglePsi of row 2"),
        (changed(3, "OriginXAngst", "abc"), "rlnOriginXAngst of row 4 of table 'particles' is 'abc'"),
        (changed(2, "DefocusU", "NaN"), "rlnDefocusU of row 3"),
        (changed(2, "OpticsGroup", "7"), "particle row 3 is in optics group 7, which is not in the optics table"),
        (changed(2, "ImageName", '"6@st ack.mrcs"'), "st ack.mrcs: image 6 is asked for by particle row 3 of .*has 5"),
        (changed(2, "ImageName", '"0@st ack.mrcs"'), "image name '0@st ack.mrcs' of particle row 3; expected number@"),
        (changed(2, "ImageName", '"x@st ack.mrcs"'), "image name 'x@st ack.mrcs' of particle row 3"),
        (changed(2, "ImageName", '"3@st ack.mrcs'), "quotation mark|cannot be read|no value"),
        (changed(2, "ImageName", "3@gone.mrcs"), "1 of 2 stacks missing.*gone.mrcs .particle row 3."),
        (star(rows_of(), optics=OPTICS.replace("1.250000", "0.000000")), "pixel size 0 of particle row 2; it must"),
        (star(rows_of(), optics=OPTICS.replace("200.0", "200000.0")), "voltage 200000 of particle row 2.*10 to 3000"),
        (star(rows_of(), optics=OPTICS.replace("   8   ", "   9   ")), "image size 9, but images of 8 pixels in"),
        (star(rows_of(), optics=OPTICS.replace("   2 second", "   1 second")), "two optics groups of the same number"),
        (star(rows_of(), optics=OPTICS.replace("  8            2", "  8            3")), "sub-tomograms"),
        (star(rows_of(), optics=OPTICS.replace("_rlnVoltage", "_rlnOther")), "defocus without voltage"),
        (star(*without(rows_of(), "OpticsGroup")), "2 optics groups, and particles without a column rlnOpticsGroup"),
    ],
)  # fmt: skip
def test_one_clear_line(files, text, message):
    (files / "a.star").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_particles(files / "a.star")
    assert "\n" not in str(caught.value) and str(files) in str(caught.value)


def header(name, value):
    return lambda header: header.__setitem__(name, value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (lambda images: mrcs(images)[:-300], "truncated: the header promises 5 images, 3 are complete; the first "
         r"missing particle is row 4 of .*p.star .image 4.; fetch it again"),
        (lambda images: mrcs(images)[:1024], "promises 5 images, 0 are complete; the first missing particle is row 1"),
        (lambda images: mrcs(images, change=header("nsymbt", 400)), "truncated"),
        (lambda images: b"", "0 bytes, shorter than the header"),
        (lambda images: b"garbage " * 400, "no MRC or CCP4 map"),
        (lambda images: mrcs(images[:, :6]), "images of 8 x 6 pixels are not square"),
        (lambda images: mrcs(images, change=header("mode", 4)), "mode 4 .complex numbers"),
        (lambda images: mrcs(images, change=header("nx", 0)), "images of 0 x 8 pixels"),
        (lambda images: mrcs(images, change=header("nz", -3)), "-3 images of"),
        (lambda images: mrcs(images, change=header("ispg", 401)), "not a stack of images"),
        (lambda images: mrcs(images, change=header("mapc", 7)), "axis order"),
    ],
)  # fmt: skip
def test_damaged_stacks(files, images, raw, message):
    (files / "st ack.mrcs").write_bytes(raw(images))
    with pytest.raises(InputError, match=f"st ack.mrcs: .*{message}"):
        read_particles(files / "p.star")
    stack = read_particles(files / "p.star", check_images=False)
    with pytest.raises(InputError, match="st ack.mrcs: "):
        stack.images.read(np.arange(5))


def test_a_truncated_stack_may_have_all_that_is_needed(files, images, caplog):
    (files / "st ack.mrcs").write_bytes(mrcs(images)[:-300])
    (files / "p.star").write_text(star(rows_of(3)))
    np.testing.assert_array_equal(read_particles(files / "p.star").images.read(np.arange(3)), images[:3])
    assert "3 of 5 images are complete" in caplog.text


def test_sides_that_differ(files, images):
    rows = rows_of()
    rows[2][0] = "1@small.mrcs"
    (files / "small.mrcs").write_bytes(mrcs(images[:, :6, :6]))
    optics = OPTICS.replace("_rlnImageSize", "_rlnOther")
    (files / "a.star").write_text(star(rows, optics=optics))
    with pytest.raises(InputError, match=r"images of 8 pixels in .*row 1. and of 6 in .*small.mrcs .particle row 3"):
        read_particles(files / "a.star")
    rows[4][0], rows[0][0] = "2@small.mrcs", "3@small.mrcs"  # now the whole group
    (files / "a.star").write_text(star(rows, optics=optics))
    stack = read_particles(files / "a.star")
    assert stack.optics.side.tolist() == [8, 6] and stack.side.tolist() == [6, 8, 6, 8, 6]
    assert stack.images.read(np.array([0, 2])).shape == (2, 6, 6)
    with pytest.raises(InputError, match="one size at a time"):
        stack.images.read(np.array([0, 1]))


def test_pixels_that_are_not_finite(files, images):
    images[3, 0, 0] = np.inf
    (files / "st ack.mrcs").write_bytes(mrcs(images))
    stack = read_particles(files / "p.star")
    assert stack.images.read(np.array([0, 1])).shape == (2, 8, 8)
    with pytest.raises(InputError, match=r"st ack.mrcs: image 4 has pixels that are not finite .particle row 4"):
        stack.select([3]).images.read(np.array([0]))


def test_a_file_that_was_put_right_is_read_anew(files):
    (files / "p.star").write_text(star([*rows_of(5, "s.mrcs"), ["too", *rows_of(1, "s.mrcs")[0]]]).replace("nan", "0"))
    with pytest.raises(InputError, match="as many values"):
        read_particles(files / "p.star")
    (files / "s.mrcs").write_bytes((files / "st ack.mrcs").read_bytes())
    (files / "p.star").write_text(star(rows_of(4, "s.mrcs")[::-1]).replace("nan", "0"))
    assert read_particles(files / "p.star").image_names[0] == "000004@s.mrcs"


def test_three_hundred_damaged_star_files(files):
    """A stack or one clear error."""
    rng = np.random.default_rng(5)
    base = star(rows_of()).encode()
    good = 0
    for case in range(300):
        data = bytearray(base)
        if case % 5 == 0:  # cut off
            del data[rng.integers(0, len(data)) :]
        elif case % 5 == 1:  # a piece lost
            at = int(rng.integers(0, len(data)))
            del data[at : at + int(rng.integers(1, 60))]
        elif case % 5 == 2:  # any bytes
            for at in rng.integers(0, len(data), rng.integers(1, 6)):
                data[at] = rng.integers(0, 256)
        elif case % 5 == 3:  # characters that mean something
            for at in rng.integers(0, len(data), rng.integers(1, 4)):
                data[at] = ord(rng.choice(list("\"'#_ \n\t;@-e.0")))
        else:  # lines exchanged
            lines = data.split(b"\n")
            one, other = rng.integers(0, len(lines), 2)
            lines[one], lines[other] = lines[other], lines[one]
            data = b"\n".join(lines)
        (files / "a.star").write_bytes(data)
        try:
            stack = read_particles(files / "a.star")
        except InputError as error:
            assert str(files) in str(error) and "\n" not in str(error)
        else:
            good += 1
            assert 0 < len(stack) <= 5 and np.isfinite(stack.rotations).all() and np.isfinite(stack.shifts).all()
            assert (stack.pixel_size > 0).all()
    assert 30 < good < 270


CS = [
    ("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/shape", "<u4", 2), ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"), ("ctf/exp_group_id", "<u4"), ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"),
    ("ctf/amp_contrast", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"),
    ("ctf/phase_shift_rad", "<f4"), ("ctf/tilt_A", "<f4", 2), ("alignments3D/split", "<u4"),
    ("alignments3D/shift", "<f4", 2), ("alignments3D/pose", "<f4", 3), ("alignments3D/psize_A", "<f4"),
    ("alignments3D/class", "<u4"),
]  # fmt: skip


def cs_array(n=5, prefix="alignments3D"):
    rng = np.random.default_rng(6)
    array = np.zeros(n, [(field[0].replace("alignments3D", prefix), *field[1:]) for field in CS])
    array["blob/path"], array["blob/idx"], array["blob/shape"] = b">J1/s.mrcs", np.arange(n)[::-1], 8
    array["blob/psize_A"], array["blob/sign"], array["ctf/exp_group_id"] = 1.5, -1, np.arange(n) % 2 + 3
    array["ctf/accel_kv"], array["ctf/cs_mm"], array["ctf/amp_contrast"] = 300, 2.7, 0.1
    array["ctf/df1_A"], array["ctf/df2_A"], array["ctf/df_angle_rad"] = 12000, 11000, np.pi / 6
    array["ctf/phase_shift_rad"][2] = np.pi / 2
    array[f"{prefix}/split"], array[f"{prefix}/class"] = np.arange(n) % 2, np.arange(n)
    array[f"{prefix}/shift"], array[f"{prefix}/psize_A"] = [2, -3], 3
    array[f"{prefix}/pose"] = rng.normal(size=(n, 3))
    return array


def save_cs(path, array):
    with open(path, "wb") as file:
        np.save(file, array)


@pytest.fixture
def project(tmp_path, images):
    for folder in ("J1", "J2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "J1" / "s.mrcs").write_bytes(mrcs(images))
    save_cs(tmp_path / "J2" / "p.cs", cs_array())
    return tmp_path


@pytest.mark.parametrize("prefix", ["alignments3D", "alignments_class_0"])
def test_cryosparc(project, images, prefix):
    array = cs_array(prefix=prefix)
    save_cs(project / "J2" / "p.cs", array)
    stack = read_particles(project / "J2" / "p.cs")
    assert len(stack) == 5 and stack.kind == "cryosparc" and stack.optics.aberrations == ()
    np.testing.assert_array_equal(stack.images.read(np.arange(5)), images[::-1])
    expected = rotations_from_vectors(array[f"{prefix}/pose"]).swapaxes(1, 2)
    np.testing.assert_allclose(stack.rotations, expected, atol=1e-12)
    assert stack.shifts.tolist() == [[6, -9]] * 5  # pixels of the alignment, 3 Å
    np.testing.assert_allclose(stack.ctf.angle, 30, rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.phase_shift, [0, 0, 90, 0, 0], rtol=1e-6)
    assert stack.sign.tolist() == [-1] * 5 and stack.subset.tolist() == [1, 2, 1, 2, 1]
    assert stack.class_number.tolist() == [1, 2, 3, 4, 5] and stack.optics_group.tolist() == [0, 1, 0, 1, 0]
    assert stack.image_names[0] == "000005@J1/s.mrcs" and stack.phase_plate


def test_cryosparc_written_as_it_was_and_as_star(project, images, caplog):
    stack = read_particles(project / "J2" / "p.cs")
    rows = [3, 0]
    write_particles(stack, project / "J2" / "q.cs", rows)
    np.testing.assert_array_equal(np.load(project / "J2" / "q.cs"), cs_array()[rows])
    equal_tables(read_particles(project / "J2" / "q.cs"), stack.select(rows))
    write_particles(stack, project / "q.star", rows)
    assert "dark on bright" in caplog.text
    found, expected = read_particles(project / "q.star"), stack.select(rows)
    np.testing.assert_allclose(found.rotations, expected.rotations, atol=1e-7)
    np.testing.assert_allclose(found.shifts, expected.shifts, rtol=1e-8)
    for field in ("defocus_u", "defocus_v", "angle", "voltage", "cs", "amplitude_contrast", "phase_shift", "scale"):
        np.testing.assert_allclose(getattr(found.ctf, field), getattr(expected.ctf, field), rtol=1e-8)
    for field in ("pixel_size", "side", "class_number", "subset", "optics_group"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    np.testing.assert_array_equal(found.images.read(np.arange(2)), images[[1, 4]])
    with pytest.raises(InputError, match="only particles of a .cs file"):
        write_particles(found, project / "r.cs")


def dropped(name):
    array = cs_array()
    return array[[field for field in array.dtype.names if field != name]].copy()


def put(name, value, row=2):
    array = cs_array()
    array[name][row] = value
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (dropped("blob/path"), "no column blob/path"),
        (dropped("blob/idx"), "no column blob/idx"),
        (dropped("alignments3D/pose"), "no poses .*passthrough"),
        (dropped("alignments3D/psize_A"), "no column alignments3D/psize_A"),
        (dropped("ctf/accel_kv"), "defocus without voltage"),
        (put("alignments3D/pose", np.nan), "alignments3D/pose of row 3"),
        (put("ctf/df1_A", np.inf), "ctf/df1_A of row 3"),
        (put("blob/psize_A", 0), "pixel size 0 of particle row 3"),
        (put("alignments3D/psize_A", 0), "alignments3D/psize_A 0 of particle row 3"),
        (put("blob/shape", [8, 9]), "image of particle row 3 is not square"),
        (put("blob/shape", 10), "image size 10, but images of 8 pixels"),
        (put("blob/idx", 77), "s.mrcs: image 78 is asked for by particle row 3"),
        (put("blob/path", b""), "image name '000003@' of particle row 3"),
        (put("blob/path", b"gone.mrcs"), "1 of 2 stacks missing"),
        (cs_array()[:0], "no rows"),
        (np.zeros(4), "no table of particles"),
    ],
)
def test_cryosparc_in_one_clear_line(project, array, message):
    save_cs(project / "J2" / "a.cs", array)
    with pytest.raises(InputError, match=message) as caught:
        read_particles(project / "J2" / "a.cs")
    assert "\n" not in str(caught.value) and str(project) in str(caught.value)


def test_cryosparc_without_poses_shifts_and_ctf(project, caplog):
    array = cs_array()
    keep = [name for name in array.dtype.names if name.startswith("blob")]
    save_cs(project / "J2" / "a.cs", array[keep].copy())
    stack = read_particles(project / "J2" / "a.cs", poses=False)
    assert stack.angles is None and stack.ctf is None and "no CTF" in caplog.text
    save_cs(project / "J2" / "a.cs", put("ctf/tilt_A", [0.1, 0]))
    assert read_particles(project / "J2" / "a.cs").optics.aberrations == ("ctf/tilt_A",)


def test_two_hundred_damaged_cs_files(project):
    rng = np.random.default_rng(7)
    base = (project / "J2" / "p.cs").read_bytes()
    good = 0
    for case in range(200):
        data = bytearray(base)
        if case % 3 == 0:
            del data[rng.integers(0, len(data)) :]
        else:
            for at in rng.integers(0, 1200 if case % 3 == 1 else len(data), rng.integers(1, 4)):
                data[at] = rng.integers(0, 256)
        (project / "J2" / "a.cs").write_bytes(data)
        try:
            stack = read_particles(project / "J2" / "a.cs")
        except InputError as error:
            assert str(project) in str(error) and "\n" not in str(error)
        else:
            good += 1
            assert np.isfinite(stack.rotations).all()
    assert 10 < good < 190


def test_pickles_and_other_files_are_refused(tmp_path):
    with open(tmp_path / "a.cs", "wb") as file:
        np.save(file, np.array([{}], object))
    with pytest.raises(InputError, match="a.cs: cannot be read as a cryoSPARC file"):
        read_particles(tmp_path / "a.cs")
    with open(tmp_path / "a.cs", "wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(InputError, match="a.cs: no table of particles"):
        read_particles(tmp_path / "a.cs")
    with pytest.raises(InputError, match="none.star: no such file"):
        read_particles(tmp_path / "none.star")
    with pytest.raises(InputError, match="unknown suffix '.mrcs'; give a .star"):
        read_particles(tmp_path / "none.mrcs")


def test_particles_made_in_memory_are_written_for_relion(tmp_path, images):
    write_stack(images, tmp_path / "m.mrcs", 2.0, 12)
    rng = np.random.default_rng(8)
    stack = ParticleStack(
        images=ArrayImages(images), shifts=rng.normal(size=(5, 2)), optics_group=np.zeros(5),
        optics=Optics(names=("made here",), pixel_size=np.array([2.0]), side=np.array([8]),
                      ctf_premultiplied=np.array([True])),
        angles=rng.uniform(0, 90, (5, 3)), image_names=np.array([f"{k + 1:06d}@m.mrcs" for k in range(5)]),
    )  # fmt: skip
    write_particles(stack, tmp_path / "m.star")
    found = read_particles(tmp_path / "m.star")
    np.testing.assert_allclose(found.angles, stack.angles, rtol=1e-8)
    np.testing.assert_allclose(found.shifts, stack.shifts, rtol=1e-8)
    np.testing.assert_array_equal(found.images.read(np.arange(5)), images)
    assert found.optics.names == ("made here",) and found.ctf is None and found.ctf_premultiplied.all()


def test_wrong_targets(files):
    stack = read_particles(files / "p.star")
    with pytest.raises(InputError, match="no particles to write"):
        write_particles(stack, files / "o.star", [])
    with pytest.raises(InputError, match="o.star: .*the stack has 5 particles"):
        write_particles(stack, files / "o.star", [9])
    with pytest.raises(InputError, match="unknown suffix '.csv'"):
        write_particles(stack, files / "o.csv")
    with pytest.raises(OutputError, match="cannot be written"):
        write_particles(stack, files / "p.star" / "o.star")
    bad = stack.tables[1].columns
    bad["rlnImageName"][0] = 'a "b c'
    with pytest.raises(InputError, match="cannot be written to a STAR file"):
        write_particles(stack, files / "o.star")
    nameless = ParticleStack(images=stack.images, shifts=stack.shifts, optics_group=stack.optics_group,
                             optics=stack.optics)  # fmt: skip
    with pytest.raises(InputError, match="no names of images"):
        write_particles(nameless, files / "o.star")
    assert not (files / "o.star").exists()


@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
def test_written_stacks(tmp_path, images, mode):
    write_stack(images + 0.25, tmp_path / "a.mrcs", 1.25, mode)
    with mrcfile.open(tmp_path / "a.mrcs") as file:  # strict
        assert file.is_image_stack() and file.header.mode == mode and file.voxel_size.x == 1.25
        expected = images if mode in (0, 1, 6) else images + 0.25
        np.testing.assert_array_equal(file.data, expected)
    if mode != 12:  # whose deviation mrcfile computes in 16 bits, which overflow
        assert mrcfile.validate(tmp_path / "a.mrcs")
    first = (tmp_path / "a.mrcs").read_bytes()
    write_stack(images + 0.25, tmp_path / "a.mrcs", 1.25, mode)
    assert (tmp_path / "a.mrcs").read_bytes() == first and os.listdir(tmp_path) == ["a.mrcs"]


def test_stacks_that_cannot_be_written(tmp_path, images):
    for wrong, mode, message in (
        (images * 2, 0, "do not fit mode 0 .-128 to 127"), (images - 50, 6, "do not fit mode 6"),
        (images * 1e6, 12, "do not fit mode 12"), (images * np.nan, 2, "do not fit mode 2"),
        (images[0], 2, "expected .n, y, x"), (images[:0], 2, "none of them 0"), (images, 4, "mode 4; choose"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"a.mrcs: .*{message}"):
            write_stack(wrong, tmp_path / "a.mrcs", 1.0, mode)
    with pytest.raises(InputError, match="must be positive"):
        write_stack(images, tmp_path / "a.mrcs", 0.0)
    with pytest.raises(InputError, match="unknown suffix"):
        write_stack(images, tmp_path / "a.png", 1.0)
    assert not os.listdir(tmp_path)


# Files beside the repository


@pytest.mark.golden
def test_dataset_of_the_published_program(shared, goldens, caplog):
    stack = read_particles(shared / "data" / "heterogeneity" / "adk" / "adk_64.star")
    golden = np.load(goldens("cryostar") / "07_dataset.npz")
    rows = golden["indices"]
    assert len(stack) == 1024 and not caplog.text
    np.testing.assert_allclose(stack.rotations[rows], golden["rotmat"], atol=1e-6)
    np.testing.assert_allclose(stack.shifts[rows], np.stack([golden["shiftX"], golden["shiftY"]], 1), rtol=1e-6)
    ctf = stack.ctf.select(rows)
    np.testing.assert_allclose(ctf.defocus_u / 1e4, golden["defocusU"][:, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(ctf.defocus_v / 1e4, golden["defocusV"][:, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(np.radians(ctf.angle), golden["angleAstigmatism"][:, 0, 0], rtol=1e-6)
    table = [stack.side[rows], stack.pixel_size[rows], ctf.defocus_u, ctf.defocus_v, ctf.angle, ctf.voltage, ctf.cs,
             ctf.amplitude_contrast, ctf.phase_shift]  # fmt: skip
    np.testing.assert_allclose(np.stack(table, 1), golden["ctf_table"], rtol=1e-9)
    # The published program masks the images by a circle; inside it they are those of the stack.
    line = np.linspace(-1, 1, 64)
    inside = line[:, None] ** 2 + line**2 < 1
    np.testing.assert_allclose(stack.images.read(rows) * inside, golden["proj"][:, 0], rtol=1e-6)


@pytest.mark.golden
def test_real_particles_of_the_published_program(shared, goldens):
    stack = read_particles(shared / "data" / "heterogeneity" / "real_relion31" / "relion31.star")
    golden = np.load(goldens("cryostar") / "14_real_relion31.npz")
    np.testing.assert_allclose(stack.rotations, golden["rotmat"], atol=1e-6)
    np.testing.assert_allclose(stack.shifts, np.stack([golden["shiftX"], golden["shiftY"]], 1), rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.defocus_u / 1e4, golden["defocusU"], rtol=1e-6)
    np.testing.assert_allclose(stack.ctf.defocus_v / 1e4, golden["defocusV"], rtol=1e-6)
    np.testing.assert_allclose(np.radians(stack.ctf.angle), golden["angle_rad"], rtol=1e-6)
    assert (stack.pixel_size == golden["apix"]).all() and stack.side.tolist() == [256] * 5
    images = stack.images.read(np.arange(5))
    assert images.shape == (5, 256, 256) and abs(images.std() - 1) < 0.1


@pytest.mark.parametrize(
    ("name", "n", "pixel", "side", "options"),
    [
        ("adk/adk_64.star", 1024, [2.0], 64, {}),
        ("real_relion31/relion31.star", 5, [2.806], 256, {}),
        ("relion_projections/rln_proj_64_centered.star", 4, [1.0], 64, {}),
        ("relion_projections/rln_proj_64_shifted.star", 4, [1.0], 64, {}),
        ("relion_projections/rln_proj_65_centered.star", 4, [1.0], 65, {}),
        ("star_variants/FinalRefinement-OriginalParticles-PfCRT.star", 5, [1.035], 0, {"check_images": False}),
        ("star_variants/relion30_no_pose.star", 1000, [1.0], 0,
         {"check_images": False, "poses": False, "pixel_size": 1}),
        ("star_variants/relion31.6opticsgroups.star", 139, [1.25, 1.24, 1.25, 1.25, 1.24, 1.25], 196,
         {"check_images": False}),
        ("star_variants/relion5.star", 17, [0.89], 448, {"check_images": False}),
        ("star_variants/cryosparc_particles.cs", 2019, [2.95], 180, {"check_images": False}),
    ],
)  # fmt: skip
def test_files_of_every_program(shared, tmp_path, name, n, pixel, side, options):
    path = shared / "data" / "heterogeneity" / name
    stack = read_particles(path, **options)
    assert len(stack) == n and (stack.side == side).all()
    np.testing.assert_allclose(stack.optics.pixel_size, pixel, rtol=1e-6)
    assert (stack.angles is None) == ("no_pose" in name)
    rows = np.random.default_rng(9).permutation(n)[: max(n // 3, 2)]
    target = tmp_path / f"cluster{path.suffix}"
    write_particles(stack, target, rows)
    found = read_particles(target, path.parent, **options)
    equal_tables(found, stack.select(rows))
    for field in ("shifts", "optics_group", "class_number", "subset", "pixel_size", "side"):
        np.testing.assert_array_equal(getattr(found, field), getattr(stack, field)[rows])
    if options == {}:
        np.testing.assert_array_equal(found.images.read(np.arange(2)), stack.images.read(rows[:2]))


def test_what_the_variants_hold(shared):
    folder = shared / "data" / "heterogeneity" / "star_variants"
    old = read_particles(folder / "FinalRefinement-OriginalParticles-PfCRT.star", check_images=False)
    np.testing.assert_allclose(old.shifts[0], [-0.14063 * 1.035, -0.04688 * 1.035], rtol=1e-9)
    six = read_particles(folder / "relion31.6opticsgroups.star", check_images=False)
    assert six.optics.names[0] == "opticsGroup5" and len(six.optics.aberrations) == 8
    group4 = six.optics_group == 3
    assert (six.ctf.cs[group4] == 2.6).all() and (six.ctf.cs[~group4] == 2.7).all()
    np.testing.assert_allclose(six.optics.beam_tilt[0], [0.657334, 0.884982])
    none = read_particles(folder / "relion30_no_pose.star", check_images=False, poses=False, pixel_size=1)
    assert none.phase_plate and (none.ctf.phase_shift == 90).all()
    with pytest.raises(InputError, match="no poses"):
        read_particles(folder / "relion30_no_pose.star", check_images=False, pixel_size=1)
    with pytest.raises(InputError, match="stacks missing|cannot be opened"):
        read_particles(folder / "relion5.star")
    array = np.load(folder / "cryosparc_particles.cs")
    sparc = read_particles(folder / "cryosparc_particles.cs", check_images=False)
    np.testing.assert_allclose(sparc.shifts, array["alignments3D/shift"] * 2.95, rtol=1e-6)
    expected = rotations_from_vectors(array["alignments3D/pose"]).swapaxes(1, 2)
    np.testing.assert_allclose(sparc.rotations, expected, atol=1e-12)
    assert (sparc.sign == -1).all() and set(sparc.subset) == {1, 2}
