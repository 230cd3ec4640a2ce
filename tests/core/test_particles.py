"""Poses, selections of particles, and the source that reads several stacks."""

import pickle
import threading

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.particles import (
    ArrayImages,
    Ctf,
    ImageSource,
    Optics,
    ParticleStack,
    SelectedImages,
    StackedImages,
    Table,
    euler_from_rotations,
    rotations_from_euler,
    rotations_from_vectors,
    uniform,
)


class Arrays(StackedImages):
    """Stacks from memory; counts how often each is opened."""

    def __init__(self, stacks, file, index):
        super().__init__([f"s{k}.mrcs" for k in range(len(stacks))], file, index, "p.star")
        self.stacks, self.opened = stacks, []

    def open(self, which):
        self.opened.append(which)
        return self.stacks[which]


@pytest.fixture
def angles():
    rng = np.random.default_rng(0)
    angles = rng.uniform([-180, 0, -180], [180, 180, 180], (500, 3))
    angles[:50, 1], angles[50:100, 1], angles[100:150, 1], angles[150:200, 1] = 0, 180, 1e-9, 180 - 1e-9
    return angles


@pytest.fixture
def stack():
    n, rng = 6, np.random.default_rng(1)
    values = {name: rng.uniform(1, 2, n) for name in ("defocus_u", "defocus_v", "angle", "cs", "b_factor", "scale")}
    return ParticleStack(
        images=ArrayImages(rng.normal(size=(n, 4, 4)).astype(np.float16)),
        shifts=rng.normal(size=(n, 2)),
        optics_group=np.array([0, 1, 0, 1, 0, 1]),
        optics=Optics(names=("a", "b"), pixel_size=np.array([1.5, 2]), side=np.array([4, 4]),
                      ctf_premultiplied=np.array([False, True])),
        angles=rng.normal(size=(n, 3)),
        ctf=Ctf(**values, voltage=np.full(n, 300.0), amplitude_contrast=np.full(n, 0.1), phase_shift=np.zeros(n)),
        image_names=np.array([f"{k + 1}@a.mrcs" for k in range(n)]),
        tables=(Table("optics", {"rlnOpticsGroup": np.array(["1", "2"])}),
                Table("particles", {"rlnClassNumber": np.array(list("123456"))})),
        particles=1,
        name="p",
    )  # fmt: skip


def test_rotations_are_the_transpose_of_relions_zyz(angles):
    def about(axis, degrees):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]] if axis == "z" else [[c, 0, s], [0, 1, 0], [-s, 0, c]])

    expected = [(about("z", rot) @ about("y", tilt) @ about("z", psi)).T for rot, tilt, psi in angles]
    found = rotations_from_euler(angles)
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(rotations_from_euler(angles.reshape(10, 50, 3)), found.reshape(10, 50, 3, 3))


def test_angles_give_the_rotation_back_also_where_two_of_them_are_not_defined(angles):
    rotations = rotations_from_euler(angles)
    back = euler_from_rotations(rotations)
    np.testing.assert_allclose(rotations_from_euler(back), rotations, atol=2e-15)
    np.testing.assert_allclose(back[200:], angles[200:], atol=1e-9)
    assert euler_from_rotations(np.eye(3)).tolist() == [0, 0, 0]


def test_rotation_vectors_turn_by_their_length_about_their_direction():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(100, 3)) * rng.uniform(0, 4, (100, 1))
    vectors[:3] = [0, 0, 0], [1e-12, 0, 0], [0, 0, np.pi]
    found = rotations_from_vectors(vectors)
    np.testing.assert_allclose(found @ found.swapaxes(-1, -2), np.broadcast_to(np.eye(3), found.shape), atol=1e-14)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", found, vectors), vectors, atol=1e-14)
    np.testing.assert_allclose(np.trace(found, axis1=1, axis2=2), 1 + 2 * np.cos(np.linalg.norm(vectors, axis=1)))
    quarter = rotations_from_vectors(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)


@pytest.mark.golden
def test_poses_of_the_published_program(goldens):
    golden = np.load(goldens("cryostar") / "03_pose.npz")
    np.testing.assert_allclose(rotations_from_euler(golden["rot_tilt_psi_deg"]), golden["rotmat"], atol=1e-6)
    found = rotations_from_vectors(golden["cryosparc_rotvec"]).swapaxes(-1, -2)
    np.testing.assert_allclose(found, golden["cryosparc_rotmat"], atol=1e-6)


@pytest.mark.parametrize("rows", [[4, 0, 0], np.array([True, False, False, True, False, True]), slice(1, 5, 2), []])
def test_selected_particles_keep_everything_that_is_theirs(stack, rows):
    plain = np.arange(6)[rows if len(np.shape(rows)) == 0 or np.size(rows) else slice(0)]
    found = stack.select(rows)
    assert len(found) == len(plain)
    for name in ("shifts", "optics_group", "angles", "class_number", "subset", "sign", "image_names", "pixel_size"):
        np.testing.assert_array_equal(getattr(found, name), getattr(stack, name)[plain])
    np.testing.assert_array_equal(found.ctf.defocus_u, stack.ctf.defocus_u[plain])
    np.testing.assert_array_equal(found.tables[1].columns["rlnClassNumber"], np.array(list("123456"))[plain])
    assert found.tables[0] is stack.tables[0] and found.optics is stack.optics
    np.testing.assert_array_equal(found.images.read(np.arange(len(plain))), stack.images.read(plain))
    assert found.images.read(np.arange(len(plain))).dtype == np.float32


def test_selections_of_selections_are_one_step_from_the_files(stack):
    twice = stack.select([5, 3, 1]).select([2, 0])
    assert twice.image_names.tolist() == ["2@a.mrcs", "6@a.mrcs"]
    assert twice.images.source is stack.images and twice.images.rows.tolist() == [1, 5]


