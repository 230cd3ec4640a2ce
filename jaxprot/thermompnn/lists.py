"""Lists of mutations over many structures: matched and checked first, then predicted with one scan per protein."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxprot.core import metrics
from jaxprot.core.errors import InputError, JaxprotError
from jaxprot.core.structure import Structure
from jaxprot.io.mutations import Mutation, MutationTable, counted_rows, format_mutation, parse_mutations
from jaxprot.io.outputs import write_json
from jaxprot.io.structures import SUFFIXES, read_structure, stem_of
from jaxprot.io.tables import write_table
from jaxprot.proteinmpnn.featurize import parse_chains
from jaxprot.thermompnn.predict import Predictor, antisymmetry, locate, tie
from jaxprot.thermompnn.results import Mutants, Sites, spread_name

_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a list.

    Attributes:
      place: what messages call it (`line 7`).
      structure: name of the structure.
      mutations: predicted together.
    """

    place: str
    structure: str
    mutations: tuple[Mutation, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One protein of a list, and what is asked of it.

    Attributes:
      source: the structure, or the file to read it from.
      path: that file.
      chains: that form the protein.
      tied: groups of chains that mutate together.
      rows: numbers of the rows that it answers.
      entries: mutations of each of these rows.
    """

    source: Structure | Path
    path: Path
    chains: tuple[str, ...]
    tied: tuple[tuple[str, ...], ...]
    rows: list[int]
    entries: list[tuple[Mutation, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted ddG of the rows of a list.

    Attributes:
      ddg: (m,) kcal/mol, positive = destabilising.
      sd: (m,) kcal/mol, uncertainty; NaN where not estimated.
      flag: doubts of each row, joined by ';'.
      calibrated: whether `sd` was fitted to errors, or is the bare spread.
    """

    ddg: np.ndarray
    sd: np.ndarray
    flag: list[str]
    calibrated: bool = True


def rows_of(table: MutationTable) -> list[Row]:
    """Rows of a table."""
    triples = zip(table.lines, table.structures, table.mutations, strict=True)
    return [Row(f"line {line}", structure, mutations) for line, structure, mutations in triples]


def reverse_rows_of(table: MutationTable, source: str | os.PathLike) -> list[Row]:
    """Rows of the columns `reverse_structure`, `reverse_mutation` and `reverse_chain`; none without such columns.

    Raises:
      InputError: only one of the two needed columns, or cells that cannot be used, all in one message.
    """
    names = ("reverse_structure", "reverse_mutation")
    present = [name for name in names if name in table.frame]
    if not present:
        return []
    if len(present) == 1:
        raise InputError(f"{source}: has a column {present[0]!r}; give both {' and '.join(names)}, or none")
    cells = [table.frame[name].tolist() for name in names]
    chains = table.frame["reverse_chain"].tolist() if "reverse_chain" in table.frame else [""] * len(table)
    rows, problems = [], []
    for line, structure, text, chain in zip(table.lines, *cells, chains, strict=True):
        try:
            mutations = parse_mutations(str(text))
        except InputError as error:
            problems.append(f"line {line}, reverse_mutation: {error}")
            continue
        chain = str(chain or "").strip()
        mutations = tuple(dataclasses.replace(m, chain=m.chain or chain or None) for m in mutations)
        rows.append(Row(f"line {line}, reverse", str(structure or "").strip(), mutations))
    if problems:
        raise InputError(
            "\n  ".join([f"{source}: {counted_rows(len(problems))} cannot be used", *problems[:_MAX_LISTED]])
        )
    return rows


class Plan:
    """A checked list, ready to run.

    Every structure is read once, and every mutation is looked up in it, before anything is predicted.

    Args:
      rows: the list.
      folder: where the structures are; a row names one by its file name, with or without suffixes.
      whole: predict on all protein chains of a structure; otherwise on the chains that the row names (its first
        protein chain if it names none), as the published tool does.
      tied: groups of chains that mutate together.
      pairs_only: rows must be double mutants (for the epistatic model).
      keep: hold the structures in memory until `run`; otherwise tasks name files, to be read again.
      source: what messages call the list.

    Attributes:
      files: structures that were read.
      tasks: one for each protein, in the order in which the list names them.

    Raises:
      InputError: rows whose structure, chain, residue or wild-type letter is not there, all in one message.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        folder: str | os.PathLike,
        *,
        whole: bool = False,
        tied: Sequence[Sequence[str]] = (),
        pairs_only: bool = False,
        keep: bool = True,
        source: str = "the list of mutations",
    ):
        files = structure_files(folder)
        self.count = len(rows)
        self.files: list[Path] = []
        self.tasks: list[Task] = []
        problems: list[tuple[int, str]] = []
        by_structure: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            by_structure.setdefault(row.structure, []).append(number)
        for name, numbers in by_structure.items():
            try:
                path = find_structure(files, name, folder)
                structure = read_structure(path)
                every = parse_chains(structure)
            except JaxprotError as error:
                problems.append((numbers[0], f"{_places(rows, numbers)}: {error}"))
                continue
            self.files.append(path)
            tasks: dict[tuple[str, ...], Task] = {}
            known = [chain.id for chain in every]
            for number in numbers:
                row = rows[number]
                try:
                    if pairs_only and len(row.mutations) != 2:
                        raise InputError(
                            f"{format_mutation(row.mutations)} is no pair; the double-mutant model takes pairs only"
                        )
                    chains = _context(row, known, whole, tied)
                    task = tasks.get(chains)
                    if task is None:
                        groups = tuple(tuple(group) for group in tied if set(group) & set(chains))
                        task = tasks[chains] = Task(structure if keep else path, path, chains, groups, [], [])
                    sites = Sites.of([chain for name in chains for chain in every if chain.id == name])
                    placed = [locate(sites, mutation, structure.name)[0] for mutation in row.mutations]
                    if len(set(placed)) < len(placed):
                        raise InputError(f"{format_mutation(row.mutations)} mutates one residue twice")
                    task.rows.append(number)
                    task.entries.append(row.mutations)
                except InputError as error:
                    problems.append((number, f"{row.place}: {error}"))
            self.tasks += [task for task in tasks.values() if task.rows]
        if problems:
            problems.sort()
            lines = [text for _, text in problems[:_MAX_LISTED]]
            if len(problems) > _MAX_LISTED:
                lines.append(f"and {len(problems) - _MAX_LISTED} more")
            fit = "row does not fit its structure" if len(problems) == 1 else "rows do not fit their structures"
            raise InputError("\n  ".join([f"{source}: {len(problems)} {fit}", *lines]))

    @property
    def scans(self) -> int:
        """Proteins to scan."""
        return len(self.tasks)

    def run(
        self, predictor: Predictor, *, samples: int = 4, seed: int = 0, advance: Callable[[], None] = lambda: None
    ) -> Predictions:
        """Predicts all rows.

        Args:
          predictor: the model.
          samples: noised backbones for the uncertainty; 0 leaves it out.
          seed: of the noise.
          advance: called after every scan.
        """
        ddg, sd, flag = np.full(self.count, np.nan), np.full(self.count, np.nan), [""] * self.count

        for number, mutants in predict_tasks(predictor, self.tasks, samples=samples, seed=seed):
            if isinstance(mutants, Exception):
                raise mutants
            at = self.tasks[number].rows
            ddg[at], sd[at] = mutants.ddg, mutants.sd
            for row, text in zip(at, mutants.flag, strict=True):
                flag[row] = text
            advance()
        return Predictions(ddg, sd, flag, predictor.calibrated)


def predict_tasks(
    predictor: Predictor, tasks: Sequence[Task], *, samples: int = 4, seed: int = 0
) -> Iterator[tuple[int, Mutants | Exception]]:
    """Predicts what is asked of each protein, with one scan.

    Args:
      predictor: the model.
      tasks: one for each protein.
      samples: noised backbones for the uncertainty; 0 leaves it out.
      seed: of the noise.

    Yields:
      (number of the task, predictions of its rows or the error that it gave), in the order in which they are ready.
    """
    if predictor.config.kind == "epistatic":
        for number, task in enumerate(tasks):
            try:
                found: Mutants | Exception = predictor.predict(task.source, task.entries, task.chains)
            except Exception as error:  # one structure must not end a run over many
                found = error
            yield number, found
        return
    items = ((task.source, task.chains) for task in tasks)
    for number, scan in predictor.scan_many(items, samples=samples, seed=seed):
        task = tasks[number]
        try:
            if isinstance(scan, Exception):
                raise scan
            found = predictor.lookup(tie(scan, task.tied) if task.tied else scan, task.entries)
        except Exception as error:
            found = error
        yield number, found


def structure_files(folder: str | os.PathLike) -> dict[str, list[Path]]:
    """Structure files of a folder by each of the names they go by: with all suffixes, without `.gz`, without any.

    Raises:
      InputError: no such folder, or no structure in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file; give the folder of the structures" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}")
    out: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(SUFFIXES):
            continue
        for name in dict.fromkeys((path.name, path.name.removesuffix(".gz"), stem_of(path))):
            out.setdefault(name, []).append(path)
    if not out:
        raise InputError(f"{folder}: no structures ({', '.join(SUFFIXES)}) in this folder")
    return out


