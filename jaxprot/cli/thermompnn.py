"""`jaxprot thermompnn scan|predict|doubles`."""

import dataclasses
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import (
    EngineOptions,
    StructureOptions,
    distribute,
    expand,
    load,
    progress,
    record,
    report_failures,
    run_many,
    stems,
)
from jaxprot.core.errors import InputError, JaxprotError

_BEGIN = time.perf_counter()
Groups = tyro.conf.UseAppendAction[tuple[str, ...]]


def _groups(tie: tuple[str, ...]) -> list[list[str]]:
    groups = [[name.strip() for name in group.split(",") if name.strip()] for group in tie]
    wrong = next((text for text, group in zip(tie, groups, strict=True) if len(set(group)) < 2), None)
    if wrong is not None:
        raise InputError(f"--tie {wrong}: name at least two chains, such as --tie A,B")
    return groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanOptions(EngineOptions, StructureOptions):
    """Options of `thermompnn scan`."""

    chains: Annotated[str | None, tyro.conf.arg(metavar="A,B")] = None
    """Chains that form the protein, together; all protein chains if not given."""
    samples: int = 4
    """Noised backbones for the uncertainty of each value; 0 leaves it out."""
    tie: Annotated[Groups, tyro.conf.arg(metavar="A,B")] = ()
    """Chains of a homo-oligomer that mutate together; may be repeated for further groups."""
    no_cysteine: bool = False
    """Leave substitutions to cysteine out of the tables."""
    best: bool = False
    """Also write `best`: the most stabilising substitution of each residue, and how many residues are near it."""


def scan(options: ScanOptions) -> int:
    """Predicts the stability change of every single substitution of a protein.

    Writes scan.csv, uncertainty.csv, heatmap.png, ddg.pdb, view.pml and view.cxc: for one input into DIR, for several
    into DIR/NAME/. ddG is in kcal/mol; positive values destabilise.

    With --engine ray all inputs go into one table, the parquet files in DIR/parts/: the columns of scan.csv and of
    uncertainty.csv, after a column that names the structure. There are no pictures and no files for viewers then.
    """
    from jaxprot.io.outputs import RunDirectory

    groups, paths = _groups(options.tie), expand(options.inputs)
    _samples(options.samples)
    if options.engine == "ray":
        return _scan_on_ray(options, groups, paths)
    run = RunDirectory(options.output, options.overwrite)
    timings = {"start": time.perf_counter() - _BEGIN}
    begin = time.perf_counter()
    predictor, weights = load(options, "thermompnn")
    timings["load"] = time.perf_counter() - begin

    from jaxprot.thermompnn.predict import tie

    names, failed, pending = stems(paths), {}, deque()
    spent = {"compute": 0.0, "write": 0.0}

    def write(number: int, result: Any) -> None:
        started = time.perf_counter()
        if isinstance(result, Exception):
            raise result
        result = tie(result, groups) if groups else result
        folder = run.folder(names[number] if len(paths) > 1 else None)
        kept = {"cysteine": not options.no_cysteine, "best": options.best}
        result.write(folder, format=options.format, overwrite=True, **kept)
        spent["write"] += time.perf_counter() - started

    begin = time.perf_counter()
    found = predictor.scan_many(paths, options.chains, samples=options.samples, seed=options.seed)
    # Files are written by a thread of their own while the next structure is computed.
    with progress(len(paths), "structures") as advance, ThreadPoolExecutor(1) as writer:

        def settle(count: int) -> None:
            while len(pending) > count:
                number, future = pending.popleft()
                try:
                    future.result()
                except Exception as error:
                    if len(paths) == 1 or options.debug:
                        raise
                    failed[str(paths[number])] = _message(error)
                advance()

        waiting = time.perf_counter()
        for number, result in found:
            spent["compute"] += time.perf_counter() - waiting
            pending.append((number, writer.submit(write, number, result)))
            settle(8)
            waiting = time.perf_counter()
        settle(0)
    spent["compute"] -= sum(predictor.seconds.values())  # structures are read while the next result is awaited
    timings |= {**predictor.seconds, **spent, "scan and write": time.perf_counter() - begin}
    record(options, run.folder(), "thermompnn scan", inputs=paths, weights=weights, timings=timings, failed=failed)
    report_failures(failed, len(paths))
    print(f"{options.output}: {len(paths) - len(failed)} of {len(paths)} structures scanned")
    return 1 if failed else 0


