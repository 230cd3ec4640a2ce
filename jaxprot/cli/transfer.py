"""`jaxprot transfer matrix|report`."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import Compute, progress, record
from jaxprot.core.errors import InputError

_BEGIN = time.perf_counter()
_SUFFIXES = (".npz", ".csv", ".csv.gz", ".parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferOptions(Compute):
    """Options of commands that compare tasks."""

    tasks: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="TASK...")] = ()
    """Features of a task: .npz (features, labels), or .csv or .parquet whose numeric columns are features and whose
    column label (or target) is the label; or folders of them. NAME=FILE names a task, else the file does."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Column or array of the labels; default: label, labels, target, targets or y."""
    kind: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KIND|NAME=KIND...")] = ("auto",)
    """What labels are: numbers, classes or auto, of all tasks or of the task NAME. By auto, numbers with fractions
    are numbers, whole ones of a column of integers are classes, and other whole ones if they take few values."""
    method: Literal["otdd", "features"] = "otdd"
    """Compare features and labels, or features alone."""
    value: Literal["divergence", "entropic", "exact"] = "divergence"
    """Debiased Sinkhorn divergence, its cross term alone, or transport without entropy (slow above 1000 samples)."""
    eps: float | None = None
    """Strength of the entropy in the unit of the cost; default: a share of the mean cost."""
    relative_eps: float = 0.05
    """That share."""
    bins: int = 10
    """Quantile bins of labels that are numbers."""
    samples: int = 2000
    """Samples of a task at most."""
    unequal: bool = False
    """Take more samples of larger tasks. Without it all have as many as the smallest, since distances of few samples
    are larger by chance."""
    preprocess: Literal["none", "centre", "zscore", "pca"] = "none"
    """Of the features of all tasks together."""
    components: int = 50
    """Of --preprocess pca."""
    precision: Literal["float32", "float64"] = "float32"
    """Of the entropic problems."""
    resamples: int = 1000
    """For the 95 % intervals; 0 for none."""
    seed: int = 0
    """Seed of samples and resamples, 0 to 2147483647."""
    format: Literal["csv", "parquet"] = "csv"
    """Format of tables."""

    def settings(self) -> Any:
        """Of the distances."""
        from jaxprot.ot.pairs import Settings

        names = {field.name for field in dataclasses.fields(Settings)} & {
            field.name for field in dataclasses.fields(self)
        }
        return Settings(equal=not self.unequal, **{name: getattr(self, name) for name in names})

    def read(self) -> tuple[list[Any], list[Path]]:
        """The tasks, and their files."""
        from jaxprot.ot.tasks import name_of, read_task

        named: list[tuple[str, Path]] = []
        for text in self.tasks:
            name, mark, rest = text.partition("=")
            if mark and name and not Path(text).exists():
                named.append((name, Path(rest)))
                continue
            path = Path(text)
            files = sorted(p for p in path.iterdir() if p.name.lower().endswith(_SUFFIXES)) if path.is_dir() else [path]
            if not files:
                raise InputError(f"{path}: no {', '.join(_SUFFIXES)} files in this folder")
            named += [(name_of(file), file) for file in files]
        if len(named) < 2:
            raise InputError(f"{len(named)} tasks; give at least two files, or a folder of them (--help shows how)")
        kinds = self._kinds([name for name, _ in named])
        problems, tasks = [], []
        for name, path in named:
            try:
                tasks.append(read_task(path, name=name, label=self.label, kind=kinds[name]))
            except InputError as error:
                problems.append(str(error))
        # A matrix of the others would be a different result.
        if problems:
            raise InputError("; ".join(problems))
        names = [task.name for task in tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"tasks named {', '.join(twice)} occur twice; name them apart: NAME=FILE")
        return tasks, [path for _, path in named]

    def _kinds(self, names: list[str]) -> dict[str, Any]:
        """Of the labels of each task, None where the labels tell."""
        every, own = "auto", {}
        for text in self.kind:
            name, mark, kind = text.rpartition("=")
            if kind not in ("auto", "numbers", "classes"):
                raise InputError(f"--kind {text}: the kind is auto, numbers or classes, or NAME=KIND for one task")
            if mark and name not in names:
                raise InputError(f"--kind {text}: no task {name}; there are {', '.join(names)}")
            if mark:
                own[name] = kind
            else:
                every = kind
        found = {name: own.get(name, every) for name in names}
        return {name: None if kind == "auto" else kind for name, kind in found.items()}


