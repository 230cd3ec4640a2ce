"""The errors a user can act on.

Every message names the file, the record in it and the remedy. The command line prints one of these as a single line
and exits with code 2 (1 where a download failed, since the input was right); anything else is a bug of ours and keeps
its traceback.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any


class JaxprotError(Exception):
    """Base of every error that the caller can put right."""


class InputError(JaxprotError, ValueError):
    """A structure, table, sequence or option that cannot be used as it is."""


class CheckpointError(JaxprotError, ValueError):
    """A weight file that is damaged, of another model, or not safe to read."""


class DownloadError(JaxprotError, OSError):
    """A file that could not be fetched or whose checksum is wrong."""


class OutputError(JaxprotError, OSError):
    """A result that could not be written, or that would overwrite an older one."""


@contextlib.contextmanager
def naming(source: Any, name: str) -> Iterator[None]:
    """Input errors that start with the name of a structure start with the path it was read from instead.

    Args:
      source: what the user gave; anything but a path changes nothing.
      name: name of the structure that was read.
    """
    try:
        yield
    except InputError as error:
        if not isinstance(source, (str, os.PathLike)) or not str(error).startswith(f"{name}: "):
            raise
        raise InputError(f"{os.fspath(source)}: {str(error)[len(name) + 2 :]}") from error
