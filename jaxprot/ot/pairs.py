"""The distance between two tasks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.ot import exact, otdd, sinkhorn
from jaxprot.ot.tasks import Preprocess, Task, joint

_log = logging.getLogger(__name__)
Method = Literal["otdd", "features"]
Value = Literal["divergence", "entropic", "exact"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How distances between tasks are computed.

    Attributes:
      method: `otdd` compares features and labels (Alvarez-Melis and Fusi, NeurIPS 2020), `features` features alone.
      value: `divergence`, the debiased Sinkhorn divergence; `entropic`, its cross term alone; `exact`, without entropy.
      eps: strength of the entropy, in the unit of the cost; by default `relative_eps` times the mean cost.
      relative_eps: share of the mean cost.
      feature_weight: of half the squared distance of features in the cost.
      label_weight: of half the squared distance of classes in the cost.
      diagonal: classes are compared without covariances between features.
      bins: quantile bins of labels that are numbers.
      samples: of a task at most, drawn without replacement.
      equal: all tasks that are compared are drawn down to as many samples as the smallest has. Distances of few samples
        are larger than those of many by chance, so that others would rank by size.
      preprocess: of the features of all tasks together, see `tasks.joint`.
      components: of `preprocess="pca"`.
      threshold: L1 error of the marginals at which a problem counts as solved.
      max_iterations: of a problem.
      precision: of the entropic problems.
      resamples: for intervals; 0 for none.
      seed: of samples and resamples.
    """

    method: Method = "otdd"
    value: Value = "divergence"
    eps: float | None = None
    relative_eps: float = 0.05
    feature_weight: float = 1.0
    label_weight: float = 1.0
    diagonal: bool = False
    bins: int = 10
    samples: int = 2000
    equal: bool = True
    preprocess: Preprocess = "none"
    components: int = 50
    threshold: float = 1e-3
    max_iterations: int = 2000
    precision: Literal["float32", "float64"] = "float32"
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self):
        for name, kind in (("method", Method), ("value", Value), ("preprocess", Preprocess)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name} {getattr(self, name)!r}; it is {', '.join(get_args(kind))}")
        if self.precision not in ("float32", "float64"):
            raise InputError(f"precision {self.precision!r}; it is float32 or float64")
        for name in ("eps", "relative_eps", "threshold"):
            number = getattr(self, name)
            if number is not None and not 0 < number < np.inf:
                raise InputError(f"{name} {number}: give a number above 0")
        for name, least in (("bins", 2), ("samples", 2), ("components", 1), ("max_iterations", 1), ("resamples", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)}: give at least {least}")
        weights = (self.feature_weight, self.label_weight)
        if not all(0 <= weight < np.inf for weight in weights) or not any(weights):
            raise InputError(f"weights of features and labels {weights}: give numbers of at least 0, not both 0")

    def sample(self, tasks: Sequence[Task]) -> list[Task]:
        """The samples of some tasks that are compared.

        Raises:
          InputError: labels are compared, and of a task with several classes the samples of one only were drawn.
        """
        smallest = min(len(task) for task in tasks)
        count = min(self.samples, smallest) if self.equal else self.samples
        drawn = [task.sample(count, self.seed) for task in tasks]
        for task, part in zip(tasks, drawn, strict=True):
            if self.method == "otdd" and task.varied and not part.varied:
                raise InputError(
                    f"{task.told}: {len(part)} of its {len(task)} samples were drawn, all of one class; leave out the "
                    "smallest task, draw more (samples, equal=False), or compare features alone (method features)"
                )
        return drawn


@dataclasses.dataclass(frozen=True)
class Distance:
    """Between two tasks.

    Finite samples of one distribution are some way apart, the further the fewer they are: a distance is no 0 where
    tasks are the same but their samples are not, and the interval, which tells the chance of drawing these samples,
    does not cover that bias. `TransferMatrix.floors` tell its size.

    Attributes:
      first: name.
      second: name.
      distance: value of the chosen kind, squared unit of the features; about 0 or above for the divergence.
      low: lower end of the 95 % interval over resamples of the samples (their variance alone, not the bias of finite
        samples), NaN without.
      high: upper end.
      eps: strength of the entropy, NaN for the exact value.
      error: largest L1 error of a marginal.
      iterations: of the problem between the tasks.
      converged: whether all problems are solved.
    """

    first: str
    second: str
    distance: float
    low: float = np.nan
    high: float = np.nan
    eps: float = np.nan
    error: float = 0.0
    iterations: int = 0
    converged: bool = True

    @property
    def sqrt_distance(self) -> float:
        """Root of the distance, in the unit of the features; 0 where rounding made it negative."""
        return float(np.sqrt(max(self.distance, 0.0)))