def matrix(options: TransferOptions) -> int:
    """Distances between all tasks: distances.csv, floors.csv, matrix.png (with a tree), map.png.

    Distances are squared, as those of OTDD are; their roots are beside them. Small ones tell of tasks that should help
    each other. Samples of one task are some way apart, too: floors.csv tells how far two random halves of each are.
    """
    from jaxprot.io.outputs import RunDirectory

    run = RunDirectory(options.output, options.overwrite)
    settings = options.settings()
    tasks, files = options.read()
    _tell_tasks(tasks, options)
    from jaxprot.ot.matrix import transfer_matrix

    timings = {"read": time.perf_counter() - _BEGIN}
    begin = time.perf_counter()
    with _pairs(len(tasks)) as done:
        found = transfer_matrix(tasks, settings, progress=done, floors=True)
    timings["compute"] = time.perf_counter() - begin
    begin = time.perf_counter()
    written = found.write(run.folder(), options.format)
    timings["write"] = time.perf_counter() - begin
    record(options, run.folder(), "transfer matrix", inputs=files, timings=timings)
    width = max(len(name) for name in found.names)
    print(f"{'task':<{width}}  nearest source (root of the distance)")
    for name in found.names:
        source, value = found.nearest(name)[0]
        print(f"{name:<{width}}  {source} ({math.sqrt(max(value, 0)):.4g})")
    _tell_floors(found, root=True)
    print(f"{options.output}: {', '.join(written)}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions(TransferOptions):
    """Options of `transfer report`."""

    gains: Annotated[Path | None, tyro.conf.arg(metavar="GAINS.csv")] = None
    """Columns source, target and gain: the metric of the target after transfer less that from scratch."""
    target: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Tasks that are looked for a source for (yours, among tasks that there are weights of); default: all."""
    rank: Literal["distance", "logme", "leep", "nce", "hscore", "transrate"] = "distance"
    """What ranks the sources of a target."""


def report(options: ReportOptions) -> int:
    """Which source task helps a target: distances and transferability scores, and how they agree with measured gains.

    Writes recommendations.csv (of each --target its sources, the most promising first), report.json (correlations with
    intervals and p-values, recommended sources, distances), report.csv (a row per source and target: distance, LogME,
    LEEP, NCE, H-score, TransRate, gain), and what `transfer matrix` writes. Intervals tell the chance of drawing these
    samples, not that distances of few samples are larger; floors.csv shows how large of the same task. An .npz may hold
    features_from/SOURCE and probabilities_from/SOURCE: features and class probabilities of its samples by
    a model trained on another task. Without these, LEEP and NCE use a linear discriminant of the source's features.
    """
    from jaxprot.io.outputs import RunDirectory

    run = RunDirectory(options.output, options.overwrite)
    settings = options.settings()
    tasks, files = options.read()
    names = [task.name for task in tasks]
    unknown = [name for name in options.target if name not in names]
    if unknown:
        raise InputError(f"--target {' '.join(unknown)}: no such task; there are {', '.join(names)}")
    gains = None if options.gains is None else _read_gains(options.gains)
    _tell_tasks(tasks, options)
    from jaxprot.ot.report import transfer_report

    timings = {"read": time.perf_counter() - _BEGIN}
    begin = time.perf_counter()
    with _pairs(len(tasks)) as done:
        found = transfer_report(tasks, gains, settings, progress=done, floors=True)
    timings["compute"] = time.perf_counter() - begin
    ranked = {name: found.ranked(name, options.rank) for name in options.target or names}
    folder = run.folder()
    written = [
        _recommended(ranked, folder, options.format),
        *found.write(folder, options.format),
        *found.matrix.write(folder, options.format),
    ]
    files += [options.gains] if options.gains is not None else []
    record(options, folder, "transfer report", inputs=files, timings=timings)
    if found.correlations:
        print(f"{'':<10}{'expected':>9}{'spearman':>10}{'95 % interval':>18}{'p':>8}{'pearson':>9}{'n':>5}")
        for one in found.correlations:
            sign = "-" if one.expected < 0 else "+"
            interval = f"{one.low:.2f} to {one.high:.2f}"
            print(
                f"{one.name:<10}{sign:>9}{one.spearman:>10.3f}{interval:>18}{one.p:>8.3f}{one.pearson:>9.3f}{one.n:>5}"
            )
        if found.best_predictor is not None:
            print(f"agrees best with the gains: {found.best_predictor}")
    _tell(ranked, options.rank, len(options.target) > 0)
    _tell_floors(found.matrix)
    print(f"{options.output}: {', '.join(written)}")
    return 0


def _tell_tasks(tasks: list[Any], options: TransferOptions) -> None:
    """Prints what the tasks are taken for, and at how many samples they are compared."""
    settings, kinds = options.settings(), options._kinds([task.name for task in tasks])
    compared = settings.sample(tasks)
    width = max(4, *(len(task.name) for task in tasks))
    counts = [f"{len(a)} of {len(b)}" if len(a) < len(b) else f"{len(b)}" for a, b in zip(compared, tasks, strict=True)]
    wide = max(7, *map(len, counts))
    print(f"{'task':<{width}}  {'samples':<{wide}}  labels")
    for task, part, count in zip(tasks, compared, counts, strict=True):
        labels = _labels_of(part, settings.bins)
        if kinds[task.name] is None and _many_integers(task):
            labels += f" (--kind {task.name}=numbers if they are amounts)"
        print(f"{task.name:<{width}}  {count:<{wide}}  {labels}")
    smallest = min(tasks, key=len)
    if settings.equal and len(smallest) < min(settings.samples, max(len(task) for task in tasks)):
        print(
            f"all tasks at {len(smallest)} samples, as many as the smallest ({smallest.name}) has; --unequal takes more"
        )


def _labels_of(task: Any, bins: int) -> str:
    if task.labels is None:
        return "none"
    count = len(task.classes(bins)[1]) if task.varied else 1
    return f"numbers, {count} bins" if task.kind == "numbers" else f"{count} class{'es' if count > 1 else ''}"


def _many_integers(task: Any) -> bool:
    """Whether labels are more different integers than classes usually are."""
    import numpy as np

    whole = task.labels is not None and task.labels.dtype.kind in "iu"
    return whole and len(np.unique(task.labels)) > max(10, len(task) / 10)


def _tell_floors(found: Any, root: bool = False) -> None:
    """Prints how far samples of one task are apart."""
    import numpy as np

    floors = found.floors[np.isfinite(found.floors)]
    if not len(floors):
        return
    values = np.sqrt(np.maximum(floors, 0)) if root else floors
    halves = sorted({count // 2 for count in found.samples})
    of = f"{halves[0]}" if len(halves) == 1 else f"{halves[0]} to {halves[-1]}"
    what = "root of the distance" if root else "distance"
    print(
        f"same task, two halves of {of} samples each: {what} {values.min():.4g} to {values.max():.4g} "
        f"(median {np.median(values):.4g}); at twice the samples less, but not 0"
    )


def _recommended(ranked: dict[str, dict[str, Any]], folder: Path, kind: str) -> str:
    """Writes the sources of all targets as one table; its name."""
    import numpy as np

    from jaxprot.io.tables import write_table

    first = next(iter(ranked.values()))
    columns = {name: np.concatenate([rows[name] for rows in ranked.values()]) for name in first}
    targets = np.repeat(np.array([*ranked], object), [len(rows["rank"]) for rows in ranked.values()])
    return write_table({"target": targets, **columns}, folder / "recommendations", kind).name


_FIGURES = ("distance", "low", "high", "leep", "nce", "logme", "gain")


def _tell(ranked: dict[str, dict[str, Any]], by: str, whole: bool) -> None:
    """Prints the best source of every target, or all sources of targets that were asked for."""
    wide = max(6, *(len(name) for name in ranked)) + 2
    count = None if whole else 1
    known = {n for rows in ranked.values() for n, values in rows.items() if n in _FIGURES
             and any(map(math.isfinite, values[:count]))}  # fmt: skip
    shown = [name for name in _FIGURES if name in known]
    for number, (target, rows) in enumerate(ranked.items()):
        source = max(8, *(len(name) for one in ranked.values() for name in one["source"])) + 2
        if not number or whole:
            print(f"{'target':<{wide}}{f'source (by {by})':<{source + 12}}" + "".join(f"{n:>12}" for n in shown))
        for row in range(len(rows["rank"]) if whole else 1):
            values = [rows[name][row] for name in shown]
            figures = "".join(f"{value:>12.4g}" if math.isfinite(value) else " " * 12 for value in values)
            print(f"{target if not row else '':<{wide}}{rows['source'][row]:<{source + 12}}{figures}")


def _read_gains(path: Path) -> dict[tuple[str, str], float]:
    from jaxprot.io.tables import read_table

    table = read_table(path)
    absent = [name for name in ("source", "target", "gain") if name not in table]
    if absent:
        raise InputError(f"{path}: no column {', '.join(absent)}; needed are source, target and gain")
    if table["gain"].dtype.kind not in "fi":
        raise InputError(f"{path}: column gain is not of numbers")
    out: dict[tuple[str, str], float] = {}
    for row, (source, target, gain) in enumerate(zip(table["source"], table["target"], table["gain"], strict=True), 2):
        pair = str(source), str(target)
        if pair in out:
            raise InputError(f"{path}: row {row}: {pair[0]} to {pair[1]} occurs twice; give the mean of repeats")
        if not math.isfinite(gain):
            raise InputError(f"{path}: row {row}: no gain; leave the pair out")
        out[pair] = float(gain)
    if not out:
        raise InputError(f"{path}: no rows")
    return out


@contextmanager
def _pairs(tasks: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over pairs, on a terminal."""
    with progress(tasks * (tasks - 1) // 2, "pairs") as advance:
        yield lambda done, total: advance()
