"""Particle stacks: RELION's STAR files and cryoSPARC's `.cs` files with the stacks they name, and back.

STAR files are parsed and written by starfile, with every value as text, so that what is written again is what was
read. Image stacks have MRC's layout (mrcfile's types); each is mapped into memory when its first image is asked for.
"""

import linecache
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxprot._version import __version__
from jaxprot.core.errors import InputError
from jaxprot.core.particles import (
    Ctf,
    Optics,
    ParticleStack,
    StackedImages,
    Table,
    euler_from_rotations,
    rotations_from_vectors,
    uniform,
)
from jaxprot.io.maps import _HEADER, _MODES, _OTHER_MODES, _axes, _header
from jaxprot.io.outputs import atomic_path, write_text

log = logging.getLogger(__name__)

Mode = Literal[0, 1, 2, 6, 12]

_TEXT = np.dtypes.StringDType()
_CONTRAST = 0.1  # assumed where a file has none
# What starfile would change is carried through its parser as these (of a private area of Unicode).
_APOSTROPHE, _HASH, _WORD = "\ue0f1", "\ue0f2", "\ue0f3"
_ABERRATIONS = {
    "rlnBeamTiltX": 0.0, "rlnBeamTiltY": 0.0, "rlnOddZernike": 0.0, "rlnEvenZernike": 0.0,
    "rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0,
}  # fmt: skip
# cryoSPARC's column -> RELION's, times a factor, plus an offset (its classes and half sets count from 0)
_CRYOSPARC = (
    ("blob/psize_A", "rlnImagePixelSize", 1, 0),
    ("ctf/exp_group_id", "rlnOpticsGroup", 1, 0),
    ("ctf/df1_A", "rlnDefocusU", 1, 0),
    ("ctf/df2_A", "rlnDefocusV", 1, 0),
    ("ctf/df_angle_rad", "rlnDefocusAngle", 180 / np.pi, 0),
    ("ctf/accel_kv", "rlnVoltage", 1, 0),
    ("ctf/cs_mm", "rlnSphericalAberration", 1, 0),
    ("ctf/amp_contrast", "rlnAmplitudeContrast", 1, 0),
    ("ctf/phase_shift_rad", "rlnPhaseShift", 180 / np.pi, 0),
    ("ctf/bfactor", "rlnCtfBfactor", 1, 0),
    ("ctf/scale", "rlnCtfScalefactor", 1, 0),
    ("{prefix}/class", "rlnClassNumber", 1, 1),
    ("{prefix}/split", "rlnRandomSubset", 1, 1),
)
_CRYOSPARC_ABERRATIONS = ("ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/shift_A", "ctf/anisomag")


def read_particles(
    path: str | os.PathLike,
    dataset_dir: str | os.PathLike | None = None,
    *,
    poses: bool = True,
    pixel_size: float | None = None,
    check_images: bool = True,
) -> ParticleStack:
    """Reads a RELION (3.0, 3.1, 4, 5) STAR file or a cryoSPARC `.cs` file; the images themselves are read later.

    Args:
      path: the file, ending in `.star` or `.cs`.
      dataset_dir: folder that the paths of stacks in the file are relative to. Default: the folder of the file, or the
        nearest folder above it that has the stack (RELION and cryoSPARC write paths from the project's folder).
      poses: whether poses have to be there; with False a file without them gives a stack whose `angles` are None.
      pixel_size: Å per pixel of all images, instead of the file's. Shifts that the file gives in Å stay so many Å, as
        they do in RELION where that column is changed; those in pixels follow.
      check_images: look at the header of every stack now, so that missing or damaged ones are found early. With
        False the file alone is read; stacks are checked when their images are.

    Returns:
      The particles in the order of the file. Angles, shifts and CTF are converted to RELION's conventions: poses of
      cryoSPARC are transposed, its shifts multiplied by the pixel size of the alignment.

    Raises:
      InputError: no such file, a damaged one, a column that is needed missing, values that are not finite, stacks that
        are missing, truncated or of other sizes than the file says, ...; the message names file, record and remedy.
    """
    source = Path(path)
    if pixel_size is not None and not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"{source}: a pixel size of {pixel_size} Å was given; it must be positive")
    suffix = source.suffix.lower()
    if suffix not in (".star", ".cs"):
        raise InputError(f"{source}: unknown suffix {suffix!r}; give a .star file (RELION) or a .cs file (cryoSPARC)")
    if not os.path.isfile(source):
        raise InputError(f"{source}: no such file")
    options = _Options(source, None if dataset_dir is None else Path(dataset_dir), poses, pixel_size, check_images)
    return _read_relion(options) if suffix == ".star" else _read_cryosparc(options)


