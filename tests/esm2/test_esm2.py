import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxprot
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.esm2 import predict, tokens, weights
from jaxprot.esm2.config import PUBLISHED, ESM2Config
from jaxprot.weights import inspect, portable, torch_file

CFG = ESM2Config(layers=2, width=16, heads=2)
SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "GSHMLEDPVDXAFCKWWQ", "AC"]


def facebook(tensors, prefix="encoder.sentence_encoder."):
    """Our tensors under Facebook's names, and those of the contact head."""
    out, contact = {}, {}
    for name, array in tensors.items():
        value = np.array(array.T if name.endswith("kernel") else array, order="C")
        end = "bias" if name.endswith("bias") else "weight"
        parts = name.split(".")
        if parts[0] == "layers":
            part = {"attention_norm": "self_attn_layer_norm", "norm": "final_layer_norm"}.get(parts[2], parts[2])
            part = f"self_attn.{part}_proj" if part in ("q", "k", "v", "out") else part
            out[f"{prefix}layers.{parts[1]}.{part}.{end}"] = value
        elif parts[0] == "head":
            out[f"encoder.lm_head.{'dense' if parts[1] == 'dense' else 'layer_norm'}.{end}"] = value
        elif parts[0] == "contact":
            contact[f"contact_head.regression.{end}"] = value
        else:
            key = {"embedding": "embed_tokens.weight", "norm": f"emb_layer_norm_after.{end}"}.get(parts[0])
            out["encoder.lm_head.bias" if key is None else prefix + key] = value
    out["encoder.lm_head.weight"] = out[f"{prefix}embed_tokens.weight"]
    out[f"{prefix}layers.0.self_attn.rot_emb.inv_freq"] = np.ones(4, np.float32)
    return out, contact


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_of_published_models(name):
    cfg = ESM2Config.published(name)
    count = sum(int(np.prod(shape)) for shape in weights.shapes(cfg).values())
    unit = {"M": 1e6, "B": 1e9}[name[-1]]
    assert count / unit == pytest.approx(float(name.partition("_")[2][:-1]), rel=0.08)


def test_letters():
    ids = tokens.encode("LAgvx\nBUZOJ.-")
    assert ids.tolist() == [0, 4, 5, 6, 7, 24, 25, 26, 27, 28, 3, 29, 30, 2]
    assert tokens.encode("A<mask>C").tolist() == [0, 5, 32, 23, 2]
    assert len(tokens.pad(ids)) == 32 and (tokens.pad(ids)[14:] == 1).all()
    for wrong in ("", "  ", "AC?", "A1C", "Aé"):
        with pytest.raises(InputError, match="protein 7"):
            tokens.encode(wrong, "protein 7")


def test_padding_and_company_change_nothing(predictor):
    together = predictor.embed(SEQUENCES)
    assert [len(one) for one in together] == [len(one) for one in SEQUENCES]
    for sequence, states in zip(SEQUENCES, together, strict=True):
        alone = np.asarray(predictor.runner(predict._last, tokens.encode(sequence)))[1:-1]
        np.testing.assert_allclose(states, alone, atol=2e-6)
    alone = np.asarray(predictor.runner(predict._contacts, tokens.encode(SEQUENCES[1])))[1:-1, 1:-1]
    found = predictor.contacts(SEQUENCES)[1]
    np.testing.assert_allclose(found, alone, atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    batched = predict.Predictor(predictor.module)
    batched.runner.batch_items = 200
    for states, other in zip(batched.embed(SEQUENCES), together, strict=True):
        np.testing.assert_allclose(states, other, atol=2e-6)


def test_layers(predictor):
    first, second = ([predictor.embed(SEQUENCES, layer)[0] for layer in pair] for pair in ((0, 2), (-3, -1)))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(first[1], predictor.embed(SEQUENCES)[0], atol=1e-6)
    table = np.asarray(predictor.module.embedding[...])
    np.testing.assert_allclose(first[0], 0.88 * table[tokens.encode(SEQUENCES[0])[1:-1]], rtol=1e-5)
    for wrong in (3, -4):
        with pytest.raises(InputError, match="the network has 2"):
            predictor.embed(SEQUENCES, wrong)


def test_position_matters_only_by_distance(predictor):
    """Rotary embedding: two tokens that move together keep their product."""
    x = np.random.default_rng(0).normal(size=(6, 1, 8)).astype(np.float32)
    x[3:5] = x[0:2]
    from jaxprot.esm2.model import rotated

    turned = np.asarray(rotated(x))[:, 0]
    np.testing.assert_allclose(turned[0] @ turned[1], turned[3] @ turned[4], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x[:, 0], axis=1), rtol=1e-5)


def test_pure_function_has_gradients(predictor):
    apply, leaves = predictor.pure()
    ids = tokens.pad(tokens.encode("MKTAYI"))
    slopes = jax.grad(lambda leaves: (apply(leaves, ids)[:8] ** 2).mean())(leaves)
    assert all(np.isfinite(slope).all() for slope in slopes) and any(np.abs(slope).max() > 0 for slope in slopes)


def test_wrong_sequences(predictor):
    short = predict.Predictor(predictor.module, max_len=10)
    with pytest.raises(InputError, match="sequence 1 has 11 residues, at most 10"):
        short.embed(["ACD", "A" * 11])
    with pytest.raises(InputError, match="not one string"):
        short.embed("ACD")
    assert short.embed([]) == []