def find_structure(files: dict[str, list[Path]], name: str, folder: str | os.PathLike) -> Path:
    """The file that a list means.

    Raises:
      InputError: none, or several.
    """
    found = files.get(name) or [path for key, paths in files.items() if key.lower() == name.lower() for path in paths]
    found = list(dict.fromkeys(found))
    exact = [path for path in found if path.name == name]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if not found:
        raise InputError(f"no file of structure {name!r} in {folder}; name it by its file name, suffix or not")
    raise InputError(f"structure {name!r} may be {' or '.join(path.name for path in found)}; name the file in full")


def _context(row: Row, known: list[str], whole: bool, tied: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Chains that form the protein of a row, the chain of a mutation without one first."""
    if whole:
        return tuple(known)
    named = [known[0] if mutation.chain is None else mutation.chain for mutation in row.mutations]
    missing = [name for name in named if name not in known]
    if missing:
        raise InputError(
            f"{format_mutation(row.mutations)} is of chain {missing[0]!r}, which is not there or no protein; "
            f"protein chains of {row.structure}: {', '.join(known)}"
        )
    for group in tied:
        if set(group) & set(named):
            named += [name for name in group if name in known]
    return tuple(sorted(dict.fromkeys(named), key=known.index))


def _places(rows: Sequence[Row], numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return f"{rows[numbers[0]].place}{more}"


def write_predictions(
    table: MutationTable,
    found: Predictions,
    directory: Path,
    *,
    format: str = "csv",  # noqa: A002
) -> list[str]:
    """Writes `predictions` and `uncertainty`, and `metrics.json` and `antisymmetry` where the table allows.

    Args:
      table: the list.
      found: predictions of its rows, followed by those of its reverse rows if it has any.
      directory: where.
      format: of the tables.

    Returns:
      Names of the files.
    """
    n, out = len(table), []
    ddg, sd = found.ddg.astype(np.float32), found.sd.astype(np.float32)  # what the model gave: no digits of double
    columns = {str(name): table.frame[name].to_numpy() for name in table.frame.columns}
    result = {**columns, "ddg_kcal_mol": ddg[:n], "flag": np.array(found.flag[:n], dtype=object)}
    out.append(write_table(result, directory / "predictions", format))
    kept = {name: columns[name] for name in ("structure", "chain", "mutation") if name in columns}
    if np.isfinite(found.sd).any():
        values = {"ddg_kcal_mol": ddg[:n], spread_name(found.calibrated): sd[:n]}
        out.append(write_table({**kept, **values}, directory / "uncertainty", format))
    if table.ddg is not None:
        out.append(directory / "metrics.json")
        write_json(out[-1], agreement(found.ddg[:n], np.array(table.ddg), table.structures))
    if len(found.ddg) > n:
        direct, inverse = found.ddg[:n], found.ddg[n:]
        pairs = {"reverse_ddg_kcal_mol": ddg[n:], "sum_kcal_mol": ddg[:n] + ddg[n:]}
        out.append(write_table({**kept, "ddg_kcal_mol": ddg[:n], **pairs}, directory / "antisymmetry", format))
        out.append(directory / "antisymmetry.json")
        write_json(out[-1], antisymmetry(direct, inverse))
    return [path.name for path in out]


def agreement(ddg: np.ndarray, measured: np.ndarray, protein: Iterable[str]) -> dict:
    """How well predictions agree with measurements: n, pearson, spearman, rmse (kcal/mol), r2, and per protein.

    Args:
      ddg: (m,) predicted, kcal/mol, positive = destabilising.
      measured: (m,) of the same sign; NaN where unknown.
      protein: label of each row.
    """
    ddg, measured, protein = np.asarray(ddg, float), np.asarray(measured, float), np.array(list(protein), dtype=object)

    def figures(rows: np.ndarray) -> dict:
        x, y = ddg[rows], measured[rows]
        return {
            "n": len(x),
            "pearson": metrics.pearson(x, y),
            "spearman": metrics.spearman(x, y),
            "rmse": metrics.rmse(x, y),
            "r2": metrics.r2(x, y),
        }

    known = np.isfinite(ddg) & np.isfinite(measured)
    names = dict.fromkeys(protein[known])
    return {**figures(known), "per_protein": {str(name): figures(known & (protein == name)) for name in names}}