def distance(a: Any, b: Any, settings: Settings | None = None, **options: Any) -> Distance:
    """Distance between two tasks.

    Args:
      a: a `Task`, or features (n, d), for which `method` is `features` if not given.
      b: likewise, features of the same width.
      settings: how; the defaults if not given.
      **options: fields of `Settings` to change.

    Returns:
      The distance; 0 for two equal tasks, and independent of their order. Both at as many samples as the smaller has,
      unless `equal=False`; give one number of `samples` to calls whose results are compared.

    Raises:
      InputError: an unknown option, or tasks that cannot be compared.
    """
    pair = [one if isinstance(one, Task) else Task(name, one) for one, name in ((a, "first"), (b, "second"))]
    if settings is None and "method" not in options and not (isinstance(a, Task) or isinstance(b, Task)):
        options["method"] = "features"
    return Problems(pair, change(settings, **options)).distance(0, 1)


def change(settings: Settings | None, **options: Any) -> Settings:
    """Settings with some fields changed.

    Raises:
      InputError: no such field.
    """
    known = {field.name for field in dataclasses.fields(Settings)}
    wrong = sorted(options.keys() - known)
    if wrong:
        raise InputError(f"no option {', '.join(wrong)} of a distance; there are {', '.join(sorted(known))}")
    return dataclasses.replace(settings or Settings(), **options)


