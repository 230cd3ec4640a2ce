"""`ParticleStack`: particle images with their poses, CTF and optics; and the rotations of poses.

Angles, shifts and CTF parameters follow RELION's conventions, whatever the file was (specified for cryoSTAR,
doi 10.1038/s41592-024-02486-1).
"""

import collections
import dataclasses
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from jaxprot.core.errors import InputError

_OPEN = 64  # stacks that stay open


@runtime_checkable
class ImageSource(Protocol):
    """Where images come from; nothing is read before `read` is called."""

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images of some rows, (n,) int, as (n, side, side) float32 with axes (y, x); rows may repeat."""
        ...


class ArrayImages:
    """Images that are in memory (or in an array mapped from a file).

    Args:
      data: (n, side, side) numbers of any type.

    Raises:
      ValueError: another shape.
    """

    def __init__(self, data: np.ndarray):
        if data.ndim != 3 or data.shape[1] != data.shape[2]:
            raise ValueError(f"images of shape {data.shape}, expected (n, side, side)")
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(n, side, side) float32 images of rows (n,)."""
        return np.asarray(self.data[np.asarray(rows)], np.float32)


class StackedImages:
    """Images that lie in several stacks, each opened when its first image is asked for; an `ImageSource`.

    Subclasses give `open`. At most 64 stacks stay open. Reading is safe in threads, and the object can be pickled for
    other processes.

    Args:
      names: names of the k stacks, for messages.
      file: (n,) index into `names` of each particle.
      index: (n,) place of each particle in its stack, from 0.
      source: name of the file that lists the particles, for messages.
    """

    def __init__(self, names: Sequence[str], file: np.ndarray, index: np.ndarray, source: str):
        self.names, self.source = tuple(names), source
        self.file, self.index = np.asarray(file, np.int64), np.asarray(index, np.int64)
        self._opened: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.file)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _opened=collections.OrderedDict(), _lock=threading.Lock())

    def open(self, which: int) -> np.ndarray:
        """The images of stack `which`, (k, side, side) numbers of any type, not read yet if possible."""
        raise NotImplementedError

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images of some particles, each stack read from front to back.

        Args:
          rows: (m,) int.

        Returns:
          (m, side, side) float32, axes (y, x).

        Raises:
          InputError: a stack that is missing or damaged, sides that differ, pixels that are not finite.
        """
        rows = np.asarray(rows, np.int64).reshape(-1)
        if len(rows) == 0:
            return np.empty((0, *self._stack(0).shape[1:]) if self.names else (0, 0, 0), np.float32)
        order = np.lexsort((self.index[rows], self.file[rows]))
        result: np.ndarray | None = None
        for places in np.split(order, np.flatnonzero(np.diff(self.file[rows[order]])) + 1):
            which = int(self.file[rows[places[0]]])
            stack, index = self._stack(which), self.index[rows[places]]
            self.check_inside(which, rows[places], len(stack))
            if result is None:
                result = np.empty((len(rows), *stack.shape[1:]), np.float32)
            elif stack.shape[1:] != result.shape[1:]:
                raise InputError(
                    f"{self.names[which]}: images of {stack.shape[1]} pixels, others that are read with them have "
                    f"{result.shape[1]}; read particles of one size at a time"
                )
            images = stack[index].astype(np.float32)
            fine = np.isfinite(images).all((1, 2))
            if not fine.all():
                at = int(np.argmin(fine))
                raise InputError(
                    f"{self.names[which]}: image {index[at] + 1} has pixels that are not finite "
                    f"(particle row {rows[places[at]] + 1} of {self.source}); leave it out, or extract it again"
                )
            result[places] = images
        assert result is not None
        return result

    def check_inside(self, which: int, rows: np.ndarray, count: int) -> None:
        """Raises `InputError` if one of the particles `rows` (m,) lies beyond the `count` images of stack `which`."""
        beyond = rows[self.index[rows] >= count]
        if len(beyond):
            raise InputError(
                f"{self.names[which]}: image {self.index[beyond[0]] + 1} is asked for by particle row {beyond[0] + 1} "
                f"of {self.source}, the stack has {count}; is it the stack of these particles?"
            )

    def _stack(self, which: int) -> np.ndarray:
        with self._lock:
            if which not in self._opened:
                self._opened[which] = self.open(which)
            self._opened.move_to_end(which)
            if len(self._opened) > _OPEN:  # a map that another thread still reads from lives until it is done
                self._opened.popitem(last=False)
            return self._opened[which]


class SelectedImages:
    """Some rows of another source, without reading anything.

    Args:
      source: all images.
      rows: (n,) int, which of them, in the order wanted.
    """

    def __init__(self, source: ImageSource, rows: np.ndarray):
        if isinstance(source, SelectedImages):  # one step to the files, however often rows were selected
            source, rows = source.source, source.rows[rows]
        self.source, self.rows = source, np.asarray(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(n, side, side) float32 images of rows (n,) of this selection."""
        return self.source.read(self.rows[np.asarray(rows)])


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table of a file, kept as it was so that it can be written again.

    Attributes:
      name: name of the table (`particles`, `optics`, `images`, `general`, ...).
      columns: column name as in the file (a leading underscore left out) -> (n, ...) values. Those of STAR files are
        texts (numpy's `StringDType`), those of cryoSPARC numbers and bytes of the file's types.
      loop: rows; False for a list of keys and values, which has one row here.
    """

    name: str
    columns: dict[str, np.ndarray]
    loop: bool = True

    def __post_init__(self):
        lengths = {len(values) for values in self.columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"table {self.name!r}: columns of different lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {len(self)} rows, {len(self.columns)} columns)"

    def find(self, *names: str) -> np.ndarray | None:
        """The first of these columns that is there, with or without the prefix `rln`; None if none is."""
        for name in names:
            for key in (name, name.removeprefix("rln")):
                if key in self.columns:
                    return self.columns[key]
        return None

    def numbers(self, name: str, source: object) -> np.ndarray | None:
        """A column as (n, ...) float64, None if it is not there.

        Args:
          name: the column, as in `find`.
          source: name of the file, for the message.

        Raises:
          InputError: something in it is no finite number.
        """
        column = self.find(name)
        if column is None:
            return None
        try:
            values = column.astype(np.float64)
        except ValueError:
            values = np.array([_number(text) for text in column.tolist()])
        bad = np.flatnonzero(~np.isfinite(values).all(tuple(range(1, values.ndim))))
        if len(bad):
            raise InputError(
                f"{source}: {name} of row {bad[0] + 1} of table {self.name!r} is {str(column[bad[0]])!r} and no finite "
                f"number ({len(bad)} such rows); remove or correct them"
            )
        return values

    def select(self, rows: np.ndarray) -> "Table":
        """Rows (n,) int in the order given."""
        return dataclasses.replace(self, columns={key: values[rows] for key, values in self.columns.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Ctf:
    """Contrast transfer function of every particle; each field is (n,) float64.

    Attributes:
      defocus_u: larger defocus in Å, underfocus positive.
      defocus_v: smaller defocus in Å.
      angle: angle from the x axis to the axis of `defocus_u` in degrees.
      voltage: acceleration voltage in kV.
      cs: spherical aberration in mm.
      amplitude_contrast: fraction of amplitude contrast, 0 to 1.
      phase_shift: shift by a phase plate in degrees.
      b_factor: B factor of the envelope in Å².
      scale: scale of the CTF, 1 if the file does not say.
    """

    defocus_u: np.ndarray
    defocus_v: np.ndarray
    angle: np.ndarray
    voltage: np.ndarray
    cs: np.ndarray
    amplitude_contrast: np.ndarray
    phase_shift: np.ndarray
    b_factor: np.ndarray
    scale: np.ndarray

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, np.asarray(getattr(self, field.name), np.float64))
        shapes = {getattr(self, field.name).shape for field in dataclasses.fields(self)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"CTF parameters of shapes {sorted(shapes)}, expected (n,) each")

    def __len__(self) -> int:
        return len(self.defocus_u)

    def check(self, source: object) -> None:
        """Raises `InputError`, which names the file and the particle, for values in wrong units."""
        rules = (
            ("voltage", self.voltage, 10, 3000, "kV"),
            ("amplitude contrast", self.amplitude_contrast, 0, 1, "(a fraction)"),
        )
        for name, values, low, high, unit in rules:
            wrong = np.flatnonzero((values < low) | (values > high))
            if len(wrong):
                raise InputError(
                    f"{source}: {name} {values[wrong[0]]:g} of particle row {wrong[0] + 1}; expected {low} to {high} "
                    f"{unit}, correct the unit"
                )

    def select(self, rows: np.ndarray) -> "Ctf":
        """Particles (n,) int in the order given."""
        return Ctf(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True, eq=False)
class Optics:
    """The optics groups: what particles of one data collection share.

    Attributes:
      names: name of each of the g groups.
      pixel_size: (g,) float64 Å per pixel of the images.
      side: (g,) int64 pixels along an image's edge; 0 where no file says it (yet).
      ctf_premultiplied: (g,) bool, the images have been multiplied by their CTF.
      beam_tilt: (g, 2) float64 beam tilt along x, y in mrad; 0 if the file has none.
      magnification: (g, 2, 2) float64 matrix of anisotropic magnification; the identity if the file has none.
      aberrations: names of the file's columns that describe more than `Ctf` holds (beam tilt, Zernike coefficients,
        anisotropic magnification, ...) and are not trivial; the values are in the original tables.
    """

    names: tuple[str, ...]
    pixel_size: np.ndarray
    side: np.ndarray
    ctf_premultiplied: np.ndarray | None = None
    beam_tilt: np.ndarray | None = None
    magnification: np.ndarray | None = None
    aberrations: tuple[str, ...] = ()

    def __post_init__(self):
        n = len(self.names)
        kept = (
            ("pixel_size", (n,), np.float64, None),
            ("side", (n,), np.int64, None),
            ("ctf_premultiplied", (n,), np.bool_, np.zeros(n, bool)),
            ("beam_tilt", (n, 2), np.float64, np.zeros((n, 2))),
            ("magnification", (n, 2, 2), np.float64, np.tile(np.eye(2), (n, 1, 1))),
        )
        for field, shape, dtype, default in kept:
            given = getattr(self, field)
            values = np.asarray(default if given is None else given, dtype)
            if values.shape != shape:
                raise ValueError(f"optics: {field} of shape {values.shape}, expected {shape}")
            object.__setattr__(self, field, values)
        if not (np.isfinite(self.pixel_size) & (self.pixel_size > 0)).all():
            raise ValueError(f"optics: pixel sizes {self.pixel_size} Å, expected positive numbers")
        if (self.side < 0).any():
            raise ValueError(f"optics: sides {self.side}, expected no negative number")

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ParticleStack:
    """Particle images, not read yet, and what is known of each.

    `stack.images.read(rows)` gives the images. Particles are expected bright on dark; see `sign`.

    Attributes:
      images: source of the n images.
      shifts: (n, 2) float64 x, y in Å with the sign of RELION's rlnOriginXAngst: the content of the image has to be
        moved by +shift (columns, rows) to be centred.
      optics_group: (n,) int64 row of `optics` for each particle.
      optics: the optics groups.
      angles: (n, 3) float64 Euler angles rot, tilt, psi in degrees (RELION, ZYZ); None if the file has none.
      ctf: parameters of the CTF; None if the file has none.
      class_number: (n,) int64 class from 1 on; 0 if the file has none.
      subset: (n,) int64 half set, 1 or 2; 0 if the file has none.
      sign: (n,) float64 factor that makes particles bright on dark according to the file (cryoSPARC's blob/sign: -1 for
        images as the microscope made them); 1 where the file is silent. `read` does not apply it.
      image_names: (n,) texts `000001@stack.mrcs`, image number from 1 and path as in the file.
      tables: all tables of the file in its order, verbatim; rows of `tables[particles]` are the particles.
      particles: index of the particle table in `tables`; None for a stack that comes from no file.
      kind: format of the tables.
      name: stem of the file, or what the caller called it.
    """

    images: ImageSource
    shifts: np.ndarray
    optics_group: np.ndarray
    optics: Optics
    angles: np.ndarray | None = None
    ctf: Ctf | None = None
    class_number: np.ndarray | None = None
    subset: np.ndarray | None = None
    sign: np.ndarray | None = None
    image_names: np.ndarray | None = None
    tables: tuple[Table, ...] = ()
    particles: int | None = None
    kind: Literal["relion", "cryosparc"] = "relion"
    name: str = "particles"

    def __post_init__(self):
        n = len(self.images)
        kept = (
            ("shifts", (n, 2), np.float64, None),
            ("optics_group", (n,), np.int64, None),
            ("class_number", (n,), np.int64, np.zeros(n)),
            ("subset", (n,), np.int64, np.zeros(n)),
            ("sign", (n,), np.float64, np.ones(n)),
        )
        for field, shape, dtype, default in kept:
            given = getattr(self, field)
            values = np.asarray(default if given is None else given, dtype)
            if values.shape != shape:
                raise ValueError(f"{self.name}: {field} of shape {values.shape}, expected {shape}")
            object.__setattr__(self, field, values)
        if self.angles is not None:
            object.__setattr__(self, "angles", np.asarray(self.angles, np.float64))
            if self.angles.shape != (n, 3):
                raise ValueError(f"{self.name}: angles of shape {self.angles.shape}, expected {(n, 3)}")
        if n and not (0 <= self.optics_group.min() and self.optics_group.max() < len(self.optics)):
            raise ValueError(f"{self.name}: optics groups outside the {len(self.optics)} that are described")
        for what, values in (("CTFs", self.ctf), ("image names", self.image_names)):
            if values is not None and len(values) != n:
                raise ValueError(f"{self.name}: {len(values)} {what} for {n} images")
        if self.particles is not None and len(self.tables[self.particles]) != n:
            raise ValueError(f"{self.name}: {len(self.tables[self.particles])} rows in the table for {n} images")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        pixels = ", ".join(f"{value:g}" for value in np.unique(self.optics.pixel_size))
        return f"ParticleStack({self.name!r}, {len(self)} particles, {len(self.optics)} optics groups, {pixels} Å)"

    @property
    def pixel_size(self) -> np.ndarray:
        """(n,) float64 Å per pixel, of each particle."""
        return self.optics.pixel_size[self.optics_group]

    @property
    def side(self) -> np.ndarray:
        """(n,) int64 pixels along the edge, of each particle; 0 where no file says it (yet)."""
        return self.optics.side[self.optics_group]

    @property
    def ctf_premultiplied(self) -> np.ndarray:
        """(n,) bool, of each particle."""
        return self.optics.ctf_premultiplied[self.optics_group]  # type: ignore[index]

    @property
    def phase_plate(self) -> bool:
        """Whether any particle has a phase shift."""
        return self.ctf is not None and bool((self.ctf.phase_shift != 0).any())

    @property
    def rotations(self) -> np.ndarray:
        """(n, 3, 3) float64 rotation matrices of the poses, see `rotations_from_euler`.

        Raises:
          InputError: the file has no poses.
        """
        if self.angles is None:
            raise InputError(f"{self.name}: no poses (rot, tilt, psi); refine the particles first")
        return rotations_from_euler(self.angles)

    def select(self, rows: np.ndarray | Sequence[int] | slice) -> "ParticleStack":
        """Some of the particles; the optics groups and all other tables stay as they are.

        Args:
          rows: (m,) int in the order wanted, (n,) bool, or a slice.

        Returns:
          A stack of the same files; no image is read.

        Raises:
          IndexError: a row that is not there, or a mask of another length.
        """
        rows = np.arange(len(self))[rows if isinstance(rows, slice) else _index(rows)]
        pick = lambda values: None if values is None else values[rows]  # noqa: E731
        tables = tuple(
            table.select(rows) if place == self.particles else table for place, table in enumerate(self.tables)
        )
        return dataclasses.replace(
            self,
            images=SelectedImages(self.images, rows),
            shifts=self.shifts[rows],
            optics_group=self.optics_group[rows],
            angles=pick(self.angles),
            ctf=None if self.ctf is None else self.ctf.select(rows),
            class_number=pick(self.class_number),
            subset=pick(self.subset),
            sign=pick(self.sign),
            image_names=pick(self.image_names),
            tables=tables,
        )


def rotations_from_euler(angles: np.ndarray) -> np.ndarray:
    """Rotation matrices of RELION's Euler angles.

    R is the transpose of the intrinsic rotation Z(rot) Y'(tilt) Z''(psi). Coordinates x of the model are seen at
    x' = R x: the image is the sum over z' with columns along x' and rows along y'.

    Args:
      angles: (..., 3) rot, tilt, psi in degrees.

    Returns:
      (..., 3, 3) float64.
    """
    a, b, g = np.moveaxis(-np.radians(np.asarray(angles, np.float64)), -1, 0)
    ca, sa, cb, sb, cg, sg = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(g), np.sin(g)
    rows = (
        (cg * cb * ca - sg * sa, -cg * cb * sa - sg * ca, cg * sb),
        (sg * cb * ca + cg * sa, -sg * cb * sa + cg * ca, sg * sb),
        (-sb * ca, sb * sa, cb),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def euler_from_rotations(rotations: np.ndarray) -> np.ndarray:
    """RELION's Euler angles of rotation matrices; the inverse of `rotations_from_euler`.

    Args:
      rotations: (..., 3, 3) proper rotations.

    Returns:
      (..., 3) float64 rot, tilt, psi in degrees; rot and psi in [-180, 180], tilt in [0, 180]. At tilt 0 and 180, where
      only a combination of the two is defined, they still give the matrix back.
    """
    r = np.asarray(rotations, np.float64)
    rot = np.arctan2(r[..., 2, 1], r[..., 2, 0])
    tilt = np.arctan2(np.hypot(r[..., 2, 0], r[..., 2, 1]), r[..., 2, 2])
    # The direction (-sin rot, cos rot, 0) is not changed by the tilt, so psi is well defined for every tilt.
    ahead = -np.sin(rot)[..., None] * r[..., :2, 0] + np.cos(rot)[..., None] * r[..., :2, 1]
    return np.degrees(np.stack([rot, tilt, np.arctan2(ahead[..., 0], ahead[..., 1])], -1))


def rotations_from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rotation matrices of rotation vectors, by Rodrigues' formula.

    The rotation of a pose (`rotations_from_euler`) of cryoSPARC is the transpose of this.

    Args:
      vectors: (..., 3) axis times angle in radians.

    Returns:
      (..., 3, 3) float64 matrices exp([v]x).
    """
    v = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    zero = np.zeros_like(v[..., 0])
    x, y, z = np.moveaxis(v, -1, 0)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)
    # sin(t) / t and (1 - cos(t)) / t² in forms that are exact at 0
    first, half = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi))
    return np.eye(3) + first * cross + 0.5 * half**2 * (cross @ cross)


def uniform(values: np.ndarray, group: np.ndarray, n_groups: int, default: float) -> np.ndarray:
    """The value that all members of a group share.

    Args:
      values: (n,) numbers.
      group: (n,) int group of each.
      n_groups: how many groups there are.
      default: for groups without members, or with several values.

    Returns:
      (n_groups,) float64.
    """
    low, high = np.full(n_groups, np.inf), np.full(n_groups, -np.inf)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return np.where(low == high, low, default)


def _index(rows: np.ndarray | Iterable[int]) -> np.ndarray:
    index = np.asarray(rows)
    return index.astype(np.int64) if index.size == 0 and index.dtype != bool else index


def _number(text: object) -> float:
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan
