"""Stacks of particle images in MRC's layout (mrcfile's types), each mapped into memory when it is first asked for."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxprot._version import __version__
from jaxprot.core.errors import InputError
from jaxprot.core.particles import StackedImages
from jaxprot.io.maps import _HEADER, _MODES, _OTHER_MODES, _axes, _header
from jaxprot.io.outputs import atomic_path

log = logging.getLogger(__name__)

Mode = Literal[0, 1, 2, 6, 12]


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
