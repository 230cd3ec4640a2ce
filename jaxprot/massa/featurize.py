"""Sequence embedding, backbone and GO terms of a protein to the padded arrays of MASSA (numpy only).

The graph is that of the published featuriser: nearest neighbours by CA atoms, backbone angles, directions. Its angles
are those of float32, so that those near 180 degrees carry an error of up to 5e-4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxprot.core import buckets
from jaxprot.core.errors import InputError
from jaxprot.massa.config import MASSAConfig

IGNORE = -100
"""Label of what is not to be predicted."""
LETTERS = "ACDEFGHIKLMNPQRSTVWXY"
"""Classes of residue types, see `residue_labels`."""
GO_BUCKETS = (8, 16, 32, 64, 128, 256)
RBF, RBF_MAX, RBF_WIDTH = 16, 20.0, 1.25
POSITIONAL = 16
EDGE_SCALARS = RBF + POSITIONAL
NODE_SCALARS, NODE_VECTORS = 6, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """A protein as it comes in.

    Attributes:
      name: for messages.
      sequence: L letters.
      embedding: (L, seq_dim) one row per residue.
      coords: (L, 4, 3) N, CA, C and O in Å, not finite where missing; None without structure.
      go: (G, go_dim) embeddings of GO terms; None without annotation.
      labels: of `residue_classes` and the rest, see `Labels`; those not given are ignored.
    """

    name: str
    sequence: str
    embedding: np.ndarray
    coords: np.ndarray | None = None
    go: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Labels(NamedTuple):
    """What is to be predicted, -100 where nothing is.

    Attributes:
      pro: residue types (b, n).
      go: GO terms (b, g).
      motif: motifs (b, n), 0 outside of one.
      domain: domains, likewise.
      region: regions, likewise.
      secondary, torsion, burial: local structure (b, n), see `massa.local`; None where the network has no such head.
    """

    pro: np.ndarray
    go: np.ndarray
    motif: np.ndarray
    domain: np.ndarray
    region: np.ndarray
    secondary: np.ndarray | None = None
    torsion: np.ndarray | None = None
    burial: np.ndarray | None = None


class Features(NamedTuple):
    """Padded arrays of one protein, or of several with an axis in front.

    Attributes:
      seq: embeddings of residues (n, seq_dim).
      mask: True for residues, False for padding (n,).
      node_s: cosines and sines of phi, psi, omega (n, 6).
      node_v: directions to the next and last CA and to the side chain (n, 3, 3), components second to last.
      edge_s: radial and positional functions of each edge (n, k, 32).
      edge_v: direction from the residue to the neighbour (n, k, 3, 1).
      index: neighbour of each edge (n, k), 0 where there is none.
      present: whether there is an edge (n, k).
      go: embeddings of GO terms (g, go_dim).
      go_mask: True for terms, False for padding (g,).
      has_structure: whether there is a backbone.
    """

    seq: np.ndarray
    mask: np.ndarray
    node_s: np.ndarray
    node_v: np.ndarray
    edge_s: np.ndarray
    edge_v: np.ndarray
    index: np.ndarray
    present: np.ndarray
    go: np.ndarray
    go_mask: np.ndarray
    has_structure: np.ndarray


class Graph(NamedTuple):
    """Backbone as a graph, not padded; fields as of `Features`."""

    node_s: np.ndarray
    node_v: np.ndarray
    edge_s: np.ndarray
    edge_v: np.ndarray
    index: np.ndarray
    present: np.ndarray


def _unit(v: np.ndarray) -> np.ndarray:
    """Of length 1; zero where that is not defined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(v / _length(v)[..., None], nan=0.0, posinf=0.0, neginf=0.0)


# Near 180 degrees the last bit of a product moves an angle by up to 5e-4, so the three sums below round where the
# published featuriser's do: float32 with fused multiply-add, for which float64 stands in.


def _fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a b + c, rounded once."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _length(v: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(v, -1, 0)
    return np.sqrt(_fused(z, z, _fused(y, y, x * x)))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    pairs = ((1, 2), (2, 0), (0, 1))
    return np.stack([_fused(a[..., i], b[..., j], -(a[..., j] * b[..., i])) for i, j in pairs], -1)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def angles(coords: np.ndarray) -> np.ndarray:
    """Cosines and sines of backbone angles.

    Args:
      coords: (L, 4, 3) Å, NaN where missing.

    Returns:
      (L, 6): cos phi, cos psi, cos omega, sin phi, sin psi, sin omega; an angle that is not defined is 0.
    """
    points = coords[:, :3].reshape(-1, 3)
    u = _unit(points[1:] - points[:-1])
    before, middle, after = u[:-2], u[1:-1], u[2:]
    second, first = _unit(_cross(before, middle)), _unit(_cross(middle, after))
    limit = np.float32(1 - 1e-7)
    angle = np.sign(_dot(before, first)) * np.arccos(np.clip(_dot(second, first), -limit, limit))
    angle = np.concatenate([np.zeros(1), angle, np.zeros(2)])[: 3 * len(coords)].reshape(-1, 3).astype(np.float32)
    return np.concatenate([np.cos(angle), np.sin(angle)], 1)


