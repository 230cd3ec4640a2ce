"""FASTA files. A sequence of several chains is one record, chains joined by '/'."""

import dataclasses
import gzip
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from jaxprot.core.errors import InputError
from jaxprot.core.residues import ALPHABET
from jaxprot.io.outputs import atomic_path


@dataclasses.dataclass(frozen=True)
class FastaRecord:
    """One sequence.

    Attributes:
      name: the header line without '>'.
      sequence: letters in upper case without blanks; '/' between chains.
    """

    name: str
    sequence: str

    @property
    def id(self) -> str:
        """First word of the header, without a trailing comma."""
        words = self.name.split()
        return words[0].rstrip(",") if words else ""

    @property
    def chains(self) -> list[str]:
        """Sequences of the single chains."""
        return self.sequence.split("/")


def read_fasta(
    path: str | os.PathLike, *, alphabet: str | None = ALPHABET + "-/*", empty: bool = False
) -> list[FastaRecord]:
    """Reads all records of a FASTA file (`.gz` too).

    Args:
      path: the file.
      alphabet: letters allowed; None for any. A final '*' (stop) is dropped.
      empty: give records without a sequence too, which are an error otherwise.

    Raises:
      InputError: no such file, no record, an empty record, or a letter outside the alphabet, with the record's name.
    """
    text = _read_text(path)
    records: list[FastaRecord] = []
    name, lines = None, []
    for number, line in enumerate([*text.splitlines(), ">"], 1):
        line = line.strip()
        if line.startswith(">"):
            if name is not None:
                records.append(_record(path, name, lines, alphabet, empty))
            name, lines = line[1:].strip(), []
        elif line and not line.startswith(";"):
            if name is None:
                raise InputError(f"{path}, line {number}: text before the first '>'; is this a FASTA file?")
            lines.append(line)
    if not records:
        raise InputError(f"{path}: no FASTA records")
    return records


def write_fasta(records: Iterable[FastaRecord | tuple[str, str]], path: str | os.PathLike, *, width: int = 0) -> None:
    """Writes records, all or nothing.

    Args:
      records: records, or (header, sequence) pairs.
      path: target; gzipped if it ends in `.gz`.
      width: letters per line; 0 for one line per sequence.

    Raises:
      OutputError: the file cannot be written.
      ValueError: a header holds a line break.
    """
    out = []
    for record in records:
        name, sequence = (record.name, record.sequence) if isinstance(record, FastaRecord) else record
        if "\n" in name or "\r" in name:
            raise ValueError(f"FASTA header {name!r} holds a line break")
        step = width or max(len(sequence), 1)
        out += [f">{name}", *(sequence[i : i + step] for i in range(0, max(len(sequence), 1), step))]
    data = ("\n".join(out) + "\n").encode() if out else b""
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


def _read_text(path: str | os.PathLike) -> str:
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip file is truncated or damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; expected FASTA") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from error


def _record(path: str | os.PathLike, name: str, lines: list[str], alphabet: str | None, empty: bool) -> FastaRecord:
    sequence = "".join("".join(lines).split()).upper()
    sequence = sequence[:-1] if sequence.endswith("*") else sequence
    if not sequence and not empty:
        raise InputError(f"{path}: record {name!r} is empty")
    wrong = sorted(set(sequence) - set(alphabet)) if alphabet is not None else []
    if wrong:
        raise InputError(f"{path}: record {name!r} has {', '.join(map(repr, wrong))}; letters known are {alphabet}")
    return FastaRecord(name, sequence)
