"""From the public raw tables to the data sets that ThermoMPNN is trained and judged on.

Filters of the Megascale and FireProtDB tables, homologues by local alignment, clusters, splits, and the comparison of
a rebuilt table with a given one. Sign of every `ddG` made here: kcal/mol, positive = destabilising.
"""

from __future__ import annotations

import csv
import gzip
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxprot.core import metrics
from jaxprot.core.errors import InputError

STANDARD = frozenset("ACDEFGHIKLMNPQRSTVWY")
MEGASCALE_COLUMNS = ("aa_seq", "mut_type", "WT_name", "ddG_ML")
FIREPROT_COLUMNS = ("pdb_id", "chain", "position", "wild_type", "mutation", "ddG", "pH")
_SINGLE = re.compile(r"([A-Z])(\d+)([A-Z])")
# Karlin-Altschul constants of BLOSUM62 with gaps 11/1.
_KA_K, _KA_LAMBDA = 0.041, 0.267


class Rows(NamedTuple):
    """Single mutations of a rebuilt set, one entry per row of the source that passed the filters.

    Attributes:
      protein: name of the protein.
      resid: residue id as text (Megascale: 1-based position in the construct).
      wt: wild-type letter.
      mut: mutant letter.
      ddg: kcal/mol, positive = destabilising.
      dropped: reason -> number of source rows left out for it.
      sequence: protein -> sequence, where the source has it.
    """

    protein: np.ndarray
    resid: np.ndarray
    wt: np.ndarray
    mut: np.ndarray
    ddg: np.ndarray
    dropped: dict[str, int]
    sequence: dict[str, str]


def _rows(
    records: Sequence[tuple[str, str, str, str, float]], dropped: dict[str, int], sequence: dict[str, str]
) -> Rows:
    parts = list(zip(*records, strict=True)) or [()] * 5
    return Rows(*(np.array(p, dtype=str) for p in parts[:4]), np.array(parts[4], float), dropped, sequence)