def _scan_on_ray(options: ScanOptions, groups: list[list[str]], paths: list[Path]) -> int:
    if options.best:
        raise InputError("--best goes with --engine local; the parts of --engine ray hold what it is chosen from")
    names, begin, weights = stems(paths), time.perf_counter(), {}

    def prepare() -> tuple[Any, Any]:
        predictor, found = load(options, "thermompnn")
        weights.update(found)

        from jaxprot.scale.job import file_items
        from jaxprot.thermompnn.scale import scan_job

        settings = {"chains": options.chains, "samples": options.samples, "seed": options.seed}
        job = scan_job(predictor, found, **settings, tied=groups, cysteine=not options.no_cysteine)
        return job, file_items(names, paths)

    parts, found, told = distribute(options, prepare)
    given = dict(zip(names, paths, strict=True))
    # Workers know absolute paths; messages use those that were given.
    failed = {str(given[n]): text.replace(str(given[n].absolute()), str(given[n]), 1) for n, text in found.items()}
    timings = {"start": begin - _BEGIN, "run": time.perf_counter() - begin}
    command = "thermompnn scan"
    record(options, options.output, command, inputs=paths, weights=weights, timings=timings, failed=failed, ray=told)
    report_failures(failed, len(paths))
    print(f"{parts.path}: {len(paths) - len(failed)} of {len(paths)} structures scanned{_before(told)}")
    return 1 if failed else 0


def _before(told: dict[str, Any]) -> str:
    count = told["finished before"]
    return f" ({count} of them before)" if count else ""


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, JaxprotError) else f"internal: {type(error).__name__}: {error}"


