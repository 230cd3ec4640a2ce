"""The runner: results in any order equal single calls, one program per shape, plain JAX underneath."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.nn.runner import Runner


class Scale(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(jnp.array(2.0))


traces = []


def scaled(model, x):
    traces.append(x.shape)
    return {"y": model.weight[...] * x}


@pytest.mark.parametrize("batch_items", [0, 16, 1000])
def test_many_inputs_equal_single_calls(batch_items):
    runner = Runner(Scale(), batch_items)
    inputs = [np.full(n, i, np.float32) for i, n in enumerate([4, 8, 4, 4, 8, 4, 4, 16])]
    out = dict(runner.map(scaled, ((len(x), (x,)) for x in inputs)))
    assert sorted(out) == list(range(len(inputs)))
    for i, x in enumerate(inputs):
        np.testing.assert_array_equal(out[i]["y"], 2 * x)


def test_no_more_than_a_window_is_held():
    runner = Runner(Scale(), 1000)
    taken = []

    def inputs():
        for i in range(40):
            taken.append(i)
            yield 8, (np.zeros(8, np.float32),)

    stream = runner.map(scaled, inputs(), window=10)
    next(stream)
    assert len(taken) <= 30  # one group waits, two are in flight


def test_one_program_per_shape():
    runner = Runner(Scale(), 0)
    traces.clear()
    for n in (4, 8, 4, 8, 4):
        runner(scaled, np.zeros(n, np.float32))
    assert sorted(traces) == [(4,), (8,)]


def test_the_pure_function_differentiates_in_weights_and_input():
    apply, leaves = Runner(Scale()).pure(scaled)
    gradient = jax.grad(lambda leaves: jnp.sum(apply(leaves, jnp.arange(3.0))["y"]))(leaves)
    assert float(gradient[0]) == 3.0
    assert jax.vmap(lambda x: apply(leaves, x)["y"])(jnp.ones((2, 3))).shape == (2, 3)