def read_raw(path: str | pathlib.Path, needed: Sequence[str]) -> Iterable[dict[str, str]]:
    """Streams some columns of a large csv file (`.gz` or not), so that a table of a gigabyte needs no memory.

    Raises:
      InputError: no such file, or a column is missing (all are listed).
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            absent = [name for name in needed if name not in header]
            if absent:
                raise InputError(f"{path}: no column {', '.join(absent)}; needed are {', '.join(needed)}")
            places = [(name, header.index(name)) for name in needed]
            for row in reader:
                if row:
                    yield {name: row[place].strip() if place < len(row) else "" for name, place in places}
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise InputError(f"{path}: not a readable csv table ({error})") from error


def megascale_rows(raw: Iterable[Mapping[str, str]]) -> Rows:
    """Single substitutions of the table `Tsuboyama2023_Dataset2_Dataset3`, as ThermoMPNN selects them.

    Rows without a reliable `ddG_ML` ('-'), insertions, deletions and multiple mutants are dropped; the wild-type rows
    give the sequences. `ddG_ML` is positive for stabilising mutations, hence the sign is turned.

    Args:
      raw: rows with the columns `MEGASCALE_COLUMNS`.

    Raises:
      InputError: mutations whose wild-type letter is not in the wild-type sequence at that place (all proteins in
        which it happens are named).
    """
    dropped = dict.fromkeys(("wild type", "no ddG_ML", "insertion or deletion", "multiple", "not a substitution"), 0)
    sequence: dict[str, str] = {}
    records = []
    for row in raw:
        kind, name = row["mut_type"], megascale_name(row["WT_name"])
        if kind == "wt":
            sequence.setdefault(name, row["aa_seq"])
            dropped["wild type"] += 1
        elif "ins" in kind or "del" in kind:
            dropped["insertion or deletion"] += 1
        elif ":" in kind:
            dropped["multiple"] += 1
        elif row["ddG_ML"] in ("-", ""):
            dropped["no ddG_ML"] += 1
        elif not (match := _SINGLE.fullmatch(kind)) or not {match[1], match[3]} <= STANDARD or match[1] == match[3]:
            dropped["not a substitution"] += 1
        else:
            records.append((name, match[2], match[1], match[3], -float(row["ddG_ML"])))
    wrong: dict[str, int] = {}
    for name, place, wt, _, _ in records:
        letters = sequence.get(name, "")
        if letters and (int(place) > len(letters) or letters[int(place) - 1] != wt):
            wrong[name] = wrong.get(name, 0) + 1
    if wrong:
        shown = ", ".join(f"{name} ({count} rows)" for name, count in list(wrong.items())[:10])
        raise InputError(f"the wild-type letters of mut_type do not fit the sequence of the wild-type row: {shown}")
    return _rows(records, dropped, sequence)


def megascale_name(raw: str) -> str:
    """File stem of a protein of the Megascale table (`|` is `:` in the names of its structure files)."""
    return raw.removesuffix(".pdb").replace("|", ":")


def fireprot_rows(
    raw: Iterable[Mapping[str, str]], monomers: Iterable[str] | None = None, best_ph: float = 7.4
) -> Rows:
    """Single substitutions of a FireProtDB export, one per (entry, chain, residue, mutant).

    Of several measurements the one closest to `best_ph` is taken and those of equal pH are averaged; a measurement of
    unknown pH counts only where there is no other.

    Args:
      raw: rows with the columns `FIREPROT_COLUMNS`; the first of several `pdb_id` (`1ABC|2XYZ`) is taken.
      monomers: PDB codes to keep; None keeps all.
      best_ph: preferred pH.
    """
    kept = None if monomers is None else {code.upper() for code in monomers}
    dropped = dict.fromkeys(
        ("no ddG", "no structure", "not a monomer", "not a substitution", "other pH or duplicate"), 0
    )
    found: dict[tuple[str, str, str, str], list[tuple[float, float]]] = {}
    for row in raw:
        code = re.split(r"[|,; ]", row["pdb_id"])[0].upper()
        value, ph = _number(row["ddG"]), _number(row["pH"])
        if math.isnan(value):
            dropped["no ddG"] += 1
        elif not code or code in ("-", "NAN"):
            dropped["no structure"] += 1
        elif kept is not None and code not in kept:
            dropped["not a monomer"] += 1
        elif not {row["wild_type"], row["mutation"]} <= STANDARD or row["wild_type"] == row["mutation"]:
            dropped["not a substitution"] += 1
        else:
            key = (code + row["chain"].strip(), row["position"], row["wild_type"], row["mutation"])
            found.setdefault(key, []).append((math.inf if math.isnan(ph) else abs(ph - best_ph), value))
    records = []
    for key, values in found.items():
        nearest = min(distance for distance, _ in values)
        # 7.3 and 7.5 lie equally far from 7.4 but for a rounding.
        best = [value for distance, value in values if distance == nearest or abs(distance - nearest) < 1e-6]
        dropped["other pH or duplicate"] += len(values) - 1
        records.append((*key, float(np.mean(best))))
    return _rows(records, dropped, {})


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


class Homologue(NamedTuple):
    """A pair of similar sequences.

    Attributes:
      query: name of the first.
      target: name of the second.
      identity: share of equal letters among the aligned pairs.
      aligned: number of aligned pairs.
      coverage: aligned pairs over the length of the shorter sequence.
      evalue: expected number of chance alignments of this score in the searched set.
    """

    query: str
    target: str
    identity: float
    aligned: int
    coverage: float
    evalue: float


def find_homologues(
    queries: Mapping[str, str],
    targets: Mapping[str, str],
    *,
    identity: float = 0.25,
    coverage: float = 0.5,
    evalue: float = 10.0,
    searched: int | None = None,
) -> list[Homologue]:
    """Pairs of a query and a target with a local alignment (BLOSUM62, gaps 11/1) above the thresholds.

    The E value is 0.041 · m · N · exp(-0.267 S) for a query of m residues and N residues searched.
    Equal targets are compared once and each of them is reported.

    Args:
      queries: name -> sequence.
      targets: name -> sequence.
      identity: least share of equal letters among the aligned pairs.
      coverage: least share of the shorter sequence that is aligned.
      evalue: largest E value.
      searched: N; by default the residues of all different targets, so that a pair of chance level may pass in a small
        search and not in a large one.
    """
    from Bio.Align import PairwiseAligner, substitution_matrices

    aligner = PairwiseAligner(mode="local")
    aligner.substitution_matrix = substitution_matrices.load("BLOSUM62")
    aligner.open_gap_score, aligner.extend_gap_score = -11, -1
    same: dict[str, list[str]] = {}
    for name, letters in targets.items():
        if letters:
            same.setdefault(letters, []).append(name)
    searched = sum(map(len, same)) if searched is None else searched
    out = []
    for query, q in queries.items():
        if not q:
            continue
        for t, names in same.items():
            expected = _KA_K * len(q) * searched * math.exp(-_KA_LAMBDA * aligner.score(q, t))
            if expected > evalue:
                continue
            blocks = list(zip(*aligner.align(q, t)[0].aligned, strict=True))
            aligned = sum(int(a1 - a0) for (a0, a1), _ in blocks)
            equal = sum(x == y for (a0, a1), (b0, b1) in blocks for x, y in zip(q[a0:a1], t[b0:b1], strict=True))
            covered = aligned / min(len(q), len(t))
            if equal / aligned >= identity and covered >= coverage:
                out.extend(
                    Homologue(query, n, equal / aligned, aligned, covered, expected) for n in names if n != query
                )
    return out


def cluster(names: Sequence[str], pairs: Iterable[Homologue]) -> list[list[str]]:
    """Single-linkage clusters of names that homologous pairs connect, the largest first."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for pair in pairs:
        if pair.query in parent and pair.target in parent:
            parent[root(pair.query)] = root(pair.target)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(root(name), []).append(name)
    return sorted((sorted(g) for g in groups.values()), key=lambda g: (-len(g), g[0]))