def directions(coords: np.ndarray) -> np.ndarray:
    """Unit vectors to the next and to the last CA, and to where a side chain stands.

    Args:
      coords: (L, 4, 3) Å, NaN where missing.

    Returns:
      (L, 3, 3), one vector per row; zero where not defined.
    """
    n, ca, c = coords[:, 0], coords[:, 1], coords[:, 2]
    out = np.zeros((len(coords), 3, 3), np.float32)
    step = _unit(ca[1:] - ca[:-1])
    out[:-1, 0], out[1:, 1] = step, -step
    to_c, to_n = _unit(c - ca), _unit(n - ca)
    middle, normal = _unit(to_c + to_n), _unit(_cross(to_c, to_n))
    out[:, 2] = -np.float32(np.sqrt(1 / 3)) * middle - np.float32(np.sqrt(2 / 3)) * normal
    return out


def neighbours(ca: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other residues by CA atoms, nearest first; distances in float64 decide.

    Args:
      ca: (L, 3) Å, NaN where missing: such residues have no neighbours and are none.
      count: largest number.

    Returns:
      (L, count) int32 numbers, 0 where there is none, and (L, count) bool.
    """
    resolved = np.flatnonzero(np.isfinite(ca).all(-1))
    index, present = np.zeros((len(ca), count), np.int32), np.zeros((len(ca), count), bool)
    found = min(count, len(resolved) - 1)
    if found < 1:
        return index, present
    points = ca[resolved].astype(np.float64)
    squared = np.sum((points[:, None] - points[None]) ** 2, -1)
    np.fill_diagonal(squared, np.inf)
    nearest = np.argsort(squared, axis=1, kind="stable")[:, :found]
    index[resolved, :found], present[resolved, :found] = resolved[nearest], True
    return index, present


def graph(coords: np.ndarray, count: int) -> Graph:
    """Nodes and edges of a backbone.

    Args:
      coords: (L, 4, 3) N, CA, C, O in Å; a residue with a coordinate that is not finite counts as missing.
      count: neighbours of each residue.
    """
    coords = np.array(coords, np.float32)
    coords[~np.isfinite(coords).all((1, 2))] = np.nan
    index, present = neighbours(coords[:, 1], count)
    ca = coords[:, 1]
    between = np.where(present[..., None], ca[index] - ca[:, None], np.float32(0))
    distance = _length(between)[..., None]
    centres = np.linspace(0, RBF_MAX, RBF, dtype=np.float32)
    radial = np.exp(-(((distance - centres) / np.float32(RBF_WIDTH)) ** 2))
    rates = np.exp(np.arange(0, POSITIONAL, 2, dtype=np.float32) * np.float32(-np.log(1e4) / POSITIONAL))
    turn = (index - np.arange(len(ca), dtype=np.int32)[:, None])[..., None].astype(np.float32) * rates
    scalars = np.concatenate([radial, np.cos(turn), np.sin(turn)], -1)
    return Graph(
        angles(coords),
        directions(coords).swapaxes(1, 2),
        np.where(present[..., None], scalars, 0).astype(np.float32),
        _unit(between)[..., None],
        index,
        present,
    )


def residue_labels(sequence: str, classes: int) -> np.ndarray:
    """Class of each residue type, alphabetical; -100 for letters without one (B, J, O, U, Z; X with 20 classes).

    With 21 classes X is the 20th letter, as published; with 20 it is none and Y takes its place.
    """
    alphabet = LETTERS if classes > 20 else LETTERS.replace("X", "")
    return np.array([alphabet.find(letter) if letter in alphabet else IGNORE for letter in sequence.upper()], np.int32)


def _check(record: Record, cfg: MASSAConfig) -> None:
    """Refuses a record whose parts do not fit each other or the network."""
    n, wrong = len(record.sequence), []
    if n == 0:
        raise InputError(f"{record.name}: an empty sequence; leave the record out")
    if np.shape(record.embedding) != (n, cfg.seq_dim):
        wrong.append(f"the embedding is {np.shape(record.embedding)}, expected ({n}, {cfg.seq_dim})")
    elif not np.isfinite(record.embedding).all():
        wrong.append("the embedding holds values that are not finite")
    if record.coords is not None and np.shape(record.coords) != (n, 4, 3):
        wrong.append(f"the backbone is {np.shape(record.coords)}, expected ({n}, 4, 3)")
    terms = 0 if record.go is None else len(record.go)
    if terms and np.shape(record.go) != (terms, cfg.go_dim):
        wrong.append(f"the GO terms are {np.shape(record.go)}, expected ({terms}, {cfg.go_dim})")
    elif terms and not np.isfinite(record.go).all():  # type: ignore[arg-type]
        wrong.append("the GO terms hold values that are not finite")
    for name, labels in record.labels.items():
        if name not in Labels._fields:
            raise InputError(f"{record.name}: labels {name!r}; known: {', '.join(Labels._fields)}")
        expected = terms if name == "go" else n
        values = np.asarray(labels)
        if values.shape != (expected,):
            wrong.append(f"the labels {name} are {values.shape}, expected ({expected},)")
        elif name not in cfg.classes:
            wrong.append(f"the labels {name} have no head in this network")
        elif (outside := (values != IGNORE) & ((values < 0) | (values >= cfg.classes[name]))).any():
            wrong.append(f"the labels {name} hold {values[outside][0]}, expected 0 to {cfg.classes[name] - 1} or -100")
    if wrong:
        raise InputError(f"{record.name}: {'; '.join(wrong)}; correct the record or leave it out as a whole")


def check(record: Record, cfg: MASSAConfig, long: Literal["refuse", "crop", "window"] = "refuse") -> None:
    """Refuses a record whose parts do not fit each other or the network, as `featurize` does.

    Raises:
      InputError: every misfit is listed; too long a sequence, if such are refused.
    """
    _check(record, cfg)
    if len(record.sequence) > cfg.max_length and long == "refuse":
        raise InputError(
            f"{record.name}: {len(record.sequence)} residues, the network has positions for {cfg.max_length}; cut the "
            "sequence into domains, or read its first residues or all in windows (--long crop or window)"
        )


def crop(record: Record, length: int, start: int = 0) -> Record:
    """`length` residues from `start` on, with their embedding, backbone and labels."""
    if not start and len(record.sequence) <= length:
        return record
    part = slice(start, start + length)
    return dataclasses.replace(
        record,
        sequence=record.sequence[part],
        embedding=record.embedding[part],
        coords=None if record.coords is None else record.coords[part],
        labels={name: values if name == "go" else values[part] for name, values in record.labels.items()},
    )


def featurize(
    record: Record,
    cfg: MASSAConfig,
    *,
    length: int | None = None,
    terms: int | None = None,
    long: Literal["refuse", "crop"] = "refuse",
) -> tuple[Features, Labels]:
    """Arrays of one protein.

    Args:
      record: the protein.
      cfg: sizes of the network.
      length: padded residues; a bucket by default.
      terms: padded GO terms; a bucket by default.
      long: what becomes of a sequence beyond `cfg.max_length`: an error, or its first residues, as published.

    Raises:
      InputError: parts that do not fit each other or the network (every misfit is listed), or too long a sequence.
    """
    check(record, cfg, long)
    if len(record.sequence) > cfg.max_length:
        record = crop(record, cfg.max_length)
    n, g = len(record.sequence), 0 if record.go is None else len(record.go)
    length = buckets.bucket_length(n) if length is None else length
    terms = buckets.bucket_length(g, GO_BUCKETS) if terms is None else terms
    k = cfg.neighbours
    if record.coords is None:
        made = Graph(
            np.zeros((n, NODE_SCALARS), np.float32),
            np.zeros((n, 3, NODE_VECTORS), np.float32),
            np.zeros((n, k, EDGE_SCALARS), np.float32),
            np.zeros((n, k, 3, 1), np.float32),
            np.zeros((n, k), np.int32),
            np.zeros((n, k), bool),
        )
    else:
        made = graph(record.coords, k)
    go = np.zeros((0, cfg.go_dim), np.float32) if g == 0 else np.asarray(record.go, np.float32)
    features = Features(
        buckets.pad_to(np.asarray(record.embedding, np.float32), length),
        buckets.pad_to(np.ones(n, bool), length),
        *(buckets.pad_to(array, length) for array in made),
        buckets.pad_to(go, terms),
        buckets.pad_to(np.ones(g, bool), terms),
        np.asarray(record.coords is not None),
    )
    labels = {}
    for name in cfg.classes:
        size, whole = (g, terms) if name == "go" else (n, length)
        values = np.asarray(record.labels.get(name, np.full(size, IGNORE)), np.int32)
        labels[name] = buckets.pad_to(values, whole, IGNORE)
    if "pro" not in record.labels:
        labels["pro"] = buckets.pad_to(residue_labels(record.sequence, cfg.residue_classes), length, IGNORE)
    return features, Labels(**labels)


def batch(
    records: Sequence[Record],
    cfg: MASSAConfig,
    *,
    length: int | None = None,
    terms: int | None = None,
    long: Literal["refuse", "crop"] = "refuse",
) -> tuple[Features, Labels]:
    """Arrays of several proteins, padded to the bucket of the largest; arguments and errors as of `featurize`."""
    if not records:
        raise InputError("no proteins to make a batch of")
    if length is None:
        length = buckets.bucket_length(min(max(len(record.sequence) for record in records), cfg.max_length))
    if terms is None:
        terms = buckets.bucket_length(max(0 if r.go is None else len(r.go) for r in records), GO_BUCKETS)
    made = [featurize(record, cfg, length=length, terms=terms, long=long) for record in records]
    features, labels = zip(*made, strict=True)
    stacked = [None if field[0] is None else np.stack(field) for field in zip(*labels, strict=True)]
    return Features(*map(np.stack, zip(*features, strict=True))), Labels(*stacked)