def write_particles(stack: ParticleStack, path: str | os.PathLike, rows: Any = None) -> None:
    """Writes particles as a STAR or `.cs` file that names the same images; all or nothing.

    What came from a file of the same kind keeps every column, value and table of it as it was, the optics groups
    included. Other stacks (from cryoSPARC to `.star`, or made in memory) are written in RELION's 3.1 layout.

    Args:
      stack: the particles.
      path: target ending in `.star` or `.cs`. Paths of images are written as they were: give their folder as
        `dataset_dir` when a file that was written elsewhere is read again.
      rows: particles to write, in this order: (m,) int, (n,) bool or a slice; default all.

    Raises:
      InputError: no rows, unknown suffix, a `.cs` file of a stack that is not cryoSPARC's, no names of images, or a
        value that the format cannot hold.
      OutputError: the file cannot be written.
    """
    target = Path(path)
    try:
        chosen = stack if rows is None else stack.select(rows)
    except IndexError as error:
        raise InputError(f"{target}: {error}; the stack has {len(stack)} particles") from error
    if len(chosen) == 0:
        raise InputError(f"{target}: no particles to write; select some")
    suffix = target.suffix.lower()
    if suffix == ".cs":
        if chosen.kind != "cryosparc" or chosen.particles is None:
            raise InputError(f"{target}: only particles of a .cs file can be written as .cs; write a .star file")
        columns = chosen.tables[chosen.particles].columns
        array = np.empty(len(chosen), [(key, values.dtype, values.shape[1:]) for key, values in columns.items()])
        for key, values in columns.items():
            array[key] = values
        with atomic_path(target) as temporary, open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)
    elif suffix == ".star":
        verbatim = chosen.kind == "relion" and chosen.particles is not None
        tables = chosen.tables if verbatim else _relion_tables(chosen, target)
        write_text(target, _star_text(tables, target))
    else:
        raise InputError(f"{target}: unknown suffix {suffix!r}; use .star or .cs")


def write_stack(images: np.ndarray, path: str | os.PathLike, voxel: float, mode: Mode = 2) -> None:
    """Writes an image stack (`.mrcs`, readable by RELION and cryoSPARC); all or nothing. Equal stacks, equal files.

    Args:
      images: (n, y, x) numbers.
      path: target ending in `.mrcs` or `.mrc`.
      voxel: Å per pixel.
      mode: 2, 32-bit numbers; 12, 16-bit numbers; 0, 1, 6, integers (signed 8, signed 16, unsigned 16 bits), to which
        values are rounded.

    Raises:
      InputError: wrong shape, suffix, voxel or mode, or values that the mode cannot hold (NaN included).
      OutputError: the file cannot be written.
    """
    import mrcfile

    target = Path(path)
    if target.suffix.lower() not in (".mrcs", ".mrc"):
        raise InputError(f"{target}: unknown suffix {target.suffix!r}; use .mrcs")
    if mode not in _MODES:
        raise InputError(f"{target}: mode {mode!r}; choose one of {', '.join(map(str, _MODES))}")
    if not (np.isfinite(voxel) and voxel > 0):
        raise InputError(f"{target}: a voxel size of {voxel} Å was given; it must be positive")
    images = np.asarray(images)
    if images.ndim != 3 or 0 in images.shape:
        raise InputError(f"{target}: images of shape {images.shape}, expected (n, y, x), none of them 0")
    dtype = np.dtype(_MODES[mode])
    info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite([low, high]).all() and float(info.min) <= low and high <= float(info.max)):
        raise InputError(
            f"{target}: values from {low:g} to {high:g} do not fit mode {mode} ({info.min:g} to {info.max:g}); scale "
            "them, or use mode 2"
        )
    data = (np.rint(images) if dtype.kind in "iu" else images).astype(dtype, copy=False)
    with atomic_path(target) as temporary, mrcfile.new(temporary) as file:
        file.set_data(data)
        file.set_image_stack()
        file.voxel_size = voxel
        header: Any = file.header
        header["label"], header["nlabl"] = b"", 1  # mrcfile's label holds the time
        header["label"][0] = f"jaxprot {__version__}".encode()


class _Layout(NamedTuple):
    """Where the images of a stack lie in its file."""

    offset: int
    dtype: np.dtype
    count: int
    side: int
    voxel: float


