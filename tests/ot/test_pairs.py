import dataclasses

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.ot import matrix as matrices
from jaxprot.ot import report as reports
from jaxprot.ot import transferability
from jaxprot.ot.pairs import Settings, distance
from jaxprot.ot.tasks import Task, joint


def task(name, n=60, classes=3, shift=0.0, seed=0, d=8):
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(classes, d))
    labels = np.arange(n) % classes
    return Task(name, (centres[labels] + rng.normal(size=(n, d)) + shift).astype(np.float32), labels)


@pytest.mark.parametrize("method", ["otdd", "features"])
@pytest.mark.parametrize("value", ["divergence", "exact"])
def test_a_distance(method, value):
    a, b, c = task("a"), task("b", shift=0.5, seed=1), task("c", n=50, shift=3, seed=2)
    options = {"method": method, "value": value}
    assert distance(a, a, **options).distance == 0
    assert distance(a, dataclasses.replace(a, name="copy"), **options).distance == 0
    forth, back = distance(a, c, **options), distance(c, a, **options)
    assert forth.converged and forth.distance == back.distance and (forth.first, back.first) == ("a", "c")
    assert 0 < distance(a, b, **options).distance < forth.distance
    np.testing.assert_allclose(forth.sqrt_distance**2, forth.distance)
    if value == "exact":
        sides = [distance(p, q, **options).sqrt_distance for p, q in ((a, b), (b, c), (a, c))]
        assert sides[2] <= sides[0] + sides[1]


def test_distance_of_the_same_data_in_different_samples_is_small():
    a = task("a", n=120)
    options = {"method": "features", "samples": 60}
    other = distance(dataclasses.replace(a, features=a.features[::-1], labels=a.labels[::-1]), a, **options)
    assert 0 < other.distance < 0.25 * distance(a, task("b", n=120, shift=2), **options).distance
    assert distance(a, a, **options).distance == 0


def test_tiny_classes_and_bins():
    a = task("a")
    labels = a.labels.copy()
    labels[:2] = [7, 8]  # classes of one sample
    few = distance(dataclasses.replace(a, labels=labels), task("b", seed=1))
    assert np.isfinite(few.distance) and few.converged
    numbers = np.linspace(0, 1, 60)
    numbers[:40] = 0.25
    of_numbers = Task("n", a.features, numbers)
    assert of_numbers.kind == "numbers" and len(of_numbers.classes(10)[1]) < 10
    codes = of_numbers.classes(10)[0]
    assert len(np.unique(codes[:40])) == 1 and (np.diff(codes[40:]) >= 0).all() and len(np.unique(codes)) > 2
    assert np.isfinite(distance(of_numbers, a).distance)


def test_intervals_are_those_of_resampled_weights():
    """The first-order interval against problems that are really solved with resampled weights."""
    from jaxprot.ot import otdd, sinkhorn

    a, b = task("a"), task("b", shift=1, seed=1)
    found = distance(a, b, method="features", eps=2.0, threshold=1e-4)
    rng, values = np.random.default_rng(0), []
    x, y = joint([a, b])
    for _ in range(60):
        u, v = (rng.multinomial(60, np.full(60, 1 / 60)) / 60 for _ in range(2))
        values.append(0.0)
        for p, q, wp, wq, share in ((x, y, u, v, 1), (x, x, u, u, -0.5), (y, y, v, v, -0.5)):
            cost = otdd.factors(p, q, dtype=np.float32)
            values[-1] += share * sinkhorn.solve_padded(cost, wp, wq, 2.0, threshold=1e-4, symmetric=p is q).value
    assert found.low < found.distance < found.high
    assert 0.6 < np.std(values) / ((found.high - found.low) / 3.92) < 1.6


def test_matrix_is_that_of_the_pairs():
    tasks = [task(name, n=40 + 10 * i, shift=0.7 * i, seed=i) for i, name in enumerate("abcd")]
    calls = []
    record = lambda done, total: calls.append((done, total))  # noqa: E731
    found = matrices.transfer_matrix(tasks, eps=3.0, equal=False, progress=record)
    assert calls == [(i, 6) for i in range(1, 7)] and found.converged
    # Around another common origin, so only up to rounding.
    np.testing.assert_allclose(
        found.distances[1, 2], distance(tasks[1], tasks[2], eps=3.0, equal=False).distance, rtol=1e-4
    )
    assert (found.distances == found.distances.T).all() and (np.diag(found.distances) == 0).all()
    assert [name for name, _ in found.nearest("a")] == sorted("bcd", key=lambda n: found.distances[0, "abcd".index(n)])
    assert found.coordinates().shape == (4, 2) and found.linkage().shape == (3, 4)
    with pytest.raises(InputError, match="no task z"):
        found.nearest("z")
    with pytest.raises(InputError, match="a occurs twice"):
        matrices.transfer_matrix([tasks[0], tasks[0]])


