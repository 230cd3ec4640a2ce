"""Linear models on letters, and figures of predictions."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from jaxprot.core.errors import InputError
from jaxprot.massa.tasks import baselines, metrics
from jaxprot.massa.tasks.tables import IGNORE, Table


def sequences(count, length, rng):
    return ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)) for _ in range(count)]


def parts(count):
    return np.array(["train"] * (count - 60) + ["valid"] * 30 + ["test"] * 30)


def test_numbers_that_the_composition_tells():
    rng = np.random.default_rng(0)
    made = sequences(200, 30, rng)
    labels = np.array([one.count("K") - 2 * one.count("W") for one in made], float)
    found = baselines.one_hot(Table("t", "regression", 0, made, labels, parts(200)))
    assert found["valid"] > 0.95 and found["test"] > 0.95  # ties of whole numbers take some
    shuffled = Table("t", "regression", 0, made, rng.permutation(labels), parts(200))
    assert abs(baselines.one_hot(shuffled)["test"]) < 0.5


def test_classes_that_the_composition_tells():
    rng = np.random.default_rng(1)
    made = sequences(260, 30, rng)
    labels = np.array([int(np.argmax([one.count(x) for x in "ACD"])) for one in made])
    found = baselines.one_hot(Table("t", "classes", 3, made, labels, parts(260)))
    assert found["test"] > 0.75


def test_residue_classes_that_a_neighbour_tells():
    rng = np.random.default_rng(2)
    made = sequences(120, 30, rng)
    labels = [np.array([1 if i and one[i - 1] in "KR" else 0 for i in range(30)]) for one in made]
    labels[0][:5] = IGNORE
    found = baselines.one_hot(Table("t", "residue_classes", 2, made, labels, parts(120)))
    assert found["test"] > 0.99
    assert baselines.windows("AC", 1).shape == (2, 3 * 22)


def test_figures():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 9, 50).astype(float)
    found = labels + rng.normal(size=50)
    told = metrics.figures("regression", found, labels)
    assert told["spearman"] == pytest.approx(spearmanr(found, labels).statistic)
    assert told["pearson"] == pytest.approx(np.corrcoef(found, labels)[0, 1])
    assert told["rmse"] >= told["mae"] > 0
    assert metrics.score("regression", np.ones(5), np.arange(5)) == 0
    assert metrics.score("classes", np.array([1, 2, 3]), np.array([1, 0, IGNORE])) == 0.5
    with pytest.raises(InputError, match="not finite"):
        metrics.score("regression", np.array([np.nan]), np.array([1.0]))
    with pytest.raises(InputError, match="no labels"):
        metrics.score("classes", np.array([1]), np.array([IGNORE]))