class MrcStacks(StackedImages):
    """Particle images in MRC stacks, mapped into memory.

    Args:
      paths: the k stacks.
      file, index, source: see `StackedImages`.
    """

    def __init__(self, paths: Sequence[str | os.PathLike], file: np.ndarray, index: np.ndarray, source: str):
        super().__init__([os.fspath(path) for path in paths], file, index, source)
        self._layouts: dict[int, _Layout] = {}

    def check(self) -> None:
        """Looks at every stack: there, an image stack, complete, and with all the images that are asked for.

        Raises:
          InputError: for the first that is not; missing ones are counted.
        """
        missing = [which for which, path in enumerate(self.names) if not os.path.isfile(path)]
        if missing:
            row = int(np.flatnonzero(self.file == missing[0])[0])
            raise InputError(
                f"{self.source}: {len(missing)} of {len(self.names)} stacks missing, the first is "
                f"{self.names[missing[0]]} (particle row {row + 1}); give the folder that their paths are relative to "
                "as dataset_dir"
            )
        last = np.full(len(self.names), -1)
        np.maximum.at(last, self.file, self.index)
        for which in range(len(self.names)):
            if last[which] >= self.layout(which).count:
                self.check_inside(which, np.flatnonzero(self.file == which), self.layout(which).count)

    def layout(self, which: int) -> _Layout:
        """Place, type, number and size of the images in stack `which`; read once."""
        if which not in self._layouts:
            self._layouts[which] = self._look(which)
        return self._layouts[which]

    def open(self, which: int) -> np.ndarray:
        """The images of stack `which`, (k, side, side) of the file's type, mapped."""
        layout = self.layout(which)
        shape = (layout.count, layout.side, layout.side)
        try:
            return np.memmap(self.names[which], layout.dtype, "r", layout.offset, shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.names[which]}: cannot be opened any more ({error}); was it moved?") from error

    def _look(self, which: int) -> _Layout:
        path = self.names[which]
        try:
            with open(path, "rb") as file:
                data, size = file.read(_HEADER), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise InputError(
                f"{path}: stack cannot be opened ({error.strerror or error}); give the folder that paths in "
                f"{self.source} are relative to as dataset_dir"
            ) from error
        if len(data) < _HEADER:
            raise InputError(f"{path}: {len(data)} bytes, shorter than the header of a stack; fetch it again")
        header, order = _header(data, path)
        nx, ny, count = (int(header[key]) for key in ("nx", "ny", "nz"))
        mode, extended = int(header["mode"]), int(header["nsymbt"])
        if mode not in _MODES:
            kind = _OTHER_MODES.get(mode, "unknown")
            raise InputError(f"{path}: mode {mode} ({kind}) is no stack of images; convert it to mode 2")
        if min(nx, ny, count) <= 0 or extended < 0:
            raise InputError(f"{path}: {count} images of {nx} x {ny} pixels in the header; the file is damaged")
        if nx != ny:
            raise InputError(f"{path}: images of {nx} x {ny} pixels are not square; crop or pad them")
        if _axes(header, path) != [0, 1, 2] or int(header["ispg"]) == 401:
            raise InputError(f"{path}: not a stack of images (axis order or space group); convert it to one")
        dtype = np.dtype(_MODES[mode]).newbyteorder(order)
        complete = max(size - _HEADER - extended, 0) // (nx * ny * dtype.itemsize)
        if complete < count:
            lost = np.flatnonzero((self.file == which) & (self.index >= complete) & (self.index < count))
            if len(lost):
                raise InputError(
                    f"{path}: truncated: the header promises {count} images, {complete} are complete; the first "
                    f"missing particle is row {lost[0] + 1} of {self.source} (image {self.index[lost[0]] + 1}); fetch "
                    "it again"
                )
            log.warning("%s: truncated: %d of %d images are complete, enough here", path, complete, count)
            count = complete
        with np.errstate(all="ignore"):
            voxel = float(np.float64(header["cella"]["x"]) / np.float64(header["mx"]))
        return _Layout(_HEADER + extended, dtype, count, nx, voxel if np.isfinite(voxel) and voxel > 0 else 0.0)


class _Options(NamedTuple):
    """What `read_particles` was asked for."""

    source: Path
    folder: Path | None
    poses: bool
    pixel_size: float | None
    check_images: bool


