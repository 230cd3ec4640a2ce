"""`jaxprot demo`: the example run of a system."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

# system -> command lines of its example, each with the folder of its results within that of the demo; EXAMPLE is
# replaced by the path of a shipped file, MADE by that of a made one, OUT by that of an earlier command's result
_RUNS = {
    "thermompnn": [("thermompnn scan", ["EXAMPLE:ubiquitin.pdb"], "")],
    "proteinmpnn": [("proteinmpnn design", ["EXAMPLE:trpcage.pdb"], "")],
    "rmsfnet": [("rmsfnet predict", ["--model", "MADE:ubiquitin.pdb", "--map", "MADE:ubiquitin.mrc"], "")],
    "cryostar": [
        (
            "cryostar simulate",
            ["MADE:closed.pdb", "--to", "MADE:open.pdb", "-n", "400", "--side", "48", "--pixel-size", "2"],
            "particles",
        ),
        (
            "cryostar fit",
            ["OUT:particles/particles.star", "--reference", "OUT:particles/reference.pdb", "--steps", "300"]
            + ["--low-pass", "5", "--set", "evaluate_every=100", "--set", "TRUTH:particles/truth.npz"],
            "run",
        ),
        ("cryostar analyze", ["OUT:run", "--clusters", "4"], "run/analysis"),
    ],
    "ai2bmd": [
        ("ai2bmd fragment", ["EXAMPLE:chignolin.pdb"], "chignolin"),
        (
            "ai2bmd simulate",
            ["EXAMPLE:alanine.pdb", "--solvent", "gb", "--steps", "1000", "--record", "10", "--equilibration", "50"],
            "alanine",
        ),
    ],
    "massa": [
        ("massa embed", ["MADE:ubiquitin.csv"], "features/ubiquitin"),
        ("massa embed", ["MADE:trpcage.csv"], "features/trpcage"),
        ("massa embed", ["MADE:hydropathy.csv"], "features/hydropathy"),
        (
            "transfer matrix",
            [f"{name}=OUT:features/{name}/embeddings.npz" for name in ("ubiquitin", "trpcage", "hydropathy")],
            "distances",
        ),
    ],
}
_SHOWN = 5
HINGE = 45.0
"""Degrees by which the pair of `demo cryostar` opens."""
_GAP = 5.0  # Å


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `demo`."""

    system: tyro.conf.Positional[Literal["thermompnn", "proteinmpnn", "rmsfnet", "cryostar", "ai2bmd", "massa"]] = (
        "thermompnn"
    )
    """Whose example to run."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Folder for the results (default: jaxprot-demo/SYSTEM); results of an earlier demo are replaced."""
    debug: bool = False
    """Show tracebacks."""


def demo(options: DemoOptions) -> int:
    """Runs the example of a system on a small protein that ships with the package, with the shipped weights.

    The map that `rmsfnet` needs is simulated, with noise, and kept with its model in the folder `inputs`. `cryostar`
    has no weights: 400 particle images of two ubiquitins that open like a book are simulated, and a network is trained
    on them, in less than a minute. `ai2bmd` tells how chignolin is cut into units, and moves an alanine between caps
    a picosecond. `massa` embeds point mutants and compares three tasks: the stability of those of ubiquitin and of
    trp-cage, as ThermoMPNN sees it, and the hydropathy of the former.
    """
    from jaxprot.cli.main import run

    output = options.output or Path("jaxprot-demo") / options.system
    if options.system == "rmsfnet":
        _map_and_model(output, options.debug)
    if options.system == "cryostar":
        _remove_run(output / "run")
        _closed_and_open(output)
    if options.system == "massa":
        _mutants(output, options.debug)
    for command, arguments, folder in _RUNS[options.system]:
        argv = [_argument(text, output) for text in arguments]
        argv += ["-o", str(output / folder), "--overwrite"] + (["--debug"] if options.debug else [])
        print(f"$ jaxprot {command} {' '.join(argv)}", flush=True)
        code = run(command, argv)
        if code != 0:
            return code
    if options.system == "rmsfnet":
        _flexibility(output)
    if options.system == "cryostar":
        _progress(output / "run" / "metrics.jsonl")
    for path in sorted(output.rglob("*")):
        hidden = any(part.startswith(".") or part == "ckpt" for part in path.relative_to(output).parts)
        if path.is_file() and not hidden:
            print(f"  {path}  {path.stat().st_size:,} bytes")
    return 0


def _argument(text: str, output: Path) -> str:
    from jaxprot import examples

    task, mark, rest = text.partition("=OUT:")
    if mark:
        return f"{task}={output / rest}"
    kind, _, name = text.partition(":")
    if kind == "EXAMPLE":
        return str(examples.path(name))
    if kind == "TRUTH":
        return f"task.truth={(output / name).absolute()}"
    return {"MADE": str(output / "inputs" / name), "OUT": str(output / name)}.get(kind, text)


def _map_and_model(output: Path, debug: bool) -> None:
    """Writes ubiquitin without hydrogens, and its map of 3 Å with noise of 4 % of the highest density.

    Raises:
      InputError: the weights do not ship with this version; nothing has been written then.
      OutputError: the files cannot be written.
    """
    from jaxprot import examples
    from jaxprot.cli.options import Compute, start
    from jaxprot.io.maps import write_map
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.structures import read_structure, write_structure
    from jaxprot.weights import registry

    registry.resolve("rmsfnet", "rmsfnet")
    start(Compute(debug=debug))  # the simulation is the first that imports jax
    import numpy as np
    from scipy.ndimage import gaussian_filter

    from jaxprot.rmsfnet.simulate import simulate_map

    structure = read_structure(examples.path("ubiquitin.pdb"))
    structure = structure.select(structure.element != "H")
    volume = simulate_map(structure, resolution=3.0, spacing=1.1)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=volume.shape), 1.0)
    noise *= 0.04 * volume.data.max() / noise.std()
    run = RunDirectory(output, overwrite=True)
    write_structure(structure, run.file("ubiquitin.pdb", "inputs"))
    write_map(volume.with_data(volume.data + noise), run.file("ubiquitin.mrc", "inputs"), label="simulated, 3 A, noise")


