"""Perplexity and sequence recovery of ProteinMPNNs on the validation chains, with and without noise on the backbone.

    python scripts/proteinmpnn_recovery.py
    python scripts/proteinmpnn_recovery.py --weights proteinmpnn proteinmpnn:v_48_020 --noise 0 0.1 0.2 --output out

Perplexity is teacher-forced, in one random decoding order per chain and repeat. Recovery is the share of native letters
in one sample per chain and repeat, averaged over chains (and pooled over residues). All weights see the same noise,
orders and draws. Floors: always leucine 0.093; perplexity of the training composition 18.24. Writes `recovery.json` and
`recovery.md` into the output folder, prints the latter.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"))


def measure(designer: Any, chains: list, noise: float, temperature: float, repeats: int, seed: int) -> dict[str, float]:
    """Figures of one network at one level of noise (standard deviation, Å)."""
    import jax
    import numpy as np

    from jaxprot.core.buckets import bucket_length
    from jaxprot.proteinmpnn.featurize import pad_features
    from jaxprot.proteinmpnn.predict import sample_sequences, score_sequences
    from jaxprot.proteinmpnn.sampling import Constraints, make_ties

    nll, kept, count = (np.zeros((repeats, len(chains))) for _ in range(3))
    for number, features in enumerate(chains):
        known = (features.mask > 0) & (features.S < 20)
        features = features._replace(design=known.astype(np.float32))
        padded = pad_features(features, bucket_length(len(features.S)))
        n = len(padded.S)
        for repeat in range(repeats):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), repeat)
            # The noise has a key of its own, so that without noise the draws are those of a run without this option.
            k_score, k_order, k_letter = jax.random.split(key, 3)
            moved = noise * np.asarray(jax.random.normal(jax.random.fold_in(key, 1), padded.X.shape))
            shown = padded._replace(X=(padded.X + moved).astype(np.float32)) if noise else padded
            order = np.asarray(jax.random.normal(k_score, (1, n)))
            score, _ = designer.runner(score_sequences, shown, shown.S[None], order)
            letters = designer.runner(
                sample_sequences,
                shown,
                np.asarray(jax.random.normal(k_order, (1, n))),
                np.asarray(jax.random.uniform(k_letter, (1, n))),
                Constraints.neutral(n, temperature),
                make_ties(shown.S, shown.mask),
            )[0]
            same = (np.asarray(letters)[0][: len(known)] == features.S) & known
            nll[repeat, number] = float(score[0, 0]) * known.sum()
            kept[repeat, number], count[repeat, number] = same.sum(), known.sum()
    per_repeat = (kept / count).mean(axis=1)
    return {
        "perplexity": float(np.exp(nll.sum() / count.sum())),
        "recovery_mean_over_chains": float(per_repeat.mean()),
        "recovery_standard_error": float(per_repeat.std(ddof=1) / np.sqrt(repeats)) if repeats > 1 else float("nan"),
        "recovery_median_over_chains": float(np.median((kept / count).mean(axis=0))),
        "recovery_pooled": float(kept.sum() / count.sum()),
    }


def table(report: dict[str, Any]) -> str:
    """Markdown of a report."""
    levels = report["noise_angstrom"]
    head = " | ".join(f"recovery, {level:g} Å | perplexity, {level:g} Å" for level in levels)
    lines = [f"| weights | {head} |", "|---|" + "---|---|" * len(levels)]
    for name, rows in report["weights"].items():
        cells = " | ".join(f"{row['recovery_mean_over_chains']:.3f} | {row['perplexity']:.2f}" for row in rows)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=["proteinmpnn"], metavar="NAME|FILE")
    parser.add_argument("--chains", type=pathlib.Path, default=DATA / "structures" / "val.npz")
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0], help="standard deviations, Å")
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=1, help="draws of noise, orders and letters per chain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, help="folder for recovery.json and recovery.md")
    args = parser.parse_args()

    import jax

    import jaxprot
    from jaxprot.cli.options import compilation_cache
    from jaxprot.io.outputs import write_json, write_text
    from jaxprot.proteinmpnn.data import read_chain_archive

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    chains = read_chain_archive(args.chains)
    settings = (args.temperature, args.repeats, args.seed)
    report = {
        "chains": len(chains),
        "residues": int(sum(((f.mask > 0) & (f.S < 20)).sum() for f in chains)),
        "noise_angstrom": args.noise,
        "temperature": args.temperature,
        "repeats": args.repeats,
        "seed": args.seed,
        "weights": {},
    }
    for name in args.weights:
        designer = jaxprot.load(name)
        report["weights"][name] = [measure(designer, chains, level, *settings) for level in args.noise]
    text = table(report)
    print(text)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        write_json(args.output / "recovery.json", report)
        write_text(args.output / "recovery.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