def _assemble(
    options: _Options, table: Table, optics: Table | None, aberrations: tuple[str, ...], **others: Any
) -> ParticleStack:
    """A stack of particles in RELION's columns; `others` are fields of the stack that are known already."""
    source, n = options.source, len(table)
    if table.find("rlnImageName") is None or n == 0:
        lack = "rows" if n == 0 else "column rlnImageName (no images)"
        raise InputError(f"{source}: table {table.name!r} has no {lack}; give the file of extracted particles")
    images = _images(table, options)
    group = None if optics is None else _groups(table, optics, source)

    def value(name: str) -> np.ndarray | None:
        """(n,) of the particles' optics groups, or their own."""
        shared = None if optics is None else optics.numbers(name, source)
        return table.numbers(name, source) if shared is None or group is None else shared[group]

    pixel, stated = _pixel_sizes(value, images, options), value("rlnImageSize")
    _positive(pixel, "pixel size", source)
    found, voxel = _of_stacks(images) if options.check_images else (np.zeros(n), np.zeros(n))
    if optics is None or group is None:
        own = table.numbers("rlnOpticsGroup", source)
        key = np.stack([np.zeros(n) if own is None else own, pixel, found if stated is None else stated], 1)
        unique, group = np.unique(key, axis=0, return_inverse=True)
        group, names = group.reshape(-1), [f"opticsGroup{place + 1}" for place in range(len(unique))]
    else:
        labels = optics.find("rlnOpticsGroupName", "rlnOpticsGroup")
        names = ["opticsGroup1"] if labels is None else labels.tolist()
    _check_sides(images, found, stated, group, source)
    wrong = np.flatnonzero((voxel > 0) & (voxel != 1) & (np.abs(voxel / pixel - 1) > 0.01))
    if len(wrong):  # 0 and 1 are what programs write that do not know the voxel
        at = wrong[0]
        log.warning(
            "%s: %g Å per pixel for particle row %d, %g Å in the header of %s; the former is used",
            source, pixel[at], at + 1, voxel[at], images.names[images.file[at]],
        )  # fmt: skip

    def each(name: str, default: float, values: np.ndarray | None = None) -> np.ndarray:
        """(g,) values of the optics table, else those that all particles of a group share, else the default."""
        shared = None if optics is None else optics.numbers(name, source)
        if shared is not None:
            return shared
        values = table.numbers(name, source) if values is None else values
        return np.full(len(names), default) if values is None else uniform(values, group, len(names), default)

    group_pixel = each("rlnImagePixelSize", np.nan, pixel)
    if options.pixel_size is not None:
        group_pixel = np.full(len(names), options.pixel_size)
    if not np.isfinite(group_pixel[group]).all():
        raise InputError(f"{source}: several pixel sizes in one optics group; give each an optics group of its own")
    matrix = [each(f"rlnMagMat{i}{j}", float(i == j)) for i in (0, 1) for j in (0, 1)]
    stack = ParticleStack(
        images=images,
        shifts=_shifts(table, pixel, source),
        optics_group=group,
        optics=Optics(
            names=tuple(map(str, names)),
            pixel_size=np.where(group_pixel > 0, group_pixel, pixel[0]),  # the latter: groups without particles
            side=np.maximum(each("rlnImageSize", 0, found if stated is None else stated), 0),
            ctf_premultiplied=each("rlnCtfDataAreCtfPremultiplied", 0) != 0,
            beam_tilt=np.stack([each(f"rlnBeamTilt{axis}", 0) for axis in "XY"], 1),
            magnification=np.stack(matrix, 1).reshape(-1, 2, 2),
            aberrations=aberrations,
        ),
        angles=_angles(table, options),
        ctf=_ctf(value, n, source),
        class_number=table.numbers("rlnClassNumber", source),
        subset=table.numbers("rlnRandomSubset", source),
        image_names=table.find("rlnImageName"),
        name=source.stem,
        **others,
    )
    # What the images need beyond an ordinary CTF is said, not only kept.
    if stack.ctf_premultiplied.any():
        log.warning("%s: images that are multiplied by their CTF (ctf_premultiplied)", source)
    if aberrations:
        log.warning("%s: aberrations beyond the CTF: %s", source, ", ".join(aberrations))
    return stack


def _images(table: Table, options: _Options) -> MrcStacks:
    """The images that column rlnImageName names."""
    source, names = options.source, table.find("rlnImageName")
    assert names is not None
    number, file, places = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64), {}
    for row, name in enumerate(names.tolist()):
        before, at, after = name.partition("@")
        path = after if at else before  # an image in a file of its own needs no number
        right = not at or (before.isascii() and before.isdigit() and 0 < int(before) < 1 << 31)
        if not right or not path.strip() or "\0" in path:
            raise InputError(
                f"{source}: image name {name!r} of particle row {row + 1}; expected number@path, numbers from 1"
            )
        number[row] = int(before) - 1 if at else 0
        file[row] = places.setdefault(path, len(places))
    images = MrcStacks(_locate(places, source, options.folder), file, number, str(source))
    if options.check_images:
        images.check()
    return images


def _locate(names: Iterable[str], source: Path, folder: Path | None) -> list[Path]:
    """The file of each name; in the first folder where it would be looked for if it is nowhere."""
    if folder is not None:
        return [folder / name for name in names]
    folders, found = [source.parent, *source.resolve().parent.parents], []
    for name in names:
        place = next((place for place in folders if os.path.isfile(place / name)), None)
        if place is not None and place != folders[0]:  # the others are probably there as well
            folders = [source.parent, place, *(other for other in folders[1:] if other != place)]
        found.append((place or source.parent) / name)
    return found


def _of_stacks(images: MrcStacks) -> tuple[np.ndarray, np.ndarray]:
    """(n,) side in pixels and voxel in Å (0 if unknown) of each particle's stack."""
    layouts = [images.layout(which) for which in range(len(images.names))]
    sides, voxels = np.array([each.side for each in layouts]), np.array([each.voxel for each in layouts])
    return sides[images.file], voxels[images.file]


