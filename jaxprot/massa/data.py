"""Pre-training of MASSA on the training engine: hidden residues and GO terms, motifs, domains and regions."""

from __future__ import annotations

import dataclasses
import functools
import logging
import zlib
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import InputError
from jaxprot.io.archives import read_chains
from jaxprot.io.obo import Ontology, read_obo
from jaxprot.massa import featurize
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import PhysicoChemical, check_letters
from jaxprot.massa.featurize import IGNORE, Features, Labels
from jaxprot.massa.local import CLASSES, local_labels
from jaxprot.massa.losses import objectives
from jaxprot.massa.masking import mask_batch
from jaxprot.massa.model import Pretraining
from jaxprot.massa.records import (
    FASTA,
    STRUCTURES,
    UNIPROT,
    Protein,
    Vocabulary,
    kept,
    of_structure,
    read_proteins,
    suffix,
    to_records,
)
from jaxprot.massa.tasks.tables import read_texts, row_names
from jaxprot.train.data import Batch, BucketBatches
from jaxprot.train.task import Mean

_log = logging.getLogger(__name__)
LENGTHS = (128, 256, 512, 1024)
"""Padded lengths in pre-training: fewer than elsewhere, as each is two programs that take a minute to compile."""


_SEQUENCE, _STRUCTURE, _TOLD = range(3)  # what is read of a protein; of the last, its structure is to be told
_KINDS = 3


class View(NamedTuple):
    """A protein as a batch reads it.

    Attributes:
      row: number of the protein.
      length: padded residues.
      kind: what is read of it.
    """

    row: int
    length: int
    kind: int


class Hidden(NamedTuple):
    """Whole proteins; what is hidden is drawn on the device.

    Attributes:
      features: of each protein.
      labels: of all residues and terms.
    """

    features: Features
    labels: Labels


def read_all(
    paths: tuple[str, ...],
    structures: str | None = None,
    failed: dict[str, str] | None = None,
    training: bool = False,
) -> list[Protein]:
    """Proteins of files and folders.

    Args:
      paths: FASTA files, structures, UniProt flat files, archives of chains (`.npz`), tables with a column `sequence`
        (`.csv`), or folders of such.
      structures: folder of a structure for each UniProt entry, whose name holds the accession between `-` as in
        `AF-P00698-F1-model_v4.pdb`, or is the accession.
      failed: takes the reason of each file or record that cannot be used, which is then left out as a whole; without it
        the first such is an error.
      training: of tables with a column `split`, whether only the training rows are read.

    Raises:
      InputError: nothing there, or a file that cannot be read.
    """
    kinds = (*FASTA, *STRUCTURES, *UNIPROT, ".npz", ".csv")
    files: list[Path] = []
    for name in paths:
        path = Path(name)
        files += sorted(f for f in path.iterdir() if suffix(f) in kinds) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{', '.join(paths) or 'data'}: no file of sequences or structures")
    models = {} if structures is None else _models(Path(structures))
    absent = [path for path in files if not path.is_file()]
    if absent:
        raise InputError(f"{absent[0]}: no such file")
    out: list[Protein] = []
    for path in files:
        try:
            out += _read(path, models, failed, training)
        except InputError as error:
            if failed is None:
                raise
            failed[str(path)] = str(error)
    return out


def _read(path: Path, models: dict[str, Path], failed: dict[str, str] | None, training: bool) -> list[Protein]:
    if suffix(path) == ".npz":
        return [protein for chain in read_chains(path) for protein in of_structure(chain.structure)]
    if suffix(path) == ".csv":
        return _of_table(path, failed, training)
    return read_proteins(path, models, failed)


