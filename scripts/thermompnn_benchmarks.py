"""The benchmark table of ThermoMPNN: ours, ProteinMPNN zero-shot, a linear floor, and published values.

    python scripts/thermompnn_benchmarks.py --output benchmarks/
    python scripts/thermompnn_benchmarks.py --weights thermompnn:official --resamples 200

Sets: Megascale validation and test, FireProtDB (all, and without homologues in Megascale), Ssym direct and inverse,
p53, myoglobin. Figures are pooled over the mutations of a set; 95 % intervals by bootstrap over proteins (over
mutations where a set has fewer than five proteins). Writes `benchmarks.json` and `benchmarks.md`, prints the latter.
`JAXPROT_DATA` names the folder with `stability/` (default `../shared/data` beside the repository).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", ROOT.parent / "shared" / "data"))

PAPER = "PNAS 2024, doi 10.1073/pnas.2314853121 (approximate, not verified against the tables)"
NOTEBOOK = "example notebook of Kuhlman-Lab/ThermoMPNN-D, single-mutant model v2"
RERUN = "issue 28 of Kuhlman-Lab/ThermoMPNN, a user's run of the default weights"
# set -> (what, n or None, Spearman, Pearson, RMSE, source). None: not reported. The published Megascale test holds 28
# proteins, 16 of them de novo designs or otherwise absent here, so these rows are not the same measurement.
PUBLISHED = {
    "megascale_test": (
        ("ThermoMPNN", None, 0.725, 0.754, 0.71, PAPER),
        ("ThermoMPNN v2", 28172, 0.719, 0.744, 0.708, NOTEBOOK),
        ("ThermoMPNN", None, 0.67, 0.71, None, RERUN),
        ("ProteinMPNN zero-shot", None, 0.47, None, None, PAPER),
    ),
    "fireprot_free": (
        ("ThermoMPNN", None, 0.66, 0.65, None, PAPER),
        ("ThermoMPNN", None, 0.60, 0.60, None, RERUN),
    ),
    "ssym_direct": (("KORPM", 342, None, 0.69, 1.33, "table of KORPM's publication"),),
    "ssym_inverse": (
        ("ThermoMPNN v2", 342, 0.607, 0.583, 1.54, NOTEBOOK),
        ("KORPM", 342, None, 0.69, 1.33, "table of KORPM's publication"),
    ),
}
TITLES = {
    "megascale_val": "Megascale val",
    "megascale_test": "Megascale test",
    "fireprot_all": "FireProt all",
    "fireprot_free": "FireProt homologue-free",
    "ssym_direct": "Ssym direct",
    "ssym_inverse": "Ssym inverse",
    "p53": "p53",
    "myoglobin": "myoglobin",
}
MEASURES = ("spearman", "pearson", "rmse")
CONTACT_ANGSTROM = 10.0
RIDGE = 10.0


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A set of mutations and where its structures lie; `groups` labels the protein of each row."""

    data: Any
    folder: pathlib.Path
    groups: np.ndarray


def read_sets(data: pathlib.Path) -> dict[str, Benchmark]:
    """All sets, and `train`, which the linear floor is fitted on."""
    from jaxprot.thermompnn.data import read_stability_set

    home = data / "stability"
    mega, xray = home / "pdb_megascale", home / "pdb_xray"

    def part(name):
        return lambda columns: columns["thermompnn_split"].astype(str) == name

    tables = {
        "train": ("megascale_natural.csv.gz", mega, part("train")),
        "megascale_val": ("megascale_natural.csv.gz", mega, part("val")),
        "megascale_test": ("megascale_natural.csv.gz", mega, part("test")),
        "fireprot_all": ("fireprot.csv.gz", xray, None),
        "fireprot_free": ("fireprot.csv.gz", xray, lambda columns: columns["homologue_free"] == 1),
        "ssym_direct": ("ssym_direct.csv", xray, None),
        "ssym_inverse": ("ssym_inverse.csv", xray, None),
        "p53": ("p53.csv", xray, None),
        "myoglobin": ("myoglobin.csv", xray, None),
    }
    out = {}
    for name, (table, folder, keep) in tables.items():
        found = read_stability_set(home / table, folder, keep)
        out[name] = Benchmark(found, folder, found.rows[:, 0])
    # The inverse mutations have a structure each; their proteins are those of the direct rows.
    direct, inverse = out["ssym_direct"].data, out["ssym_inverse"].data
    groups = -1 - np.arange(inverse.n)
    first, second = mates(direct, inverse, home)
    groups[second] = direct.rows[first, 0]
    out["ssym_inverse"] = dataclasses.replace(out["ssym_inverse"], groups=groups)
    return out


