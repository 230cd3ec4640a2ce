"""The network equals the published one block by block; cropped evaluation equals the whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.rmsfnet import model, weights
from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.model import BOX, NODES, RMSFNet, Span, _upsample, needed, upsampling
from jaxprot.weights.convert import fill, rename


@pytest.fixture(scope="module")
def golden(goldens):
    return np.load(goldens("rmsfnet") / "network.npz")


@pytest.fixture(scope="module")
def boxes(golden):
    exp, sim = (np.moveaxis(golden[name], 1, -1) for name in ("exp_boxes", "sim_boxes"))
    return {"both": np.concatenate([exp, sim], -1), "map": exp, "pdb": sim}


def evaluate(net, function, *args):
    graphdef, state = nnx.split(net)
    return jax.jit(lambda state, *args: function(nnx.merge(graphdef, state), *args))(state, *args)


@pytest.mark.golden
@pytest.mark.parametrize(("variant", "name"), [("both", "out_both"), ("map", "out_exp"), ("pdb", "out_sim")])
def test_outputs_equal_the_published_network(network, golden, boxes, variant, name):
    found = evaluate(network(variant), lambda net, x: net(x), boxes[variant])
    np.testing.assert_allclose(found, golden[name][:, 0], atol=5e-5, rtol=0)


@pytest.fixture(scope="module")
def whole(network, boxes):
    def run(net, x):
        nodes = net.nodes(x, core=BOX)
        named = {f"conv{level}_{column}": value for (level, column), value in nodes.items()}
        return {**named, "regression_head": net.head(nodes[0, 3])[..., None]}

    return {
        name: np.moveaxis(np.asarray(x), -1, 1) for name, x in evaluate(network("both"), run, boxes["both"]).items()
    }


@pytest.mark.golden
@pytest.mark.parametrize("name", [*(f"conv{i}_{j}" for i, j in NODES), "regression_head"])
def test_activations_equal_the_published_ones(whole, golden, name):
    found = whole[name]
    bound = 2e-5 * np.abs(found).max()
    low = max(0, found.shape[2] // 2 - 2)
    centre = slice(low, low + 4)
    np.testing.assert_allclose(found[:, :, :3, :3, :3], golden[f"act_{name}_corner"], atol=bound, rtol=0)
    np.testing.assert_allclose(found[:, :, centre, centre, centre], golden[f"act_{name}_centre"], atol=bound, rtol=0)
    mean, std = (function(found.astype(np.float64), axis=(2, 3, 4)) for function in (np.mean, np.std))
    np.testing.assert_allclose(mean, golden[f"act_{name}_chmean"], atol=bound, rtol=0)
    assert (
        min(np.abs(std - golden[f"act_{name}_chstd"]).max(), np.abs(spread(found) - golden[f"act_{name}_chstd"]).max())
        <= bound
    )


def spread(x):
    """Standard deviation of a sample (the other of the two conventions)."""
    return np.std(x.astype(np.float64), axis=(2, 3, 4), ddof=1)


@pytest.mark.golden
def test_crops_change_nothing(network, golden, boxes, whole):
    found = evaluate(network("both"), lambda net, x: net(x), boxes["both"])
    np.testing.assert_allclose(whole["regression_head"][:, 0, 15:25, 15:25, 15:25], found, atol=2e-5, rtol=0)
    np.testing.assert_allclose(whole["regression_head"][0, 0], golden["out_both_full40_box0"], atol=5e-5, rtol=0)


@pytest.mark.golden
def test_the_published_file_is_read(goldens, golden, boxes):
    from jaxprot.weights import torch_file

    path = goldens("rmsfnet") / "small_n4_exp_sim_model.pth"
    tensors = torch_file.find_state_dict(torch_file.read_torch_file(path))
    assert len(tensors) == 156
    cfg = weights.config_of(rename(tensors, weights.OFFICIAL, weights.IGNORED, str(path)))
    assert cfg == RMSFNetConfig(variant="both", width=4)
    ours = fill(weights.shapes(cfg), tensors, weights.OFFICIAL, weights.IGNORED, str(path))
    found = evaluate(weights.folded_model(cfg, ours), lambda net, x: net(x), boxes["both"])
    np.testing.assert_allclose(found, golden["out_small_n4_both"][:, 0], atol=5e-5, rtol=0)


@pytest.mark.golden
def test_the_published_size(official):
    shapes = weights.shapes(RMSFNetConfig.paper())
    trained = [shape for name, shape in shapes.items() if not name.endswith((".mean", ".var"))]
    assert sum(int(np.prod(shape)) for shape in trained) == 6_699_841
    assert len(official("both")) + 22 == 156  # and as many counters of batches, which the stored file leaves out
    one = weights.shapes(RMSFNetConfig.paper("map"))
    assert sum(np.prod(shapes[n]) - np.prod(one[n]) for n in shapes) == 864


def test_parts_of_the_nodes_that_the_core_depends_on():
    found = needed(10)
    assert found[0, 3] == Span(15, 25)
    assert [found[0, 2], found[0, 1], found[1, 2], found[1, 1], found[2, 1]] == [
        Span(13, 27),
        Span(11, 29),
        Span(6, 14),
        Span(4, 16),
        Span(1, 9),
    ]
    assert all(found[level, 0] == Span(0, BOX >> level) for level in range(4))


def test_upsampling_keeps_both_ends_and_straight_lines():
    matrix = upsampling(5)
    np.testing.assert_allclose(matrix @ np.arange(5), np.linspace(0, 4, 10), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1)


def test_upsampling_of_a_crop_and_its_derivative_are_products_with_the_matrix():
    held, wanted, size = Span(1, 5), Span(3, 9), 5
    matrix = upsampling(size)[3:9, 1:5].astype(np.float32)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 3))
    weight = jax.random.normal(jax.random.key(1), (2, 6, 6, 6, 3))

    def expected(x):
        return jnp.einsum("ia,jb,kc,nabcz->nijkz", *[jnp.asarray(matrix)] * 3, x)

    found, back = jax.vjp(lambda x: _upsample(x, held, wanted, size), x)
    np.testing.assert_allclose(found, expected(x), atol=1e-5)
    np.testing.assert_allclose(back(weight)[0], jax.vjp(expected, x)[1](weight)[0], atol=1e-5)


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    abstract = nnx.eval_shape(lambda: RMSFNet(RMSFNetConfig(width=2), rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)

    def drawn(path, leaf):
        # Running statistics have values of their own, and nothing is compiled to make them.
        value = rng.normal(size=leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(1 + 0.3 * np.tanh(value) if path[-2].key in ("var", "scale") else value, leaf.dtype)

    net = nnx.merge(graphdef, jax.tree_util.tree_map_with_path(drawn, state))
    return net, jnp.asarray(rng.normal(size=(3, 40, 40, 40, 2)), jnp.float32)


def test_folding_changes_nothing(small):
    from jaxprot.weights.module import flatten

    net, x = small
    net.eval()
    folded = weights.folded_model(net.cfg, flatten(nnx.state(net)))
    assert not jax.tree.leaves(nnx.state(folded, nnx.BatchStat))
    found, expected = (evaluate(one, lambda net, x: net(x), x) for one in (folded, net))
    assert float(jnp.ptp(expected)) > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_dropout_and_batch_statistics_in_training(small):
    net, x = small
    net.train()

    def step(net, key):
        out = net(x, key)
        return out, net.conv0_0.norm1.mean[...]

    (one, mean), (two, _) = (evaluate(net, step, jax.random.key(seed)) for seed in (0, 1))
    assert float(jnp.abs(one - two).max()) > 0
    assert not np.array_equal(mean, net.conv0_0.norm1.mean[...])


@pytest.mark.slow
def test_boxes_without_density_give_numbers_and_the_others_do_not_change(small):
    net, x = small
    net.eval()
    empty = x.at[1, ..., 0].set(-1.0)
    found = net(empty)
    assert bool(jnp.isfinite(found).all())
    np.testing.assert_allclose(found[0], net(x)[0], atol=1e-6)
    scaled = x.at[..., 0].multiply(8.0)  # the box's own maximum is divided out
    np.testing.assert_allclose(net(scaled), net(x), atol=1e-5)
    assert float(jnp.abs(model.normalise(x)[..., 0]).max()) == pytest.approx(1.0)


def test_context_is_the_last_density_blurred():
    from scipy.ndimage import gaussian_filter

    x = np.random.default_rng(3).random((2, 40, 40, 40, 2)).astype(np.float32) - 0.2
    found = model.blurred(jnp.asarray(x), (1.5, 4.0))
    for channel, width in enumerate((1.5, 4.0)):
        for box, one in zip(x, found, strict=True):
            last = np.maximum(box[..., 1], 0).astype(np.float64)
            blur = gaussian_filter(last, width / 1.5, mode="constant", truncate=9)
            np.testing.assert_allclose(one[..., channel], np.log(blur + 1e-2), atol=1e-4)


def test_a_network_with_context_is_cropped_read_and_started_from(tmp_path):
    from jaxprot.weights import portable

    cfg = RMSFNetConfig(width=2, context=(3.0, 9.0))
    tensors = {name: np.abs(np.random.default_rng(4).normal(size=shape)) for name, shape in weights.shapes(cfg).items()}
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    assert tensors["conv0_0.conv1.kernel"].shape[3] == 4
    portable.save(tmp_path / "a.safetensors", tensors, {"system": "rmsfnet", "config": dataclasses.asdict(cfg)})
    read, found, _ = weights.read(tmp_path / "a.safetensors")
    assert read == cfg and hash(read) == hash(cfg)
    same = weights.trainable(cfg, tmp_path / "a.safetensors", nnx.Rngs(0))
    np.testing.assert_array_equal(same.conv0_0.conv1.kernel[...], found["conv0_0.conv1.kernel"])
    plain = weights.trainable(RMSFNetConfig(width=2), tmp_path / "a.safetensors", nnx.Rngs(0))
    np.testing.assert_array_equal(plain.conv0_0.conv1.kernel[...], found["conv0_0.conv1.kernel"][:, :, :, :2])
    other = weights.trainable(
        RMSFNetConfig(width=2, variant="pdb", context=(5.0,)), tmp_path / "a.safetensors", nnx.Rngs(0)
    )
    first = np.asarray(other.conv0_0.conv1.kernel[...])
    np.testing.assert_allclose(first[:, :, :, 0], 1.36 * found["conv0_0.conv1.kernel"][:, :, :, 1], rtol=1e-6)
    assert 0 < np.abs(first[:, :, :, 1]).max() < np.abs(first[:, :, :, 0]).max()
    with pytest.raises(ValueError, match="context must be at least 1 Å"):
        RMSFNetConfig(context=(0.0,))
