"""MRC/CCP4 maps to `Volume` and back.

The layout of the header and the types of the modes are mrcfile's; sizes are compared with the file before anything is
allocated, so that a damaged header costs a message and no memory.
"""

import bz2
import gzip
import logging
import lzma
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from jaxprot._version import __version__
from jaxprot.core.errors import InputError
from jaxprot.core.volume import Volume
from jaxprot.io.outputs import atomic_path

log = logging.getLogger(__name__)

SUFFIXES = (".mrc", ".map", ".ccp4", ".rec", ".mrc.gz", ".map.gz", ".ccp4.gz", ".rec.gz", ".mrc.bz2", ".map.bz2")
"""File names that a folder of maps is searched for."""

Origin = Literal["sum", "header", "nstart"]
Order = Literal["<", ">"]

_HEADER = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_OTHER_MODES = {3: "complex 16-bit integers", 4: "complex numbers (a Fourier transform)", 101: "4-bit integers"}
_PADDING = 1024  # bytes after the densities that a writer may leave; more means that the header is wrong
_SMALLEST, _LARGEST = 0.01, 10_000.0  # Å, of a voxel's edge
_FARTHEST = 1e6  # Å
_CHUNK = 1 << 24


def read_map(
    path: str | os.PathLike, origin: Origin = "sum", *, voxel: float | None = None, name: str | None = None
) -> Volume:
    """Reads an MRC or CCP4 map, plain or packed with gzip or bzip2 (told by the content).

    Any order of axes, both byte orders and the modes 0 (signed bytes), 1, 2, 6 and 12 are read. Old files without
    machine stamp, `MAP` word, axis order or angles are read as what they must mean, with a line in the log.

    Args:
      path: the file.
      origin: where voxel 0 lies: `"sum"`, ORIGIN words + start indices times the voxel (what the published RMSF-net
        does; a warning is logged when both are set, because many files give the same shift twice), `"header"`, the
        ORIGIN words alone, or `"nstart"`, the start indices alone.
      voxel: edge length of a voxel in Å instead of the file's (for files that do not say).
      name: name of the result; default the stem of the file.

    Returns:
      The map with axes (z, y, x).

    Raises:
      InputError: no such file, no map, truncated, of the wrong size, skewed, without voxel size, with densities that
        are not finite, ...; the message names the file and the remedy.
    """
    if origin not in ("sum", "header", "nstart"):
        raise InputError(f"origin {origin!r}: choose 'sum', 'header' or 'nstart'")
    source = os.fspath(path)
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            packed = _unpacking(raw)
            return _read(packed or raw, None if packed else size, source, origin, voxel, name or stem_of(path))
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file") from error
    except InputError:
        raise
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{source}: the packed file is truncated or damaged ({error}); fetch it again") from error
    except (OSError, ValueError) as error:
        # gzip and bz2 report damaged data as OSError as well; a file system's error has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{source}: cannot be opened ({error.strerror or error})") from error
        raise InputError(f"{source}: cannot be read as a map ({error}); is the file complete?") from error


def write_map(volume: Volume, path: str | os.PathLike, *, label: str = "") -> None:
    """Writes an MRC map (mode 2, axes x, y, z), gzipped with a further `.gz`; all or nothing.

    The place of the map is in the ORIGIN words and the start indices are 0, which ChimeraX, PyMOL, Coot and `read_map`
    with any `origin` but `"nstart"` put at the same place. Equal maps give equal files.

    Args:
      volume: what to write; values that are not finite are kept as they are, but left out of the header's statistics.
      path: target ending in `.mrc`, `.map`, `.ccp4` or `.rec`, with `.gz` if wanted.
      label: line of text for the header (80 ASCII characters).

    Raises:
      InputError: unknown suffix.
      OutputError: the file cannot be written.
    """
    path = Path(path)
    zipped = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if zipped else path.suffix.lower()
    if suffix not in (".mrc", ".map", ".ccp4", ".rec"):
        raise InputError(f"{path}: unknown suffix {suffix!r}; use .mrc or .map (with .gz if wanted)")
    header = _new_header(volume, label).tobytes()
    data = np.ascontiguousarray(volume.data, "<f4")
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        if zipped:
            # 4 and not 9: noise hardly packs, and the higher levels take ten times as long for a per cent.
            with gzip.GzipFile("", "wb", 4, raw, mtime=0) as file:
                file.write(header)
                file.write(data.data)
        else:
            raw.write(header)
            raw.write(data.data)


def stem_of(path: str | os.PathLike) -> str:
    """Returns the name of a map file without folder and suffixes (`emd_1.map.gz` -> `emd_1`)."""
    name = Path(path).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return Path(name).stem or name


def _unpacking(raw: BinaryIO) -> BinaryIO | None:
    """A stream of the unpacked content, None for a plain file."""
    magic = raw.read(3)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if magic == b"BZh":
        return bz2.BZ2File(raw)  # type: ignore[return-value]
    return None