def mates(direct: Any, inverse: Any, home: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the direct and of the inverse Ssym set that are the same pair of proteins.

    The two tables are each sorted by their own structure files, so row n of one is not row n of the other. A pair has
    the same residue number, exchanged letters and opposite values, which tells all 342 apart.
    """
    from jaxprot.io.tables import read_table

    def keys(name: str, data: Any, sign: float, wt: str, mut: str) -> list[tuple]:
        columns = read_table(home / name)
        return [
            (str(columns["resid"][r]), columns[wt][r], columns[mut][r], round(sign * float(columns["ddG"][r]), 3))
            for r in data.source
        ]

    first = keys("ssym_direct.csv", direct, 1.0, "wt", "mut")
    second = keys("ssym_inverse.csv", inverse, -1.0, "mut", "wt")
    place = dict(zip(first, range(len(first)), strict=True))
    if len(place) != len(first) or len(set(second)) != len(second):
        raise ValueError("the Ssym tables hold a pair twice; rows cannot be matched")
    found = [(place[key], row) for row, key in enumerate(second) if key in place]
    return tuple(np.array(found, np.int64).reshape(-1, 2).T)


def contact_numbers(path: pathlib.Path) -> dict[str, int]:
    """Residue id -> number of other residues with CB (CA of glycine) within 10 Å."""
    from jaxprot.io.structures import read_structure

    structure = read_structure(path).first_model()
    atom = np.full((structure.n_residues, 3), np.nan)
    for name in ("CA", "CB"):
        rows = np.flatnonzero(structure.atom_name == name)[::-1]  # the first of alternate locations wins
        atom[structure.atom_residue[rows]] = structure.xyz[rows]
    distance = np.linalg.norm(atom[:, None] - atom[None], axis=-1)
    with np.errstate(invalid="ignore"):
        counts = (distance < CONTACT_ANGSTROM).sum(axis=1) - 1
    ids = [f"{number}{code}" for number, code in zip(structure.resid, structure.icode, strict=True)]
    return dict(zip(ids[::-1], counts[::-1].tolist(), strict=True))


def floor_features(benchmark: Benchmark) -> np.ndarray:
    """(m, 81): one-hot wild type, one-hot mutant, their products with the contact number / 20, and that number."""
    from jaxprot.io.structures import read_structure
    from jaxprot.proteinmpnn.featurize import parse_chains

    data, counts = benchmark.data, []
    for name in data.names:
        path = benchmark.folder / f"{name}.pdb.gz"
        known, chain = contact_numbers(path), parse_chains(read_structure(path))[0]
        ids = [f"{number}{code}" for number, code in zip(chain.resid, chain.icode, strict=True)]
        counts.append([known.get(label, 0) for label in ids])
    number = np.array([[counts[p][i]] for p, i, _ in data.rows]) / 20.0
    wild = np.eye(20)[[data.examples[p].features.S[i] for p, i, _ in data.rows]]
    mutant = np.eye(20)[data.rows[:, 2]]
    return np.hstack([wild, mutant, wild * number, mutant * number, number])


def linear_floor(sets: dict[str, Benchmark]) -> dict[str, np.ndarray]:
    """Predictions of the ridge model fitted on the training proteins."""
    x, y = floor_features(sets["train"]), sets["train"].data.ddg
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
    return {name: floor_features(b) @ weights for name, b in sets.items() if name != "train"}


def run_model(sets: dict[str, Benchmark], function) -> dict[str, np.ndarray]:
    """Predictions of `function(features) -> (n, 20)` for every set; shared structures are predicted once."""
    from jaxprot.thermompnn.data import predict_set

    known: dict[tuple[str, str], np.ndarray] = {}
    out = {}
    for title, b in sets.items():
        if title == "train":
            continue
        names = iter(b.data.names)

        def cached(_, features, names=names, folder=str(b.folder)) -> Any:
            key = (folder, next(names))
            if key not in known:
                known[key] = np.asarray(function(features))
            return known[key]

        out[title] = predict_set(cached, None, b.data)
    return out


def zero_shot(model, features):
    """-log p(mutant) of ProteinMPNN with the whole sequence visible."""
    import jax.numpy as jnp

    encoded = model.encode(features)
    states = model.decode(encoded, features.S, jnp.ones(encoded.index.shape, jnp.int32))
    return -model.log_probs(states[-1])[:, :20]


def measure(predicted: np.ndarray, b: Benchmark, resamples: int, unit: bool) -> dict[str, object]:
    """Figures with their intervals; RMSE only where the prediction is in kcal/mol."""
    from jaxprot.core import metrics
    from jaxprot.thermompnn.data import figures

    y = b.data.ddg
    out: dict[str, object] = {**figures(predicted, y, b.groups), "mean_error": float(np.mean(predicted - y))}
    groups = b.groups if len(np.unique(b.groups)) >= 5 else None
    out["bootstrap_over"] = "mutations" if groups is None else "proteins"
    for name in MEASURES:
        if name == "rmse" and not unit:
            out[name] = None
        elif resamples:
            function = getattr(metrics, name)
            out[f"{name}_interval"] = metrics.bootstrap_interval(function, predicted, y, resamples, 0, groups)
    return out


def table(report: dict) -> str:
    """Markdown of a report."""

    def cell(record, name):
        value = record.get(name)
        if value is None or not math.isfinite(value):
            return "-"
        low_high = record.get(f"{name}_interval")
        return f"{value:.3f}" + (f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else "")

    lines = ["| set | method | n | Spearman | Pearson | RMSE kcal/mol |", "|---|---|---|---|---|---|"]
    sources: dict[str, int] = {}
    for name, title in TITLES.items():
        entry = report["sets"][name]
        for method, record in entry["methods"].items():
            cells = " | ".join(cell(record, m) for m in MEASURES)
            lines.append(f"| {title} ({entry['proteins']}) | {method} | {record['n']} | {cells} |")
        for what, n, *values, source in PUBLISHED.get(name, ()):
            mark = sources.setdefault(source, len(sources) + 1)
            cells = " | ".join("-" if v is None else f"{v:.3f}" for v in values)
            lines.append(f"| {title} | published: {what} [{mark}] | {n or '-'} | {cells} |")
    lines.append("")
    lines.extend(f"[{mark}] {source}\n" for source, mark in sources.items())
    lines.append("Ssym antisymmetry (direct against inverse): Pearson -1 and bias 0 are perfect.\n")
    lines += ["| method | n | Pearson | bias kcal/mol | RMSE of the sum |", "|---|---|---|---|---|"]
    for method, a in report["antisymmetry"].items():
        lines.append(f"| {method} | {a['n']} | {a['pearson']:.3f} | {a['bias']:.3f} | {a['rmse']:.3f} |")
    if report["uncertainty"]:
        lines += ["", "Calibration of the uncertainty (a normal law has 0.683 and 0.954):", ""]
        lines += ["| set | within 1 sd | within 2 sd | mean sd | Spearman of sd and error |", "|---|---|---|---|---|"]
        for name, u in report["uncertainty"].items():
            cells = " | ".join(f"{u[k]:.3f}" for k in ("within_1_sd", "within_2_sd", "mean_sd", "sd_error_spearman"))
            lines.append(f"| {TITLES[name]} | {cells} |")
    return "\n".join(lines) + "\n"


def ours(sets: dict[str, Benchmark], spec: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict]:
    """Predictions, standard deviations and the calibration of a stability model."""
    import jax

    import jaxprot
    from jaxprot.thermompnn.calibration import of_size, standard_deviation
    from jaxprot.thermompnn.predict import ddg_spread

    predictor = jaxprot.load(spec)
    apply, leaves = predictor.pure()
    ddg = jax.jit(apply)
    predicted = run_model(sets, lambda features: ddg(leaves, features))
    spread, _ = predictor.runner.pure(ddg_spread)
    u, keys = predictor.uncertainty, jax.random.split(jax.random.key(0), 4)
    noisy = jax.jit(lambda leaves, features: spread(leaves, features, np.float32(u["noise"]), keys))
    spreads = run_model(sets, lambda features: noisy(leaves, features))
    sd = {}
    for name, values in spreads.items():
        rows = sets[name].data.rows[:, 0]
        sizes = [int((e.features.S < 20).sum()) for e in sets[name].data.examples]
        law = np.array([of_size(u, n) for n in sizes])[rows]
        sd[name] = standard_deviation(values, law[:, 0], law[:, 1])
    return predicted, sd, dict(u)


def build(args: argparse.Namespace) -> dict:
    """The whole report."""
    import jax

    import jaxprot
    from jaxprot.core import metrics
    from jaxprot.thermompnn.calibration import coverage
    from jaxprot.thermompnn.predict import antisymmetry

    sets = read_sets(args.data)
    predictions: dict[str, dict[str, np.ndarray]] = {}
    sd: dict[str, np.ndarray] = {}
    calibration: dict[str, float] = {}
    if args.weights != "none":
        predictions["ours"], sd, calibration = ours(sets, args.weights)
    if args.design != "none":
        designer = jaxprot.load(args.design)
        apply, leaves = designer.runner.pure(zero_shot)
        compiled = jax.jit(apply)
        predictions["ProteinMPNN zero-shot"] = run_model(sets, lambda features: compiled(leaves, features))
    predictions["linear floor"] = linear_floor(sets)
    report: dict = {
        "weights": args.weights,
        "design": args.design,
        "resamples": args.resamples,
        "versions": {"jaxprot": jaxprot.__version__, "jax": jax.__version__},
        "sets": {},
        "antisymmetry": {},
        "uncertainty": {},
        "calibration": calibration,
    }
    for name in TITLES:
        b = sets[name]
        rows = {
            method: measure(p[name], b, args.resamples, unit=method != "ProteinMPNN zero-shot")
            for method, p in predictions.items()
        }
        names = ("method", "n", *MEASURES, "source")
        published = [dict(zip(names, row, strict=True)) for row in PUBLISHED.get(name, ())]
        report["sets"][name] = {
            "proteins": len(np.unique(b.groups)),
            "skipped": b.data.skipped,
            "methods": rows,
            "published": published,
        }
        if sd:
            error = predictions["ours"][name] - b.data.ddg
            # The floor alone is the same everywhere; does the sd tell larger errors from smaller ones?
            ranks = float(metrics.spearman(sd[name], np.abs(error)))
            report["uncertainty"][name] = {
                **coverage(error, sd[name]),
                "mean_sd": float(np.mean(sd[name])),
                "sd_error_spearman": ranks,
            }
    first, second = mates(sets["ssym_direct"].data, sets["ssym_inverse"].data, args.data / "stability")
    for method, p in predictions.items():
        if method != "ProteinMPNN zero-shot":
            report["antisymmetry"][method] = antisymmetry(p["ssym_direct"][first], p["ssym_inverse"][second])
    return report


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="thermompnn", help="stability model: name, file, or none")
    parser.add_argument("--design", default="proteinmpnn", help="design model of the zero-shot: name, file, or none")
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="folder with stability/")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0 leaves intervals out")
    parser.add_argument("--output", type=pathlib.Path, help="folder for benchmarks.json and benchmarks.md")
    args = parser.parse_args(argv)
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import write_json, write_text

    if not (args.data / "stability").is_dir():
        parser.error(f"{args.data}: no folder stability/ in it; set JAXPROT_DATA or --data")
    started = time.time()
    try:
        report = build(args)
    except JaxprotError as error:
        parser.error(str(error))
    report["seconds"] = time.time() - started
    text = table(report)
    print(text)
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        write_json(args.output / "benchmarks.json", report)
        write_text(args.output / "benchmarks.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
