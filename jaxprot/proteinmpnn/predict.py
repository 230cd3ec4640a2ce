"""The sequence designer: design, score, and per-residue profiles."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxprot.core import residues
from jaxprot.core.buckets import bucket_length, pad_to
from jaxprot.core.errors import CheckpointError, InputError, naming
from jaxprot.core.structure import Structure
from jaxprot.io.structures import read_structure
from jaxprot.nn.runner import Runner
from jaxprot.proteinmpnn import weights as tables
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.decoding import decoding_order, rank_of, visible_by_rank
from jaxprot.proteinmpnn.featurize import Features, LabelledFeatures, pad_features, parse_chains
from jaxprot.proteinmpnn.inputs import DesignInputs, design_inputs
from jaxprot.proteinmpnn.membrane import labels_for
from jaxprot.proteinmpnn.model import Encoded, ProteinMPNN
from jaxprot.proteinmpnn.results import Designs, Profile, Scores, join_chains
from jaxprot.proteinmpnn.sampling import FAVOURED, HELD_BACK, Constraints, Ties, make_ties, prepare, sample, tied_order
from jaxprot.weights import inspect, module
from jaxprot.weights.convert import fill


def teacher_forced(model: ProteinMPNN, features: Features, rank: Int[Array, "n"]) -> Float[Array, "n 21"]:
    """Log-probabilities of the native sequence in a decoding order."""
    return model(features, rank)


def _rescore(model: ProteinMPNN, encoded: Encoded, letters, order) -> Float[Array, "n 21"]:
    return model.log_probs(model.decode(encoded, letters, visible_by_rank(rank_of(order), encoded.index))[-1])


def mean_nll(log_probs: Float[Array, "n 21"], letters: Int[Array, "n"], weight: Float[Array, "n"]) -> Float[Array, ""]:
    """Weighted mean of -log p of the letters, nats."""
    nll = -jnp.take_along_axis(log_probs, letters[:, None], axis=1)[:, 0]
    return jnp.sum(nll * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def score_sequences(
    model: ProteinMPNN, features: Features, sequences: Int[Array, "s n"], draws: Float[Array, "d n"]
) -> tuple[Float[Array, "s d"], Float[Array, "s d"]]:
    """Scores over designed and over all resolved residues, for each sequence and decoding order; one encoding."""
    encoded = model.encode(features)
    design = features.design * features.mask

    def one(letters, draw):
        log_probs = _rescore(model, encoded, letters, decoding_order(draw, design))
        return mean_nll(log_probs, letters, design), mean_nll(log_probs, letters, features.mask)

    return jax.lax.map(lambda letters: jax.lax.map(lambda draw: one(letters, draw), draws), sequences)


def sample_sequences(
    model: ProteinMPNN,
    features: Features,
    draws: Float[Array, "b n"],
    uniforms: Float[Array, "b n"],
    constraints: Constraints,
    ties: Ties,
):
    """Samples of one backbone: one encoding, `vmap`ped draws, then re-scoring in the same orders.

    Returns:
      letters (b, n), probs (b, n, 21), log_probs (b, n, 21), score (b,), global score (b,), order (b, n).
    """
    encoded = model.encode(features)
    prepared = prepare(model, encoded)
    design = features.design * features.mask
    order = jax.vmap(lambda draw: tied_order(decoding_order(draw, design), ties))(draws)
    letters, probs = jax.vmap(
        lambda o, u: sample(model, encoded, prepared, features.S, design, o, u, constraints, ties)
    )(order, uniforms)

    def one(pair):
        log_probs = _rescore(model, encoded, *pair)
        return log_probs, mean_nll(log_probs, pair[0], design), mean_nll(log_probs, pair[0], features.mask)

    log_probs, score, global_score = jax.lax.map(one, (letters, order))
    return letters, probs, log_probs, score, global_score, order


def unconditional_profile(model: ProteinMPNN, features: Features) -> Float[Array, "n 21"]:
    """p(letter | backbone), one pass that reads no sequence."""
    encoded = model.encode(features)
    return model.log_probs(model.decode(encoded, features.S, jnp.zeros(encoded.index.shape, jnp.int32))[-1])


def _conditional(model: ProteinMPNN, features: Features, draw: Float[Array, "n"], last: bool) -> Float[Array, "n 21"]:
    encoded = model.encode(features)
    n = features.S.shape[0]

    def one(i):
        chosen = (jnp.arange(n) == i).astype(jnp.float32)
        order = decoding_order(draw, chosen if last else 1.0 - chosen)
        return _rescore(model, encoded, features.S, order)[i]

    return jax.lax.map(one, jnp.arange(n))


def conditional_profile(model: ProteinMPNN, features: Features, draw: Float[Array, "n"]) -> Float[Array, "n 21"]:
    """p(letter | backbone and all other letters): each residue decoded last, the others in the order of `draw`."""
    return _conditional(model, features, draw, last=True)


def conditional_backbone_profile(
    model: ProteinMPNN, features: Features, draw: Float[Array, "n"]
) -> Float[Array, "n 21"]:
    """p(letter | backbone) by the decoder run with each residue first."""
    return _conditional(model, features, draw, last=False)


class Designer:
    """ProteinMPNN, ready to run.

    Args:
      model: the network.
      source: where the weights come from.
    """

    def __init__(self, model: ProteinMPNN, source: str = ""):
        self.config = model.cfg
        self.runner = Runner(model)
        self.source = source

    def pure(self) -> tuple[Callable[[Any, Features, Array], Float[Array, "n 21"]], list[Array]]:
        """(apply, leaves): `apply(leaves, features, rank)` gives teacher-forced log-probabilities as plain JAX."""
        return self.runner.pure(teacher_forced)

    def inputs(
        self, structure: Structure | str | os.PathLike, chains: str | Sequence[str] | None = None, **options: Any
    ) -> tuple[str, DesignInputs]:
        """Name and `DesignInputs` of a structure; options as in `jaxprot.proteinmpnn.inputs.design_inputs`."""
        source = structure
        if not isinstance(structure, Structure):
            structure = read_structure(structure)
        with naming(source, structure.name):
            parsed = parse_chains(structure, chains, ca_only=self.config.ca_only)
        return structure.name, design_inputs(structure.name, parsed, **options)

    def _given(
        self,
        inputs: tuple[str, DesignInputs] | None,
        structure: Structure | str | os.PathLike | None,
        chains: str | Sequence[str] | None,
        options: dict[str, Any],
    ) -> tuple[str, DesignInputs]:
        if inputs is not None:
            return inputs
        if structure is None:
            raise InputError("give a structure, or ready-made inputs")
        return self.inputs(structure, chains, **options)

    def _tensors(self, inputs: DesignInputs, noise: float, seed: int) -> Features | LabelledFeatures:
        features: Features | LabelledFeatures = inputs.features()
        source = self.source or "these weights"
        labels = labels_for(self.config.node_labels, len(features.S), inputs.membrane, inputs.labels, source)
        if labels is not None:
            features = LabelledFeatures(*features, labels)
        if self.config.ca_only:
            known = np.concatenate([np.isfinite(c.xyz[:, 1]).all(-1) for c in inputs.chains])
            features = features._replace(mask=known.astype(np.float32))
        if noise:
            draw = np.random.default_rng(seed).normal(size=features.X.shape).astype(np.float32)
            features = features._replace(X=features.X + np.float32(noise) * draw)
        return pad_features(features, bucket_length(len(features.S)))

    def design(
        self,
        structure: Structure | str | os.PathLike | None = None,
        chains: str | Sequence[str] | None = None,
        *,
        n: int = 8,
        temperature: float | Sequence[float] = 0.1,
        seed: int = 0,
        pssm_multi: float = 0.0,
        pssm_threshold: float = 0.0,
        pssm_log_odds: bool = False,
        backbone_noise: float = 0.0,
        inputs: tuple[str, DesignInputs] | None = None,
        **options: Any,
    ) -> Designs:
        """Sample sequences for a backbone.

        Args:
          structure: a path or a parsed structure.
          chains: the chains to read; all by default.
          n: samples per temperature.
          temperature: of the draw; several give n samples each.
          seed: of orders and draws.
          pssm_multi: weight of the PSSM, 0 to 1.
          pssm_threshold: log-odds a letter must exceed (with `pssm_log_odds`).
          pssm_log_odds: hold back letters below the threshold.
          backbone_noise: standard deviation, Å, of noise on the coordinates.
          inputs: ready-made inputs instead of structure, chains and options.
          **options: designed, fixed, tied, omit_AA, omit, bias_AA, bias_by_res, pssm, and for the models of membrane
            proteins membrane, membrane_buried, membrane_interface (see `inputs`).

        Raises:
          InputError: as the readers, or a temperature that is not positive.
        """
        temperatures = [float(t) for t in np.atleast_1d(temperature)]
        if n < 1 or not all(t > 0 and np.isfinite(t) for t in temperatures):
            raise InputError(f"design needs n >= 1 and temperatures above 0, got n={n}, temperature={temperature}")
        name, given = self._given(inputs, structure, chains, options)
        features = self._tensors(given, backbone_noise, seed)
        length, padded = len(given.tied_weights), len(features.S)
        ties = make_ties(features.S, features.mask, given.tied_groups, pad_to(given.tied_weights, padded, 1))
        outs = []
        for number, t in enumerate(temperatures):
            constraints = self._constraints(given, padded, t, pssm_multi, pssm_threshold, pssm_log_odds)
            draws, uniforms = _draws(jax.random.fold_in(jax.random.key(seed), number), n, padded)
            outs.append(jax.device_get(self.runner(sample_sequences, features, draws, uniforms, constraints, ties)))
        letters, probs, log_probs, score, global_score, _ = (np.concatenate(part) for part in zip(*outs, strict=True))
        native_draw = _draws(jax.random.fold_in(jax.random.key(seed), len(temperatures)), 1, padded)[0]
        native = jax.device_get(self.runner(score_sequences, features, features.S[None], native_draw))
        design = (features.design * features.mask)[:length]
        same = (letters[:, :length] == features.S[:length]) * design
        return Designs(
            name=name,
            chains=given.chains,
            designed=given.designed,
            native=features.S[:length],
            native_score=float(native[0][0, 0]),
            native_global_score=float(native[1][0, 0]),
            letters=letters[:, :length],
            score=score,
            global_score=global_score,
            recovery=same.sum(axis=1) / max(1.0, design.sum()),
            temperature=np.repeat(np.array(temperatures, np.float32), n),
            probs=probs[:, :length],
            log_probs=log_probs[:, :length],
            design=design,
            mask=features.mask[:length],
        )

    def _constraints(
        self, given: DesignInputs, padded: int, t: float, multi: float, threshold: float, log_odds: bool
    ) -> Constraints:
        favoured = np.ones_like(given.bias_by_res)
        if log_odds and given.has_log_odds:
            favoured = np.where(given.pssm_log_odds > threshold, FAVOURED, HELD_BACK)
        return Constraints(
            temperature=np.float32(t),
            omit=given.omit_AA,
            bias=given.bias_AA,
            bias_by_residue=pad_to(given.bias_by_res, padded, 0),
            pssm_weight=pad_to(np.float32(multi) * given.pssm_coef, padded, 0),
            pssm=pad_to(given.pssm_bias, padded, 0),
            favoured=pad_to(favoured, padded, 1),
            omit_by_residue=pad_to(given.omit_by_pos, padded, 0),
        )

    def score(
        self,
        structure: Structure | str | os.PathLike | None = None,
        chains: str | Sequence[str] | None = None,
        *,
        sequences: Mapping[str, str] | None = None,
        draws: int = 1,
        seed: int = 0,
        backbone_noise: float = 0.0,
        inputs: tuple[str, DesignInputs] | None = None,
        **options: Any,
    ) -> Scores:
        """Mean -log p of the native sequence, and of others, on a backbone.

        Args:
          structure: a path or a parsed structure.
          chains: the chains to read; all by default.
          sequences: label -> sequence of the designed chains by name, joined by '/', gaps of the numbering included
            as '-' or 'X'.
          draws: random decoding orders to average over.
          seed: of the orders.
          backbone_noise: standard deviation, Å, of noise on the coordinates.
          inputs: ready-made inputs instead of structure, chains and options.
          **options: as for `design`.

        Raises:
          InputError: a sequence whose chains do not have the structure's lengths, or fewer than one draw.
        """
        if draws < 1:
            raise InputError(f"score needs at least one decoding order, got draws={draws}")
        name, given = self._given(inputs, structure, chains, options)
        features = self._tensors(given, backbone_noise, seed)
        padded, length = len(features.S), len(given.tied_weights)
        rows, labels = [features.S], ["native"]
        for label, text in (sequences or {}).items():
            rows.append(pad_to(_letters(name, given, label, text, features.S[:length]), padded, residues.UNKNOWN))
            labels.append(label)
        draw, _ = _draws(jax.random.key(seed), draws, padded)
        score, global_score = self.runner(score_sequences, features, np.stack(rows), draw)
        texts = tuple(join_chains(row[:length], given.chains, given.designed) for row in rows)
        return Scores(name, tuple(labels), texts, np.asarray(score), np.asarray(global_score))

    def profile(
        self,
        structure: Structure | str | os.PathLike | None = None,
        chains: str | Sequence[str] | None = None,
        *,
        kind: str = "unconditional",
        seed: int = 0,
        backbone_noise: float = 0.0,
        inputs: tuple[str, DesignInputs] | None = None,
        **options: Any,
    ) -> Profile:
        """Log-probabilities of every letter: `unconditional`, `conditional` or `conditional_backbone`.

        Raises:
          InputError: unknown kind.
        """
        functions = {"conditional": conditional_profile, "conditional_backbone": conditional_backbone_profile}
        name, given = self._given(inputs, structure, chains, options)
        features = self._tensors(given, backbone_noise, seed)
        if kind == "unconditional":
            log_probs = self.runner(unconditional_profile, features)
        elif kind in functions:
            draw, _ = _draws(jax.random.key(seed), 1, len(features.S))
            log_probs = self.runner(functions[kind], features, draw[0])
        else:
            raise InputError(f"unknown profile {kind!r}; known: unconditional, {', '.join(functions)}")
        n = len(given.tied_weights)
        design = features.design * features.mask
        return Profile(name, given.chains, np.asarray(log_probs)[:n], features.S[:n], features.mask[:n], design[:n])


def _draws(key: PRNGKeyArray, count: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal draws that make the orders and uniforms that make the letters, (count, n) each."""
    k_order, k_letter = jax.random.split(key)
    return np.asarray(jax.random.normal(k_order, (count, n))), np.asarray(jax.random.uniform(k_letter, (count, n)))