def _check_sides(
    images: MrcStacks, found: np.ndarray, stated: np.ndarray | None, group: np.ndarray, source: Path
) -> None:
    """Images have the size that the file gives them, and one size in each optics group; 0 is not known."""
    where = lambda row: f"{images.names[images.file[row]]} (particle row {row + 1})"  # noqa: E731
    if stated is not None:
        _positive(stated, "image size", source)
        wrong = np.flatnonzero((found > 0) & (found != stated))
        if len(wrong):
            raise InputError(
                f"{source}: image size {stated[wrong[0]]:g}, but images of {found[wrong[0]]:g} pixels in "
                f"{where(wrong[0])}; correct rlnImageSize, or take the stack that belongs to it"
            )
    side = found if stated is None else stated
    first = np.unique(group, return_index=True)[1][np.unique(group, return_inverse=True)[1].reshape(-1)]
    other = np.flatnonzero(side != side[first])
    if len(other):
        raise InputError(
            f"{source}: images of {side[first[other[0]]]:g} pixels in {where(first[other[0]])} and of "
            f"{side[other[0]]:g} in {where(other[0])} in one optics group; give each a group of its own"
        )


def _pixel_sizes(value: Callable[[str], np.ndarray | None], images: MrcStacks, options: _Options) -> np.ndarray:
    """(n,) Å per pixel of each particle."""
    if options.pixel_size is not None:
        return np.full(len(images), options.pixel_size, np.float64)
    pixel = value("rlnImagePixelSize")
    if pixel is not None:
        return pixel
    detector, magnification = value("rlnDetectorPixelSize"), value("rlnMagnification")
    if detector is not None and magnification is not None:
        _positive(magnification, "magnification", options.source)
        return detector * 1e4 / magnification
    voxel = _of_stacks(images)[1]
    if (voxel <= 0).any():
        raise InputError(
            f"{options.source}: no pixel size (rlnImagePixelSize, or rlnDetectorPixelSize and rlnMagnification), and "
            f"voxel size 0 in the header of {images.names[images.file[int(np.argmin(voxel))]]}; add the column, or "
            "give the pixel size"
        )
    log.warning("%s: no pixel size; %g Å is taken from the header of the stack", options.source, voxel[0])
    return voxel


def _groups(table: Table, optics: Table, source: Path) -> np.ndarray:
    """(n,) row of the optics table of each particle."""
    numbers, wanted = optics.numbers("rlnOpticsGroup", source), table.numbers("rlnOpticsGroup", source)
    numbers = np.arange(1.0, len(optics) + 1) if numbers is None else numbers
    if len(np.unique(numbers)) < len(numbers):
        raise InputError(f"{source}: two optics groups of the same number; give each its own rlnOpticsGroup")
    if wanted is None:
        if len(optics) > 1:
            raise InputError(
                f"{source}: {len(optics)} optics groups, and particles without a column rlnOpticsGroup; add it"
            )
        return np.zeros(len(table), np.int64)
    order = np.argsort(numbers)
    at = np.minimum(np.searchsorted(numbers[order], wanted), len(order) - 1)
    unknown = np.flatnonzero(numbers[order][at] != wanted)
    if len(unknown):
        raise InputError(
            f"{source}: particle row {unknown[0] + 1} is in optics group {wanted[unknown[0]]:g}, which is not in the "
            "optics table; add it there"
        )
    return order[at]


def _angles(table: Table, options: _Options) -> np.ndarray | None:
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    columns = [table.numbers(name, options.source) for name in names]
    absent = [name for name, column in zip(names, columns, strict=True) if column is None]
    if absent and options.poses:
        raise InputError(
            f"{options.source}: no poses ({absent[0]} is missing); refine the particles first (cryoSPARC keeps poses "
            "of some jobs in a passthrough file: export the particles)"
        )
    return None if absent else np.stack(columns, 1)  # type: ignore[arg-type]


def _shifts(table: Table, pixel: np.ndarray, source: Path) -> np.ndarray:
    """(n, 2) Å."""
    shifts = np.zeros((len(table), 2))
    for axis, name in enumerate("XY"):
        in_angstrom = table.numbers(f"rlnOrigin{name}Angst", source)
        in_pixels = table.numbers(f"rlnOrigin{name}", source)
        if in_angstrom is not None:
            shifts[:, axis] = in_angstrom
        elif in_pixels is not None:
            shifts[:, axis] = in_pixels * pixel
        else:
            log.warning("%s: no shifts along %s (rlnOrigin%sAngst, rlnOrigin%s); 0", source, name.lower(), name, name)
    return shifts


