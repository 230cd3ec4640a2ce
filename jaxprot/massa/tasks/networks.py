"""Types of interactions of proteins: tables, parts, and training on the graph of known pairs.

GNN-PPI: G. Lv et al., IJCAI 2021, arXiv 2105.06709. Every step reads the whole graph, whatever pairs its batch holds,
so the loop is one of its own and not that of the training engine, whose batches are examples that stand by themselves.

Two choices of the published evaluation are options with names, since both let the tested pairs help: messages along all
pairs, the tested ones included (`messages="all"`), and the best epoch chosen by the tested pairs (`select="test"`). By
default pairs that are held out carry no messages, and the epoch is chosen by a validation part held out like them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from jaxprot.core.errors import InputError
from jaxprot.massa.embedders import Embedder, check_letters
from jaxprot.massa.interactions import Interactions, carrying, split
from jaxprot.massa.predict import Predictor
from jaxprot.massa.records import Protein, to_records
from jaxprot.massa.tasks.tables import read_texts
from jaxprot.train.optimisers import optimiser
from jaxprot.train.schedules import Plateau
from jaxprot.train.task import OptimConfig, PlateauConfig

KEYS = ("protein_a", "protein_b")
"""Columns of the two proteins; all others are types."""
THRESHOLD = 0.5
"""Probability from which a type is told."""


class Network(NamedTuple):
    """Proteins and their interactions.

    Attributes:
      names: of proteins.
      sequences: letters in upper case.
      pairs: (n, 2) numbers of proteins, each pair in one order only.
      types: (n, t) 1 where a pair interacts in this way, else 0.
      type_names: of the columns.
      asked: (m, 2) pairs without types, which are to be told.
    """

    names: tuple[str, ...]
    sequences: tuple[str, ...]
    pairs: np.ndarray
    types: np.ndarray
    type_names: tuple[str, ...]
    asked: np.ndarray


def read_network(proteins: str | os.PathLike, edges: str | os.PathLike) -> Network:
    """Reads proteins and their interactions.

    A pair whose types are all empty is one that is asked about. Wrong rows are refused, never left out.

    Args:
      proteins: `.csv` file (`.gz` too) with the columns `protein` and `sequence`.
      edges: the same, with `protein_a`, `protein_b`, and a column of 0 and 1 for each type.

    Raises:
      InputError: no such files, columns missing, a protein or a pair twice (in any order), a pair of unknown proteins
        or of one protein, other types than 0 and 1, a letter that stands for no residue; with the line.
    """
    path = Path(proteins)
    frame = _frame(path, ("protein", "sequence"))
    number: dict[str, int] = {}
    for line, name in enumerate(frame.protein, 2):
        if not name or name in number:
            told = f"protein {name!r} occurs a second time" if name else "a protein without a name"
            raise InputError(f"{path}, line {line}: {told}; keep one row for each")
        number[name] = len(number)
    sequences = tuple(check_letters(s, f"{path}, line {line}") for line, s in enumerate(frame.sequence, 2))

    path = Path(edges)
    frame = _frame(path, KEYS)
    types = tuple(name for name in frame if name not in KEYS)
    if not types:
        raise InputError(f"{path}: no column of a type beside {' and '.join(KEYS)}")
    ends = []
    for key in KEYS:
        wrong = [(line, name) for line, name in enumerate(frame[key], 2) if name not in number]
        if wrong:
            raise InputError(
                f"{path}, line {wrong[0][0]}: protein {wrong[0][1]!r} is not in {proteins}; add it, or remove the pair"
            )
        ends.append([number[name] for name in frame[key]])
    pairs = np.array(ends, np.int32).T
    seen: dict[tuple[int, int], int] = {}
    for line, (a, b) in enumerate(np.sort(pairs, 1).tolist(), 2):
        if a == b:
            raise InputError(f"{path}, line {line}: a pair of one protein; remove it")
        if (a, b) in seen:
            raise InputError(f"{path}, line {line}: the pair of line {seen[a, b]} again; join both in one row")
        seen[a, b] = line
    cells = frame[list(types)].to_numpy(str)
    empty = (cells == "").all(1)
    bad = np.argwhere(~np.isin(cells, ("0", "1")) & ~empty[:, None])
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{path}, line {row + 2}: {types[column]} {str(cells[row, column])!r}; a type is 0 or 1 (all are empty "
            "where a pair is asked about), and other columns are to be removed"
        )
    if empty.all():
        raise InputError(f"{path}: no pair has types; nothing can be learned")
    known = (cells[~empty] == "1").astype(np.float32)
    return Network(tuple(number), sequences, pairs[~empty], known, types, pairs[empty])


def _frame(path: Path, needed: Sequence[str]) -> Any:
    frame = read_texts(path, needed)
    if not len(frame):
        raise InputError(f"{path}: no rows")
    return frame


def vectors(
    network: Network,
    predictor: Predictor,
    embedder: Embedder,
    *,
    long: Literal["refuse", "crop"] = "crop",
    advance: Callable[[], None] | None = None,
) -> Float[np.ndarray, "p c"]:
    """Vectors of the proteins by MASSA, from their sequences alone.

    Args:
      network: the proteins.
      predictor: with its weights.
      embedder: what the weights read.
      long: what becomes of sequences with more residues than the network has positions; as published they are cropped.
      advance: called after each protein.
    """
    out = []
    for name, sequence in zip(network.names, network.sequences, strict=True):
        records = to_records([Protein(name, sequence)], embedder, go_dim=predictor.config.go_dim)
        out.append(predictor.embed(records, long=long)[0].vector)
        if advance is not None:
            advance()
    return np.stack(out)


def stored(network: Network, path: str | os.PathLike) -> Float[np.ndarray, "p c"]:
    """Vectors of the proteins from what `jaxprot massa embed` wrote, or an `.npz` file with `names` and `features`.

    Raises:
      InputError: no such file, a protein that it lacks or has twice, or numbers that are not finite.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            names, features = [str(name) for name in file["names"]], np.asarray(file["features"], np.float32)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, OSError, KeyError, AttributeError, EOFError) as error:
        raise InputError(f"{path}: no file of names and features; `jaxprot massa embed` writes such") from error
    if features.ndim != 2 or len(names) != len(features) or len(set(names)) != len(names):
        raise InputError(f"{path}: {len(names)} names and features {features.shape}; expected one row for each name")
    row = {name: i for i, name in enumerate(names)}
    missing = [name for name in network.names if name not in row]
    if missing:
        raise InputError(f"{path}: {len(missing)} proteins are not in it, such as {missing[0]!r}; embed them too")
    found = features[[row[name] for name in network.names]]
    if not np.isfinite(found).all():
        raise InputError(f"{path}: features that are not finite")
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """How the graph network is trained; the defaults are the published values but for `messages` and `select`.

    Attributes:
      split: how the tested pairs are chosen: at random, or by a walk, breadth or depth first.
      share: of the pairs that are tested.
      messages: `train`: the training pairs alone carry messages. `all`: as published every pair does, those that are
        tested too.
      select: which part chooses the best epoch: one of its own, or as published the tested pairs themselves.
      validation: share of the pairs that are not tested, for the choice of the epoch.
      epochs: of training.
      batch: pairs of a step.
      lr: first learning rate; halved when the training loss stands still for 20 epochs.
      weight_decay: added to the gradient.
      width: channels.
      dropout: rate.
      scaled: whether vectors are brought to mean 0 and deviation 1 over the proteins first (published: no).
      seed: of the parts, the weights, the batches and dropout.
    """

    split: Literal["random", "bfs", "dfs"] = "bfs"
    share: float = 0.2
    messages: Literal["train", "all"] = "train"
    select: Literal["valid", "test"] = "valid"
    validation: float = 0.1
    epochs: int = 200
    batch: int = 2048
    lr: float = 1e-3
    weight_decay: float = 5e-4
    width: int = 512
    dropout: float = 0.5
    scaled: bool = True
    seed: int = 0

    def __post_init__(self):
        choices = {"split": ("random", "bfs", "dfs"), "messages": ("train", "all"), "select": ("valid", "test")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("share", "validation"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in ("epochs", "batch", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < np.inf:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


def parts(pairs: np.ndarray, cfg: GraphConfig) -> np.ndarray:
    """(n,) `train`, `valid` or `test` of each pair; the validation part is split off in the same way as the tested one.

    Raises:
      InputError: too few pairs.
    """
    out = np.full(len(pairs), "train", dtype="<U5")
    tested = split(pairs, cfg.split, cfg.share, cfg.seed)
    out[tested] = "test"
    if cfg.select == "valid":
        rest = np.flatnonzero(~tested)
        out[rest[split(pairs[rest], cfg.split, cfg.validation, cfg.seed + 1)]] = "valid"
    return out


class Fitted(NamedTuple):
    """What training gave.

    Attributes:
      part: (n,) of each pair.
      probabilities: (n, t) of each type of each pair, at the best epoch.
      asked: (m, t) of the pairs that were asked about.
      epoch: the best one, counted from 1.
      history: of each epoch `loss`, `micro_f1` of the part that chooses, and `rate`.
    """

    part: np.ndarray
    probabilities: np.ndarray
    asked: np.ndarray
    epoch: int
    history: list[dict[str, float]]


def fit(
    network: Network,
    x: Float[np.ndarray, "p c"],
    cfg: GraphConfig,
    report: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Trains the graph network, and tells the types of all pairs with the weights of the best epoch.

    Binary cross-entropy, Adam, and a learning rate that falls when the training loss no longer does, as published.

    Args:
      network: proteins and pairs.
      x: vectors of the proteins.
      cfg: how.
      report: called after each epoch with its record.

    Raises:
      InputError: too few pairs.
      FloatingPointError: a loss that is not finite.
    """
    part = parts(network.pairs, cfg)
    own = np.flatnonzero(part == "train")
    chosen = np.flatnonzero(part == cfg.select)
    edges = carrying(network.pairs, part != "train", leak=cfg.messages == "all")
    x = np.asarray(x, np.float32)
    if cfg.scaled:
        x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    graph = (jnp.asarray(x), jnp.asarray(edges, jnp.int32), jnp.ones(len(edges)))

    k_init, k_drop = jax.random.split(jax.random.key(cfg.seed))
    net = Interactions(x.shape[1], cfg.width, network.types.shape[1], cfg.dropout, rngs=nnx.Rngs(k_init))
    net.eval()
    still = nnx.graphdef(net)
    net.train()
    graphdef, params, rest = nnx.split(net, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    tx = optimiser(OptimConfig(name="adam", b2=0.999, weight_decay=cfg.weight_decay, clip=None), params)

    def step(state, batch, rate, graph):
        params, rest, opt = state
        pairs, labels, weight, key = batch

        def objective(params):
            net = nnx.merge(graphdef, params, rest)
            wrong = optax.sigmoid_binary_cross_entropy(net(*graph, pairs, key), labels).mean(-1)
            return jnp.sum(wrong * weight) / jnp.sum(weight), nnx.to_pure_dict(nnx.split(net, nnx.Param, ...)[2])

        (loss, rest), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt = tx.update(gradient, opt, params, learning_rate=rate)
        return (optax.apply_updates(params, updates), rest, opt), (loss, jnp.sum(weight))

    @jax.jit
    def epoch(state, batches, rate, graph):
        state, (losses, counts) = jax.lax.scan(lambda state, batch: step(state, batch, rate, graph), state, batches)
        return state, jnp.sum(losses * counts) / jnp.sum(counts)

    @jax.jit
    def tell(params, rest, blocks, graph):
        net = nnx.merge(still, params, rest)
        h = net.proteins(*graph)
        # By blocks, as the products of all pairs of a large network would not fit in memory.
        return jax.lax.map(lambda pairs: jax.nn.sigmoid(net.head(h[pairs[:, 0]] * h[pairs[:, 1]])), blocks)

    def probabilities(params: Any, rest: Any, pairs: np.ndarray) -> np.ndarray:
        found = np.asarray(tell(params, rest, _blocks(pairs, cfg.batch), graph))
        return found.reshape(-1, found.shape[-1])[: len(pairs)]

    size = min(cfg.batch, len(own))
    count = -(-len(own) // size)
    weight = (np.arange(count * size) < len(own)).astype(np.float32).reshape(count, size)
    state: Any = (params, rest, tx.init(params))
    plateau, rule = Plateau(), PlateauConfig(mode="min", factor=0.5, patience=20)
    best, kept, at, history = -1.0, state[:2], 0, []
    for number in range(cfg.epochs):
        order = np.resize(np.random.default_rng([cfg.seed, number]).permutation(own), count * size)
        keys = jax.random.split(jax.random.fold_in(k_drop, number), count)
        batches = (
            jnp.asarray(network.pairs[order].reshape(count, size, 2)),
            jnp.asarray(network.types[order].reshape(count, size, -1)),
            jnp.asarray(weight),
            keys,
        )
        rate = cfg.lr * plateau.scale
        state, loss = epoch(state, batches, jnp.float32(rate), graph)
        loss = float(loss)
        if not np.isfinite(loss):
            raise FloatingPointError(f"epoch {number + 1}: the loss is not finite; a lower learning rate may help")
        plateau = plateau.after(loss, rule, cfg.lr)
        score = micro_f1(probabilities(*state[:2], network.pairs[chosen]), network.types[chosen])
        if score > best:
            best, kept, at = score, state[:2], number + 1
        history.append({"epoch": number + 1, "loss": loss, "micro_f1": score, "rate": rate})
        if report is not None:
            report(history[-1])
    told = probabilities(*kept, np.concatenate([network.pairs, network.asked]))
    return Fitted(part, told[: len(network.pairs)], told[len(network.pairs) :], at, history)


def _blocks(pairs: np.ndarray, size: int) -> Array:
    """(k, size, 2), filled up with the first pair of proteins."""
    count = max(1, -(-len(pairs) // size))
    out = np.zeros((count * size, 2), np.int32)
    out[: len(pairs)] = pairs
    return jnp.asarray(out.reshape(count, size, 2))


def micro_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall over all pairs and types together; 0 where nothing is told or true.

    Args:
      probabilities: (..., t).
      labels: (..., t) 0 or 1.
    """
    found, true = np.asarray(probabilities) > THRESHOLD, np.asarray(labels) > 0
    hits, count = np.sum(found & true), np.sum(found) + np.sum(true)
    return float(2 * hits / count) if count else 0.0


def figures(network: Network, fitted: Fitted) -> dict[str, Any]:
    """Figures of the tested pairs (and of the validation part).

    Returns:
      `test` and `valid`: micro-F1. `types`: F1 of each type over the tested pairs, and the share of pairs of that type.
      `known`: micro-F1 and number of tested pairs of which training has met `both`, `one` or `none` of the proteins.
      `all_positive`: micro-F1 of telling every type of every tested pair.
    """
    tested = fitted.part == "test"
    told, true = fitted.probabilities[tested], network.types[tested]
    out: dict[str, Any] = {"test": micro_f1(told, true), "all_positive": micro_f1(np.ones_like(true), true)}
    if (fitted.part == "valid").any():
        valid = fitted.part == "valid"
        out["valid"] = micro_f1(fitted.probabilities[valid], network.types[valid])
    out["types"] = {
        name: {"f1": micro_f1(told[:, i], true[:, i]), "share": float(true[:, i].mean())}
        for i, name in enumerate(network.type_names)
    }
    met = np.isin(network.pairs[tested], network.pairs[fitted.part == "train"]).sum(1)
    out["known"] = {
        name: {"pairs": int((met == n).sum()), "micro_f1": micro_f1(told[met == n], true[met == n])}
        for name, n in (("both", 2), ("one", 1), ("none", 0))
        if (met == n).any()
    }
    return out