def test_facebook_file_with_and_without_contact_head(tensors, predictor, tmp_path):
    main, contact = facebook(tensors(CFG))
    path = tmp_path / "esm2_small.pt"
    torch_file.write_torch_file({"model": main}, path)
    bare = predict.load(path, heads=2)
    assert bare.config == dataclasses.replace(CFG, contacts=False)
    with pytest.raises(InputError, match="no contact head"):
        bare.contacts(SEQUENCES)
    torch_file.write_torch_file({"model": contact}, tmp_path / "esm2_small-contact-regression.pt")
    whole = jaxprot.load(path)
    assert whole.config == CFG  # the contact head tells the heads
    for function in ("embed", "logits", "contacts"):
        for one, other in zip(
            getattr(whole, function)(SEQUENCES), getattr(predictor, function)(SEQUENCES), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_conversion(tensors, predictor, tmp_path):
    main, contact = facebook(tensors(CFG))
    torch_file.write_torch_file({"model": main}, tmp_path / "a.pt")
    torch_file.write_torch_file({"model": contact}, tmp_path / "a-contact-regression.pt")
    header = inspect.convert(tmp_path / "a.pt", tmp_path / "ours.safetensors")
    assert header["system"] == "esm2" and header["config"] == dataclasses.asdict(CFG)
    again = jaxprot.load(tmp_path / "ours.safetensors")
    np.testing.assert_array_equal(again.embed(SEQUENCES)[0], predictor.embed(SEQUENCES)[0])


def test_hugging_face_without_heads(goldens, tmp_path):
    """Of the base model: no `esm.` before the names, no head, the number of heads in config.json."""
    stored, _ = portable.load(goldens("massa") / "esm2_tiny_hf.safetensors")
    base = {key.removeprefix("esm."): array for key, array in stored.items() if key.startswith("esm.")}
    base = {key: array for key, array in base.items() if "contact" not in key and "inv_freq" not in key}
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    save_file({**base, "pooler.dense.weight": np.zeros((64, 64), np.float32)}, path)
    with pytest.raises(CheckpointError, match="number of attention heads"):
        predict.load(path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "esm", "num_attention_heads": 4}))
    predictor = jaxprot.load(path)
    assert predictor.config == ESM2Config(layers=2, width=64, heads=4, lm_head=False, contacts=False)
    full = predict.load(goldens("massa") / "esm2_tiny_hf.safetensors")
    np.testing.assert_array_equal(predictor.embed(SEQUENCES)[0], full.embed(SEQUENCES)[0])
    with pytest.raises(InputError, match="no head of the language model"):
        predictor.logits(SEQUENCES)


def test_what_is_left_out_carries_nothing(tensors, goldens, tmp_path):
    """Heads that are not tied, and tables of positions, which ESM-1v reads, are those of other models."""
    from safetensors.numpy import save_file

    main, _ = facebook(tensors(CFG))
    torch_file.write_torch_file({"model": main}, tmp_path / "tied.pt")
    predict.load(tmp_path / "tied.pt", heads=2)
    name = next(key for key in main if key.endswith("lm_head.weight"))
    torch_file.write_torch_file({"model": {**main, name: main[name] + 1}}, tmp_path / "untied.pt")
    with pytest.raises(CheckpointError, match=r"untied\.pt: encoder\.lm_head\.weight is not equal to"):
        predict.load(tmp_path / "untied.pt", heads=2)

    stored, _ = portable.load(goldens("massa") / "esm2_tiny_hf.safetensors")
    with_table = {**stored, "esm.embeddings.position_embeddings.weight": np.ones((1026, 64), np.float32)}
    path = tmp_path / "model.safetensors"
    save_file({key: array for key, array in with_table.items() if "inv_freq" not in key}, path)
    with pytest.raises(CheckpointError, match=r"put its config\.json beside it"):
        predict.load(path)
    config = {"model_type": "esm", "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({**config, "position_embedding_type": "absolute"}))
    with pytest.raises(CheckpointError, match="absolute positions, as ESM-1b and ESM-1v have"):
        predict.load(path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "position_embedding_type": "rotary"}))
    predict.load(path)
    bias = stored["lm_head.bias"]
    save_file({**stored, "lm_head.decoder.bias": bias + 1}, path)
    with pytest.raises(CheckpointError, match=r"lm_head\.decoder\.bias is not equal to lm_head\.bias"):
        predict.load(path)


def test_every_tensor_counts(tensors, tmp_path):
    main, _ = facebook(tensors(CFG))
    missing = "encoder.sentence_encoder.layers.1.fc1.bias"
    changes = {
        "1 tensor missing": {key: array for key, array in main.items() if key != missing},
        "1 tensor unexpected": {**main, "encoder.sentence_encoder.layers.1.fc3.bias": np.zeros(3, np.float32)},
        "1 tensor of wrong shape": {**main, missing: np.zeros(3, np.float32)},
        "1 tensor not finite": {**main, missing: np.full_like(main[missing], np.nan)},
    }
    for number, (message, state) in enumerate(changes.items()):
        path = tmp_path / f"{number}.pt"
        torch_file.write_torch_file({"model": state}, path)
        with pytest.raises(CheckpointError, match=message) as error:
            predict.load(path, heads=2)
        assert path.name in str(error.value)


def test_wrong_sizes():
    with pytest.raises(ValueError, match="multiple of twice"):
        ESM2Config(width=30, heads=4)
    with pytest.raises(ValueError, match="t33_650M"):
        ESM2Config.published("t7")
