"""Chains of an archive that resemble no tested protein of benchmark tables, so that their structures may be learned.

    python scripts/massa_apart.py --chains structures/train.npz --output resembling.txt \
        tasks/secondary_structure_subset.csv.gz tasks/remote_homology.csv.gz tasks/enzyme_class.csv.gz

Writes the names of the chains that do resemble one, a line each: those with a local alignment (BLOSUM62, gaps of
11 + k) of at least 70, about 32 bits, to a row of the part `test`. 0.3 ms for each pair of sequences.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=pathlib.Path, help="with the columns sequence and split")
    parser.add_argument("--chains", type=pathlib.Path, required=True, help="archive of chains (.npz)")
    parser.add_argument("--score", type=float, default=70.0, help="of an alignment that is too good")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="text file of names")
    args = parser.parse_args(argv)

    from Bio.Align import PairwiseAligner, substitution_matrices
    from tqdm import tqdm

    from jaxprot.core.errors import InputError, JaxprotError
    from jaxprot.io.outputs import write_text
    from jaxprot.massa.data import read_all
    from jaxprot.massa.embedders import check_letters
    from jaxprot.massa.tasks.tables import parse_parts, read_texts

    matrix = substitution_matrices.load("BLOSUM62")
    aligner = PairwiseAligner(mode="local", substitution_matrix=matrix, open_gap_score=-12, extend_gap_score=-1)
    try:
        proteins = read_all((str(args.chains),))
        tested: set[str] = set()
        for path in args.tables:
            frame = read_texts(path, ("sequence", "split"))
            split = parse_parts(path, frame["split"].to_numpy(str), list(frame.sequence), np.arange(len(frame)) + 2)
            lines = np.flatnonzero(split == "test") + 2
            found = zip(frame.sequence[split == "test"], lines, strict=True)
            tested |= {check_letters(text, f"{path}, line {line}") for text, line in found}
        if not tested:
            raise InputError(f"{args.tables[0]}: no row of the part 'test'")
    except JaxprotError as error:
        parser.error(str(error))
    near = []
    letters = str.maketrans("UOJ", "CKL")  # the matrix has no rows for these
    others = [one.translate(letters) for one in sorted(tested)]
    for protein in tqdm(proteins, unit="chain"):
        sequence = protein.sequence.translate(letters)
        if any(aligner.score(sequence, other) >= args.score for other in others):
            near.append(protein.name)
    write_text(args.output, "".join(f"{name}\n" for name in near))
    print(f"{len(near)} of {len(proteins)} chains resemble one of {len(tested)} tested proteins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