def split(clusters: Sequence[Sequence[str]], shares: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Parts for whole clusters, so that no homologues lie in different parts.

    Args:
      clusters: the largest first, from `cluster`.
      shares: part -> wanted share (or number) of the names.
      seed: of the order of clusters of equal size.

    Returns:
      name -> part. Each cluster goes to the part that is furthest below its share.
    """
    rng = np.random.default_rng(seed)
    draw = rng.random(len(clusters))
    order = sorted(range(len(clusters)), key=lambda i: (-len(clusters[i]), draw[i]))
    total, names = sum(shares.values()), sum(map(len, clusters))
    wanted = {part: share / total * names for part, share in shares.items()}
    filled = dict.fromkeys(shares, 0)
    out = {}
    for i in order:
        part = max(shares, key=lambda p: (wanted[p] - filled[p]) / wanted[p])
        filled[part] += len(clusters[i])
        out.update(dict.fromkeys(clusters[i], part))
    return out


def crossing(parts: Mapping[str, str], pairs: Iterable[Homologue]) -> list[Homologue]:
    """Homologous pairs whose members a split puts into different parts, each pair once."""
    seen, out = set(), []
    for pair in pairs:
        a, b = parts.get(pair.query), parts.get(pair.target)
        key = frozenset((pair.query, pair.target))
        if a and b and a != b and key not in seen:
            seen.add(key)
            out.append(pair)
    return out


def pdb_code(protein: str) -> str:
    """PDB code at the start of a protein name (upper case), or the whole name where there is none."""
    return protein[:4].upper() if re.fullmatch(r"\d[A-Za-z0-9]{3}", protein[:4]) else protein


def compare(rebuilt: Rows, given: Mapping[str, np.ndarray], tolerance: float = 0.01) -> dict[str, float]:
    """Agreement of a rebuilt table with a given one (columns protein, resid, wt, mut, ddG).

    Proteins are matched by PDB code (a rebuilt protein may be one of several constructs: the one with most equal
    rows is taken), and residues with the shift of numbering that makes most wild-type letters equal.

    Args:
      rebuilt: from the raw table.
      given: columns of the table to compare with.
      tolerance: kcal/mol within which two values are equal.

    Returns:
      proteins and rows of both sides, rows found on both, rows whose ddG agrees, largest difference, Pearson.
    """
    candidates: dict[str, list[str]] = {}
    for name in np.unique(rebuilt.protein):
        candidates.setdefault(pdb_code(str(name)), []).append(str(name))
    tables = {name: _table(rebuilt, rebuilt.protein == name) for names in candidates.values() for name in names}
    protein = np.asarray(given["protein"]).astype(str)
    differences, pairs, found = [], [], 0
    for name in np.unique(protein):
        mine = np.flatnonzero(protein == name)
        rows = [
            (str(given["resid"][r]), str(given["wt"][r]), str(given["mut"][r]), float(given["ddG"][r])) for r in mine
        ]
        options = [_matched(rows, tables[other]) for other in candidates.get(pdb_code(str(name)), [])]
        best = max(options, key=len, default=[])
        found += bool(best)
        pairs.extend(best)
        differences.extend(abs(a - b) for a, b in best)
    x, y = (np.array(side, float) for side in (zip(*pairs, strict=True) if pairs else ((), ())))
    return {
        "proteins_given": len(np.unique(protein)),
        "proteins_rebuilt": len(tables),
        "proteins_in_both": found,
        "rows_given": len(protein),
        "rows_rebuilt": len(rebuilt.ddg),
        "rows_in_both": len(pairs),
        "rows_equal": int(sum(d <= tolerance for d in differences)),
        "largest_difference": max(differences, default=math.nan),
        "pearson": float(metrics.pearson(x, y)),
    }


def _table(rows: Rows, chosen: np.ndarray) -> dict[tuple[str, str, str], float]:
    keys = zip(rows.resid[chosen], rows.wt[chosen], rows.mut[chosen], strict=True)
    return {tuple(map(str, key)): float(v) for key, v in zip(keys, rows.ddg[chosen], strict=True)}


def _matched(
    rows: Sequence[tuple[str, str, str, float]], table: Mapping[tuple[str, str, str], float]
) -> list[tuple[float, float]]:
    """(given, rebuilt) values of the rows found, under the shift of residue numbers that finds most of them."""
    exact = [(value, table[key]) for *key_, value in rows if (key := tuple(key_)) in table]
    if len(exact) == len(rows):
        return exact
    letters = {int(i): wt for i, wt, _ in table if i.lstrip("-").isdigit()}
    wild = {int(i): wt for i, wt, _, _ in rows if i.lstrip("-").isdigit()}
    votes: dict[int, int] = {}
    for i, a in wild.items():
        for j, b in letters.items():
            if a == b:
                votes[j - i] = votes.get(j - i, 0) + 1
    best = exact
    for shift in sorted(votes, key=lambda s: (-votes[s], abs(s)))[:3]:
        moved = [
            (value, table[key])
            for i, wt, mut, value in rows
            if i.lstrip("-").isdigit() and (key := (str(int(i) + shift), wt, mut)) in table
        ]
        best = max(best, moved, key=len)
    return best


def evaluation_sequences(structures: str | pathlib.Path, proteins: Iterable[str]) -> dict[str, str]:
    """Sequences of `PROTEIN.pdb.gz` files: the residues of the first chain that are there, without gaps.

    Files that are missing or hold no protein are left out.
    """
    from jaxprot.io.structures import read_structure
    from jaxprot.proteinmpnn.featurize import parse_chains

    out = {}
    for name in proteins:
        try:
            chains = parse_chains(read_structure(pathlib.Path(structures) / f"{name}.pdb.gz"))
        except (InputError, FileNotFoundError):
            continue
        out[name] = chains[0].sequence.replace("-", "")
    return out
