"""`jaxprot cryostar analyze|density|export`: what is made of a run."""

import collections
import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.cryostar import forget
from jaxprot.cli.options import Compute, Seeded, counted, keep_memory, record
from jaxprot.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(Seeded):
    """Options of `cryostar analyze`."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """Folder of `jaxprot cryostar fit`; or ckpt.pt of the published code, with --reference and --latents."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None  # type: ignore[assignment]
    """Folder for the results; by default RUN/analysis, for a file the folder `analysis` beside it."""
    reference: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None
    """With a file: the model that it was trained with."""
    latents: Annotated[Path | None, tyro.conf.arg(metavar="z.npy")] = None
    """With a file: the latents beside it."""
    particles: Annotated[Path | None, tyro.conf.arg(metavar="PARTICLES")] = None
    """With a file: its STAR or .cs file, for one STAR file of each cluster."""
    components: int = 3
    """Principal components along which conformations are shown."""
    points: int = 10
    """Conformations along each."""
    clusters: int = 10
    """Groups of particles."""
    umap: bool = False
    """Picture by UMAP (pip install 'jaxprot[umap]') instead of the first two principal components."""
    truth: Annotated[Path | None, tyro.conf.arg(metavar="truth.npz")] = None
    """Of `jaxprot cryostar simulate`: how near what was found is to it, in truth.json."""


def analyze(options: AnalyzeOptions) -> int:
    """Shows what a run has found: conformations along principal components, clusters, mobility.

    Writes pca-1.pdb ... (conformations along each component), kmeans.pdb (one of each cluster), mobility.pdb and .csv
    (root mean square fluctuation of each residue in Å), clusters/cluster_00.star ... (the particles of each cluster
    with all columns of their file, to be refined on their own; image paths stay as they are, so `fit` of such a file
    needs --dataset-dir), clusters.csv, landscape.png, view.pml and view.cxc. With --truth also truth.json. For a run
    with --half-sets, each half is analysed, and agreement.json tells how alike their conformations are.
    """
    if options.run is None:
        raise InputError("give the folder of a run (jaxprot cryostar fit)")
    if options.run.is_file():
        home = options.output or options.run.parent / "analysis"
        if options.latents is None or not options.latents.is_file():
            raise InputError(f"{options.run}: weights hold no latents; give those of the same run (--latents z.npy)")
        _analyzed(options, options.run, home)
        return 0
    for name in ("reference", "latents", "particles"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} goes with a file of weights; {options.run} is a folder, which tells its own")
    runs, found, base = _runs(options.run), {}, options.output or options.run / "analysis"
    homes = [base / run.name for run in runs] if runs != [options.run] else [base]
    for home in (base, *homes):
        _own_folder(home, "training/settings.json")
    for run, home in zip(runs, homes, strict=True):
        found[run.name] = _analyzed(options, run, home)
    if len(runs) == 2:
        _compare(found, options.output or options.run / "analysis")
    return 0


def _analyzed(options: AnalyzeOptions, run: Path, home: Path) -> tuple[Any, Any]:
    """One run; its predictor and latents."""
    from jaxprot.cryostar import predict
    from jaxprot.cryostar import truth as truths
    from jaxprot.cryostar.landscape import check_sizes
    from jaxprot.cryostar.results import Heterogeneity
    from jaxprot.io.outputs import RunDirectory, write_json
    from jaxprot.io.particles import read_particles

    begin = time.perf_counter()
    RunDirectory(home, options.overwrite)
    check_sizes(options.components, options.points, options.clusters)
    predictor = predict.load(run, options.reference)
    path = options.latents or run / "latents.npy"
    latents = predictor.read_latents(path)
    stack = None if predictor.task is None else predictor.task.stack
    if options.particles is not None:
        stack = read_particles(options.particles, check_images=False)
    true = _truth(options.truth, predictor, len(latents) if stack is None else stack)
    result = Heterogeneity.of(
        latents,
        predictor.decode,
        predictor.beads,
        stack,
        components=options.components,
        points=options.points,
        clusters=options.clusters,
        umap=options.umap,
        seed=options.seed,
    )
    written = result.write(home, format=options.format, overwrite=True)
    (home / "truth.json").unlink(missing_ok=True)  # of an earlier analysis
    if true is not None:
        figures = truths.conformations(predictor.decode(latents), latents, predictor.beads, true)
        write_json(home / "truth.json", figures)
        print(truths.report(figures))
        written.append("truth.json")
    given = [options.reference, options.particles, options.truth]
    inputs = [run if run.is_file() else run / "best.safetensors", path, *(one for one in given if one is not None)]
    timings = {"total": time.perf_counter() - begin}
    record(options, home, "cryostar analyze", inputs=inputs, timings=timings)
    print(f"{home}: {', '.join(name for name in written if not name.startswith('clusters/'))}")
    return predictor, result