def sized(name, n, shift, seed, d=32):
    features = np.random.default_rng(seed).normal(size=(n, d)) + shift / np.sqrt(d)
    return Task(name, features, np.arange(n) % 3)


@pytest.mark.parametrize("method", ["otdd", "features"])
def test_the_same_is_nearer_than_the_shifted_however_many_samples_it_has(method):
    tasks = [sized("mine", 1000, 0, 0), sized("same", 100, 0, 1), sized("shifted", 1000, 2, 2)]
    found = matrices.transfer_matrix(tasks, method=method, resamples=0)
    assert found.nearest("mine")[0][0] == "same" and found.samples == (100, 100, 100)
    # Without that the one with the fewest samples is the farthest.
    unequal = matrices.transfer_matrix(tasks, method=method, resamples=0, equal=False)
    assert unequal.nearest("mine")[0][0] == "shifted" and unequal.samples == (1000, 100, 1000)
    assert (
        distance(tasks[0], tasks[1], method=method).distance
        == distance(*tasks[:2], method=method, samples=100).distance
    )


def test_floors_tell_what_the_same_task_looks_like():
    tasks = [
        sized("a", 200, 0, 0),
        sized("b", 200, 0, 1),
        sized("c", 300, 8, 2),
        Task("n", sized("n", 200, 0, 3).features, np.linspace(0, 1, 200)),
    ]
    for options in ({}, {"preprocess": "centre"}, {"preprocess": "pca", "components": 8}, {"value": "exact"}):
        found = matrices.transfer_matrix(tasks[:3], resamples=0, floors=True, **options)
        near = found.distances[0, 1]
        assert (found.floors > near).all() and (found.floors < 2.5 * near).all()  # at half the samples, so more
    assert found.floors.max() < found.distances[0, 2]
    assert found.floor_table()["half"].tolist() == [100, 100, 100]
    report = reports.transfer_report(tasks, resamples=0, floors=True).summary()
    assert set(report["floors"]) == set("abcn") and report["samples"] == dict.fromkeys("abcn", 200)
    assert matrices.transfer_matrix(tasks, resamples=0).floors is None
    rare = Task("rare", tasks[0].features, np.arange(200) == 0)  # in one of the halves only
    assert np.isnan(matrices.transfer_matrix([rare, tasks[1]], resamples=0, floors=True).floors[0])


def test_small_tasks_are_named(caplog):
    tasks = [task("large", n=60), task("tiny", n=30)]
    for equal in (True, False):
        caplog.clear()
        matrices.transfer_matrix(tasks, resamples=0, equal=equal)
        assert "tiny has 30 samples only" in caplog.text and ("all 2 tasks" in caplog.text) == equal
    caplog.clear()
    matrices.transfer_matrix([task("large", n=60), task("other", n=50)], resamples=0)
    assert not caplog.text


def test_coordinates_keep_distances_of_points_in_a_plane():
    points = np.random.default_rng(0).normal(size=(5, 2))
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    found = matrices.TransferMatrix(tuple("abcde"), squares, squares, squares, (), Settings()).coordinates()
    np.testing.assert_allclose(((found[:, None] - found[None]) ** 2).sum(-1), squares, atol=1e-12)


def test_trajectory():
    start = task("a").features
    found = matrices.trajectory([start + 0.5 * k for k in range(4)], steps=[0, 10, 20, 30])
    assert found.converged and found.from_start[0] == found.to_end[-1] == 0
    assert (np.diff(found.from_start) > 0).all() and (np.diff(found.to_end) < 0).all()
    np.testing.assert_allclose(found.from_start[-1], found.to_end[0], rtol=1e-5)
    np.testing.assert_allclose(found.from_start[-1], 0.5 * 8 * 1.5**2, rtol=1e-3)  # half the squared shift
    with pytest.raises(InputError, match="one shape"):
        matrices.trajectory([start, start[:5]])


