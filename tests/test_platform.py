"""Guards against releases of jax that return wrong numbers (0.10.2 on CPU did, without a warning)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SIZES = [("float32", 32769), ("float64", 16385), ("float64", 32768), ("float64", 32769)]


@pytest.mark.parametrize(("dtype", "n"), SIZES, ids=[f"{dtype}, {n} rows" for dtype, n in SIZES])
def test_vmapped_matrix_vector_product_then_sum_is_right(dtype, n):
    rng = np.random.default_rng(0)
    matrix, rows = rng.normal(size=(3, 3)).astype(dtype), rng.normal(size=(n, 3)).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        run = jax.jit(lambda m, x: jax.vmap(lambda row: jnp.sum((m @ row) ** 2))(x))
        ours = np.asarray(run(jnp.asarray(matrix), jnp.asarray(rows)))
    true = ((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2).sum(axis=1)
    wrong = np.flatnonzero(np.abs(ours - true) > (1e-4 if dtype == "float32" else 1e-10) * (1 + np.abs(true)))
    assert wrong.size == 0, f"jax {jax.__version__} returns {wrong.size} wrong rows of {n}: use another release of jax"


def test_matrix_products_are_in_full_precision():
    assert jax.config.jax_default_matmul_precision in ("float32", "highest")