def test_wrong_rows_and_wrong_shapes(stack):
    for rows in ([6], [True, False], [-7]):
        with pytest.raises(IndexError):
            stack.select(rows)
    fields = dict(images=stack.images, shifts=stack.shifts, optics_group=stack.optics_group, optics=stack.optics)
    for name, value in (
        ("shifts", np.zeros((5, 2))), ("optics_group", np.full(6, 2)), ("angles", np.zeros((6, 2))),
        ("ctf", stack.ctf.select(np.arange(3))), ("image_names", np.array(["a"])), ("sign", np.ones(3)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"shape|outside|for 6 images"):
            ParticleStack(**(fields | {name: value}))
    with pytest.raises(ValueError, match="1 rows|for 6 images"):
        ParticleStack(**fields, tables=(Table("particles", {"a": np.zeros(1)}),), particles=0)
    with pytest.raises(ValueError, match="positive"):
        Optics(names=("a",), pixel_size=np.zeros(1), side=np.ones(1))
    with pytest.raises(ValueError, match="different lengths"):
        Table("a", {"x": np.zeros(2), "y": np.zeros(3)})
    with pytest.raises(ValueError, match="expected .n, side, side"):
        ArrayImages(np.zeros((2, 3, 4)))


def test_what_is_missing_is_told(stack):
    bare = ParticleStack(images=stack.images, shifts=stack.shifts, optics_group=stack.optics_group, optics=stack.optics)
    with pytest.raises(InputError, match="no poses"):
        _ = bare.rotations
    assert stack.rotations.shape == (6, 3, 3)
    assert stack.ctf_premultiplied.tolist() == [False, True] * 3 and bare.phase_plate is False
    assert bare.sign.tolist() == [1] * 6 and bare.subset.tolist() == [0] * 6
    assert repr(stack) == "ParticleStack('p', 6 particles, 2 optics groups, 1.5, 2 Å)"


@pytest.mark.parametrize(("name", "value", "message"), [
    ("voltage", 300_000, r"p.star: voltage 300000 of particle row 3; expected 10 to 3000 kV"),
    ("amplitude_contrast", 10, "amplitude contrast 10 of particle row 3"),
])  # fmt: skip
def test_wrong_units_of_the_ctf(stack, name, value, message):
    getattr(stack.ctf, name)[2] = value
    with pytest.raises(InputError, match=message):
        stack.ctf.check("p.star")


def test_columns_are_found_with_and_without_prefix():
    table = Table("t", {"AngleRot": np.array(["1.5", "-2e1"]), "rlnVoltage": np.array(["300", "x"])})
    assert table.numbers("rlnAngleRot", "f").tolist() == [1.5, -20]
    assert table.numbers("rlnAngleTilt", "f") is None
    with pytest.raises(InputError, match="f: rlnVoltage of row 2 of table 't' is 'x' and no finite number .1 such"):
        table.numbers("rlnVoltage", "f")


def test_values_shared_by_groups():
    found = uniform(np.array([1.0, 2, 1, 3]), np.array([0, 1, 0, 1]), 3, -1)
    assert found.tolist() == [1, -1, -1]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    stacks = [rng.integers(0, 255, (5, 4, 4)).astype(dtype) for dtype in (">f4", "i1", "f2")]
    stacks.append(rng.normal(size=(2, 6, 6)))
    file = np.array([0, 1, 2, 0, 1, 2, 3, 0])
    return Arrays(stacks, file, np.array([4, 0, 1, 0, 3, 2, 1, 2]))


def test_images_come_in_the_order_asked_for_and_each_stack_is_opened_once(arrays):
    rows = np.array([5, 0, 2, 1, 0, 7, 4])
    found = arrays.read(rows)
    expected = [arrays.stacks[arrays.file[row]][arrays.index[row]] for row in rows]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    arrays.read(rows[::-1])
    assert sorted(arrays.opened) == [0, 1, 2]
    assert arrays.read([]).shape == (0, 4, 4)
    assert isinstance(arrays, ImageSource) and isinstance(SelectedImages(arrays, rows), ImageSource)


def test_few_stacks_stay_open(monkeypatch):
    monkeypatch.setattr("jaxprot.core.particles._OPEN", 2)
    arrays = Arrays([np.full((1, 2, 2), k) for k in range(4)], np.arange(4), np.zeros(4))
    for _ in range(2):
        assert arrays.read(np.arange(4))[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert arrays.opened == [0, 1, 2, 3] * 2
    arrays.read([2, 3])
    assert len(arrays.opened) == 8


def test_sources_go_to_other_processes_and_threads(arrays):
    arrays.read([0])
    copy = pickle.loads(pickle.dumps(arrays))
    np.testing.assert_array_equal(copy.read([3]), arrays.read([3]))
    rows, found = np.array([0, 1, 2, 3, 4, 5]), [None] * 8
    threads = [
        threading.Thread(target=lambda place=place: found.__setitem__(place, copy.read(rows))) for place in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for images in found:
        np.testing.assert_array_equal(images, arrays.read(rows))


def test_images_that_cannot_be_given(arrays):
    with pytest.raises(InputError, match=r"s3.mrcs: images of 6 pixels, others .* have 4"):
        arrays.read([0, 6])
    arrays.index[4] = 9
    with pytest.raises(InputError, match="s1.mrcs: image 10 is asked for by particle row 5 of p.star, the stack has 5"):
        arrays.read([4])
    arrays.stacks[0][2, 1, 1] = np.nan
    with pytest.raises(InputError, match=r"s0.mrcs: image 3 has pixels that are not finite .particle row 8 of p.star"):
        arrays.read([0, 7])