def test_report_finds_the_predictor_that_predicts():
    tasks = [task(name, shift=0.8 * i, seed=i, classes=2 + i) for i, name in enumerate("abcde")]
    distances = matrices.transfer_matrix(tasks, resamples=0)
    names = distances.names
    gains = {(s, t): -distances.distances[names.index(s), names.index(t)] for s in names for t in names if s != t}
    found = reports.transfer_report(tasks, gains, resamples=0)
    by_name = {one.name: one for one in found.correlations}
    assert set(by_name) == {"distance", *reports.SCORES} and by_name["distance"].expected == -1
    assert by_name["distance"].spearman == pytest.approx(-1) and by_name["distance"].p <= 2 / 120 + 1e-9
    assert by_name["distance"].n == 20 and all(abs(one.spearman) <= 1 for one in found.correlations)
    row = list(zip(found.source, found.target, strict=True)).index(("b", "d"))
    alone = reports.scores(tasks[1], tasks[3])
    for name, value in alone.items():
        np.testing.assert_allclose(found.values[name][row], value)
    assert found.recommendations()["a"][0] == distances.nearest("a")[0][0]
    # Features and probabilities of the source's own model come first.
    rng = np.random.default_rng(0)
    theta = rng.dirichlet(np.ones(3), 60)
    better = np.eye(5)[tasks[3].labels] + 0.1 * rng.normal(size=(60, 5))
    given = dataclasses.replace(tasks[3], features_from={"b": better}, probabilities_from={"b": theta})
    other = reports.scores(tasks[1], given)
    assert other["logme"] == transferability.logme(better, tasks[3].labels) != alone["logme"]
    assert other["leep"] == transferability.leep(theta, tasks[3].labels)


def test_sources_at_one_distance_keep_their_order():
    a, b = task("a"), task("b", seed=1)
    tasks = [a, dataclasses.replace(a, name="a2"), dataclasses.replace(a, name="a3"), b]
    gains = {(s, t): 0.1 * i for i, (s, t) in enumerate((s, t) for s in ("a", "a2") for t in ("a3", "b"))}
    found = reports.transfer_report(tasks, gains, resamples=0)
    for by in ("distance", "leep", "nce"):
        assert found.ranked("b", by)["source"].tolist() == ["a", "a2", "a3"]
    assert found.ranked("a")["source"].tolist() == ["a2", "a3", "b"]
    same = reports.transfer_report(tasks[:3], gains={("a", "a2"): 1, ("a2", "a"): 2, ("a3", "a"): 3}, resamples=0)
    assert same.ranked("a")["distance"].tolist() == [0, 0] and np.isnan(same.correlations[0].spearman)
    with pytest.raises(InputError, match="hscore tells no source for b from another"):
        found.ranked("b", "hscore")


@pytest.mark.parametrize("tied", [0.0, -2.5, 1e6])
@pytest.mark.parametrize(("below", "above"), [(0, 18), (18, 0), (9, 9), (60, 100)])
def test_a_value_that_many_labels_have_is_a_bin_of_its_own(tied, below, above):
    rng = np.random.default_rng(0)
    rest = np.concatenate([tied - 1 - rng.random(below), tied + 1 + rng.random(above)])
    labels = np.concatenate([np.full(200 - below - above, tied), rest])
    codes, names = Task("t", rng.normal(size=(200, 3)), labels).classes(10)
    assert len({codes[0]}) == len(set(codes[labels == tied])) == 1 and (labels[codes == codes[0]] == tied).all()
    assert f"{tied:.4g}" in names and len(names) == codes.max() + 1
    order = np.argsort(labels, kind="stable")
    assert (np.diff(codes[order]) >= 0).all()


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (np.arange(200) % 3, "classes"),
        (np.arange(200) % 90, "classes"),  # identifiers of classes
        (np.arange(200.0) % 3, "classes"),
        (np.arange(200.0) % 90, "numbers"),  # temperatures without a fraction
        (np.arange(200.0) % 15, "classes"),
        (np.arange(200) / 2, "numbers"),
        ((np.arange(200) % 90).astype(str), "classes"),
        ((np.arange(200) % 90 > 3), "classes"),
        (np.array([0.0, 1, 2] * 4), "classes"),  # few samples
    ],
    ids=["few integers", "integers", "few whole", "whole", "a tenth", "fractions", "text", "truth", "few samples"],
)
def test_kind_of_labels(labels, kind):
    features = np.zeros((len(labels), 2))
    assert Task("t", features, labels).kind == kind
    if labels.dtype.kind in "fi":
        assert Task("t", features, labels, "numbers").kind == "numbers"