def _letters(name: str, given: DesignInputs, label: str, text: str, native: np.ndarray) -> np.ndarray:
    """A user's sequence on the layout of the chains; undesigned chains keep the structure's letters."""
    parts = text.strip().upper().replace("-", "X").split("/")
    order = sorted(given.designed)
    lengths = {c.id: len(c) for c in given.chains}
    wanted = "/".join(f"{c}: {lengths[c]}" for c in order)
    if len(parts) != len(order) or any(len(p) != lengths[c] for p, c in zip(parts, order, strict=True)):
        raise InputError(
            f"{name}: sequence {label!r} has chains of {'/'.join(str(len(p)) for p in parts)} letters; the designed "
            f"chains have {wanted} residues (gaps in the numbering count; write them as '-')"
        )
    out, start = native.copy(), 0
    for chain in given.chains:
        if chain.id in order:
            out[start : start + len(chain)] = residues.encode(parts[order.index(chain.id)])
        start += len(chain)
    return out


def load(path: str | os.PathLike, **config: Any) -> Designer:
    """A designer from shipped, converted or official weights.

    Args:
      path: `.safetensors` written by jaxprot, or an official ProteinMPNN `.pt` (vanilla, soluble, CA-only or membrane).
      **config: replaces fields of the `ProteinMPNNConfig`.

    Raises:
      InputError: no such file.
      CheckpointError: damaged, refused, or of another model.
    """
    kind, tensors, header = inspect.read(path)
    if kind == "safetensors":
        if header.get("system") != "proteinmpnn":
            raise CheckpointError(
                f"{path}: weights of {header.get('system', 'an unknown system')}, not of proteinmpnn; "
                "`jaxprot weights inspect FILE` tells what a file holds"
            )
        if "config" in header:
            try:
                cfg = ProteinMPNNConfig(**header["config"])
            except (TypeError, ValueError) as error:
                raise CheckpointError(f"{path}: configuration not readable by this version ({error})") from error
        else:
            kernel = tensors.get("features.embedding.kernel")
            if kernel is None:
                raise CheckpointError(f"{path}: holds no features.embedding.kernel; convert the original file again")
            told, labels = header.get("source", {}), tensors.get("features.labels.kernel")
            named = told.get("file", path)
            if labels is None and "label_membrane" in str(named):
                raise CheckpointError(
                    f"{path}: was converted from {named} by a version that dropped the labels of residues, and gives "
                    "wrong numbers; convert the original file again"
                )
            cfg = _official_config(path, kernel.shape[0], labels, told.get("values", {}), config, named)
    else:
        edge = tensors.get("features.edge_embedding.weight")
        if edge is None or edge.ndim != 2:
            raise CheckpointError(
                f"{path}: not a ProteinMPNN checkpoint (no features.edge_embedding.weight); "
                "`jaxprot weights inspect FILE` lists its keys"
            )
        labels = tensors.get("features.node_embedding.weight")
        cfg = _official_config(path, edge.shape[1], None if labels is None else labels.T, header, config, path)
    cfg = dataclasses.replace(cfg, **config) if config else cfg
    blueprint = _blueprint(cfg)
    if kind != "safetensors":
        rules, ignored = tables.OFFICIAL, tables.IGNORED
        if cfg.ca_only:
            ignored = tables.IGNORED_CA_ONLY
        elif cfg.node_labels:
            rules = tables.MEMBRANE
        tensors = fill(module.shapes(blueprint), tensors, rules, ignored, str(path))
    try:
        model = module.assemble(blueprint, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Designer(model, os.path.basename(os.fspath(path)))


def _official_config(
    path: str | os.PathLike,
    edge_channels: int,
    labels: np.ndarray | None,
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    named: str | os.PathLike,
) -> ProteinMPNNConfig:
    """Published sizes, told by the channels of an edge and the embedding of labels; by the name where that is no help.

    Raises:
      CheckpointError: nothing tells which labels the network reads.
    """
    cfg = ProteinMPNNConfig.paper(ca_only=edge_channels == tables.EDGE_CHANNELS["ca"])
    cfg = dataclasses.replace(cfg, neighbours=int(values.get("num_edges", cfg.neighbours)))
    if cfg.ca_only or labels is None or "node_labels" in config:
        return cfg
    count = tables.trained_labels(labels)
    if count not in (2, 3):
        name = os.path.basename(os.fspath(named))
        count = 3 if name.startswith("per_residue_label") else 2 if name.startswith("global_label") else 0
    if count == 0:
        raise CheckpointError(
            f"{path}: reads labels of residues, but does not tell which; load it with node_labels=2 (one label for the "
            "whole protein) or node_labels=3 (a label of each residue)"
        )
    return dataclasses.replace(cfg, node_labels=count)


def _blueprint(cfg: ProteinMPNNConfig) -> module.Blueprint:
    return module.Blueprint(lambda rngs: ProteinMPNN(cfg, rngs=rngs))
