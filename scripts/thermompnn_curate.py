"""Rebuilds the stability data from the public raw tables, and looks for homologues of the evaluation sets.

    python scripts/thermompnn_curate.py --megascale Tsuboyama2023_Dataset2_Dataset3_20230416.csv \
        --fireprot fireprotdb_results.csv --monomers monomers.txt --output curated/
    python scripts/thermompnn_curate.py --homologues

The first form writes `megascale.csv` (protein, position, wt, mut, ddG, split) and `fireprot.csv` (protein, resid, wt,
mut, ddG, homologue_free), prints what each filter dropped, and how far the result agrees with the given tables
under `stability/`. The second needs the given data only: it prints which proteins outside the published split are
free of homologues of every evaluation set (the list `EXTRA` of `experiments/thermompnn/default.py`), and which training
proteins of the published split have close homologues in its validation and test parts. `JAXPROT_DATA` names the folder
with `stability/` (default `../shared/data` beside the repository).

Raw tables: the Megascale csv is part of doi 10.5281/zenodo.7992926; the FireProtDB csv is the full export of its web
page. The clusters of the publication were made with MMseqs2; here a Smith-Waterman alignment of all pairs decides
(at least 25 % identity over half of the shorter sequence, E <= 10), so that parts may differ in single proteins.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import runpy
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", ROOT.parent / "shared" / "data"))
# Proteins of the published parts.
SHARES = {"train": 239, "val": 31, "test": 28}
CLOSE = {"identity": 0.4, "evalue": 1e-3}


def splits(columns: dict[str, np.ndarray]) -> dict[str, str]:
    """protein -> published part, '' where it is in none."""
    proteins, parts = columns["protein"].astype(str), columns["thermompnn_split"].astype(str)
    return {str(name): str(parts[np.flatnonzero(proteins == name)[0]]) for name in np.unique(proteins)}


def evaluation(data: pathlib.Path) -> dict[str, str]:
    """'set protein' -> sequence of every protein that the predictor is judged on."""
    from jaxprot.io.tables import read_table
    from jaxprot.thermompnn.curation import evaluation_sequences

    home = data / "stability"
    mega, fire = read_table(home / "megascale_natural.csv.gz"), read_table(home / "fireprot.csv.gz")
    held = [name for name, part in splits(mega).items() if part in ("val", "test")]
    sets = {
        "megascale": (home / "pdb_megascale", held),
        "fireprot": (home / "pdb_xray", np.unique(fire["protein"].astype(str)[fire["homologue_free"] == 1])),
    }
    for name in ("ssym_direct", "ssym_inverse", "p53", "myoglobin"):
        sets[name] = (home / "pdb_xray", np.unique(read_table(home / f"{name}.csv")["protein"].astype(str)))
    out = {}
    for name, (folder, proteins) in sets.items():
        out.update({f"{name} {p}": s for p, s in evaluation_sequences(folder, map(str, proteins)).items()})
    return out


def experiment_extra() -> tuple[str, ...]:
    """The list in the experiment file."""
    return tuple(runpy.run_path(str(ROOT / "experiments" / "thermompnn" / "default.py"))["EXTRA"])


def homologues(data: pathlib.Path) -> int:
    """Prints the homologues; 1 if the list of the experiment is not what is found."""
    from jaxprot.io.tables import read_table
    from jaxprot.thermompnn.curation import evaluation_sequences, find_homologues

    columns = read_table(data / "stability" / "megascale_natural.csv.gz")
    part = splits(columns)
    judged = evaluation(data)
    others = [name for name, where in part.items() if where not in ("val", "test")]
    queries = evaluation_sequences(data / "stability" / "pdb_megascale", others)
    found = find_homologues(queries, judged)
    of: dict[str, list] = {}
    for pair in sorted(found, key=lambda p: p.evalue):
        of.setdefault(pair.query, []).append(pair)
    print(f"{len(queries)} proteins against {len(judged)} evaluation proteins ({len(set(judged.values()))} sequences)")
    print("\nOutside the published split:")
    free = []
    for name in sorted(queries):
        if part[name]:
            continue
        if name not in of:
            free.append(name)
        print(f"  {name:26s} {describe(of[name][0], len(of[name])) if name in of else 'no homologue'}")
    print("\nfree of homologues, for training:")
    print("EXTRA = (" + "".join(f'\n    "{name}",' for name in free) + "\n)")
    train = [name for name in queries if part[name] == "train"]
    inside = {n: [p for p in of.get(n, []) if p.target.startswith("megascale")] for n in train}
    close = [p for n in train for p in of.get(n, []) if p.identity >= CLOSE["identity"] and p.evalue <= CLOSE["evalue"]]
    count = sum(map(bool, inside.values()))
    print(f"\ntraining proteins of the published split with a homologue in val or test: {count}")
    limits = f"{CLOSE['identity']:.0%} identity, E <= {CLOSE['evalue']:g}"
    print(f"training proteins with a close one ({limits}) in any set:")
    for name in dict.fromkeys(p.query for p in close):
        mine = [p for p in close if p.query == name]
        sets = sorted({p.target.split()[0] for p in mine})
        print(f"  {name:26s} {describe(mine[0], len(mine))}; sets: {', '.join(sets)}")
    listed = experiment_extra()
    same = sorted(listed) == free
    print(f"\nexperiments/thermompnn/default.py lists {len(listed)} proteins: {'the same' if same else 'NOT the same'}")
    return 0 if same else 1


def describe(pair, count: int) -> str:
    """One line on the best of several homologues."""
    more = f" and {count - 1} more" if count > 1 else ""
    aligned = f"{pair.identity:.0%} of {pair.aligned} pairs, covers {pair.coverage:.0%}"
    return f"{pair.target} {aligned}, E {pair.evalue:.1e}{more}"


def report_rows(title: str, rows) -> None:
    """Prints what a filter kept and dropped."""
    print(f"{title}: {len(rows.ddg)} mutations of {len(np.unique(rows.protein))} proteins")
    for reason, count in rows.dropped.items():
        print(f"  dropped, {reason}: {count}")


def report_agreement(title: str, rows, given: dict[str, np.ndarray]) -> None:
    """Prints how far a rebuilt table and a given one agree."""
    from jaxprot.thermompnn.curation import compare

    print(f"{title}, agreement with the given table:")
    for name, value in compare(rows, given).items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"  {name.replace('_', ' ')}: {shown}")


def megascale(path: pathlib.Path, data: pathlib.Path, output: pathlib.Path, seed: int) -> dict[str, str]:
    """Rebuilds the Megascale set; returns its sequences."""
    from jaxprot.io.tables import read_table, write_table
    from jaxprot.thermompnn.curation import (
        MEGASCALE_COLUMNS,
        cluster,
        crossing,
        find_homologues,
        megascale_rows,
        pdb_code,
        read_raw,
        split,
    )

    rows = megascale_rows(read_raw(path, MEGASCALE_COLUMNS))
    report_rows("Megascale", rows)
    names = sorted(set(rows.protein.tolist()))
    sequences = {name: rows.sequence[name] for name in names if name in rows.sequence}
    without = [name for name in names if name not in sequences]
    if without:
        print(f"  {len(without)} proteins have no wild-type row, hence no sequence: {', '.join(without[:5])}")
    pairs = find_homologues(sequences, sequences)
    groups = cluster(list(sequences), pairs)
    parts = split(groups, SHARES, seed)
    sizes = {part: sum(v == part for v in parts.values()) for part in SHARES}
    print(f"  {len(groups)} clusters, the largest of {len(groups[0])}; new split: {sizes}")
    print(f"  pairs of homologues across its parts: {len(crossing(parts, pairs))}")
    table_path = data / "stability" / "megascale_natural.csv.gz"
    if table_path.is_file():
        given = read_table(table_path)
        report_agreement("Megascale", rows, given)
        code = {pdb_code(name): part for name, part in splits(given).items() if part}
        published = {name: code[pdb_code(name)] for name in sequences if pdb_code(name) in code}
        print(f"  pairs of homologues across the published split, {len(published)} proteins of it here: ", end="")
        print(len(crossing(published, pairs)))
        equal = sum(parts[name] == part for name, part in published.items())
        print(f"  proteins that the new split puts where the published one has them: {equal}")
    columns = {
        "protein": rows.protein,
        "position": rows.resid.astype(int),
        "wt": rows.wt,
        "mut": rows.mut,
        "ddG": rows.ddg,
        "split": np.array([parts.get(str(name), "") for name in rows.protein], dtype=object),
    }
    print(f"wrote {write_table(columns, output / 'megascale.csv')}")
    return sequences


def fireprot(
    path: pathlib.Path, monomers: pathlib.Path | None, data: pathlib.Path, output: pathlib.Path, against: dict[str, str]
) -> None:
    """Rebuilds the FireProtDB set; `against`: sequences that its homologue-free part must not resemble."""
    from jaxprot.io.tables import read_table, write_table
    from jaxprot.thermompnn.curation import (
        FIREPROT_COLUMNS,
        evaluation_sequences,
        find_homologues,
        fireprot_rows,
        read_raw,
    )

    codes = None if monomers is None else monomers.read_text().split()
    rows = fireprot_rows(read_raw(path, FIREPROT_COLUMNS), codes)
    report_rows("FireProtDB", rows)
    if codes is None:
        print("  no --monomers: entries that are oligomers are kept")
    names = sorted(set(rows.protein.tolist()))
    sequences = evaluation_sequences(data / "stability" / "pdb_xray", names)
    print(f"  {len(sequences)} of {len(names)} proteins have a structure at hand")
    similar = {p.query for p in find_homologues(sequences, against)} if against else set()
    # Unknown, not free, where there is no sequence to compare.
    free = np.array([int(name in sequences and name not in similar) for name in rows.protein])
    print(f"  homologue-free: {len(set(rows.protein[free == 1].tolist()))} proteins, {int(free.sum())} mutations")
    table_path = data / "stability" / "fireprot.csv.gz"
    if table_path.is_file():
        report_agreement("FireProtDB", rows, read_table(table_path))
    columns = {"protein": rows.protein, "resid": rows.resid, "wt": rows.wt, "mut": rows.mut, "ddG": rows.ddg}
    print(f"wrote {write_table({**columns, 'homologue_free': free}, output / 'fireprot.csv')}")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megascale", type=pathlib.Path, help="raw csv Tsuboyama2023_Dataset2_Dataset3 (also .gz)")
    parser.add_argument("--fireprot", type=pathlib.Path, help="raw csv of FireProtDB (also .gz)")
    parser.add_argument("--monomers", type=pathlib.Path, help="text file of PDB codes of monomeric entries")
    parser.add_argument("--homologues", action="store_true", help="homologues in the given data")
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="folder with stability/")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("curated"), help="folder of the tables")
    args = parser.parse_args(argv)
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.tables import read_table
    from jaxprot.thermompnn.curation import evaluation_sequences

    if not (args.megascale or args.fireprot or args.homologues):
        parser.error("give --megascale, --fireprot or --homologues")
    code, home = 0, args.data / "stability"
    try:
        if args.homologues:
            code = homologues(args.data)
        if args.megascale or args.fireprot:
            args.output.mkdir(parents=True, exist_ok=True)
        against: dict[str, str] = {}
        if args.megascale:
            against = megascale(args.megascale, args.data, args.output, args.seed)
        if args.fireprot:
            if not against and (home / "megascale_natural.csv.gz").is_file():
                known = splits(read_table(home / "megascale_natural.csv.gz"))
                against = evaluation_sequences(home / "pdb_megascale", known)
            fireprot(args.fireprot, args.monomers, args.data, args.output, against)
    except (JaxprotError, OSError) as error:
        parser.error(str(error))
    return code


if __name__ == "__main__":
    sys.exit(main())