def _ctf(value: Callable[[str], np.ndarray | None], n: int, source: Path) -> Ctf | None:
    u, v = value("rlnDefocusU"), value("rlnDefocusV")
    if u is None:
        log.warning("%s: no CTF (no defocus)", source)
        return None
    voltage, cs = value("rlnVoltage"), value("rlnSphericalAberration")
    if voltage is None or cs is None:
        raise InputError(f"{source}: defocus without voltage or spherical aberration; add the columns to the table")

    def value_or(name: str, default: float | np.ndarray, word: str = "") -> np.ndarray:
        found = value(name)
        if found is None and word:
            log.warning("%s: no column %s; %s", source, name, word)
        return np.broadcast_to(default, n) if found is None else found

    ctf = Ctf(
        defocus_u=u,
        defocus_v=value_or("rlnDefocusV", u, "no astigmatism is assumed"),
        angle=value_or("rlnDefocusAngle", 0, "0 is assumed" if v is not None and (u != v).any() else ""),
        voltage=voltage,
        cs=cs,
        amplitude_contrast=value_or("rlnAmplitudeContrast", _CONTRAST, f"{_CONTRAST} is assumed"),
        phase_shift=value_or("rlnPhaseShift", 0),
        b_factor=value_or("rlnCtfBfactor", 0),
        scale=value_or("rlnCtfScalefactor", 1),
    )
    ctf.check(source)
    return ctf


def _positive(values: np.ndarray, what: str, source: Path) -> None:
    wrong = np.flatnonzero(values <= 0)
    if len(wrong):
        raise InputError(
            f"{source}: {what} {values[wrong[0]]:g} of particle row {wrong[0] + 1}; it must be positive, correct it"
        )


# RELION


def _read_relion(options: _Options) -> ParticleStack:
    source = options.source
    tables = _read_star(source)
    place = _particle_table(tables, source)
    for table in tables:
        stacks, three = table.find("rlnTomoSubTomosAre2DStacks"), table.find("rlnImageDimensionality")
        if (three is not None and (three == "3").any()) or (stacks is not None and (stacks == "1").any()):
            raise InputError(f"{source}: sub-tomograms and no single-particle images; extract 2-D particles")
    aberrations = [
        name for name, trivial in _ABERRATIONS.items() if any(_differs(table.find(name), trivial) for table in tables)
    ]
    optics = next((table for table in tables if table.name == "optics" and len(table)), None)
    others = {"tables": tuple(tables), "particles": place, "kind": "relion"}
    return _assemble(options, tables[place], optics, tuple(aberrations), **others)


def _read_star(source: Path) -> list[Table]:
    """All tables, every value as text."""
    import starfile

    try:
        text = source.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{source}: cannot be opened ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: no text at byte {error.start}; is it a STAR file? Save it as UTF-8") from error
    if not text.strip():
        raise InputError(f"{source}: is empty")
    wanted = re.findall(r"^[ \t]*data_(\S*)", text, re.M)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"{source}: two tables of the same name ({', '.join(wanted)}); rename or remove one")
    # starfile makes every apostrophe a quotation mark, ends lines at any # and takes `nan` and `""` for nothing.
    changed = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    if any(word in text for word in ("nan", "NaN", "<NA>")):  # these expressions are slow, and most files need none
        changed = re.sub(r"(?<!\S)(nan|NaN|<NA>)(?!\S)", _WORD + r"\1", changed)
    if "'" in text or '"' in text or re.search(r"#(?<=\S#)(?=\S)", text):
        quoted = r"(?<!\S)(?:'[^'\n]*'|\"[^\"\n]*\")(?!\S)"
        changed = re.sub(rf"{quoted}|'|(?<=\S)#(?=\S)", lambda match: _carry(match[0]), changed)
    names = re.findall(r"^\s*_(\S+)", changed, re.M)
    with tempfile.TemporaryDirectory(prefix="jaxprot-") as folder:
        path = source
        if changed != text:
            path = Path(folder) / "changed.star"
            path.write_text(changed, encoding="utf-8", newline="")
        linecache.cache.pop(str(path), None)  # starfile reads through this cache, which may know an older content
        try:
            blocks: Any = starfile.read(path, always_dict=True, parse_as_string=names)
        # starfile has no error of its own: what damaged text causes comes from its own code, pandas or shlex.
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise InputError(
                f"{source}: cannot be read as a STAR file ({' '.join(str(error).split())}); is it complete, with as "
                "many values in each row as columns?"
            ) from error
    if not blocks:
        raise InputError(f"{source}: no STAR file (no line that starts with data_)")
    special = changed != text or '"' in text
    return [_table(name, block, special, source) for name, block in blocks.items()]


def _carry(text: str) -> str:
    """A quoted text, or a single character, with what starfile would change replaced."""
    single = {"'": _APOSTROPHE, "#": _HASH}.get(text)
    return single or text[0] + (text[1:-1].replace("'", _APOSTROPHE) or _WORD) + text[-1]


def _restore(value: str) -> str:
    return value.replace(_APOSTROPHE, "'").replace(_HASH, "#").replace(_WORD, "")


