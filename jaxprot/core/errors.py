"""The errors a user can act on.

Every message names the file, the record in it and the remedy. The command line prints one of these as a single line
and exits with code 2; anything else is a bug of ours and keeps its traceback.
"""


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
