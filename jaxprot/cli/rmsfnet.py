"""`jaxprot rmsfnet predict|molmap|compare|dataset`."""

import contextlib
import dataclasses
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from jaxprot.cli.options import Common, Compute, load, record, run_many
from jaxprot.core.errors import InputError

_BEGIN = time.perf_counter()
Method = Literal["rmsfnet", "anm", "gnm", "contact", "bfactor"]
_Model = Annotated[Path | None, tyro.conf.arg(metavar="MODEL")]
_Map = Annotated[Path | None, tyro.conf.arg(metavar="MAP")]
_Voxel = Annotated[float | None, tyro.conf.arg(metavar="ANGSTROM")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapOptions(Common):
    """Options of commands that read a map and a model."""

    model: _Model = None
    """PDB or mmCIF file (also .gz)."""
    map: _Map = None
    """MRC or CCP4 map (also .gz)."""
    origin: Literal["sum", "header", "nstart"] = "sum"
    """Where the map is: its ORIGIN plus its start indices (as published), or one of the two alone."""
    voxel: _Voxel = None
    """Edge of a voxel, for a map whose header does not tell it."""

    def read(self) -> tuple[Any, Any]:
        """(structure, volume), each None where no file is given."""
        if self.model is None and self.map is None:
            raise InputError("give --model, --map or both")
        structure = None if self.model is None else _first_model(self.model)
        return structure, None if self.map is None else _read_map(self.map, self.origin, self.voxel)

    @property
    def files(self) -> list[Path]:
        """Files that are read."""
        return [path for path in (self.model, self.map) if path is not None]


def _first_model(path: Path) -> Any:
    """The structure of a file; says so where it is only the first of several."""
    from jaxprot.io.structures import read_structure

    structure = read_structure(path, models="all")
    count = len(set(structure.model.tolist()))
    if count > 1:
        logging.getLogger("jaxprot").warning(
            "%s: the first of its %d models is taken; write an assembly as one model of many chains", path, count
        )
    return structure.first_model()


def _read_map(path: Path, origin: Any, voxel: float | None = None) -> Any:
    """A map; a message about its voxels or place names the option that helps."""
    from jaxprot.io.maps import read_map

    try:
        return read_map(path, origin=origin, voxel=voxel)
    except InputError as error:
        for word, option in (("voxel size", "--voxel ANGSTROM"), ("origin", "--origin header|nstart")):
            if word in str(error):
                raise InputError(f"{error} ({option})") from error
        raise


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(MapOptions):
    """Options of `rmsfnet predict`."""

    method: Method = "rmsfnet"
    """The network, or a method without training: elastic networks, contact number, B factor."""
    contour: Annotated[float | None, tyro.conf.arg(metavar="DENSITY")] = None
    """Of a map alone: voxels above it are predicted (default: mean + 3 standard deviations)."""
    views: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Orientations (1 to 24) of each part of the map over which the network's predictions are averaged; as many times
    the work. Default: what the weights ask for, 1 for published ones."""


def predict(options: PredictOptions) -> int:
    """Predicts the flexibility (RMSF, Å) of every atom of a model, of every voxel of a map, or of both.

    With map and model the network for both is used, with one of them its variant for that. The shipped weights are a
    stand-in, not trained on molecular dynamics; --weights FILE takes the published ones. Writes atoms.csv,
    residues.csv, rmsf.pdb (B column: RMSF, -1 without value), rmsf_z.pdb (published z-score of residues), trace.png,
    view.pml and view.cxc; with the network also rmsf.mrc.
    """
    from jaxprot.io.outputs import RunDirectory

    run = RunDirectory(options.output, options.overwrite)
    timings = {"start": time.perf_counter() - _BEGIN}
    begin = time.perf_counter()
    if options.method != "rmsfnet":
        if options.model is None:
            raise InputError(f"--method {options.method} needs --model")
        options = _without_network(options)
    structure, volume = options.read()
    if options.views is not None and not 1 <= options.views <= 24:
        raise InputError(f"--views must be 1 to 24, got {options.views}")
    timings["read"] = time.perf_counter() - begin
    method, contour, views = options.method, options.contour, options.views
    result, weights = _flexibility(options, method, structure, volume, contour, timings, views)
    begin = time.perf_counter()
    written = result.write(run.folder(), format=options.format, overwrite=True)
    timings["write"] = time.perf_counter() - begin
    record(options, run.folder(), "rmsfnet predict", inputs=options.files, weights=weights, timings=timings)
    print(f"{options.output}: {', '.join(written)}")
    if options.method == "rmsfnet" and options.weights == "default":
        print("the shipped weights are a stand-in, not trained on molecular dynamics; published ones: --weights FILE")
    return 0


def _without_network(options: PredictOptions) -> PredictOptions:
    """The options without those that only the network reads; says which had been given."""
    unused = {"map": None, "contour": None, "views": None, "weights": "default"}
    given = [f"--{name}" for name, absent in unused.items() if getattr(options, name) != absent]
    if given:
        logging.getLogger("jaxprot").warning("%s: not used by --method %s", ", ".join(given), options.method)
    return dataclasses.replace(options, **unused)


def _flexibility(
    options: MapOptions,
    method: Any,
    structure: Any,
    volume: Any,
    contour: float | None,
    timings: dict[str, float],
    views: int | None = None,
) -> tuple[Any, dict[str, Any] | None]:
    """Prediction by a method, and what `run.json` says of its weights."""
    begin = time.perf_counter()
    if method != "rmsfnet":
        from jaxprot.rmsfnet import baselines
        from jaxprot.rmsfnet.results import Flexibility

        result, weights = Flexibility.of_residues(structure, baselines.rmsf(structure, method), method), None
    else:
        from jaxprot.rmsfnet.predict import Predictor

        variant = "both" if structure is not None and volume is not None else "map" if structure is None else "pdb"
        name = options.weights
        if name == "default":
            name = "rmsfnet" if variant == "both" else f"rmsfnet:{variant}"
        predictor, weights = load(options, "rmsfnet", name)
        if views is not None:
            predictor = Predictor(predictor.module, predictor.scale, views=views)
        timings["load"] = timings.get("load", 0.0) + time.perf_counter() - begin
        begin = time.perf_counter()
        with _boxes() as progress:
            result = predictor.predict(structure, volume, contour=contour, progress=progress)
    timings["compute"] = timings.get("compute", 0.0) + time.perf_counter() - begin
    return result, weights


def _defmap(path: Any, structure: Any, volume: Any, timings: dict[str, float]) -> Any:
    """Prediction by DEFMap with weights of a file."""
    from jaxprot.rmsfnet import defmap

    begin = time.perf_counter()
    model, resolution = defmap.load(path)
    result = defmap.predict_map(volume, structure, model, resolution)
    timings["compute"] = timings.get("compute", 0.0) + time.perf_counter() - begin
    return result


@contextlib.contextmanager
def _boxes() -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar over boxes, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("boxes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("boxes", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MolmapOptions(Compute):
    """Options of `rmsfnet molmap`."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """PDB or mmCIF file (also .gz); all its atoms and models count."""
    resolution: Annotated[float, tyro.conf.arg(metavar="ANGSTROM")] = 4.0
    """A Gaussian's standard deviation is this times the sigma factor."""
    spacing: Annotated[float, tyro.conf.arg(metavar="ANGSTROM")] = 1.5
    """Distance of grid points."""
    sigma_factor: float = 0.22507907903927651
    """Documented choices: 0.225, 0.187, 0.356, 0.425."""
    cutoff: float = 5.0
    """Half the edge of the cube that a Gaussian is cut to, in standard deviations."""
    padding: Annotated[float | None, tyro.conf.arg(metavar="ANGSTROM")] = None
    """Margin around the atoms; three times the resolution if not given."""
    on_grid: _Map = None
    """Map whose grid is used."""
    origin: Literal["sum", "header", "nstart"] = "sum"
    """Where that map is, see `rmsfnet predict`."""
    voxel: _Voxel = None
    """Edge of a voxel of that map, if its header does not tell it."""


def molmap(options: MolmapOptions) -> int:
    """Simulates the density of a model as `molmap` of Chimera and ChimeraX do: sim.mrc."""
    from jaxprot.io.maps import write_map
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.structures import read_structure

    run = RunDirectory(options.output, options.overwrite)
    structure = read_structure(options.model, models="all")
    grid = None if options.on_grid is None else _read_map(options.on_grid, options.origin, options.voxel)
    from jaxprot.rmsfnet.simulate import simulate_map

    begin = time.perf_counter()
    volume = simulate_map(
        structure,
        options.resolution,
        options.spacing,
        sigma_factor=options.sigma_factor,
        cutoff=options.cutoff,
        padding=options.padding,
        on_grid=grid,
    )
    timings = {"compute": time.perf_counter() - begin}
    path = run.file("sim.mrc")
    write_map(volume, path, label=f"{structure.name} {options.resolution:g} A")
    inputs = [options.model, *([options.on_grid] if options.on_grid is not None else [])]
    record(options, run.folder(), "rmsfnet molmap", inputs=inputs, timings=timings)
    print(f"{path}: {volume}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(MapOptions):
    """Options of `rmsfnet compare`."""

    reference: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Table (chain, resid, resname, rmsf_angstrom or z), file of several models, or trajectory (with --topology)."""
    topology: _Model = None
    """PDB or mmCIF of the trajectory's atoms."""
    methods: Annotated[str, tyro.conf.arg(metavar="A,B,...")] = "rmsfnet,anm,gnm,contact,bfactor"
    """Methods to compare: those of `rmsfnet predict`, and defmap (with --map and --defmap-weights)."""
    defmap_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Weights of a DEFMap that was trained here, such as scripts/rmsfnet_cross_validation.py leaves."""
    atoms: Literal["ca", "all"] = "ca"
    """What stands for a residue, of the network and of a reference with coordinates: its alpha carbon, or the mean over
    its heavy atoms. Tables are taken as they are."""


def compare(options: CompareOptions) -> int:
    """Compares predicted flexibility with a reference, residue by residue.

    Writes compare.csv (method, n, pearson, spearman, rmse_angstrom), residues.csv with all values side by side, and
    trace.png. Of a reference in z-scores only correlations are given.
    """
    import numpy as np

    from jaxprot.io.outputs import RunDirectory, atomic_path
    from jaxprot.io.tables import write_table
    from jaxprot.plots.trace import trace
    from jaxprot.rmsfnet import compare as comparison
    from jaxprot.rmsfnet import targets

    methods = [name.strip() for name in options.methods.split(",") if name.strip()]
    known = (*get_args(Method), "defmap")
    if not methods or not set(methods) <= set(known):
        raise InputError(f"--methods {options.methods}: known are {', '.join(known)}")
    if "defmap" in methods and (options.defmap_weights is None or options.map is None):
        raise InputError("defmap needs --map, and its weights (--defmap-weights FILE)")
    run = RunDirectory(options.output, options.overwrite)
    timings: dict[str, float] = {"start": time.perf_counter() - _BEGIN}
    begin = time.perf_counter()
    rows, values, weights = [], {}, None
    structure, volume = options.read()
    if structure is None:
        raise InputError("compare needs --model")
    reference = comparison.read_reference(options.reference, options.topology, options.atoms)
    expected = comparison.matched(structure, reference)
    if not reference.angstrom and options.atoms == "ca":
        logging.getLogger("jaxprot").warning(
            "%s: z-scores as `rmsfnet predict` writes them are means over atoms; --atoms all is their counterpart",
            options.reference,
        )
    timings["read"] = time.perf_counter() - begin
    for method in methods:
        try:
            if method == "defmap":
                result, used = _defmap(options.defmap_weights, structure, volume, timings), None
            else:
                result, used = _flexibility(options, method, structure, volume, None, timings)
            found = targets.residue_rmsf(structure, result.rmsf, "ca" if options.atoms == "ca" else "heavy")
            row = comparison.agreement(method, found, expected, angstrom=reference.angstrom)
        except InputError as error:
            if len(methods) == 1 or method == "rmsfnet":
                raise
            print(f"jaxprot: warning: {method} left out: {error}", file=sys.stderr)
            continue
        weights = used or weights
        values[method] = found
        rows.append(row)
    if not rows:
        raise InputError("no method has values for this model")
    home = run.folder()
    columns = {
        "method": np.array([row.method for row in rows]),
        "n": np.array([row.n for row in rows]),
        "pearson": np.round([row.pearson for row in rows], 4),
        "spearman": np.round([row.spearman for row in rows], 4),
        "rmse_angstrom": np.round([row.rmse for row in rows], 4),
    }
    write_table(columns, home / "compare", options.format)
    own = comparison.keys(structure)
    values["reference"] = expected
    used_rows = np.asarray(np.isfinite(np.stack(list(values.values()))).any(0))
    table: dict[str, Any] = {
        "chain": np.array([key[0] for key in own]),
        "resid": structure.resid,
        "icode": structure.icode,
        **{name: np.round(one, 4) for name, one in values.items()},
    }
    write_table({name: column[used_rows] for name, column in table.items()}, home / "residues", options.format)
    labels = [f"{number}{code}" for _, number, code in own]
    with atomic_path(home / "trace.png") as temporary:
        trace(
            {name: one[used_rows] for name, one in values.items()},
            [label for label, keep in zip(labels, used_rows, strict=True) if keep],
            temporary,
            chains=list(table["chain"][used_rows]),
        )
    more = (options.topology, options.defmap_weights if "defmap" in methods else None)
    files = [*options.files, options.reference, *(path for path in more if path is not None)]
    record(options, home, "rmsfnet compare", inputs=files, weights=weights, timings=timings)
    print(f"RMSF of {'alpha carbons' if options.atoms == 'ca' else 'residues (mean over heavy atoms)'}")
    print(f"{'method':<10}{'n':>6}{'pearson':>10}{'spearman':>10}{'rmse (A)':>10}")
    for row in rows:
        figures = (row.pearson, row.spearman, row.rmse)
        print(f"{row.method:<10}{row.n:>6}" + "".join(f"{'-' if x != x else f'{x:.3f}':>10}" for x in figures))
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetOptions(Compute):
    """Options of `rmsfnet dataset`."""

    table: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ENTRIES.csv")]
    """Columns name, map, model and trajectory (DCD, XTC or TRR, or a file of several models); optional: topology (PDB
    or mmCIF of the trajectory's atoms, where those are not the model's) and part (train or val: folders that the
    experiments read). Paths are relative to the table."""
    origin: Literal["sum", "header", "nstart"] = "sum"
    """Where the maps are, see `rmsfnet predict`."""
    voxel: _Voxel = None
    """Edge of a voxel, for maps whose headers do not tell it."""
    geometry: Literal["published", "exact"] = "published"
    """As the published network reads maps, or on one exact grid and without hydrogens and waters, as the shipped do."""


def dataset(options: DatasetOptions) -> int:
    """Turns triples of map, model and trajectory into training entries: NAME.npz, and models/NAME.pdb (or .cif).

    The RMSF of every atom, after superposition of the heavy atoms on their mean, becomes the target of its voxel.
    Entries with a part are written into a folder of that name, with its own models.
    """
    import numpy as np

    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.structures import SUFFIXES, write_structure
    from jaxprot.io.tables import read_table
    from jaxprot.io.trajectories import read_trajectory
    from jaxprot.rmsfnet import targets
    from jaxprot.rmsfnet.data import make_entry, write_entry

    columns = read_table(options.table)
    needed = ("name", "map", "model", "trajectory")
    absent = [name for name in needed if name not in columns]
    if absent:
        raise InputError(f"{options.table}: no column {', '.join(absent)}; needed are {', '.join(needed)}")
    blank = np.full(len(columns["name"]), "")
    columns = [*(columns[name] for name in needed), *(columns.get(name, blank) for name in ("topology", "part"))]
    entries = [tuple(str(cell).strip() for cell in row) for row in zip(*columns, strict=True)]
    home = options.table.parent
    named = [path for row in entries for path in (*row[1:4], *([row[4]] if row[4] else []))]
    missing = [path or "(empty cell)" for path in named if not (home / path).is_file()]
    if missing:
        raise InputError(f"{options.table}: no such file: {', '.join(missing[:5])}")
    names = [row[0] for row in entries]
    wrong = sorted({name for name in names if names.count(name) > 1 or not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", name)})
    if wrong or not names:
        told = f"names {', '.join(map(repr, wrong[:5]))}" if wrong else "no entries"
        raise InputError(f"{options.table}: {told}; each needs a name of its own of letters, digits and . _ + -")
    parts = sorted({row[5] for row in entries} - {"", "train", "val"})
    if parts:
        raise InputError(f"{options.table}: part {', '.join(map(repr, parts[:5]))}; it is train, val or empty")
    run = RunDirectory(options.output, options.overwrite)
    folder = run.folder()

    def work(row: tuple[str, ...]) -> Path:
        name, map_, model, trajectory, topology, part = row
        structure = _first_model(home / model)
        atoms = None if trajectory.lower().endswith(SUFFIXES) else home / (topology or model)
        heavy = not np.isin(structure.element, ("H", "D")).any()
        frames = read_trajectory(home / trajectory, atoms, heavy=heavy)
        values = targets.on_structure(structure, frames)
        volume = _read_map(home / map_, options.origin, options.voxel)
        entry = make_entry(structure, values, volume, name, geometry=options.geometry)
        # mmCIF stays mmCIF: it holds digits and names that a PDB file does not.
        suffix = "cif" if model.lower().removesuffix(".gz").endswith("cif") else "pdb"
        (folder / part / "models").mkdir(parents=True, exist_ok=True)
        write_structure(structure, folder / part / "models" / f"{name}.{suffix}")
        return write_entry(entry, folder / part)

    outcome = run_many(entries, work, what="entries", debug=options.debug)
    record(options, folder, "rmsfnet dataset", inputs=[options.table], failed=outcome.failed)
    print(f"{options.output}: {len(outcome.results)} of {len(entries)} entries")
    return outcome.code
