"""Stability sets and the training task on them, on tables made from the examples of the package."""

import dataclasses
import gzip
import json

import jax
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.core.residues import ALPHABET
from jaxprot.io.structures import read_structure
from jaxprot.io.tables import write_table
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.featurize import parse_chains
from jaxprot.thermompnn import data
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.data import StabilityTask, figures, join, predict_set, read_stability_set

TINY = ThermoMPNNConfig(
    backbone=ProteinMPNNConfig(width=16, neighbours=8, encoder_layers=1, decoder_layers=2), hidden=(8,), dropout=0.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of two proteins (train, val) and their structures."""
    root = tmp_path_factory.mktemp("stability")
    rows = []
    examples = data.__file__.replace("thermompnn/data.py", "examples")
    for name, split in (("trpcage", "train"), ("chignolin", "val")):
        (root / f"{name}.pdb.gz").write_bytes(gzip.compress(open(f"{examples}/{name}.pdb", "rb").read()))
        chain = parse_chains(read_structure(f"{examples}/{name}.pdb"))[0]
        for i, letter in enumerate(chain.sequence):
            for mut in "AGW":
                if mut != letter:
                    rows.append((name, split, chain.id, str(chain.resid[i]), letter, mut, 0.1 * i + (mut == "G")))
    rows.append(("trpcage", "train", rows[0][2], "999", "A", "G", 5.0))
    rows.append(("trpcage", "train", *rows[0][2:4], "C", "G", 5.0))
    rows.append(("absent", "train", "A", "1", "A", "G", 5.0))
    names = ("protein", "thermompnn_split", "chain", "resid", "wt", "mut", "ddG")
    write_table(
        {n: np.array(v, dtype=object) for n, v in zip(names, zip(*rows, strict=True), strict=True)}, root / "t.csv"
    )
    return root


@pytest.fixture(scope="module")
def both(folder):
    return read_stability_set(folder / "t.csv", folder)


def task(folder, **more):
    return StabilityTask(str(folder / "t.csv"), str(folder), None, model=TINY, items=64, **more)


def test_rows_are_matched_and_the_others_counted(both):
    assert both.names == ("chignolin", "trpcage")
    assert both.skipped == 3
    assert both.n == len(both.rows) == len(both.source)
    example, site, letter = both.rows[-1]
    assert both.examples[example].ddg[site, letter] == pytest.approx(both.ddg[-1], abs=1e-6)
    assert both.examples[example].measured.sum() == np.sum(both.rows[:, 0] == example)


def test_rows_know_where_they_come_from(folder, both):
    from jaxprot.io.tables import read_table

    columns = read_table(folder / "t.csv")
    assert np.allclose(columns["ddG"][both.source], both.ddg)
    assert [ALPHABET[a] for a in both.rows[:, 2]] == columns["mut"][both.source].tolist()


def test_a_mutation_measured_twice_counts_as_two_rows_and_trains_on_their_mean(folder, tmp_path):
    from jaxprot.io.tables import read_table

    columns = read_table(folder / "t.csv")
    row = int(np.flatnonzero(columns["protein"] == "chignolin")[0])
    twice = {name: np.array([column[row]] * 2, dtype=column.dtype) for name, column in columns.items()}
    twice["ddG"] = np.array([1.0, 3.0])
    write_table(twice, tmp_path / "twice.csv")
    found = read_stability_set(tmp_path / "twice.csv", folder)
    assert found.ddg.tolist() == [1.0, 3.0]
    assert found.examples[0].ddg.sum() == 2.0 and found.examples[0].measured.sum() == 1


def test_a_table_without_columns_says_which(tmp_path):
    (tmp_path / "bad.csv").write_text("protein,wt\nx,A\n")
    with pytest.raises(InputError, match="chain, resid, mut, ddG"):
        read_stability_set(tmp_path / "bad.csv", tmp_path)


def test_joined_sets_keep_rows_with_their_examples(both):
    twice = join([both, both])
    assert (twice.n, len(twice.examples), twice.skipped) == (2 * both.n, 4, 6)
    predicted = predict_set(lambda _, f: f.S[:, None] * np.ones(20), None, twice)
    assert np.array_equal(predicted[: both.n], predicted[both.n :])
    letters = [ALPHABET.index(c) for c in "".join(ALPHABET[i] for i in twice.examples[3].features.S)]
    assert predicted[-1] == letters[twice.rows[-1, 1]]


@pytest.mark.slow
def test_predictions_do_not_depend_on_padding(both):
    graphdef, params = nnx.split(data.ThermoMPNN(TINY, rngs=nnx.Rngs(0)))
    apply = jax.jit(lambda params, features: nnx.merge(graphdef, params).ddg(features))
    padded = predict_set(apply, params, both)
    for i, example in enumerate(both.examples):
        mine = both.rows[:, 0] == i
        bare = np.asarray(apply(params, example.features))
        np.testing.assert_allclose(padded[mine], bare[tuple(both.rows[mine, 1:].T)], atol=1e-4)


def test_figures_of_a_perfect_and_of_an_opposite_prediction():
    y, group = np.arange(20.0), np.repeat([0, 1], 10)
    best, worst = figures(y, y, group), figures(-y, y, group)
    assert (best["n"], best["rmse"]) == (20, 0.0)
    assert [best[k] for k in ("spearman", "pearson", "spearman_per_protein")] == pytest.approx([1, 1, 1])
    assert [worst[k] for k in ("spearman", "pearson", "spearman_per_protein")] == pytest.approx([-1, -1, -1])


def test_the_split_decides_what_is_trained_on(folder):
    assert task(folder).training.names == ("trpcage",)
    assert task(folder).held_out.names == ("chignolin",)
    assert task(folder, extra=("chignolin",)).training.names == ("chignolin", "trpcage")
    more = task(folder, more=((str(folder / "t.csv"), str(folder)),))
    assert more.training.names == ("trpcage", "trpcage") and more.held_out.names == ("chignolin",)


def test_targets_of_mutated_backgrounds_are_differences(folder):
    """With every residue mutated, mutant-to-mutant changes and the way back to the wild type are the targets."""
    background = task(folder, background=1.0)
    example = background.training.examples[0]
    for seed in range(20):
        sequence, target, known = map(np.asarray, background._mutated(example, jax.random.key(seed)))
        if np.any(sequence != example.features.S):
            break
    rows = np.flatnonzero(example.measured.sum(axis=1))
    assert np.all(sequence[rows] != example.features.S[rows])
    for i in rows:
        start = example.ddg[i, sequence[i]]
        native = example.features.S[i]
        assert known[i, native] == 1 and target[i, native] == pytest.approx(-start, abs=1e-6)
        assert target[i, sequence[i]] == pytest.approx(0, abs=1e-6)


def value(chosen, params, graphdef, example, seed=1):
    return chosen.loss(nnx.merge(graphdef, params), example, jax.random.key(seed))["loss"].total


@pytest.mark.slow
def test_gradients_reach_the_whole_network(folder):
    chosen = task(folder)
    graphdef, params = nnx.split(chosen.build(jax.random.key(0)), nnx.Param)
    example = jax.tree.map(lambda leaf: leaf[0], chosen.load(*chosen.batches(0, 0)[:2]))
    grads = nnx.to_pure_dict(jax.jit(jax.grad(lambda p, e: value(chosen, p, graphdef, e)))(params, example))
    size = {name: sum(float(abs(leaf).sum()) for leaf in jax.tree.leaves(grads[name])) for name in ("backbone", "head")}
    assert size["head"] > 0 and size["backbone"] > 0


def test_the_published_loss_is_the_mean_squared_error_of_a_protein(folder):
    chosen = task(folder, error="squared", correlation=0.0, noise=0.0, background=0.0)
    still = dataclasses.replace(TINY, backbone=dataclasses.replace(TINY.backbone, dropout=0.0))
    chosen = dataclasses.replace(chosen, model=still)
    graphdef, params = nnx.split(chosen.build(jax.random.key(0)), nnx.Param)
    (example,) = chosen.training.examples
    loss = jax.jit(lambda p, e: (value(chosen, p, graphdef, e), nnx.merge(graphdef, p).ddg(e.features)))
    found, predicted = loss(params, example)
    predicted = np.asarray(predicted)
    at = example.measured > 0
    assert float(found) == pytest.approx(float(np.mean((predicted[at] - example.ddg[at]) ** 2)), rel=1e-4)


def test_an_unknown_error_is_named(folder):
    with pytest.raises(ValueError, match="huber or squared"):
        task(folder, error="absolute")


def test_the_evaluation_gives_the_squared_error_too(folder):
    chosen = task(folder)
    graphdef, params = nnx.split(chosen.build(jax.random.key(0)), nnx.Param)
    found = chosen.evaluator(graphdef)(params)
    assert found["mse"] == pytest.approx(found["rmse"] ** 2)


def test_one_protein_a_batch(folder):
    chosen = dataclasses.replace(task(folder, extra=("chignolin",)), items=1)
    held = [chosen.batches(step, 0).members.tolist() for step in range(4)]
    assert [len(members) for members in held] == [1, 1, 1, 1]
    assert sorted(held[0] + held[1]) == sorted(held[2] + held[3]) == [0, 1]


@pytest.mark.golden
def test_an_official_backbone_is_taken_as_it_is(folder, golden_checkpoint):
    from jaxprot.weights import inspect

    path = golden_checkpoint("v_48_020.pt")
    chosen = StabilityTask(str(folder / "t.csv"), str(folder), str(path))
    built = chosen.build(jax.random.key(0)).backbone
    _, official, _ = inspect.read(path)
    np.testing.assert_array_equal(built.letters.embedding[...], official["W_s.weight"])
    np.testing.assert_array_equal(built.output.kernel[...], official["W_out.weight"].T)
    assert str(path) in chosen.files()


def test_a_backbone_of_other_sizes_is_named(folder, root):
    shipped = root / "jaxprot" / "weights" / "default" / "proteinmpnn.safetensors"
    chosen = dataclasses.replace(task(folder), backbone=str(shipped))
    with pytest.raises(CheckpointError, match=r"proteinmpnn\.safetensors: parameters: .* wrong shape"):
        chosen.build(jax.random.key(0))
    with pytest.raises(InputError, match="no weights of this name"):
        dataclasses.replace(chosen, backbone="nowhere").build(jax.random.key(0))


def test_the_loss_ignores_padding_and_unmeasured_entries(folder):
    chosen = task(folder, noise=0.0, background=0.0)
    graphdef, params = nnx.split(chosen.build(jax.random.key(0)), nnx.Param)
    loss = jax.jit(lambda p, e: chosen.loss(nnx.merge(graphdef, p), e, jax.random.key(1))["loss"].total)
    example = chosen.training.examples[0]
    noise = np.random.default_rng(0).normal(size=example.ddg.shape).astype(np.float32) * (1 - example.measured)
    first = loss(params, data.pad_example(example, 32))
    second = loss(params, data.pad_example(example._replace(ddg=example.ddg + noise), 64))
    assert float(first) == pytest.approx(float(second), abs=1e-4)


@pytest.mark.slow
def test_a_short_training_improves_and_leaves_a_frozen_backbone_as_it_was(folder, tmp_path):
    from jaxprot.train.loop import fit
    from jaxprot.train.task import OptimConfig, TrainConfig
    from jaxprot.weights import module, portable

    chosen = task(folder)
    optim = OptimConfig(lr=1e-2, weight_decay=0.1, warmup=1, ema=0.5, frozen=("backbone",))
    cfg = TrainConfig(task=chosen, optim=optim, steps=60, evaluate_every=20, save_every=60)
    tensors, header = portable.load(fit(cfg, tmp_path / "run", header={"config": dataclasses.asdict(TINY)}).best)
    before = module.flatten(
        nnx.to_pure_dict(nnx.split(chosen.build(jax.random.split(jax.random.key(0))[0]), nnx.Param)[1])
    )
    for name, value in before.items():
        if name.startswith("backbone."):
            np.testing.assert_array_equal(tensors[name], value)
    assert np.isfinite(header["figures"]["spearman"])
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]  # means over 20 steps each
    assert len(losses) == 3 and losses[-1] < 0.8 * losses[0], losses