def _samples(samples: int) -> None:
    if samples < 0 or samples == 1:
        raise InputError(f"--samples {samples}: a spread needs at least 2; 0 leaves the uncertainty out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(EngineOptions):
    """Options of `thermompnn predict`."""

    table: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MUTATIONS.csv")]
    """Columns structure, mutation (`A123G`, `A52bG`, `H:A52bG`, doubles `A10G:L55V`), optionally chain and ddg; with
    reverse_structure and reverse_mutation (and reverse_chain) also the antisymmetry is measured."""
    structures: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the structures; the table names them by file name, with or without suffix."""
    context: Literal["chain", "all"] = "chain"
    """Predict on the chains that a row names alone (as the published tool), or on all protein chains of its file."""
    samples: int = 4
    """Noised backbones for the uncertainty of each value; 0 leaves it out."""
    tie: Annotated[Groups, tyro.conf.arg(metavar="A,B")] = ()
    """Chains of a homo-oligomer that mutate together; may be repeated for further groups."""


def predict(options: PredictOptions) -> int:
    """Predicts the stability change of the mutations in a table, over any number of structures.

    The whole table is checked before anything is computed: a row that does not fit, or a structure that cannot be read,
    ends the command (code 2) with all such rows listed and nothing written.

    Writes predictions.csv: the table with ddg_kcal_mol (positive values destabilise) and flag; with a column ddg
    (kcal/mol, same sign) also metrics.json. With --engine ray the same, computed by many processes; DIR/parts/ keeps
    what is done.
    """
    from jaxprot.io.outputs import RunDirectory

    groups = _groups(options.tie)
    _samples(options.samples)
    if options.engine == "ray":
        return _predict_on_ray(options, groups)
    run = RunDirectory(options.output, options.overwrite)
    timings = {"start": time.perf_counter() - _BEGIN}
    begin = time.perf_counter()
    table = _table(options)
    timings["read table"] = time.perf_counter() - begin
    begin = time.perf_counter()
    predictor, weights = load(options, "thermompnn")
    timings["load"] = time.perf_counter() - begin

    from jaxprot.thermompnn import lists

    begin = time.perf_counter()
    plan = _plan(options, table, predictor, groups)
    timings["read and check"] = time.perf_counter() - begin
    begin = time.perf_counter()
    with progress(plan.scans, "proteins") as advance:
        found = plan.run(predictor, samples=options.samples, seed=options.seed, advance=advance)
    timings["compute"] = time.perf_counter() - begin
    written = lists.write_predictions(table, found, run.folder(), format=options.format)
    record(
        options,
        run.folder(),
        "thermompnn predict",
        inputs=[options.table, *plan.files],
        weights=weights,
        timings=timings,
    )
    print(f"{options.output}: {plan.count} predictions on {plan.scans} proteins ({', '.join(written)})")
    return 0


def _table(options: PredictOptions) -> Any:
    from jaxprot.io.mutations import read_mutation_table

    table = read_mutation_table(options.table)
    taken = [name for name in ("ddg_kcal_mol", "flag") if name in table.frame]
    if taken:
        raise InputError(f"{options.table}: has a column {taken[0]!r} already, which the result needs; rename it")
    return table


def _plan(options: PredictOptions, table: Any, predictor: Any, groups: list[list[str]], keep: bool = True) -> Any:
    from jaxprot.thermompnn import lists

    return lists.Plan(
        [*lists.rows_of(table), *lists.reverse_rows_of(table, options.table)],
        options.structures,
        whole=options.context == "all",
        tied=groups,
        pairs_only=predictor.config.kind == "epistatic",
        keep=keep,
        source=str(options.table),
    )


def _predict_on_ray(options: PredictOptions, groups: list[list[str]]) -> int:
    begin = time.perf_counter()
    table, prepared = _table(options), {}

    def prepare() -> tuple[Any, Any]:
        predictor, weights = load(options, "thermompnn")

        from jaxprot.io.outputs import sha256
        from jaxprot.thermompnn.scale import predict_job, task_items

        plan = _plan(options, table, predictor, groups, keep=False)
        prepared.update(weights=weights, plan=plan, calibrated=predictor.calibrated)
        settings = {"samples": options.samples, "seed": options.seed, "context": options.context, "tied": groups}
        return predict_job(weights, **settings, table=sha256(options.table)), task_items(plan.tasks)

    parts, failed, told = distribute(options, prepare, "proteins")

    from jaxprot.thermompnn import lists
    from jaxprot.thermompnn.scale import gather

    plan = prepared["plan"]
    found = gather(parts, plan.count, prepared["calibrated"])
    written = [] if failed else lists.write_predictions(table, found, options.output, format=options.format)
    timings = {"start": begin - _BEGIN, "run": time.perf_counter() - begin}
    inputs, command, weights = [options.table, *plan.files], "thermompnn predict", prepared["weights"]
    record(options, options.output, command, inputs=inputs, weights=weights, timings=timings, failed=failed, ray=told)
    report_failures(failed, plan.scans, "proteins")
    if failed:
        print(f"{parts.path}: predictions on {plan.scans - len(failed)} of {plan.scans} proteins; no table of them yet")
        return 1
    what = f"{plan.count} predictions on {plan.scans} proteins{_before(told)}"
    print(f"{options.output}: {what} ({', '.join(written)})")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoublesOptions(StructureOptions):
    """Options of `thermompnn doubles`."""

    mode: Literal["additive", "epistatic"] = "additive"
    """Sum of the single values, or the double-mutant model (needs its weights: `--weights thermompnn-d:ens1`)."""
    chains: Annotated[str | None, tyro.conf.arg(metavar="A,B")] = None
    """Chains that form the protein, together; all protein chains if not given."""
    max_distance: Annotated[float, tyro.conf.arg(metavar="ANGSTROM")] = 5.0
    """Only pairs of residues with a smaller CA-CA distance (`inf`: all)."""
    max_ddg: Annotated[float, tyro.conf.arg(metavar="KCAL/MOL")] = -0.5
    """Only double mutants of at most this ddG (`inf`: all)."""
    disulfide_penalty: Annotated[float, tyro.conf.arg(metavar="KCAL/MOL")] = 0.0
    """Added for each mutated cysteine of a disulfide bridge (the published tool: 2)."""


def doubles(options: DoublesOptions) -> int:
    """Predicts the stability change of pairs of substitutions of residues close to each other.

    Writes doubles.csv; for several inputs into DIR/NAME/. ddG is in kcal/mol; positive values destabilise.
    """
    from jaxprot.io.outputs import RunDirectory

    paths = expand(options.inputs)
    if not options.max_distance > 0 or options.max_ddg != options.max_ddg:
        raise InputError("--max-distance must be above 0 and --max-ddg a number")
    run = RunDirectory(options.output, options.overwrite)
    timings = {"start": time.perf_counter() - _BEGIN}
    begin = time.perf_counter()
    predictor, weights = load(options, "thermompnn")
    timings["load"] = time.perf_counter() - begin
    names = dict(zip(paths, stems(paths), strict=True))

    def work(path: Path) -> int:
        result = predictor.doubles(
            path,
            options.chains,
            mode=options.mode,
            max_distance=options.max_distance,
            max_ddg=options.max_ddg,
            disulfide_penalty=options.disulfide_penalty,
        )
        result.write(run.folder(names[path] if len(paths) > 1 else None), format=options.format, overwrite=True)
        return len(result.ddg)

    outcome = run_many(paths, work, debug=options.debug)
    timings["run"] = outcome.seconds
    record(
        options,
        run.folder(),
        "thermompnn doubles",
        inputs=paths,
        weights=weights,
        timings=timings,
        failed=outcome.failed,
    )
    print(f"{options.output}: {sum(outcome.results.values())} double mutants of {len(outcome.results)} structures")
    return outcome.code
