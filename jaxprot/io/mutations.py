"""Mutations as people write them: `A123G`, `A52bG`, `H:A52bG`, `A-3G`, and several joined by ':'.

Numbers are author numbers of the file, with insertion code; letters are one-letter codes of the twenty amino acids.
"""

import csv
import dataclasses
import gzip
import math
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxprot.core.errors import InputError
from jaxprot.core.residues import STANDARD

if TYPE_CHECKING:
    import pandas

_ONE = re.compile(r"([A-Z])(-?\d{1,6})([A-Za-z]?)([A-Z])")
_FORMS = "write A123G, with insertion code A52bG, with chain H:A52bG, several A10G:L55V"
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True, order=True)
class Mutation:
    """One substitution.

    Attributes:
      wt: letter before.
      resid: author residue number.
      icode: insertion code, '' for none, as it was written.
      mut: letter after.
      chain: chain identifier, None if it was not given.
    """

    wt: str
    resid: int
    icode: str
    mut: str
    chain: str | None = None

    def __str__(self) -> str:
        return format_mutation(self)


def parse_mutation(text: str) -> Mutation:
    """Parses one substitution, with or without chain.

    Raises:
      InputError: the text is no substitution of one of the twenty amino acids; the message shows the form.
    """
    first, *others = parse_mutations(text)
    if others:
        raise InputError(f"{text!r} names {1 + len(others)} mutations where one is expected")
    return first


def parse_mutations(text: str) -> tuple[Mutation, ...]:
    """Parses one or more substitutions joined by ':'.

    A part that is no substitution is the chain of the part after it, so `H:A52bG` is one mutation, `A10G:L55V` are
    two, and `H:A52bG:L:S30T` are two in chains H and L.

    Raises:
      InputError: a part cannot be read, or one residue is mutated twice.
    """
    out: list[Mutation] = []
    chain: str | None = None
    for part in str(text).strip().split(":"):
        part = part.strip()
        match = _ONE.fullmatch(part)
        if match:
            wt, resid, icode, mut = match.groups()
            unknown = [letter for letter in (wt, mut) if letter not in STANDARD]
            if unknown:
                raise InputError(f"{text!r}: {unknown[0]!r} is none of the twenty amino acids ({STANDARD})")
            out.append(Mutation(wt, int(resid), icode, mut, chain))
            chain = None
        elif chain is None and part and len(part) <= 8:
            chain = part
        else:
            raise InputError(f"{text!r} is no mutation; {_FORMS}")
    if chain is not None or len(out) == 0:
        raise InputError(f"{text!r} is no mutation; {_FORMS}")
    sites = [(mutation.chain, mutation.resid, mutation.icode) for mutation in out]
    for _, resid, icode in {site for site in sites if sites.count(site) > 1}:
        raise InputError(f"{text!r} mutates residue {resid}{icode} twice")
    return tuple(out)


def format_mutation(mutation: Mutation | tuple[Mutation, ...]) -> str:
    """Writes one mutation (or several, joined by ':') so that parsing gives it back."""
    if not isinstance(mutation, Mutation):
        return ":".join(format_mutation(one) for one in mutation)
    prefix = f"{mutation.chain}:" if mutation.chain else ""
    return f"{prefix}{mutation.wt}{mutation.resid}{mutation.icode}{mutation.mut}"


def counted_rows(count: int) -> str:
    """`1 row`, `2 rows`, ..."""
    return f"{count} row{'' if count == 1 else 's'}"


@dataclasses.dataclass(frozen=True, eq=False)
class MutationTable:
    """A list of mutations over structures.

    Attributes:
      frame: the table as read, all columns; `structure`, `chain` and `mutation` are text.
      mutations: per row the parsed mutations; those without a chain of their own carry that of the `chain` column.
      lines: line of the file that each row begins on, counted from 1; by default those of a file without blank lines.
    """

    frame: "pandas.DataFrame"
    mutations: list[tuple[Mutation, ...]]
    lines: Sequence[int] = ()

    def __post_init__(self):
        if not self.lines:
            object.__setattr__(self, "lines", range(2, 2 + len(self.frame)))

    def __len__(self) -> int:
        return len(self.mutations)

    @property
    def structures(self) -> list[str]:
        """Name of the structure of each row."""
        return self.frame["structure"].tolist()

    @property
    def ddg(self) -> list[float] | None:
        """Measured ddG in kcal/mol of each row (NaN where empty), None without such a column."""
        return self.frame["ddg"].astype(float).tolist() if "ddg" in self.frame else None