def _names(path: Path) -> set[str]:
    """Names of a text file, a line each."""
    try:
        return {line.strip() for line in path.read_text().splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no text file of names: {error}") from error


def _models(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = {}
    for path in sorted(folder.iterdir()):
        if suffix(path) in STRUCTURES:
            parts = path.name.split(".")[0].split("-")
            found[parts[1] if len(parts) > 1 else parts[0]] = path
    return found


def _of_table(path: Path, failed: dict[str, str] | None, training: bool) -> list[Protein]:
    """Sequences of a table."""
    frame = read_texts(path, ("sequence",))
    names = row_names(path, frame, np.arange(len(frame)) + 2)
    rows = zip(names, frame.sequence, range(2, len(frame) + 2), strict=True)
    chosen = np.ones(len(frame), bool)
    if training and "split" in frame:
        chosen = frame.split.str.lower().isin(("train", "training")).to_numpy()

    def make(name: str, sequence: str, line: int) -> Protein:
        return Protein(name, check_letters(sequence, f"{path}, line {line}"))

    made = (
        (f"{path}, line {row[2]}", functools.partial(make, *row))
        for row, take in zip(rows, chosen, strict=True)
        if take
    )
    return kept(made, failed)


@dataclasses.dataclass(frozen=True)
class PretrainingTask:
    """Proteins without labels of their own, from whatever tells of them.

    Attributes:
      data: files and folders, see `read_all`.
      structures: folder of structures of UniProt entries.
      obo: ontology of their GO terms; None leaves the terms out.
      local: how often in an epoch a protein with structure is also read as a sequence, of which the heads of local
        structure (see `massa.local`) tell what its structure is; 0 for never.
      apart: text file with names of proteins that are left out, a line each.
      model: sizes of the network; the numbers of classes are those of the data.
      items: padded residues of a batch.
      longest: residues; of longer sequences only so many first ones are read.
      most: proteins of a batch at most.
      held: share of the proteins that selects the best weights, by a hash of the sequence.
      evaluated: of those at most.
      monitor: minus the sum of the losses (cross-entropies) on what is held back.
    """

    data: tuple[str, ...]
    structures: str | None = None
    obo: str | None = None
    local: int = 0
    apart: str | None = None
    model: MASSAConfig = MASSAConfig()
    items: int = 4096
    longest: int = 512
    most: int = 64
    held: float = 0.05
    evaluated: int = 256
    monitor: str = "neg_loss"

    def __post_init__(self):
        if not 0 < self.held < 1:
            raise ValueError(f"held must be between 0 and 1, got {self.held}")
        if self.model.seq_dim != PhysicoChemical.dim:
            raise ValueError(
                f"seq_dim {self.model.seq_dim}: the embedder of this task has {PhysicoChemical.dim} channels"
            )

    def files(self) -> tuple[str, ...]:
        """Data files."""
        return tuple(name for name in (*self.data, self.obo, self.apart) if name is not None and Path(name).is_file())

    @functools.cached_property
    def proteins(self) -> list[Protein]:
        """All of them, each sequence once; the one that tells most stands for it."""
        best: dict[str, Protein] = {}
        failed: dict[str, str] = {}
        read = read_all(self.data, self.structures, failed, training=True)
        if failed:
            told = "; ".join(list(failed.values())[:3])
            _log.warning("%d files or records are left out: %s%s", len(failed), told, "; ..." * (len(failed) > 3))
        left_out = set() if self.apart is None else _names(Path(self.apart))
        if absent := left_out - {protein.name for protein in read}:
            raise InputError(
                f"{self.apart}: {len(absent)} names are of no protein of the data ({min(absent)}, ...); give the list "
                "that was made of these data"
            )
        for protein in read:
            if protein.name in left_out:
                continue
            sequence = protein.sequence[: self.longest]
            known = best.get(sequence)
            tells = (protein.coords is not None) + (protein.entry is not None)
            if known is None or tells > (known.coords is not None) + (known.entry is not None):
                best[sequence] = protein
        return list(best.values())

    @functools.cached_property
    def ontology(self) -> Ontology | None:
        """Of GO terms."""
        return None if self.obo is None else read_obo(self.obo)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Classes of the heads."""
        return Vocabulary.of(self.proteins, self.ontology)

    @functools.cached_property
    def sizes(self) -> MASSAConfig:
        """Of the network, with the classes of the data (at least one of each)."""
        local = {f"{name}_classes": n if self.local else 0 for name, n in CLASSES.items()}
        return dataclasses.replace(
            self.model, **{name: max(1, n) for name, n in self.vocabulary.classes.items()}, **local
        )

    def header(self) -> dict[str, Any]:
        """Of exported weights: sizes, what the classes are, and which inputs no protein had."""
        learned = {"structure": any(p.coords is not None for p in self.proteins), "go": bool(self.vocabulary.go)}
        return {
            "config": dataclasses.asdict(self.sizes),
            "vocabulary": dataclasses.asdict(self.vocabulary),
            "untrained": [name for name, is_learned in learned.items() if not is_learned],
        }

    @functools.cached_property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        marks = np.array([zlib.crc32(p.sequence[: self.longest].encode()) % 10_000 for p in self.proteins])
        held = marks < self.held * 10_000
        if held.all() or not held.any():
            raise InputError(f"{len(held)} proteins: too few to hold back a share of {self.held}")
        return np.flatnonzero(~held), np.flatnonzero(held)

    def _views(self, row: int) -> list[View]:
        """How a protein is read: as it is, and with a structure also as a sequence with labels."""
        protein = self.proteins[row]
        length = bucket_length(min(len(protein.sequence), self.longest), LENGTHS)
        as_it_is = View(row, length, _SEQUENCE if protein.coords is None else _STRUCTURE)
        return [as_it_is] + ([] if protein.coords is None else [View(row, length, _TOLD)] * self.local)

    @functools.cached_property
    def _seen(self) -> list[View]:
        """What an epoch reads of the training part."""
        return [view for row in self._split[0] for view in self._views(row)]

    @functools.cached_property
    def _batches(self) -> BucketBatches:
        # Each way of reading has batches of its own: graphs cost time, and labels should be many or none.
        shapes = [_KINDS * view.length + view.kind for view in self._seen]
        return BucketBatches(shapes, self.items, bucket=int, cost=lambda shape: shape // _KINDS, most=self.most)

    def build(self, key: PRNGKeyArray) -> Pretraining:
        """The network with its heads."""
        return Pretraining(self.sizes, rngs=nnx.Rngs(key))

    def batches(self, step: int, seed: int) -> Batch:
        """Proteins of like length, with structures or without."""
        return self._batches(step, seed)

    def load(self, shape: Hashable, members: np.ndarray) -> Hidden:
        """Features and labels of proteins of the training part."""
        return self._loaded([self._seen[member] for member in members])

    @functools.cached_property
    def _local(self) -> dict[int, dict[str, np.ndarray]]:
        """Labels of local structure that were computed before."""
        return {}

    def _labels(self, row: int) -> dict[str, np.ndarray]:
        protein = self.proteins[row]
        if row not in self._local and protein.coords is not None:
            self._local[row] = local_labels(protein.sequence, protein.coords)
        return self._local[row]

    def _loaded(self, views: Sequence[View]) -> Hidden:
        """Arrays of proteins that are read alike."""
        (length,), (kind,) = {view.length for view in views}, {view.kind for view in views}
        proteins = [self.proteins[view.row] for view in views]
        if kind == _TOLD:
            proteins = [dataclasses.replace(protein, coords=None) for protein in proteins]
        records = to_records(
            proteins, PhysicoChemical(), ontology=self.ontology, vocabulary=self.vocabulary, go_dim=self.sizes.go_dim
        )
        if kind == _TOLD:
            records = [
                dataclasses.replace(record, labels={**record.labels, **self._labels(view.row)})
                for record, view in zip(records, views, strict=True)
            ]
        records = [featurize.crop(record, self.longest) for record in records]
        terms = None if self.ontology is not None else 1
        features, labels = featurize.batch(records, self.sizes, length=length, terms=terms)
        if kind != _STRUCTURE:
            names = ("edge_s", "edge_v", "index", "present")
            features = features._replace(**{name: getattr(features, name)[:, :, :0] for name in names})
        return Hidden(features, labels)

    def batch_loss(
        self, model: Pretraining, batch: Hidden, keys: PRNGKeyArray, weight: Float[Array, "b"], axis: str | None
    ) -> dict[str, Mean]:
        """The objectives; `weight` is 0 for proteins that only fill the batch."""
        features, labels = mask_batch(batch.features, batch.labels, keys)
        labels = jax.tree.map(lambda values: jax.numpy.where(weight[:, None] > 0, values, IGNORE), labels)
        key = jax.random.fold_in(keys[0], 1)
        return {name: Mean(*part) for name, part in objectives(model(features, key), labels, axis=axis).items()}

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Cross-entropies on what is held back, and the share of hidden residues that is told; always the same ones."""

        @jax.jit
        def sums(variables: Any, batch: Hidden, keys: Any) -> Any:
            features, labels = mask_batch(batch.features, batch.labels, keys)
            logits = nnx.merge(graphdef, variables)(features)
            counted = labels.pro != IGNORE
            right = (logits["pro"].argmax(-1) == labels.pro) & counted
            return objectives(logits, labels, training=False), right.sum(), counted.sum()

        rows = self._split[1]
        rows = rows[np.linspace(0, len(rows) - 1, min(self.evaluated, len(rows))).astype(int)]

        def evaluate(variables: Any) -> dict[str, float]:
            totals: dict[str, np.ndarray] = {}
            right = counted = 0.0
            for row in rows:
                keys = jax.random.split(jax.random.key(int(row)), 1)
                for view in dict.fromkeys(self._views(row)):
                    parts, a, b = sums(variables, self._loaded([view]), keys)
                    right, counted = right + float(a), counted + float(b)
                    for name, part in parts.items():
                        totals[name] = totals.get(name, np.zeros(2)) + np.asarray(part, np.float64)
            losses = {name: float(total / max(count, 1)) for name, (total, count) in totals.items()}
            return {
                **{f"loss_{name}": value for name, value in losses.items()},
                "accuracy_pro": right / max(counted, 1), "neg_loss": -sum(losses.values()),
            }  # fmt: skip

        return evaluate
