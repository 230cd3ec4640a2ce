"""`jaxprot demo`: the example run of a system."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

# system -> command line of its example; EXAMPLE is replaced by the path of a shipped file, MADE by that of a made one
_RUNS = {
    "thermompnn": ("thermompnn scan", ["EXAMPLE:ubiquitin.pdb"]),
    "proteinmpnn": ("proteinmpnn design", ["EXAMPLE:trpcage.pdb"]),
    "rmsfnet": ("rmsfnet predict", ["--model", "MADE:ubiquitin.pdb", "--map", "MADE:ubiquitin.mrc"]),
}
_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `demo`."""

    system: tyro.conf.Positional[Literal["thermompnn", "proteinmpnn", "rmsfnet"]] = "thermompnn"
    """Whose example to run."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Folder for the results (default: jaxprot-demo/SYSTEM); results of an earlier demo are replaced."""
    debug: bool = False
    """Show tracebacks."""


def demo(options: DemoOptions) -> int:
    """Runs the example of a system on a small protein that ships with the package, with the shipped weights.

    The map that `rmsfnet` needs is simulated, with noise, and kept with its model in the folder `inputs`.
    """
    from jaxprot.cli.main import run

    command, arguments = _RUNS[options.system]
    output = options.output or Path("jaxprot-demo") / options.system
    if options.system == "rmsfnet":
        _map_and_model(output, options.debug)
    argv = [_argument(text, output / "inputs") for text in arguments]
    argv += ["-o", str(output), "--overwrite"] + (["--debug"] if options.debug else [])
    print(f"$ jaxprot {command} {' '.join(argv)}")
    code = run(command, argv)
    if code == 0:
        if options.system == "rmsfnet":
            _flexibility(output)
        for path in sorted(output.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                print(f"  {path}  {path.stat().st_size:,} bytes")
    return code


def _argument(text: str, inputs: Path) -> str:
    from jaxprot import examples

    kind, _, name = text.partition(":")
    if kind == "EXAMPLE":
        return str(examples.path(name))
    return str(inputs / name) if kind == "MADE" else text


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