def read_mutation_table(path: str | os.PathLike) -> MutationTable:
    """Reads columns `structure`, `mutation`, optionally `chain` and `ddg` (kcal/mol), and any others.

    Args:
      path: `.csv`, `.csv.gz`, `.tsv` or `.parquet`.

    Raises:
      InputError: no such file, no table, a missing column, or rows that cannot be used: all of them in one message,
        with their line numbers.
    """
    frame = _read_frame(path)
    frame.columns = [str(column).strip() for column in frame.columns]
    missing = [column for column in ("structure", "mutation") if column not in frame]
    if missing:
        raise InputError(
            f"{path}: no column {' and '.join(map(repr, missing))}; it has {', '.join(map(repr, frame.columns))}. "
            "Expected: structure,chain,mutation[,ddg]"
        )
    if len(frame) == 0:
        raise InputError(f"{path}: the table holds no mutations")
    for column in ("structure", "mutation", "chain"):
        if column in frame:
            frame[column] = [str(value).strip() for value in frame[column].fillna("")]
    chains = frame["chain"].tolist() if "chain" in frame else [""] * len(frame)
    lines = _line_numbers(path, len(frame))
    problems, mutations = [], []
    for row, structure, chain, text in zip(lines, frame["structure"], chains, frame["mutation"], strict=True):
        try:
            if not structure:
                raise InputError("no structure named")
            parsed = parse_mutations(text)
        except InputError as error:
            problems.append(f"line {row}: {error}")
            continue
        mutations.append(
            tuple(dataclasses.replace(one, chain=chain) if chain and one.chain is None else one for one in parsed)
        )
    problems += _read_ddg(frame, lines)
    if problems:
        shown = problems[:_MAX_LISTED] + (
            [f"and {len(problems) - _MAX_LISTED} more"] if len(problems) > _MAX_LISTED else []
        )
        raise InputError(f"{path}: {counted_rows(len(problems))} cannot be used\n  " + "\n  ".join(shown))
    return MutationTable(frame, mutations, lines)


def _line_numbers(path: str | os.PathLike, count: int) -> Sequence[int]:
    """Lines of the file that its `count` rows begin on; blank lines, which the reader of tables drops, count."""
    name = str(path).lower()
    plain = range(2, 2 + count)
    if name.endswith(".parquet"):
        return plain
    starts, end = [], 0
    try:
        with (gzip.open if name.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if name.endswith((".tsv", ".tsv.gz")) else ",")
            for cells in reader:
                if len(cells) > 1 or "".join(cells).strip():
                    starts.append(end + 1)
                end = reader.line_num  # a quoted cell may hold line breaks
    except (OSError, ValueError, csv.Error):
        return plain
    return starts[1:] if len(starts) == count + 1 else plain


def _read_ddg(frame: "pandas.DataFrame", lines: Sequence[int]) -> list[str]:
    """Turns the `ddg` column into numbers in place (empty = NaN) and names the rows that are none."""
    if "ddg" not in frame:
        return []
    numbers, problems = [], []
    for row, value in zip(lines, frame["ddg"].tolist(), strict=True):
        text = "" if value is None else str(value).strip()
        try:
            number = float(text) if text.lower() not in ("", "na", "<na>") else math.nan
        except ValueError:
            number = math.inf
        if math.isinf(number):
            problems.append(f"line {row}: ddg {text!r} is no number")
        numbers.append(number)
    frame["ddg"] = numbers
    return problems


def _read_frame(path: str | os.PathLike) -> "pandas.DataFrame":
    import pandas

    name = str(path).lower()
    try:
        if name.endswith(".parquet"):
            return pandas.read_parquet(path)
        # Text throughout: chain "NA", structure "1e10" and the like must not become numbers.
        return pandas.read_csv(
            path,
            sep="\t" if name.endswith((".tsv", ".tsv.gz")) else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            index_col=False,
        )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except ImportError as error:
        raise InputError(f"{path}: parquet needs pyarrow (`pip install pyarrow`); or give a csv") from error
    except Exception as error:  # pandas and pyarrow have a dozen kinds for a damaged table
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as a table ({reason}); expected csv or parquet") from error
