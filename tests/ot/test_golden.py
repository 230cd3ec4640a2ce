"""Against stored values of independent solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.ot import bures, exact, otdd, sinkhorn, transferability
from jaxprot.ot.pairs import distance
from jaxprot.ot.tasks import Task

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def stored(goldens):
    return dict(np.load(goldens("massa") / "ot.npz"))


def weights(stored, name):
    return (stored["a"], stored["b"]) if name == "weighted" else (np.full(60, 1 / 60), np.full(75, 1 / 75))


def squared(stored):
    return ((stored["X"][:, None] - stored["Y"][None]) ** 2).sum(-1)


@pytest.mark.parametrize("name", ["uniform", "weighted"])
@pytest.mark.parametrize("dense", [True, False], ids=["with the matrix", "by blocks"])
@pytest.mark.parametrize(("precision", "threshold", "rtol"), [("float64", 1e-9, 1e-6), ("float32", 1e-4, 1e-4)])
def test_entropic_values(stored, name, dense, precision, threshold, rtol):
    a, b = weights(stored, name)
    x, y = (stored[key].astype(precision) for key in "XY")
    with jax.enable_x64(precision == "float64"):
        for number, eps in enumerate(stored["eps"]):
            xy, xx, yy = (
                sinkhorn.solve_padded(
                    sinkhorn.Factors(-2 * p, q, (p * p).sum(1), (q * q).sum(1)),
                    *(u, v, eps),
                    threshold=threshold,
                    symmetric=p is q,
                    dense=dense,
                )
                for p, q, u, v in ((x, y, a, b), (x, x, a, a), (y, y, b, b))
            )
            assert xy.converged and xx.converged and yy.converged
            np.testing.assert_allclose(xy.value, stored[f"ent_reg_ot_cost_{name}"][number], rtol=rtol)
            value = xy.value - (xx.value + yy.value) / 2
            np.testing.assert_allclose(value, stored[f"sinkhorn_divergence_{name}"][number], rtol=rtol)
            cost = squared(stored).astype(precision)
            plan = sinkhorn.plan(jnp.asarray(cost), *(jnp.asarray(w, precision) for w in (a, b)), xy, eps)
            assert plan.dtype == precision
            np.testing.assert_allclose((plan * cost).sum(), stored[f"transport_cost_{name}"][number], rtol=rtol)


def test_divergence_inside_a_program(stored):
    with jax.enable_x64(True):
        a, b = (jnp.asarray(w) for w in weights(stored, "uniform"))
        x, y = jnp.asarray(stored["X"]), jnp.asarray(stored["Y"])

        @jax.jit
        def value(x, y):
            costs = [sinkhorn.squared_distances(p, q).matrix() for p, q in ((x, y), (x, x), (y, y))]
            return sinkhorn.divergence_of(*costs, a, b, 1.0, threshold=1e-9)

        out = value(x, y)
        assert out.converged and out.error < 1e-9
        np.testing.assert_allclose(out.value, stored["sinkhorn_divergence_uniform"][1], rtol=1e-9)


@pytest.mark.parametrize("whole", [True, False], ids=["whole program", "arcs added where they help"])
def test_exact_values(stored, whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(exact, "_WHOLE", 0)
    cost = squared(stored)
    plan = exact.exact_transport(cost)
    np.testing.assert_allclose(plan.value, stored["w2sq_uniform"], rtol=1e-9)
    full = np.zeros((60, 75))
    full[plan.rows, plan.columns] = plan.mass
    np.testing.assert_allclose(full, stored["plan_uniform"], atol=1e-9)
    np.testing.assert_allclose(exact.exact_transport(cost, stored["a"], stored["b"]).value, stored["w2sq_weighted"])
    np.testing.assert_allclose(exact.exact_transport(np.sqrt(cost)).value, stored["w1_uniform"])
    x, y = (stored[key] / np.linalg.norm(stored[key], axis=1, keepdims=True) for key in "XY")
    np.testing.assert_allclose(exact.exact_transport(1 - x @ y.T).value, stored["w_cosine_uniform"])


def test_sliced_distance(stored):
    value = exact.sliced_wasserstein(stored["X"], stored["Y"], stored["projections"])
    np.testing.assert_allclose(value, stored["sliced_w2"], rtol=1e-12)


def test_unbalanced_plan(stored):
    from jaxprot.ot.unbalanced import unbalanced_transport

    with jax.enable_x64(True):
        cost, a, b = (jnp.asarray(v) for v in (squared(stored), *weights(stored, "uniform")))
        out = unbalanced_transport(cost, a, b, eps=1.0, rho=2.0, threshold=1e-12)
        assert out.converged
        np.testing.assert_allclose(out.mass, stored["unbalanced_plan_mass"], rtol=1e-9)
        np.testing.assert_allclose(out.cost, stored["unbalanced_transport_cost"], rtol=1e-9)
        np.testing.assert_allclose(out.plan, stored["unbalanced_plan"], atol=1e-12)


@pytest.mark.parametrize("d", [2, 8, 64])
def test_bures_wasserstein(stored, d):
    names = [f"bw{d}_{part}" for part in ("m1", "S1", "m2", "S2")]
    with jax.enable_x64(True):
        value = bures.bures_wasserstein(*(jnp.asarray(stored[name]) for name in names))
        np.testing.assert_allclose(value, stored[f"bw{d}_sq"], rtol=1e-7)
    single = bures.bures_wasserstein(*(jnp.asarray(stored[name], jnp.float32) for name in names))
    np.testing.assert_allclose(single, stored[f"bw{d}_sq"], rtol=1e-4)


def test_distance_of_data_sets(stored):
    a = Task("a", stored["otdd_X1"], stored["otdd_Y1"])
    b = Task("b", stored["otdd_X2"], stored["otdd_Y2"])
    classes = [t.features[t.labels == code] for t in (a, b) for code in np.unique(t.labels)]
    np.testing.assert_allclose(otdd.label_distances(classes), stored["otdd_label_W2sq"], rtol=1e-9, atol=1e-9)
    for number, eps in enumerate(stored["otdd_eps"]):
        for precision, threshold, rtol in (("float64", 1e-9, 1e-6), ("float32", 1e-4, 1e-4)):
            options = {"eps": float(eps), "precision": precision, "threshold": threshold, "equal": False}
            found = distance(a, b, **options)
            assert found.converged and found.low < found.distance < found.high
            np.testing.assert_allclose(found.distance, stored["otdd_debiased_converged"][number], rtol=rtol)
            cross = distance(a, b, value="entropic", **options).distance
            np.testing.assert_allclose(cross, stored["otdd_entropic_converged"][number], rtol=rtol)
    options = {"value": "exact", "equal": False}
    np.testing.assert_allclose(distance(a, b, **options).distance, stored["otdd_exact_emd"], rtol=1e-9)
    alone = distance(a, b, method="features", **options).distance
    np.testing.assert_allclose(alone, stored["feature_only_half_w2sq"], rtol=1e-9)


def test_scores(goldens):
    stored = dict(np.load(goldens("massa") / "transferability.npz"))
    features, labels, theta = stored["features"], stored["labels"], stored["source_probs"]
    found = {
        "logme_classification": transferability.logme(features, labels),
        "logme_regression": transferability.logme(features, stored["targets"], regression=True),
        "leep": transferability.leep(theta, labels),
        "nce": transferability.nce(theta.argmax(1), labels),
        "hscore": transferability.hscore(features, labels),
        "transrate": transferability.transrate(features, labels),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, stored[name], rtol=1e-9, err_msg=name)