def _read(file: BinaryIO, size: int | None, source: str, origin: Origin, voxel: float | None, name: str) -> Volume:
    """Header, checks, densities. `size` is None where only reading on tells it (packed files)."""
    data = _take(file, _HEADER)
    if len(data) < _HEADER:
        raise InputError(f"{source}: {len(data)} bytes, shorter than the header of a map; fetch it again")
    header, order = _header(data, source)
    counts = [int(header[key]) for key in ("nx", "ny", "nz")]  # columns, rows, sections
    if min(counts) <= 0:
        raise InputError(f"{source}: {counts[0]} x {counts[1]} x {counts[2]} voxels in the header; the file is damaged")
    mode = int(header["mode"])
    if mode not in _MODES:
        kind = _OTHER_MODES.get(mode, "unknown")
        raise InputError(f"{source}: mode {mode} ({kind}) is no density map; convert it to mode 2 (32-bit numbers)")
    dtype = np.dtype(_MODES[mode]).newbyteorder(order)
    extended = int(header["nsymbt"])
    wanted = counts[0] * counts[1] * counts[2] * dtype.itemsize
    if extended < 0:
        raise InputError(f"{source}: an extended header of {extended} bytes; the file is damaged, fetch it again")
    sizes = f"{counts[0]} x {counts[1]} x {counts[2]} voxels of {dtype.itemsize} bytes"
    if size is not None and size < _HEADER + extended + wanted:
        raise InputError(
            f"{source}: truncated: the header promises {sizes} ({_HEADER + extended + wanted} bytes in all), the file "
            f"has {size}; fetch it again"
        )
    axes = _axes(header, source)
    step, start, words = _geometry(header, axes, counts, source, voxel)
    place = _place(words, start, step, origin, source)

    if size is not None:
        file.seek(_HEADER + extended)
    elif len(_take(file, extended)) < extended:
        raise InputError(f"{source}: truncated inside the extended header; fetch it again")
    content = _take(file, wanted)
    if len(content) < wanted:
        raise InputError(
            f"{source}: truncated: the header promises {sizes}, {len(content)} of {wanted} bytes are there; "
            "fetch it again"
        )
    left = len(_take(file, _PADDING + 1))
    if left > _PADDING:
        raise InputError(
            f"{source}: longer than its header says ({sizes}); the size in the header is wrong, or it is no single map"
        )
    if left:
        log.warning("%s: %d bytes after the densities are ignored", source, left)
    stored = np.frombuffer(content, dtype).reshape(counts[::-1])
    order_zyx = [2 - axes.index(axis) for axis in (2, 1, 0)]  # place of z, y, x among (section, row, column)
    density = np.ascontiguousarray(stored.transpose(order_zyx), np.float32)
    bad = int(density.size - np.isfinite(density).sum())
    if bad:
        raise InputError(f"{source}: {bad} of {density.size} densities are not finite; replace them (by 0) first")
    return Volume(density, step, place, name, words, start)


def _take(file: BinaryIO, n: int) -> bytes | bytearray:
    """At most n bytes; memory grows with what is there, not with what a header promises."""
    if n <= _CHUNK:
        return file.read(n)
    content = bytearray()
    while len(content) < n and (chunk := file.read(min(_CHUNK, n - len(content)))):
        content += chunk
    return content


def _header(data: bytes | bytearray, source: str) -> tuple[np.void, Order]:
    """The header in the byte order that makes sense of it, and that order."""
    from mrcfile.dtypes import HEADER_DTYPE

    stamp = bytes(data[212:214])
    named = bytes(data[208:211]) == b"MAP"
    orders: tuple[Order, Order] = (">", "<") if stamp[:1] == b"\x11" else ("<", ">")
    first = orders[0]
    headers = {order: np.frombuffer(data, HEADER_DTYPE.newbyteorder(order), 1)[0] for order in orders}
    sensible: list[Order] = [order for order in orders if _makes_sense(headers[order])]
    if not sensible and not named:
        raise InputError(f"{source}: no MRC or CCP4 map (no MAP word and no sensible size in its header)")
    order: Order = (sensible or [first])[0]
    if not named:
        log.warning("%s: no MAP word in the header; read as an old map", source)
    if stamp[:1] not in (b"\x44", b"\x11") or order != first:
        log.warning("%s: no valid machine stamp; read as %s-endian", source, "little" if order == "<" else "big")
    return headers[order], order


def _makes_sense(header: np.void) -> bool:
    known = int(header["mode"]) in _MODES or int(header["mode"]) in _OTHER_MODES
    return known and all(0 < int(header[key]) < 1 << 20 for key in ("nx", "ny", "nz"))