def _mutants(output: Path, debug: bool) -> None:
    """Writes tables of point mutants: their stability (ΔΔG, kcal/mol) as ThermoMPNN sees it, and hydropathy."""
    from jaxprot.cli.options import Compute, start

    start(Compute(debug=debug))
    import numpy as np

    from jaxprot import examples
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.tables import write_table
    from jaxprot.massa.embedders import PhysicoChemical
    from jaxprot.thermompnn import predict
    from jaxprot.weights import registry

    run, predictor = RunDirectory(output, overwrite=True), predict.load(registry.resolve("default", "thermompnn")[0])
    for name in ("ubiquitin", "trpcage"):
        scan = predictor.scan(examples.path(f"{name}.pdb"), samples=0).to_dataframe()
        wild = "".join(scan.drop_duplicates("resid").wt)
        place = {resid: i for i, resid in enumerate(dict.fromkeys(scan.resid))}
        rows = [row for row in scan.itertuples() if row.mut != row.wt]
        texts = [wild[: place[row.resid]] + row.mut + wild[place[row.resid] + 1 :] for row in rows]
        write_table({"sequence": texts, "label": [row.ddg_kcal_mol for row in rows]}, run.file(f"{name}.csv", "inputs"))
        if name == "ubiquitin":
            hydropathy = [float(np.mean(one[:, 21])) for one in PhysicoChemical().embed(texts)]
            write_table({"sequence": texts, "label": hydropathy}, run.file("hydropathy.csv", "inputs"))


def _flexibility(output: Path) -> None:
    """Prints the loosest and the stiffest residues of a prediction."""
    import numpy as np

    from jaxprot.io.tables import read_table

    table = read_table(output / "residues.csv")
    rmsf = table["rmsf_angstrom"]
    order = np.argsort(-np.where(np.isfinite(rmsf), rmsf, -np.inf))[: int(np.isfinite(rmsf).sum())]
    print(f"{'residue':<12}{'RMSF (Å)':>10}   of {len(order)} residues, mean {np.nanmean(rmsf):.2f} Å")
    for what, rows in (("loosest", order[:_SHOWN]), ("stiffest", order[-_SHOWN:])):
        for row in rows:
            name = f"{table['resname'][row]} {table['chain'][row]}{table['resid'][row]}"
            print(f"{name:<12}{rmsf[row]:>10.2f}   {what}")


def _closed_and_open(output: Path) -> None:
    """Writes two conformations of a pair of ubiquitins, chains A and B."""
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.structures import write_structure

    run = RunDirectory(output, overwrite=True)
    for name, angle in (("closed", 0.0), ("open", HINGE)):
        write_structure(ubiquitin_pair(angle), run.file(f"{name}.pdb", "inputs"))


def ubiquitin_pair(angle: float) -> Any:
    """Two copies of ubiquitin without its loose end side by side, the second turned about an edge of the gap.

    Args:
      angle: degrees, 0 for parallel copies.
    """
    import numpy as np

    from jaxprot import examples
    from jaxprot.io.structures import read_structure

    one = read_structure(examples.path("ubiquitin.pdb"))
    one = one.select((one.element != "H") & (one.resid <= 72)[one.atom_residue])
    first = one.xyz - one.xyz.mean(0)
    high, low = first.max(0), first.min(0)
    hinge = np.array([high[0] + _GAP / 2, low[1], 0.0])
    second = first + np.array([high[0] - low[0] + _GAP, 0.0, 0.0])
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])  # clockwise: away from the first
    twice = {
        name: np.concatenate([getattr(one, name)] * 2)
        for name in ("atom_name", "element", "altloc", "occupancy", "bfactor", "model")
        + ("res_name", "resid", "icode", "hetero")
    }
    return dataclasses.replace(
        one,
        name="ubiquitin pair",
        xyz=np.concatenate([first, (second - hinge) @ turn.T + hinge]).astype(np.float32),
        serial=np.arange(1, 2 * one.n_atoms + 1, dtype=np.int32),
        atom_residue=np.concatenate([one.atom_residue, one.atom_residue + one.n_residues]),
        res_chain=np.concatenate([one.res_chain, one.res_chain + 1]),
        chain_id=np.array(["A", "B"], "U8"),
        **twice,
    )


def _remove_run(folder: Path) -> None:
    """Removes the training of an earlier demo, whose checkpoints no other command replaces."""
    import json
    import shutil

    try:
        command = json.loads((folder / "run.json").read_text("utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if command == "cryostar fit":
        shutil.rmtree(folder)


def _progress(metrics: Path) -> None:
    """Prints what the evaluations of a training on simulated particles found."""
    import json

    print(f"{'step':>6}{'correlation':>13}{'RMSD to the truth (Å)':>23}{'rank correlation with it':>26}")
    for line in metrics.read_text("utf-8").splitlines():
        found = json.loads(line)
        if "val_rmsd" in found:
            print(
                f"{found['step']:>6}{found['val_correlation']:>13.3f}{found['val_rmsd']:>23.2f}"
                f"{found['val_spearman']:>26.2f}"
            )
