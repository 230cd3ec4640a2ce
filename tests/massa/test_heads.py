"""Heads of downstream tasks against stored outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError
from jaxprot.massa import heads, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.ligand import Ligand
from jaxprot.weights import module

PAPER = MASSAConfig.paper()
_FP = ["atom_fc", "neighbor_fc", "mol_align", "mol_attend", "mol_dense.1", "mol_dense.2"]
_FP += [f"{name}.{i}" for name in ("align", "attend") for i in range(3)] + [f"atom_dense.{i}" for i in (0, 2, 4)]
_LAYER = ["ln"] + [f"{side}.{w}" for side in ("sa", "ea") for w in ("w_q", "w_k", "w_v", "fc")]


def compound_shapes():
    """Names and shapes of the ligand encoder in the published file."""
    sizes = {"atom_fc": (128, 39), "neighbor_fc": (128, 49), "mol_dense.2": (128,)}
    out = {}
    for name in _FP:
        shape = sizes.get(name, (1, 256) if "align" in name else (128, 128))
        out[f"compound_encoder.{name}.weight"], out[f"compound_encoder.{name}.bias"] = shape, shape[:1]
    for unit in ("mol_GRUCell", "GRUCell.0", "GRUCell.1", "GRUCell.2"):
        for end in ("ih", "hh"):
            out[f"compound_encoder.{unit}.weight_{end}"] = (384, 128)
            out[f"compound_encoder.{unit}.bias_{end}"] = (384,)
    return out


def layer_shapes(prefix):
    """The same of a layer between modalities."""
    out = {}
    for name in _LAYER:
        shape = (512,) if name == "ln" else (512, 512)
        out[f"{prefix}.{name}.weight"], out[f"{prefix}.{name}.bias"] = shape, shape[:1]
    for name, shape in (("fc_1", (2048, 512, 1)), ("fc_2", (512, 2048, 1))):
        out[f"{prefix}.pf.{name}.weight"], out[f"{prefix}.pf.{name}.bias"] = shape, shape[:1]
    return out


def linear_shapes(**layers):
    return {
        f"{k.replace('__', '.')}.{end}": s for k, v in layers.items() for end, s in (("weight", v), ("bias", v[:1]))
    }


@pytest.fixture(scope="module")
def head(recipe):
    """`head(kind, build, shapes)`: compiled function of a head with the stored weights."""

    def make(kind, build, shapes, method="__call__"):
        blueprint = module.Blueprint(build)
        tensors = weights.head_tensors(kind, blueprint, {name: recipe(name, shape) for name, shape in shapes.items()})
        graphdef, state = nnx.split(module.assemble(blueprint, tensors))
        run = jax.jit(lambda state, *args: getattr(nnx.merge(graphdef, state), method)(*args))
        return lambda *args: run(state, *args)

    return make


def exists(lengths, n):
    return np.arange(n)[None] < np.asarray(lengths)[:, None]


def ligand_of(golden):
    """The stored graphs, whose absent neighbours are told by the last number."""
    absent = golden["atom_neighbors"] == golden["atoms"].shape[1] - 1
    around = [np.where(absent, 0, golden[name]).astype(np.int32) for name in ("atom_neighbors", "bond_neighbors")]
    return Ligand(golden["atoms"], golden["bonds"], *around, ~absent, golden["atom_mask"] > 0)


def two(layer, hidden, inputs, outputs):
    return linear_shapes(**{f"{layer}__fc1": (hidden, inputs), f"{layer}__fc2": (outputs, hidden)})


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "kind", "layer", "outputs"),
    [
        ("stability", heads.Pooled, "regression_layer", 1),
        ("remote_homology", heads.Pooled, "classification_layer", 1195),
        ("secondary_structure", heads.PerResidue, "classification_layer", 3),
    ],
)
def test_heads_of_single_proteins(folder, head, name, kind, layer, outputs):
    golden = np.load(folder / f"head_{name}.npz")
    x = golden["pro_feat"]
    run = head("pooled", lambda rngs: kind(PAPER, outputs, rngs=rngs), two(layer, 256, 512, outputs))
    found = np.asarray(run(x, exists(golden["lengths"], x.shape[1])))
    np.testing.assert_allclose(found.reshape(golden["out"].shape), golden["out"], atol=2e-4)


@pytest.mark.golden
def test_head_of_two_proteins(folder, head):
    golden = np.load(folder / "head_SKEMPI.npz")
    shapes = layer_shapes("pro_pro_cross_fusion.pro_layers.2")
    shapes |= linear_shapes(regression_layer__fc1=(256, 512), regression_layer__fc2=(1, 512))
    args = [golden["pro_feat"], exists(golden["lengths"], 24), golden["pro_feat_2"], exists(golden["lengths_2"], 19)]

    def both(self, *args):
        return *self.partners(*args), self(*args)

    class Both(heads.Complex):
        both_ways = both

    run = head("complex", lambda rngs: Both(PAPER, rngs=rngs), shapes, "both_ways")
    for found, expected in zip(run(*args), ("cross_1", "cross_2", "out"), strict=True):
        np.testing.assert_allclose(found, golden[expected], atol=2e-4)


@pytest.mark.golden
def test_head_of_kinases(folder, head):
    golden = np.load(folder / "head_kinase.npz")
    shapes = compound_shapes() | layer_shapes("pro_ligand_cross_fusion.pro_layers.2")
    shapes |= linear_shapes(pro_ligand_cross_fusion__ligand2pro=(512, 128)) | two("classification_layer", 256, 512, 2)
    # Layers before the last are in the file, and left out.
    shapes["pro_ligand_cross_fusion.pro_layers.0.ln.weight"] = (512,)
    mask, seen = exists(golden["lengths"], 24), exists(golden["compound_mask_len"], 38)

    class Stages(heads.Kinase):
        def stages(self, x, mask, ligand, seen):
            molecule, atoms = self.ligand(ligand)
            return molecule, atoms, self.attended(x, mask, atoms, seen), self(x, mask, ligand, seen)

    run = head("kinase", lambda rngs: Stages(PAPER, rngs=rngs), shapes, "stages")
    found = dict(
        zip(
            ("mol_emb", "atom_emb", "cross", "out"), run(golden["pro_feat"], mask, ligand_of(golden), seen), strict=True
        )
    )
    for name, value in found.items():
        np.testing.assert_allclose(value, golden[name], atol=2e-4, err_msg=name)


@pytest.mark.golden
def test_head_of_affinities(folder, head):
    golden = np.load(folder / "head_pdbbind.npz")
    shapes = compound_shapes() | linear_shapes(pro_emb_linear=(512, 1024)) | two("regression_layer", 320, 640, 1)
    run = head("affinity", lambda rngs: heads.Affinity(PAPER, rngs=rngs), shapes)
    found = run(golden["pro_feat"], exists(golden["lengths"], 24), golden["seq_emb"], ligand_of(golden))
    np.testing.assert_allclose(found, golden["out"], atol=2e-4)


@pytest.mark.golden
@pytest.mark.slow
def test_whole_network_with_modalities_switched_off(folder, full_state, recipe, stored):
    golden, inputs = np.load(folder / "head_stability.npz"), np.load(folder / "massa_full.npz")
    state = {name: value for name, value in full_state.items() if "tokens_predictor" not in name}
    state |= {name: recipe(name, shape) for name, shape in two("regression_layer", 256, 512, 1).items()}
    found = weights.from_official(state)
    assert "regression_layer.fc1.weight" in found.unused
    features, _ = stored(inputs, found.config)
    net = weights.assemble_backbone(found.config, found.tensors)
    blueprint = module.Blueprint(lambda rngs: heads.Pooled(found.config, rngs=rngs))
    head = module.assemble(blueprint, weights.head_tensors("pooled", blueprint, state))
    graphdef, leaves = nnx.split((net, head))

    def run(leaves, features, structure, goterm):
        net, head = nnx.merge(graphdef, leaves)
        encoded = net(features, add_structure=structure, add_goterm=goterm)
        return head(encoded.protein, features.mask)[:, 0]

    compiled = jax.jit(run, static_argnums=(2, 3))
    for structure in (True, False):
        for goterm in (True, False):
            expected = golden[f"stability_structure{structure:d}_go{goterm:d}"]
            found = compiled(leaves, features, structure, goterm)
            np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=f"{structure} {goterm}")


def test_padding_has_no_share():
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    mask = exists([6, 2], 6)
    x[1, 2:] = 0  # of length 0, which has no derivative
    run = jax.jit(jax.value_and_grad(lambda x: heads.pool(x, mask)[1].sum()))
    value, slope = run(x)
    weight = np.exp(np.linalg.norm(x[1, :2], axis=1))
    np.testing.assert_allclose(value, (weight @ x[1, :2]).sum() / weight.sum(), rtol=1e-5)
    assert np.isfinite(slope).all() and not np.any(slope[0]) and not np.any(slope[1, 2:])
    np.testing.assert_array_equal(np.asarray(heads.shares(x, mask))[1, 2:], 0)


def test_a_head_of_another_kind_is_refused(recipe):
    blueprint = module.Blueprint(lambda rngs: heads.Pooled(PAPER, rngs=rngs))
    shapes = two("regression_layer", 256, 512, 1) | {"pro_emb_linear.weight": (512, 1024)}
    with pytest.raises(CheckpointError, match=r"pro_emb_linear\.weight"):
        weights.head_tensors("pooled", blueprint, {name: recipe(name, shape) for name, shape in shapes.items()})


def test_inputs_of_a_head_are_standardised():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 6)) * [1, 5, 0.1, 1, 1, 0] + [3, 0, 0, -7, 0, 2]).astype(np.float32)
    head = heads.Standardised(6, 8, 2, 0.5, rngs=nnx.Rngs(0))
    head.fit_inputs(x)
    np.testing.assert_allclose(head.centre[...], x.mean(0), atol=1e-5)
    assert head.spread[...][5] == 1  # it does not vary
    z = (x - x.mean(0)) / np.where(x.std(0) > 1e-6, x.std(0), 1)
    np.testing.assert_allclose(head(x), head.fc2(jax.nn.relu(head.fc1(z))), atol=1e-4)
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = jax.vmap(lambda key: head(x[:4], key))(keys)
    assert float(jnp.std(drawn, 0).min()) > 0  # dropout, with a key alone
    slopes = nnx.grad(lambda head: jnp.sum(head(x) ** 2))(head)
    assert not slopes["centre"][...].any() and not slopes["spread"][...].any() and slopes["fc1"]["bias"][...].any()
