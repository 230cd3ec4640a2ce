"""Types of interactions: the graph layer, and splits of pairs."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.massa import interactions


def test_messages_are_those_of_the_adjacency_matrix():
    rng = np.random.default_rng(0)
    net = nnx.eval_shape(lambda: interactions.Interactions(6, 5, 7, rngs=nnx.Rngs(0)))
    net.eval()
    graphdef, abstract = nnx.split(net)
    state = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) ** 2, nnx.to_pure_dict(abstract))
    x, pairs = rng.normal(size=(9, 6)).astype(np.float32), np.array([[0, 8], [3, 4]], np.int32)
    edges = np.array([[0, 1], [1, 2], [5, 3], [0, 0]], np.int32)  # the last is padding
    run = jax.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    found = run(state, x, edges, np.array([1, 1, 1, 0], np.float32), pairs)

    near = np.zeros((9, 9))
    near[edges[:3, 0], edges[:3, 1]] = near[edges[:3, 1], edges[:3, 0]] = 1

    def linear(name, x):
        return x @ state[name]["kernel"] + state[name]["bias"]

    h = near @ x + (1 + state["own"]) * x
    h = np.maximum(linear("outer", np.maximum(linear("inner", h), 0)), 0)
    norm = state["norm"]
    h = (h - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
    h = linear("second", np.maximum(linear("first", h), 0))
    np.testing.assert_allclose(found, linear("head", h[pairs[:, 0]] * h[pairs[:, 1]]), rtol=2e-4)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    found = {tuple(sorted(pair)) for pair in rng.integers(0, 60, (400, 2)).tolist() if pair[0] != pair[1]}
    return np.array(sorted(found))


@pytest.mark.parametrize("mode", ["random", "bfs", "dfs"])
def test_splits_hold_their_share_and_follow_their_seed(pairs, mode):
    pairs = np.concatenate([pairs, pairs + 60])  # many proteins of few pairs to start from
    found = [interactions.split(pairs, mode, 0.2, seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert all(tested.sum() == int(0.2 * len(pairs)) for tested in found)
    np.testing.assert_array_equal(found[0], found[1])
    assert any((found[0] != other).any() for other in found[2:])


def test_walks_take_whole_regions(pairs):
    # All pairs of the protein that a walk starts from are tested, so that training has not met it at all.
    for mode, unknown in (("random", False), ("bfs", True), ("dfs", True)):
        for seed in range(3):
            tested = interactions.split(pairs, mode, 0.2, seed=seed)
            assert bool(set(pairs[tested].ravel()) - set(pairs[~tested].ravel())) == unknown


def test_no_tested_pair_carries_messages(pairs):
    both = np.concatenate([pairs, pairs[:50, ::-1]])
    tested = interactions.split(both, "bfs", 0.3)
    carrying = {frozenset(pair) for pair in interactions.carrying(both, tested).tolist()}
    assert carrying and not carrying & {frozenset(pair) for pair in both[tested].tolist()}
    assert len(interactions.carrying(both, tested, leak=True)) == len(both)


def test_components_that_end_are_left_for_others():
    chain = np.array([[2 * i, 2 * i + 1] for i in range(20)])
    for mode in ("bfs", "dfs"):
        assert interactions.split(chain, mode, 0.5).sum() == 10
    with pytest.raises(InputError, match="3 pairs are too few"):
        interactions.split(chain[:3])
    with pytest.raises(ValueError, match="random, bfs or dfs"):
        interactions.split(chain, "half")