class Problems:
    """The transport problems between some tasks; each is solved once.

    Args:
      tasks: to compare.
      settings: how.

    Raises:
      InputError: tasks that cannot be compared.
    """

    def __init__(self, tasks: Sequence[Task], settings: Settings):
        self.settings = settings
        self.tasks = settings.sample(tasks)
        self.features = joint(self.tasks, settings.preprocess, settings.components)
        # Around a common origin, so that single precision holds the differences.
        self._cast = [part.astype(settings.precision) for part in self.features]
        self.codes: list[Any] = [None] * len(tasks)
        self.table = np.zeros((0, 0))
        self.places = [slice(0, 0)] * len(tasks)
        self._selves: dict[tuple[int, float], sinkhorn.Solution] = {}
        self._counts: dict[int, np.ndarray] = {}
        if settings.method == "otdd":
            self._compare_classes()

    def _compare_classes(self) -> None:
        classes, start = [], 0
        for number, (task, features) in enumerate(zip(self.tasks, self.features, strict=True)):
            codes, names = task.classes(self.settings.bins)
            classes += [features[codes == code] for code in range(len(names))]
            self.codes[number], self.places[number] = codes, slice(start, start + len(names))
            start += len(names)
        self.table = otdd.label_distances(classes, diagonal=self.settings.diagonal)

    def factors(self, i: int, j: int, dtype: Any = np.float64) -> sinkhorn.Factors:
        """The cost between two tasks."""
        s = self.settings
        table = self.table[self.places[i], self.places[j]] if self.codes[i] is not None else None
        features = self._cast if dtype == np.dtype(s.precision) else self.features
        return otdd.factors(
            *(features[i], features[j], self.codes[i], self.codes[j], table),
            feature_weight=s.feature_weight,
            label_weight=s.label_weight,
            dtype=dtype,
        )

    def eps(self, pairs: Sequence[tuple[int, int]]) -> float:
        """What some pairs share: as asked, or a share of their mean cost."""
        if self.settings.eps is not None:
            return self.settings.eps
        means = [self._mean_cost(i, j) for i, j in pairs]
        # All samples may coincide; any eps gives 0 then.
        return self.settings.relative_eps * float(np.mean(means)) or 1.0

    def _mean_cost(self, i: int, j: int) -> float:
        """Of all pairs of samples, from means alone."""
        x, y = self.features[i], self.features[j]
        squares = np.vdot(x, x) / len(x) + np.vdot(y, y) / len(y)
        value = self.settings.feature_weight * (squares / 2 - x.mean(0) @ y.mean(0))
        if self.codes[i] is not None:
            table = self.table[self.places[i], self.places[j]]
            rows, columns = (np.bincount(self.codes[k]) / len(self.codes[k]) for k in (i, j))
            value += self.settings.label_weight / 2 * (rows @ table @ columns)
        return float(value)

    def same(self, i: int, j: int) -> bool:
        """Whether two tasks have the same samples."""
        if i == j:
            return True
        equal = np.array_equal(self.features[i], self.features[j])
        return equal and (self.codes[i] is None or np.array_equal(self.codes[i], self.codes[j]))

    def floor(self, i: int, eps: float | None = None) -> float:
        """Distance between two random halves of a task: what nothing looks like at half its samples.

        NaN where a half has fewer than two samples, or, by `otdd`, one class only.
        """
        task, s = self.tasks[i], self.settings
        half = len(task) // 2
        rows = np.random.default_rng(s.seed).permutation(len(task))
        # As they stand in the space of all tasks; only a centre of its own is each half's own.
        whole = Task(f"{task.name}, half", self.features[i], task.labels, task.kind, file=task.file)
        own = "centre" if s.preprocess == "centre" else "none"
        options = dataclasses.replace(s, preprocess=own, resamples=0)
        try:
            halves = Problems([whole.take(rows[:half]), whole.take(rows[half : 2 * half])], options)
        except InputError:
            return np.nan
        return halves.distance(0, 1, eps).distance

    def distance(self, i: int, j: int, eps: float | None = None) -> Distance:
        """Distance of two tasks; `eps` in place of that of this pair."""
        names = self.tasks[i].name, self.tasks[j].name
        s = self.settings
        # One order for both directions: the result must not depend on it, not even by rounding.
        if _key(self.features[i]) > _key(self.features[j]):
            i, j = j, i
        if s.value == "exact":
            value = 0.0 if self.same(i, j) else exact.exact_transport(self.factors(i, j).matrix()).value
            return Distance(*names, value)
        eps = self.eps([(i, j)]) if eps is None else eps
        if s.value == "divergence" and self.same(i, j):
            return Distance(*names, 0.0, 0.0, 0.0, eps)
        cross = self._solve(i, j, eps)
        solutions, value = [cross], float(cross.value)
        slopes = [np.asarray(cross.f, np.float64), np.asarray(cross.g, np.float64)]
        if s.value == "divergence":
            solutions += [self._self(i, eps), self._self(j, eps)]
            value -= (float(solutions[1].value) + float(solutions[2].value)) / 2
            slopes = [slope - np.asarray(own.f, np.float64) for slope, own in zip(slopes, solutions[1:], strict=True)]
        low, high = self._interval(value, (i, j), slopes)
        error = max(float(one.error) for one in solutions)
        converged = all(bool(one.converged) for one in solutions)
        if not converged:
            _log.warning(
                "%s, %s: not converged, marginal error %.1e after %d iterations; a larger eps, more iterations or "
                "precision float64 help",
                *names,
                error,
                max(int(one.iterations) for one in solutions),
            )
        return Distance(*names, value, low, high, eps, error, int(cross.iterations), converged)

    def _self(self, i: int, eps: float) -> sinkhorn.Solution:
        if (i, eps) not in self._selves:
            self._selves[i, eps] = self._solve(i, i, eps)
        return self._selves[i, eps]

    def _solve(self, i: int, j: int, eps: float) -> sinkhorn.Solution:
        s = self.settings
        weights = (np.full(len(self.tasks[k]), 1 / len(self.tasks[k])) for k in (i, j))
        options = {"threshold": s.threshold, "max_iterations": s.max_iterations, "symmetric": i == j}
        with jax.enable_x64(s.precision == "float64"):
            return sinkhorn.solve_padded(self.factors(i, j, np.dtype(s.precision).type), *weights, eps, **options)

    def _interval(self, value: float, pair: tuple[int, int], slopes: Sequence[np.ndarray]) -> tuple[float, float]:
        """Percentiles over resamples, to first order: the variance of the samples, not the bias of their number.

        The slope of the value in the weight of a sample is the difference of its potentials, so that a resample costs
        a product instead of three problems.
        """
        if not self.settings.resamples:
            return np.nan, np.nan
        values = np.full(self.settings.resamples, value)
        for k, slope in zip(pair, slopes, strict=True):
            values += self._resampled(k) @ slope / len(slope) - slope.mean()
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def _resampled(self, k: int) -> np.ndarray:
        """(resamples, n) how often each sample of a task is drawn."""
        if k not in self._counts:
            n = len(self.tasks[k])
            rng = np.random.default_rng((self.settings.seed, k))
            counts = rng.multinomial(n, np.full(n, 1 / n), self.settings.resamples)
            self._counts[k] = counts.astype(np.float32)
        return self._counts[k]


def _key(features: np.ndarray) -> tuple[int, bytes]:
    """Something to order sets by that does not depend on where they stand."""
    return len(features), features[:8].tobytes()
