"""DCD trajectories that grow: frames are added one by one, and a run that goes on cuts off what it did not record.

The libraries at hand write a DCD file once, from its beginning; a simulation that was killed needs to add to it. The
layout is CHARMM's (version 24, no unit cell), which VMD, PyMOL, ChimeraX, MDAnalysis and mdtraj read.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from jaxprot.core.errors import InputError

_AKMA_FS = 48.88821290839617  # unit of time of the header in fs
_TITLE = b"written by jaxprot"
_HEAD = 4 + 84 + 4
_START = _HEAD + (4 + 4 + 80 + 4) + (4 + 4 + 4)  # where the first frame begins


class DCDWriter:
    """Adds frames to a DCD file.

    Args:
      path: file.
      atoms: in every frame.
      timestep: fs of a step.
      every: steps between two frames; the first frame is that of step 0, at time 0.
      frames: that an existing file keeps; what lies behind them is cut off. None writes a new file.

    Raises:
      InputError: the file to go on with is missing, no DCD file of this layout, of another number of atoms, or has
        fewer frames.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        atoms: int,
        timestep: float = 1.0,
        every: int = 1,
        *,
        frames: int | None = None,
    ):
        self.path, self.atoms, self.every, self.frames = Path(path), atoms, every, frames or 0
        self._size = 3 * (4 + 4 * atoms + 4)
        if frames is None:
            self._file: IO[bytes] = open(self.path, "wb+")  # noqa: SIM115
        else:
            self._file = self._opened()
        self._file.seek(0)
        self._file.write(self._header(timestep))
        self._file.seek(_START + self.frames * self._size)
        self._file.truncate()
        self._count()

    def _header(self, timestep: float) -> bytes:
        numbers = [0] * 20  # the second is the first frame's step
        numbers[2] = self.every
        numbers[19] = 24
        head = struct.pack("<20i", *numbers)
        head = head[:36] + struct.pack("<f", timestep / _AKMA_FS) + head[40:]
        title = struct.pack("<i", 1) + _TITLE.ljust(80)
        return _record(b"CORD" + head) + _record(title) + _record(struct.pack("<i", self.atoms))

    def _opened(self) -> IO[bytes]:
        try:
            file = open(self.path, "rb+")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{self.path}: cannot be continued ({error.strerror}); start the run anew") from error
        start = file.read(_START)
        if len(start) < _START or start[4:8] != b"CORD" or start[_HEAD + 8 :][: len(_TITLE)] != _TITLE:
            file.close()
            raise InputError(f"{self.path}: not a trajectory that jaxprot wrote, so it cannot be continued")
        atoms = struct.unpack("<i", start[-8:-4])[0]
        whole = (os.fstat(file.fileno()).st_size - _START) // self._size
        if atoms != self.atoms or whole < self.frames:
            file.close()
            raise InputError(
                f"{self.path}: {whole} frames of {atoms} atoms; the run recorded {self.frames} of {self.atoms}"
            )
        return file

    def write(self, positions: np.ndarray) -> None:
        """Adds a frame of (atoms, 3) positions in Å; the header tells of it once it is whole."""
        if np.shape(positions) != (self.atoms, 3):
            raise ValueError(f"a frame of {self.atoms} atoms, got {np.shape(positions)}")
        columns = np.ascontiguousarray(np.asarray(positions).T, "<f4")
        self._file.write(b"".join(_record(column.tobytes()) for column in columns))
        self.frames += 1
        self._count()

    def _count(self) -> None:
        self._file.flush()
        end = self._file.tell()
        self._file.seek(8)
        self._file.write(struct.pack("<i", self.frames))
        self._file.seek(20)
        self._file.write(struct.pack("<i", max(self.frames - 1, 0) * self.every))  # steps
        self._file.seek(end)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> DCDWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _record(content: bytes) -> bytes:
    length = struct.pack("<i", len(content))
    return length + content + length


def read_frames(path: str | os.PathLike) -> np.ndarray:
    """(f, N, 3) float32 Å of a file that `DCDWriter` wrote (`io.trajectories` reads any DCD file).

    Raises:
      InputError: missing, or of another layout.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) < _START or raw[4:8] != b"CORD" or raw[_HEAD + 8 :][: len(_TITLE)] != _TITLE:
        raise InputError(f"{path}: not a trajectory that jaxprot wrote")
    atoms = struct.unpack("<i", raw[_START - 8 : _START - 4])[0]
    size = 3 * (4 + 4 * atoms + 4)
    count = (len(raw) - _START) // size
    frames = np.frombuffer(raw, "<f4", count * size // 4, _START).reshape(count, 3, atoms + 2)
    return np.ascontiguousarray(np.moveaxis(frames[:, :, 1:-1], 1, 2))