def _table(name: str, block: Any, special: bool, source: Path) -> Table:
    if isinstance(block, dict):
        return Table(name, {key: np.array([_restore(str(value))], _TEXT) for key, value in block.items()}, loop=False)
    if block.columns.duplicated().any():
        twice = block.columns[block.columns.duplicated()][0]
        raise InputError(f"{source}: column {twice} appears twice in table {name!r}; remove one")
    columns = {}
    for key in block.columns:
        missing = (block[key].isna() | (block[key] == "")).to_numpy()  # a quoted "" was carried as something
        if missing.any():
            raise InputError(
                f"{source}: row {int(np.argmax(missing)) + 1} of table {name!r} has no value for {key}; is the file "
                "complete?"
            )
        values = list(map(str, block[key].tolist()))
        values = list(map(_restore, values)) if special else values
        unclosed = next((row for row, value in enumerate(values) if special and "\n" in value), None)
        if unclosed is not None:
            raise InputError(f"{source}: row {unclosed + 1} of table {name!r} has a quotation mark that is not closed")
        columns[_restore(key)] = np.array(values, _TEXT)
    return Table(name, columns)


def _particle_table(tables: list[Table], source: Path) -> int:
    """Index of the table of particles."""
    loops = [place for place, table in enumerate(tables) if table.loop and table.name not in ("optics", "general")]
    named = [place for place in loops if tables[place].name == "particles"]
    with_images = [place for place in loops if tables[place].find("rlnImageName") is not None]
    found = named or with_images
    if len(found) == 1:
        return found[0]
    if not found and len(loops) == 1 and tables[loops[0]].name in ("images", ""):
        return loops[0]
    names = ", ".join(f"data_{table.name}" for table in tables)
    raise InputError(
        f"{source}: {'no table' if not found else 'more than one table'} of particles with a column rlnImageName among "
        f"{names}; give the file of extracted particles, with them in one table data_particles"
    )


def _differs(values: np.ndarray | None, trivial: float) -> bool:
    """Whether any number, or number of a list `[1,2]`, is not the trivial one."""
    texts = set() if values is None else set(values.tolist())
    listed = Table("", {"x": np.array([part for text in texts for part in text.strip("[]").split(",")], _TEXT)})
    try:
        numbers = listed.numbers("x", "")
    except InputError:  # something else than numbers: better said than left out
        return True
    return numbers is not None and bool((numbers != trivial).any())


# cryoSPARC


