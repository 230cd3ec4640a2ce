"""Against the published programs."""

import zlib

import numpy as np
import pytest

import jaxprot
from jaxprot.esm2 import predict, weights
from jaxprot.esm2.config import ESM2Config
from jaxprot.weights.convert import fill

pytestmark = pytest.mark.golden


def compare(predictor, stored, atol, atol_logits):
    layers = predictor.config.layers
    kept = [int(name.removeprefix("plain_repr")) for name in stored if name.startswith("plain_repr")]
    assert max(kept) == layers and min(kept) == 0
    compared = 0  # real positions, so that stored files without any cannot pass
    for kind, tokens in (("plain", stored["tokens"]), ("masked", stored["tokens_masked"])):
        for row, ids in enumerate(tokens.astype(np.int32)):
            n = int((ids != 1).sum())  # what padding gets is not compared
            logits = np.asarray(predictor.runner(predict._logits, ids))[:n]
            np.testing.assert_allclose(logits, stored[f"{kind}_logits"][row, :n], atol=atol_logits)
            for layer in kept:
                states = np.asarray(predictor.runner(predict._kept, ids, np.int32(layer)))[:n]
                np.testing.assert_allclose(states, stored[f"{kind}_repr{layer}"][row, :n], atol=atol)
            chance = np.asarray(predictor.runner(predict._contacts, ids))[1 : n - 1, 1 : n - 1]
            np.testing.assert_allclose(chance, stored[f"{kind}_contacts"][row, : n - 2, : n - 2], atol=atol)
            compared += n
    return compared


@pytest.mark.parametrize("name", ["esm2_tiny_fb.pt", "esm2_tiny_hf.safetensors"])
def test_files_of_both_kinds(goldens, name):
    folder = goldens("massa")
    predictor = jaxprot.load(folder / name)
    assert isinstance(predictor, predict.Predictor)
    assert predictor.config == ESM2Config(layers=2, width=64, heads=4)
    stored = np.load(folder / "esm2_tiny.npz")
    assert (
        compare(predictor, stored, 1e-4, 1e-4) == sum((stored[k] != 1).sum() for k in ("tokens", "tokens_masked")) > 0
    )
    plain = [str(one) for one in stored["sequences"]]
    for row, (states, scores, chance) in enumerate(
        zip(predictor.embed(plain), predictor.logits(plain), predictor.contacts(plain), strict=True)
    ):
        n = len(plain[row])
        assert states.shape == (n, 64) and scores.shape == (n, 33) and chance.shape == (n, n)
        np.testing.assert_allclose(states, stored["plain_repr2"][row, 1 : n + 1], atol=1e-4)
        np.testing.assert_allclose(scores, stored["plain_logits"][row, 1 : n + 1], atol=1e-4)
        np.testing.assert_allclose(chance, stored["plain_contacts"][row, :n, :n], atol=1e-4)


def published(cfg):
    """The weights that the stored outputs were made with, under Facebook's names."""
    c, shapes = cfg.width, {"embed_tokens.weight": (33, cfg.width), "lm_head.bias": (33,)}
    for i in range(cfg.layers):
        layer = f"layers.{i}."
        for name in ("q", "k", "v", "out"):
            shapes |= {f"{layer}self_attn.{name}_proj.weight": (c, c), f"{layer}self_attn.{name}_proj.bias": (c,)}
        shapes |= {f"{layer}fc1.weight": (4 * c, c), f"{layer}fc1.bias": (4 * c,)}
        shapes |= {f"{layer}fc2.weight": (c, 4 * c), f"{layer}fc2.bias": (c,)}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{layer}{name}.{end}": (c,) for end in ("weight", "bias")}
    shapes |= {f"emb_layer_norm_after.{end}": (c,) for end in ("weight", "bias")}
    shapes |= {f"lm_head.layer_norm.{end}": (c,) for end in ("weight", "bias")}
    shapes |= {"lm_head.dense.weight": (c, c), "lm_head.dense.bias": (c,)}
    shapes |= {"contact_head.regression.weight": (1, cfg.layers * cfg.heads), "contact_head.regression.bias": (1,)}
    out = {}
    for key, shape in shapes.items():
        seed = (11 * 1000003 + zlib.crc32(key.encode())) % 2**32
        x = np.random.RandomState(seed).standard_normal(shape)  # noqa: NPY002 (what they were made with)
        if len(shape) >= 2:
            x /= np.sqrt(np.prod(shape[1:]))
        else:
            x = 1 + 0.2 * x if key.endswith("weight") else 0.1 * x
        out[key] = x.astype(np.float32)
    out["embed_tokens.weight"] *= np.float32(0.5) * np.float32(np.sqrt(c))
    out["lm_head.weight"] = out["embed_tokens.weight"]
    return out


def test_published_sizes(goldens):
    cfg = ESM2Config.published("t6_8M")
    tensors = fill(weights.shapes(cfg), published(cfg), (*weights.OFFICIAL, *weights.CONTACTS), weights.IGNORED)
    predictor = predict.Predictor(weights.assemble(cfg, tensors))
    stored = np.load(goldens("massa") / "esm2_t6_8M.npz")
    assert stored["plain_logits"].std() > 0.1 and np.abs(stored["plain_logits"] - stored["masked_logits"]).max() > 0.1
    assert compare(predictor, stored, 1e-3, 1e-3) > 2 * len(stored["tokens"])
    # The tolerance is one that a network of other weights fails.
    tensors["layers.3.fc1.kernel"] = tensors["layers.3.fc1.kernel"] * np.float32(1.1)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        compare(predict.Predictor(weights.assemble(cfg, tensors)), stored, 1e-3, 1e-3)
