"""Particle stacks: RELION's STAR files and cryoSPARC's `.cs` files with the stacks they name, and back.

Every value of a STAR file is kept as text (`io.star`), so that what is written again is what was read; the images lie
in stacks (`io.stacks`).
"""

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.particles import (
    Ctf,
    Optics,
    ParticleStack,
    Table,
    euler_from_rotations,
    rotations_from_vectors,
    uniform,
)
from jaxprot.io.outputs import atomic_path, write_text
from jaxprot.io.stacks import MrcStacks
from jaxprot.io.star import read_star, star_text

log = logging.getLogger(__name__)

_TEXT = np.dtypes.StringDType()
_CONTRAST = 0.1  # assumed where a file has none
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
        write_text(target, star_text(tables, target))
    else:
        raise InputError(f"{target}: unknown suffix {suffix!r}; use .star or .cs")


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
    tables = read_star(source)
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