def _read_cryosparc(options: _Options) -> ParticleStack:
    source = options.source
    table = _read_cs(source)
    n = len(table)

    def need(name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        values = table.numbers(name, source) if table.columns.get(name) is not None else None
        if values is None or values.shape != (n, *shape):
            raise InputError(
                f"{source}: no column {name}, or not one of cryoSPARC's; give the particles' .cs file of a job (export "
                "the particles, if it keeps the column in a passthrough file)"
            )
        return values

    number, side = need("blob/idx"), need("blob/shape", (2,))
    if "blob/path" not in table.columns:
        raise InputError(f"{source}: no column blob/path; give the particles' .cs file of a cryoSPARC job")
    if (side[:, 0] != side[:, 1]).any():
        row = int(np.argmax(side[:, 0] != side[:, 1]))
        raise InputError(f"{source}: image of particle row {row + 1} is not square ({side[row]}); crop or pad it")
    paths = [str(value, "utf-8", "replace") if isinstance(value, bytes) else str(value)
             for value in table.columns["blob/path"].tolist()]  # fmt: skip
    names = [f"{int(place) + 1:06d}@{path.removeprefix('>')}" for place, path in zip(number, paths, strict=True)]
    columns = {"rlnImageName": np.array(names, _TEXT), "rlnImageSize": side[:, 0]}
    prefixes = sorted({name.partition("/")[0] for name in table.columns if name.endswith("/pose")})
    prefix = next((name for name in ("alignments3D", "alignments_class_0") if name in prefixes), None)
    if prefix is not None:
        if prefix != "alignments3D" and len(prefixes) > 1:
            log.warning("%s: poses of several classes (%s); those of %s are used", source, ", ".join(prefixes), prefix)
        angles = euler_from_rotations(np.swapaxes(rotations_from_vectors(need(f"{prefix}/pose", (3,))), -1, -2))
        columns |= {"rlnAngleRot": angles[:, 0], "rlnAngleTilt": angles[:, 1], "rlnAnglePsi": angles[:, 2]}
        if f"{prefix}/shift" in table.columns:  # in pixels of the alignment, not of the images
            pixel = need(f"{prefix}/psize_A")
            _positive(pixel, f"{prefix}/psize_A", source)
            shifts = need(f"{prefix}/shift", (2,)) * pixel[:, None]
            columns |= {"rlnOriginXAngst": shifts[:, 0], "rlnOriginYAngst": shifts[:, 1]}
    for name, relion, scale, offset in _CRYOSPARC:
        name = name.format(prefix=prefix or "alignments3D")
        if name in table.columns:
            columns[relion] = need(name) * scale + offset
    aberrations = [name for name in _CRYOSPARC_ABERRATIONS if (values := table.columns.get(name)) is not None
                   and values.dtype.kind in "fiu" and (values != 0).any()]  # fmt: skip
    sign = need("blob/sign") if "blob/sign" in table.columns else None
    others = {"tables": (table,), "particles": 0, "kind": "cryosparc", "sign": sign}
    return _assemble(options, Table("particles", columns), None, tuple(aberrations), **others)


def _read_cs(source: Path) -> Table:
    import tokenize

    try:
        # Mapped, so that a damaged header cannot ask for more memory than the file has.
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    # numpy parses the header of the file as a Python literal; a damaged one fails in many ways.
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, MemoryError, OverflowError, KeyError,
            RecursionError, tokenize.TokenError) as error:  # fmt: skip
        raise InputError(
            f"{source}: cannot be read as a cryoSPARC file ({' '.join(str(error).split())}); is it complete?"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.names is None or array.ndim != 1:
        raise InputError(f"{source}: no table of particles; give the particles' .cs file of a cryoSPARC job")
    return Table("particles", {name: np.array(array[name]) for name in array.dtype.names})


# Writing STAR files


def _star_text(tables: Sequence[Table], target: Path) -> str:
    import pandas
    import starfile

    blocks: dict[str, Any] = {}
    for table in tables:
        columns = {key: [str(value) for value in values.tolist()] for key, values in table.columns.items()}
        for key, values in columns.items():
            wrong = next((text for text in values if re.search(r'[\t\r\n]|^["#]|".* | .*"', text)), None)
            if wrong is not None:
                raise InputError(f"{target}: {wrong!r} of column {key} cannot be written to a STAR file; rename it")
        blocks[table.name] = pandas.DataFrame(columns) if table.loop else {k: v[0] for k, v in columns.items()}
    text = starfile.to_string(blocks)
    # starfile's first line holds the time; equal stacks shall give equal files.
    return f"# Written by jaxprot {__version__}\n" + text.partition("\n")[2]


def _relion_tables(stack: ParticleStack, target: Path) -> tuple[Table, Table]:
    """RELION 3.1's tables for particles from elsewhere."""
    if stack.image_names is None:
        raise InputError(f"{target}: the particles have no names of images; write the images first (write_stack)")
    if (stack.sign < 0).any():  # type: ignore[operator]
        log.warning("%s: particles that are dark on bright, which RELION does not expect; invert the images", target)
    if stack.optics.aberrations:
        log.warning("%s: left out: %s", target, ", ".join(stack.optics.aberrations))
    group, n_groups = stack.optics_group, len(stack.optics)
    optics: dict[str, Any] = {"rlnOpticsGroup": np.arange(1, n_groups + 1), "rlnOpticsGroupName": stack.optics.names}
    columns: dict[str, Any] = {"rlnImageName": stack.image_names}
    if stack.angles is not None:
        columns |= {f"rlnAngle{name}": stack.angles[:, axis] for axis, name in enumerate(("Rot", "Tilt", "Psi"))}
    columns |= {f"rlnOrigin{name}Angst": stack.shifts[:, axis] for axis, name in enumerate("XY")}
    if stack.ctf is not None:
        ctf = stack.ctf
        columns |= {"rlnDefocusU": ctf.defocus_u, "rlnDefocusV": ctf.defocus_v, "rlnDefocusAngle": ctf.angle}
        columns |= {"rlnPhaseShift": ctf.phase_shift, "rlnCtfBfactor": ctf.b_factor, "rlnCtfScalefactor": ctf.scale}
        names = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
        for name, values in zip(names, (ctf.voltage, ctf.cs, ctf.amplitude_contrast), strict=True):
            each = uniform(values, group, n_groups, np.nan)
            if np.isfinite(each[group]).all():
                optics[name] = np.where(np.isfinite(each), each, values[0])  # the latter: groups without particles
            else:
                columns[name] = values
    optics["rlnImagePixelSize"] = stack.optics.pixel_size
    if (stack.optics.side > 0).all():
        optics["rlnImageSize"] = stack.optics.side
    optics["rlnImageDimensionality"] = np.full(n_groups, 2)
    optics["rlnCtfDataAreCtfPremultiplied"] = np.asarray(stack.optics.ctf_premultiplied, np.int64)
    columns["rlnOpticsGroup"] = group + 1
    known: dict[str, Any] = {"rlnClassNumber": stack.class_number, "rlnRandomSubset": stack.subset}
    columns |= {name: values for name, values in known.items() if (values > 0).any()}
    return Table("optics", _as_text(optics)), Table("particles", _as_text(columns))


def _as_text(columns: dict[str, Any]) -> dict[str, np.ndarray]:
    text = lambda value: f"{value:.9g}" if isinstance(value, float) else str(value)  # noqa: E731
    return {key: np.array([text(one) for one in np.asarray(all_).tolist()], _TEXT) for key, all_ in columns.items()}