def _axes(header: np.void, source: str) -> list[int]:
    """World axis (0 x, 1 y, 2 z) of columns, rows and sections."""
    axes = [int(header[key]) for key in ("mapc", "mapr", "maps")]
    if axes == [0, 0, 0]:
        log.warning("%s: no order of axes in the header; columns, rows, sections are read as x, y, z", source)
        return [0, 1, 2]
    if sorted(axes) != [1, 2, 3]:
        raise InputError(f"{source}: axis order {axes} in the header is none of 1, 2, 3; set mapc, mapr, maps")
    return [axis - 1 for axis in axes]


def _geometry(
    header: np.void, axes: list[int], counts: list[int], source: str, voxel: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxel (Å), start indices and ORIGIN words (Å), each along x, y, z."""
    angles = {key: float(header["cellb"][key]) for key in ("alpha", "beta", "gamma")}
    if all(angle == 0 for angle in angles.values()):
        log.warning("%s: no cell angles in the header; 90° are assumed", source)
    else:
        for key, angle in angles.items():
            if not abs(angle - 90) < 1e-2:
                raise InputError(
                    f"{source}: the cell is skewed ({key} = {angle:.2f}°, expected 90°); resample the map onto a "
                    "rectangular grid first (in ChimeraX: volume resample)"
                )
    size = [0, 0, 0]
    for axis, count in zip(axes, counts, strict=True):
        size[axis] = count
    start = np.array([int(header[key]) for key in ("nxstart", "nystart", "nzstart")], np.int64)
    start = start[[axes.index(axis) for axis in range(3)]]
    words = np.array([float(header["origin"][key]) for key in "xyz"])
    if voxel is not None:
        if not (np.isfinite(voxel) and voxel > 0):
            raise InputError(f"{source}: a voxel size of {voxel} Å was given; it must be positive")
        return np.full(3, float(voxel)), start, words

    sampling = np.array([int(header[key]) for key in ("mx", "my", "mz")])
    space_group = int(header["ispg"])
    if (space_group == 401 and sampling[2] != size[2]) or (space_group == 0 and sampling[2] == 1 < size[2]):
        raise InputError(f"{source}: a stack of {size[2]} images or maps and no single map; give one map")
    if (sampling <= 0).any():
        log.warning("%s: no sampling (mx, my, mz) in the header; the number of voxels is taken", source)
        sampling = np.array(size)
    with np.errstate(all="ignore"):
        cell = np.array([header["cella"][key] for key in "xyz"], np.float32)
        step = (cell / sampling.astype(np.float32)).astype(np.float64)
    if not (np.isfinite(step) & (step > 0)).all():
        raise InputError(
            f"{source}: no voxel size in the header (cell {cell[0]:g} x {cell[1]:g} x {cell[2]:g} Å); write it into "
            "the header or give it as the voxel size"
        )
    if (step < _SMALLEST).any() or (step > _LARGEST).any():
        raise InputError(
            f"{source}: voxels of {step[0]:g} x {step[1]:g} x {step[2]:g} Å are out of range; correct the cell lengths "
            "in the header or give the voxel size"
        )
    return step, start, words


def _place(words: np.ndarray, start: np.ndarray, step: np.ndarray, origin: Origin, source: str) -> np.ndarray:
    """(3,) position of voxel 0 in Å."""
    if origin != "nstart" and not np.isfinite(words).all():
        raise InputError(f"{source}: the ORIGIN words are not finite; choose the origin 'nstart', or correct them")
    words[~np.isfinite(words)] = 0
    if origin == "sum" and words.any() and start.any():
        log.warning(
            "%s: both ORIGIN (%s Å) and start indices (%s voxels) are set and are added; if the map ends up beside the "
            "model, choose the origin 'header' or 'nstart'",
            source, ", ".join(f"{word:g}" for word in words), ", ".join(map(str, start)),
        )  # fmt: skip
    place = {"sum": words + start * step, "header": words, "nstart": start * step}[origin]
    if (np.abs(place) > _FARTHEST).any():
        raise InputError(
            f"{source}: voxel 0 lies at ({place[0]:g}, {place[1]:g}, {place[2]:g}) Å; the ORIGIN words or start "
            "indices of the header are wrong, choose another origin ('header' or 'nstart')"
        )
    return place


def _new_header(volume: Volume, label: str) -> Any:
    from mrcfile.dtypes import HEADER_DTYPE

    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    for axis, key in enumerate("xyz"):
        count = volume.shape[2 - axis]
        header[f"n{key}"] = header[f"m{key}"] = count
        header["cella"][key] = count * volume.voxel[axis]
        header["origin"][key] = volume.origin[axis]
    for key in ("alpha", "beta", "gamma"):
        header["cellb"][key] = 90
    header["mode"], header["ispg"], header["nversion"] = 2, 1, 20140
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["map"], header["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    finite = np.isfinite(volume.data)
    values = volume.data if finite.all() else volume.data[finite]
    if values.size:
        header["dmin"], header["dmax"] = values.min(), values.max()
        header["dmean"], header["rms"] = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    text = label or f"jaxprot {__version__}"
    header["label"][0] = text.encode("ascii", "replace")[:80]
    header["nlabl"] = 1
    return header