def test_p_value_of_unrelated_gains():
    rng = np.random.default_rng(0)
    values = rng.random((5, 5))
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    ps = [reports.correlate("distance", values, pairs, rng.random(20)).p for _ in range(10)]
    assert 0.2 < np.mean(ps) < 0.8 and min(ps) > 0
    constant = reports.correlate("distance", np.ones((5, 5)), pairs, rng.random(20))
    assert np.isnan(constant.spearman) and np.isnan(constant.p)


def test_discriminant_tells_classes():
    a = task("a", n=90)
    probabilities = transferability.discriminant(a.features, a.labels)(a.features)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == a.labels).mean() > 0.9


FEATURES = np.random.default_rng(0).normal(size=(6, 3))
LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.where(FEATURES > 1, np.nan, FEATURES), LABELS), "t: features of . of 6 samples hold NaN"),
        ((FEATURES, LABELS[:5]), "labels of shape .5,. for 6 samples"),
        ((FEATURES, np.array([0, 1, np.nan, 1, 0, 1])), "1 samples without label .the first is sample 2"),
        ((FEATURES, np.array(["a", "", "b", "a", "b", None], object)), "2 samples without label"),
        ((FEATURES[0], LABELS), "expected .samples, columns"),
        ((FEATURES[:1], LABELS[:1]), "one sample only"),
        ((FEATURES.astype(str), LABELS), "expected numbers"),
        ((FEATURES, LABELS.astype(str), "numbers"), "labels are text"),
        ((FEATURES, LABELS, None, {"s": FEATURES[:4]}), "features from s of 4 samples, expected 6"),
    ],
    ids=["NaN", "lengths", "NaN labels", "no labels", "a vector", "one sample", "text", "kind", "other features"],
)
def test_tasks_refuse(arguments, message):
    with pytest.raises(InputError, match=message):
        Task("t", *arguments)


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (Task("o", FEATURES), {}, "o: no labels; .*method features"),
        (Task("o", FEATURES, np.zeros(6, int)), {}, "o: one class only"),
        (Task("o", FEATURES[:, :2], LABELS), {}, "different widths .t 3, o 2"),
        (Task("o", FEATURES, LABELS), {"epsilon": 1}, "no option epsilon"),
        (Task("o", FEATURES, LABELS), {"eps": 0.0}, "above 0"),
        (Task("o", FEATURES, LABELS), {"method": "magic"}, "otdd, features"),
        (Task("o", FEATURES, LABELS), {"feature_weight": 0.0, "label_weight": 0.0}, "not both 0"),
    ],
    ids=["no labels", "one class", "widths", "option", "eps", "method", "weights"],
)
def test_distances_refuse(other, options, message):
    with pytest.raises(InputError, match=message):
        distance(Task("t", FEATURES, LABELS), other, **options)


def test_scores_refuse():
    with pytest.raises(InputError, match="one class only"):
        transferability.hscore(FEATURES, np.zeros(6))
    with pytest.raises(InputError, match="sum to 1"):
        transferability.leep(np.ones((6, 3)), LABELS)
    with pytest.raises(InputError, match="NaN or infinity"):
        transferability.logme(FEATURES * np.inf, LABELS)
    with pytest.raises(InputError, match="unknown tasks z"):
        reports.transfer_report([Task("a", FEATURES, LABELS), Task("b", FEATURES, LABELS)], {("z", "a"): 1.0})


@pytest.mark.parametrize("how", ["none", "centre", "zscore", "pca"])
def test_preprocessing(how):
    a, b = Task("a", FEATURES + 5), Task("b", np.concatenate([2 * FEATURES, FEATURES]))
    parts = joint([a, b], how, 2)
    every = np.concatenate(parts)
    assert every.shape == (18, 2 if how == "pca" else 3)
    if how == "centre":
        assert all(np.abs(part.mean(0)).max() < 1e-12 for part in parts)
    else:
        assert np.abs(every.mean(0)).max() < 1e-12
    if how == "zscore":
        np.testing.assert_allclose(every.std(0), 1)
    if how == "none":
        np.testing.assert_allclose(parts[0] - parts[0][0], FEATURES - FEATURES[0])
    constant = Task("c", np.concatenate([FEATURES, np.full((6, 1), 7.1)], 1))
    assert np.isfinite(joint([constant], how, 2)[0]).all()