def _truth(path: Path | None, predictor: Any, stack: Any) -> Any:
    """The truth of particles; None without a file."""
    from jaxprot.cryostar.truth import read_truth

    if path is None:
        return None
    task = predictor.task
    if task is None or not task.subset:
        return read_truth(path, predictor.beads, stack)
    whole = dataclasses.replace(task, subset=0).stack  # a truth without poses is of all particles
    return read_truth(path, predictor.beads, whole).select(task.chosen(whole))


def _runs(given: Path) -> list[Path]:
    """The folder of a run, or those of two half sets.

    Raises:
      InputError: both are there.
    """
    halves = [path for path in (given / "half1", given / "half2") if (path / "config.yaml").is_file()]
    if halves and (given / "config.yaml").is_file():
        raise InputError(f"{given}: holds a run and runs on half sets; give {given}/half1, or move these elsewhere")
    return halves or [given]


def _own_folder(home: Path, strange: str) -> None:
    """Refuses a folder of results that is that of something else.

    Args:
      home: the folder.
      strange: a file that only the other kind of results has.
    """
    for name in ("config.yaml", strange):
        if (home / name).is_file():
            kind = "a run" if name == "config.yaml" else "other results"
            raise InputError(f"{home}: holds {kind} ({name}); give another folder with -o")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensityOptions(Seeded):
    """Options of `cryostar density`."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """Folder of `jaxprot cryostar fit`."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None  # type: ignore[assignment]
    """Folder for the results; by default RUN/density."""
    side: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Voxels along an edge; by default as the original images, but at most 256."""
    hidden: int = 256
    """Width of the network; 1024 was published and takes about ten times as long."""
    epochs: int = 20
    """Passes over the particles."""
    batch: int = 16
    """Particles per step."""
    lr: float = 1e-4
    """Learning rate."""
    mask: float = 0.85
    """Highest frequency that is modelled, 1 being that of Nyquist."""
    net: Literal["cryodrgn", "cryodrgn-fourier", "cryoai"] = "cryodrgn"
    """Gives the Hartley transform; or real and imaginary part; or these as an envelope times a wave of sines."""
    encoding: Literal["gau1", "gau2", "geo1", "geo2", "no"] = "gau2"
    """Of coordinates: waves of random directions (standard deviation side / 4, side / 8), geometric along axes, or no
    waves."""
    loss: Literal["fmsf", "rmsf"] = "fmsf"
    """Mean squared difference of spectra within the mask, or of images."""
    encoder: bool = False
    """Latents of an encoder that is trained with the densities, instead of those of the run: the model does not enter
    at all, and there are no conformations."""
    truth: Annotated[Path | None, tyro.conf.arg(metavar="truth.npz")] = None
    """Of `jaxprot cryostar simulate`: how near the maps are to it, in true_resolution.csv."""
    components: int = 3
    """Principal components along which maps are made."""
    points: int = 10
    """Maps along each."""
    clusters: int = 10
    """Groups of particles, one map of each."""
    resume: bool = False
    """Go on with the training in DIR."""
    parallel: Literal["shard_map", "pmap", "single"] = "shard_map"
    """How to use several devices."""


def density(options: DensityOptions) -> int:
    """Density maps of what a run has found, from the images alone: the model enters through the latents only.

    Writes vol_kmeans_000.mrc ... (a map of each cluster), vol_pca_1_000.mrc ... (along each component), the beads of
    the same conformations (kmeans.pdb, pca-1.pdb ...), fsc.csv and resolution.csv (Fourier shell correlation of each
    map with its beads), training/best.safetensors, view.pml and view.cxc. With --truth also true_fsc.csv and
    true_resolution.csv. With --encoder there are no beads, but latents.npy, clusters and landscape.png. For a run with
    --half-sets both halves are reconstructed, and half_fsc.csv and half_resolution.csv compare their maps of the same
    conformations.
    """
    if options.run is None:
        raise InputError("give the folder of a run (jaxprot cryostar fit)")
    runs, found, home = _runs(options.run), [], options.output or options.run / "density"
    if len(runs) == 2 and options.encoder:
        raise InputError(
            f"{options.run}: --encoder has no conformations by which the two halves' maps could be matched; give "
            f"{runs[0]} and {runs[1]} one after the other"
        )
    homes = [home / run.name for run in runs] if runs != [options.run] else [home]
    for one in (home, *homes):
        _own_folder(one, "analysis.json")
    for run, folder in zip(runs, homes, strict=True):
        one = _reconstructed(options, run, folder)
        if isinstance(one, int):
            return one
        found.append(one)
    if len(runs) == 2:
        _half_maps(options, found, home)
    return 0


def _reconstructed(options: DensityOptions, run: Path, home: Path) -> Any:
    """Maps of one run: (network, predictor, latents, choice, pixel); an exit code where it was stopped."""
    import numpy as np

    from jaxprot.cryostar import maps, predict, truth
    from jaxprot.cryostar.landscape import analyse, check_sizes
    from jaxprot.cryostar.results import Heterogeneity, clear_maps, write_landscape, write_models, write_views
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.tables import write_table

    begin = time.perf_counter()
    if not (options.resume and (home / "training" / "settings.json").is_file()):
        RunDirectory(home, options.overwrite)
    check_sizes(options.components, options.points, options.clusters)
    fresh = options.overwrite and not options.resume
    predictor = predict.load(run)
    given = None if options.encoder else predictor.read_latents(run / "latents.npy")
    true = _truth(options.truth, predictor, predictor.task.stack)  # type: ignore[union-attr]
    with counted("images") as progress:
        cfg = maps.settings(
            predictor,
            given,
            home / "images",
            side=options.side,
            hidden=options.hidden,
            epochs=options.epochs,
            batch=options.batch,
            lr=options.lr,
            mask=options.mask,
            net=options.net,
            encoding=options.encoding,
            loss=options.loss,
            seed=options.seed,
            fresh=fresh,
            progress=progress,
        )
    work = home / "training"  # Orbax, metrics and settings of the training lie apart from the maps
    if fresh:
        forget(work)
    net = _trained(options, run, home, cfg, given)
    if isinstance(net, int):
        return net
    if given is None:
        with counted("images") as progress:
            latents = maps.encoded(net, cfg.task.data, progress)
    else:
        latents = given
    sizes = {"components": options.components, "points": options.points, "clusters": options.clusters}
    clear_maps(home)
    beads, result = predictor.beads, None
    if given is None:
        found = analyse(latents, **sizes, seed=options.seed)
        write_landscape(found, predictor.task.stack, home, beads.name, options.format)  # type: ignore[union-attr]
    else:
        result = Heterogeneity.of(latents, predictor.decode, beads, **sizes, seed=options.seed)
        found = result.landscape
    choice, pixel = maps.chosen(found), cfg.task.data.pixel
    fits, models, volumes = [], None, _volumes(net, latents, choice, pixel, home)
    if result is not None:
        for axis, frames in enumerate(result.paths):
            write_models(frames, beads, home / f"pca-{axis + 1}.pdb", result.mobility)
        write_models(result.centres, beads, home / "kmeans.pdb", result.mobility)
        models = iter(np.concatenate([result.centres, *result.paths]))

    def looked_at() -> Iterator[Any]:
        """The maps, one in memory at a time, each compared with its model on the way."""
        for volume in volumes:
            if models is not None:
                fits.append(maps.map_model(volume, next(models), beads.electrons))
            yield volume

    compared = None
    if true is None:
        collections.deque(looked_at(), maxlen=0)
    else:
        compared = truth.maps(looked_at(), choice.rows, true, beads.electrons, options.mask)
    told = ""
    if fits:
        _write_fits(fits, home, "", "fsc_0.5_angstrom", options.format)
        told = f"; map-model FSC 0.5: {maps.best(fits)} (resolution.csv)"
    if compared is not None:
        write_table(maps.table(compared.fits), home / "true_fsc", options.format)
        write_table(compared.table(), home / "true_resolution", options.format)
        told += (
            f"; with the true densities: {maps.best(compared.fits)}; conformations of best agreement lie "
            f"{compared.off.mean():.2f} Å from the true ones, rank correlation over clusters {compared.moves:.3f} "
            "(true_resolution.csv)"
        )
    write_views(home)
    inputs = [run / "best.safetensors", *([] if given is None else [run / "latents.npy"])]
    record(options, home, "cryostar density", inputs=inputs, timings={"total": time.perf_counter() - begin})
    print(f"{home}: {len(choice.names)} maps{told}")
    return net, predictor, latents, choice, pixel


def _volumes(net: Any, latents: Any, choice: Any, pixel: float, home: Path) -> Iterator[Any]:
    """Maps of the chosen particles, each written when it is made."""
    from jaxprot.cryostar import maps
    from jaxprot.io.maps import write_map

    for name, row in zip(choice.names, choice.rows, strict=True):
        volume = maps.volume_of(net, latents[row], pixel, name)
        write_map(volume, home / f"{name}.mrc")
        yield volume


def _trained(options: DensityOptions, run: Path, home: Path, cfg: Any, latents: Any) -> Any:
    """The density network, trained in `home/training`; an exit code where it was stopped."""
    from jaxprot.cli.train import reporter
    from jaxprot.core.errors import OutputError
    from jaxprot.cryostar import maps
    from jaxprot.io.outputs import keep_settings, sha256
    from jaxprot.train.loop import fit as train
    from jaxprot.train.parallel import Parallel

    parallel = Parallel(options.parallel)
    if parallel.devices[0].platform == "cpu":
        keep_memory()
    header, work = maps.header(cfg), home / "training"
    chosen = {"lr": options.lr, "batch": options.batch, "seed": options.seed, "run": run.absolute()}
    if options.loss != "fmsf":
        chosen["loss"] = options.loss
    # A run that has gone on gives other latents, which this network has not been trained on.
    made = {} if latents is None else {
        maps.LATENTS: hashlib.sha256(latents.tobytes()).hexdigest(),
        "weights of the run": sha256(run / "best.safetensors"),
    }  # fmt: skip
    try:
        keep_settings(work, {**header, **chosen, **made})
    except OutputError as error:
        raise OutputError(f"{error}, or begin anew with --overwrite and without --resume") from error
    print(f"{home}: {cfg.steps} steps on {parallel}", file=sys.stderr)
    with reporter(cfg.steps, parallel.first) as report:
        try:
            outcome = train(cfg, work, resume=options.resume, header=header, report=report, parallel=parallel)
        except FloatingPointError as error:
            raise InputError(str(error)) from error
    if outcome.stopped is not None:
        print(f"{home}: stopped by {outcome.stopped} and saved after step {outcome.step} of {cfg.steps}; add --resume")
        return 130 if outcome.stopped == "SIGINT" else 0
    assert outcome.best is not None
    return maps.network(outcome.best)


def _half_maps(options: DensityOptions, found: list[Any], home: Path) -> None:
    """Compares the maps of conformations that both halves have."""
    from jaxprot.cryostar import maps
    from jaxprot.cryostar.results import clear_maps

    (net, own, latents, choice, pixel), (other, predictor, others, _, _) = found
    clear_maps(home)
    fits = []
    frames = own.decode(latents[choice.rows])
    for name, row, there in zip(choice.names, choice.rows, maps.matched(predictor.decode, others, frames), strict=True):
        first = maps.volume_of(net, latents[row], pixel, name)
        fits.append(maps.map_map(first, maps.volume_of(other, others[there], pixel, name)))
    _write_fits(fits, home, "half_", "fsc_0.143_angstrom", options.format)
    print(f"{home}: half-set FSC 0.143: {maps.best(fits)} (half_resolution.csv)")


def _write_fits(fits: Any, home: Path, prefix: str, column: str, format: Any) -> None:  # noqa: A002
    import numpy as np

    from jaxprot.cryostar import maps
    from jaxprot.io.tables import write_table

    write_table(maps.table(fits), home / f"{prefix}fsc", format)
    resolution = np.array([fit.resolution for fit in fits], np.float64)
    resolution[~np.isfinite(resolution)] = np.nan  # an empty cell
    rows = {"volume": np.array([fit.name for fit in fits]), column: np.round(resolution, 3)}
    write_table(rows, home / f"{prefix}resolution", format)


def _compare(found: dict[str, tuple[Any, Any]], home: Path) -> None:
    """How far each half's conformations of clusters are from the nearest conformation of the other half."""
    import numpy as np

    from jaxprot.io.outputs import write_json

    told: dict[str, Any] = {}
    for (name, (_, result)), (other, (predictor, there)) in zip(found.items(), reversed(found.items()), strict=True):
        rows = np.random.default_rng(0).permutation(len(there.landscape.latents))[:2000]
        frames = predictor.decode(there.landscape.latents[rows])
        off = np.sqrt(np.square(result.centres[:, None] - frames[None]).sum(-1).mean(-1)).min(1)
        told[f"{name} in {other}"] = {"rmsd_angstrom": off.tolist(), "mean": float(off.mean())}
    first, second = (result.mobility for _, result in found.values())
    told["mobility_correlation"] = float(np.corrcoef(first, second)[0, 1])
    write_json(home / "agreement.json", told)
    means = [value["mean"] for value in told.values() if isinstance(value, dict)]
    print(
        f"{home}: clusters of one half lie {np.mean(means):.2f} Å from the other's conformations; mobility correlates "
        f"with {told['mobility_correlation']:.2f} (agreement.json)"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(Compute):
    """Options of `cryostar export`."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """Folder of `jaxprot cryostar fit`."""


def export(options: ExportOptions) -> int:
    """Writes a run for the published code of cryoSTAR: ckpt.pt, z.npy, and density_ckpt.pt if there are densities.

    PyTorch is not needed. The published settings are, if that code is to read the particles alike
    (`fit --experiment`): its encoder does not see centred images.
    """
    from jaxprot.cryostar.predict import export_official
    from jaxprot.io.outputs import RunDirectory

    if options.run is None:
        raise InputError("give the folder of a run (jaxprot cryostar fit)")
    home = RunDirectory(options.output, options.overwrite).folder()
    print(f"{home}: {', '.join(export_official(options.run, home))}")
    return 0
