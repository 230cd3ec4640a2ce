"""Downstream tasks of pairs: a protein and a small molecule, or two proteins.

Heads and losses are the published ones: classes of a protein and a molecule by cross-entropy (kinases and their
inhibitors), numbers of such by squared error (PDBbind), numbers of two proteins, scaled to 0..1, by squared error
(SKEMPI). Sequences are all that the tables have, so structure and GO terms are missing. Measurements of kinases: M. I.
Davis et al., Nat. Biotechnol. 2011, doi 10.1038/nbt.1990, in the folds of H. Öztürk et al., Bioinformatics 2018, doi
10.1093/bioinformatics/bty593.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core import metrics
from jaxprot.core.buckets import bucket_length, pad_to
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.massa import losses, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.data import LENGTHS
from jaxprot.massa.embedders import PhysicoChemical, check_letters
from jaxprot.massa.heads import Affinity, Complex, Kinase
from jaxprot.massa.ligand import Ligand, from_smiles
from jaxprot.massa.model import MASSA
from jaxprot.massa.tasks.finetune import FinetuneTask, bare
from jaxprot.massa.tasks.tables import _labels, _number, _splits, read_texts
from jaxprot.nn.gvp import split_key
from jaxprot.train.data import BucketBatches
from jaxprot.train.task import Mean
from jaxprot.weights import inspect, module

PairKind = Literal["classes", "regression"]
Partner = Literal["smiles", "sequence2"]
BENCHMARKS: dict[str, PairKind] = {"kinase": "classes", "davis": "regression"}
"""Benchmarks: whether a kinase binds an inhibitor, and how strongly (pKd), both of the tables of Davis et al."""
ACTIVE = 7.0
"""pKd from which a pair counts as active."""
NETWORK = "massa-pairs"
"""What exported weights call the network."""
_DAVIS = ("davis_affinity.csv.gz", "davis_ligands.csv.gz", "davis_proteins.csv.gz")
_FOLDS = 5
_CLASSES = 20  # whole numbers below are classes, unless the caller says otherwise
_SIZES = (32, 64, 128, 256)  # padded atoms and bonds of molecules
_STRIDE = 1 << 16  # a batch's shape in one number: residues, and below this the molecule's size


class PairTable(NamedTuple):
    """A task's pairs.

    Attributes:
      name: of the task.
      kind: of the labels.
      partner: the column of the partners.
      classes: number of them; 0 for regression.
      sequences: letters of the (first) protein in upper case.
      partners: SMILES strings, or letters of the second protein.
      labels: (n,) float64 or int.
      split: (n,) `train`, `valid` or `test`.
      class_names: texts of the classes, if the table has texts.
      ligands: features of each molecule by its SMILES string.
    """

    name: str
    kind: PairKind
    partner: Partner
    classes: int
    sequences: list[str]
    partners: list[str]
    labels: np.ndarray
    split: np.ndarray
    class_names: tuple[str, ...] = ()
    ligands: dict[str, Ligand] = {}  # noqa: RUF012 (never changed)

    @property
    def monitor(self) -> str:
        """The figure that tells most: of numbers and of two classes one that rests on their order."""
        if self.kind == "regression":
            return "pearson"
        return "roc_auc" if self.classes == 2 else "accuracy"

    def part(self, name: str) -> np.ndarray:
        """Rows of a split."""
        return np.flatnonzero(self.split == name)


def is_pairs(source: str | os.PathLike) -> bool:
    """Whether a task's name, or the columns of a table, are those of pairs; False where nothing can be read."""
    import pandas as pd

    if os.fspath(source) in BENCHMARKS:
        return True
    try:
        names = {str(name).strip() for name in pd.read_csv(source, dtype=str, nrows=0)}
    except (ValueError, OSError, EOFError, zlib.error):
        return False
    return bool(names & {"smiles", "sequence2"})


def read_pairs(
    source: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    kind: PairKind | None = None,
    fold: int = 0,
) -> PairTable:
    """Reads a benchmark or a table of pairs.

    A table has the columns `sequence`, `label`, and `smiles` or `sequence2`. Rows without a label are left out. Without
    a column `split`, a tenth of the rows is for validation and a tenth for testing, drawn by a hash of both partners:
    one pair is always in one part, its protein may be in several. What is wrong with a row is an error that names its
    line, so rows never shift against each other.

    Args:
      source: `kinase`, `davis`, or a `.csv` file (`.gz` too).
      folder: of the benchmarks' tables; the environment variable `JAXPROT_TASKS` by default.
      kind: of the labels; by default texts, and whole numbers below 20 of a protein and a molecule, are classes, and
        all else is regression.
      fold: of the benchmarks' five, the one for validation.

    Raises:
      InputError: no such file, columns missing, letters that stand for no residue, strings that are no molecules, RDKit
        missing, labels that cannot be read, no training rows, or one label only.
    """
    if os.fspath(source) in BENCHMARKS:
        base = folder or os.environ.get("JAXPROT_TASKS")
        if base is None:
            raise InputError(f"task {source}: name the folder with {_DAVIS[0]} by JAXPROT_TASKS")
        return read_davis(base, "active" if BENCHMARKS[os.fspath(source)] == "classes" else "pkd", fold)
    path = Path(source)
    frame, lines = _frame(path, ("sequence", "label"))
    found: list[Partner] = [name for name in ("smiles", "sequence2") if name in frame]  # type: ignore[misc]
    if len(found) != 1:
        told = "both smiles and sequence2; remove one of them" if found else "no column smiles or sequence2"
        raise InputError(f"{path}: {told}")
    partner = found[0]
    kept = ~frame.label.str.lower().isin(("", "nan")).to_numpy()
    frame, lines = frame[kept], lines[kept]
    if not len(frame):
        raise InputError(f"{path}: no row has a label")
    sequences = _checked(frame.sequence, lines, lambda text, at: check_letters(text, at), path)
    ligands: dict[str, Ligand] = {}
    if partner == "smiles":
        partners = list(frame.smiles)
        ligands = _molecules(path, partners, lines)
    else:
        partners = _checked(frame.sequence2, lines, lambda text, at: check_letters(text, f"{at}, sequence2"), path)
    both = ["\n".join(sorted(pair)) for pair in zip(sequences, partners, strict=True)]
    split = _splits(path, frame["split"].to_numpy(str) if "split" in frame else None, both, lines)
    texts = list(frame.label)
    if kind is None:
        whole = all(text.isdigit() and int(text) < _CLASSES for text in texts) and partner == "smiles"
        kind = "regression" if all(map(_number, texts)) and not whole else "classes"
    if kind == "classes" and partner == "sequence2":
        bad = next((line for line, text in zip(lines, texts, strict=True) if not _number(text)), lines[0])
        raise InputError(
            f"{path}, line {bad}: classes of two proteins; their labels are to be numbers (types of interactions are "
            "for `jaxprot massa interactions`)"
        )
    labels, classes, names = _labels(path, kind, texts, sequences, lines, 0)
    name = path.name.partition(".")[0]
    return _usable(
        path, PairTable(name, kind, partner, classes, sequences, partners, labels, split, names, ligands)
    )  # fmt: skip


def read_davis(folder: str | os.PathLike, label: Literal["active", "pkd"] = "active", fold: int = 0) -> PairTable:
    """Kinases and inhibitors of Davis et al., from three tables that are joined by their identifiers.

    Args:
      folder: with `davis_affinity.csv.gz` (ligand_id, protein_id, pkd, split), `davis_ligands.csv.gz` (ligand_id,
        smiles) and `davis_proteins.csv.gz` (protein_id, sequence).
      label: `active`, whether pKd is at least 7, or `pkd` itself.
      fold: the one of the five training folds that is for validation.

    Raises:
      InputError: as of `read_pairs`; an identifier that is in no table, or twice in one.
      ValueError: no such fold.
    """
    if not 0 <= fold < _FOLDS:
        raise ValueError(f"fold {fold}: give one from 0 to {_FOLDS - 1}")
    paths = [Path(folder) / name for name in _DAVIS]
    pairs, lines = _frame(paths[0], ("ligand_id", "protein_id", "pkd", "split"))
    molecules, molecule_lines = _frame(paths[1], ("ligand_id", "smiles"))
    proteins, protein_lines = _frame(paths[2], ("protein_id", "sequence"))
    letters = _checked(proteins.sequence, protein_lines, lambda text, at: check_letters(text, at), paths[2])
    ligands = _molecules(paths[1], list(molecules.smiles), molecule_lines)
    of_protein = _unique(paths[2], list(proteins.protein_id), letters, protein_lines)
    of_ligand = _unique(paths[1], list(molecules.ligand_id), list(molecules.smiles), molecule_lines)
    sequences = _joined(paths[0], "protein", list(pairs.protein_id), of_protein, lines, paths[2])
    partners = _joined(paths[0], "ligand", list(pairs.ligand_id), of_ligand, lines, paths[1])
    values, _, _ = _labels(paths[0], "regression", list(pairs.pkd), sequences, lines, 0)
    known = {"test": "test", **{f"train_fold{i}": "valid" if i == fold else "train" for i in range(_FOLDS)}}
    wrong = [i for i, part in enumerate(pairs.split) if part not in known]
    if wrong:
        raise InputError(f"{paths[0]}, line {lines[wrong[0]]}: part {pairs.split.iloc[wrong[0]]!r}; known: {[*known]}")
    split = np.array([known[part] for part in pairs.split])
    if label == "pkd":
        table = PairTable("davis", "regression", "smiles", 0, sequences, partners, values, split)
    else:
        names = ("inactive", "active")
        labels = (values >= ACTIVE).astype(np.int64)
        table = PairTable("kinase", "classes", "smiles", 2, sequences, partners, labels, split, names)
    return _usable(paths[0], table._replace(ligands=ligands))


def read_columns(path: str | os.PathLike, names: Sequence[str]) -> dict[str, list[str]]:
    """Texts of columns of a table, such as pairs that are asked about.

    Raises:
      InputError: no such file, no such columns, or no rows.
    """
    frame, _ = _frame(Path(path), names)
    return {name: list(frame[name]) for name in names}


def _frame(path: Path, needed: Sequence[str]) -> tuple[Any, np.ndarray]:
    """A table of texts, and the line of each row."""
    frame = read_texts(path, needed, f"; tasks of pairs by name are {', '.join(BENCHMARKS)}")
    if not len(frame):
        raise InputError(f"{path}: no rows")
    return frame, np.arange(len(frame)) + 2


def _checked(texts: Any, lines: np.ndarray, check: Callable[[str, str], str], path: Path) -> list[str]:
    """Each different text is looked at once: tables of pairs repeat them many times."""
    known: dict[str, str] = {}
    for text, line in zip(texts, lines, strict=True):
        if text not in known:
            known[text] = check(text, f"{path}, line {line}")
    return [known[text] for text in texts]


def _molecules(path: Path, texts: Sequence[str], lines: np.ndarray) -> dict[str, Ligand]:
    """Features of each different molecule, without the axis of molecules."""
    out: dict[str, Ligand] = {}
    for text, line in zip(texts, lines, strict=True):
        if text not in out:
            out[text] = _molecule(text, f"{path}, line {line}")
    return out


def _molecule(text: str, at: str) -> Ligand:
    try:
        return Ligand(*(x[0] for x in from_smiles([text])))
    except InputError as error:
        if isinstance(error.__cause__, ImportError):
            raise InputError('small molecules need RDKit: pip install "jaxprot[ligands]"') from error
        raise InputError(f"{at}: {str(error).removeprefix('molecule 0: ')}") from error


def _unique(path: Path, names: list[str], values: list[str], lines: np.ndarray) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value, line in zip(names, values, lines, strict=True):
        if name in out:
            raise InputError(f"{path}, line {line}: {name!r} occurs a second time; keep one row of it")
        out[name] = value
    return out


def _joined(path: Path, what: str, names: list[str], of: dict[str, str], lines: np.ndarray, there: Path) -> list[str]:
    for name, line in zip(names, lines, strict=True):
        if name not in of:
            raise InputError(f"{path}, line {line}: {what} {name!r} is not in {there.name}; add it, or remove the row")
    return [of[name] for name in names]


def _usable(path: Path, table: PairTable) -> PairTable:
    train = table.part("train")
    if not len(train):
        raise InputError(f"{path}: no row of the part 'train'")
    if len(np.unique(table.labels[train])) < 2:
        raise InputError(f"{path}: all training labels are the same; nothing can be learned")
    return table


class Chain(NamedTuple):
    """Padded sequences: (b, n, e) rows of the embedder, and (b, n) which residues exist."""

    seq: Any
    mask: Any


class Paired(NamedTuple):
    """Padded pairs and their labels.

    Attributes:
      chain: proteins.
      partner: molecules, or second proteins padded as far as the first.
      label: (b,) classes, or numbers as the head gives them.
    """

    chain: Chain
    partner: Chain | Ligand
    label: Any


class PairNetwork(nnx.Module):
    """MASSA and the head of a kind of pairs.

    Args:
      cfg: sizes of the backbone.
      partner: what the partners are.
      classes: outputs of the head; 0 for a number.
      rngs: for the weights.
    """

    def __init__(self, cfg: MASSAConfig, partner: Partner, classes: int, *, rngs: Any):
        self.cfg, self.classes = cfg, classes
        self.backbone = MASSA(cfg, rngs=rngs)
        self.head: Complex | Kinase | Affinity
        if partner == "sequence2":
            self.head = Complex(cfg, rngs=rngs)
        else:
            self.head = Kinase(cfg, classes, rngs=rngs) if classes else Affinity(cfg, rngs=rngs)

    def __call__(self, chain: Chain, partner: Chain | Ligand, key: PRNGKeyArray | None = None) -> Array:
        """(b, classes) logits, or (b,) numbers; a key switches dropout on."""
        keys = split_key(key, 2)
        if isinstance(partner, Chain):
            # Both go through the backbone at once, so that it is compiled and run once.
            seq, mask = (jnp.concatenate(both) for both in zip(chain, partner, strict=True))
            x, other = jnp.split(self.backbone(bare(seq, mask, self.cfg), keys[0]).protein, 2)
            return self.head(x, chain.mask, other, partner.mask, keys[1])
        x = self.backbone(bare(chain.seq, chain.mask, self.cfg), keys[0]).protein
        if self.classes:
            return self.head(x, chain.mask, partner, key=keys[1])
        # With the key that the backbone gives its sequence encoder, this is what it computed (the compiler joins them).
        before = self.backbone.sequence(chain.seq, chain.mask, split_key(keys[0], 5)[0])
        return self.head(x, chain.mask, before, partner, keys[1])


def _size(ligand: Ligand) -> int:
    return bucket_length(max(len(ligand.atoms), len(ligand.bonds)), _SIZES)


def _code(sequence: str, partner: str, ligands: dict[str, Ligand], longest: int) -> int:
    """Shape of a pair, padded, in one number."""
    n = min(len(sequence), longest)
    if ligands:
        return bucket_length(n, LENGTHS) * _STRIDE + _size(ligands[partner])
    return bucket_length(max(n, min(len(partner), longest)), LENGTHS) * _STRIDE


def _items(code: int, ligands: bool) -> int:
    length, size = divmod(code, _STRIDE)
    return length + size if ligands else 2 * length


def _inputs(
    sequences: Sequence[str], partners: Sequence[str], ligands: dict[str, Ligand], code: int, longest: int
) -> tuple[Chain, Chain | Ligand]:
    """Padded pairs of one shape."""
    length, size = divmod(code, _STRIDE)

    def chain(texts: Sequence[str]) -> Chain:
        rows = PhysicoChemical().embed([text[:longest] for text in texts])
        mask = [pad_to(np.ones(len(one), bool), length) for one in rows]
        return Chain(np.stack([pad_to(one, length) for one in rows]), np.stack(mask))

    if not ligands:
        return chain(sequences), chain(partners)
    fields = zip(*(ligands[text] for text in partners), strict=True)
    return chain(sequences), Ligand(*(np.stack([pad_to(one, size) for one in field]) for field in fields))


def run(
    apply: Callable[[Chain, Chain | Ligand], Array],
    sequences: Sequence[str],
    partners: Sequence[str],
    ligands: dict[str, Ligand],
    *,
    items: int = 4096,
    longest: int = 1022,
) -> np.ndarray:
    """Outputs of pairs, in their order, computed in batches of like shape.

    Args:
      apply: outputs of proteins and partners.
      sequences: of proteins.
      partners: SMILES strings, or sequences.
      ligands: features of the molecules; empty for two proteins.
      items: padded residues and atoms of a batch.
      longest: residues; of longer sequences so many first ones are read.
    """
    codes = np.array([_code(*pair, ligands, longest) for pair in zip(sequences, partners, strict=True)])
    out: list[Any] = [None] * len(codes)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        size = max(1, min(64, items // _items(int(code), bool(ligands))))
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            full = np.resize(chosen, size)  # one shape, one program
            batch = _inputs([sequences[i] for i in full], [partners[i] for i in full], ligands, int(code), longest)
            for row, one in zip(chosen, np.asarray(apply(*batch)), strict=False):
                out[row] = one
    return np.stack(out)


@dataclasses.dataclass(frozen=True)
class PairTask(FinetuneTask):
    """A benchmark or a user's table of pairs.

    Attributes are those of `FinetuneTask`, where `table` is what `read_pairs` reads, heads have their published sizes
    (`hidden` has no meaning), `items` counts residues and atoms, and `monitor` is the ROC-AUC of two classes, the
    accuracy of more, the Pearson correlation of numbers; and further:

    Attributes:
      longest: residues that are read, as published.
      fold: of a benchmark, the one for validation.
    """

    longest: int = 1022
    fold: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.model, MASSAConfig):
            raise ValueError("the heads of pairs are for MASSA; the convolutional network has none")

    def files(self) -> tuple[str, ...]:
        """Data files."""
        if self.table not in BENCHMARKS:
            return (self.table,)
        return tuple(str(Path(self.folder or os.environ.get("JAXPROT_TASKS", ".")) / name) for name in _DAVIS)

    @functools.cached_property
    def data(self) -> PairTable:  # type: ignore[override]
        """All rows."""
        return read_pairs(self.table, self.folder, self.kind, self.fold)  # type: ignore[arg-type]

    @functools.cached_property
    def scale(self) -> tuple[float, float]:
        """(a, b) of labels that the head gives as (label - a) / b.

        Mean and deviation of the training labels; their least and their range for two proteins, whose head ends in a
        sigmoid; (0, 1) for classes.
        """
        if self.data.kind == "classes":
            return 0.0, 1.0
        values = self.data.labels[self._train]
        if np.ptp(values) == 0:
            raise InputError(f"{self.table}: all labels of this share of the rows are the same; use more of them")
        if self.data.partner == "sequence2":
            return float(values.min()), float(np.ptp(values))
        return float(values.mean()), float(values.std())

    @functools.cached_property
    def _batches(self) -> BucketBatches:
        table, ligands = self.data, self.data.ligands
        codes = [_code(table.sequences[i], table.partners[i], ligands, self.longest) for i in self._train]
        return BucketBatches(codes, self.items, bucket=int, cost=lambda code: _items(code, bool(ligands)), most=64)

    def header(self) -> dict[str, Any]:
        """Of exported weights: sizes, and what the outputs mean."""
        table = self.data
        return {
            "network": NETWORK,
            "config": dataclasses.asdict(self._sizes()[0]),
            "task": {
                "name": table.name, "kind": table.kind, "partner": table.partner, "classes": table.classes,
                "class_names": table.class_names, "scale": self.scale, "longest": self.longest,
            },
        }  # fmt: skip

    def build(self, key: PRNGKeyArray) -> PairNetwork:  # type: ignore[override]
        """The network with a fresh head."""
        cfg, tensors = self._sizes()
        net = PairNetwork(cfg, self.data.partner, self.data.classes, rngs=nnx.Rngs(key))  # type: ignore[arg-type]
        if tensors is not None:
            net.backbone = weights.assemble_backbone(cfg, tensors)  # type: ignore[arg-type]
        return net

    def load(self, shape: Hashable, members: np.ndarray) -> Paired:  # type: ignore[override]
        """Padded rows of the training part."""
        table, rows = self.data, self._train[members]
        texts = [table.sequences[i] for i in rows], [table.partners[i] for i in rows]
        inputs = _inputs(*texts, table.ligands, int(shape), self.longest)  # type: ignore[call-overload]
        if table.kind == "classes":
            return Paired(*inputs, np.asarray(table.labels[rows], np.int32))
        start, unit = self.scale
        return Paired(*inputs, np.asarray((table.labels[rows] - start) / unit, np.float32))

    def batch_loss(  # type: ignore[override]
        self, model: PairNetwork, batch: Paired, keys: PRNGKeyArray, weight: Float[Array, "b"], axis: str | None
    ) -> dict[str, Mean]:
        """The published loss; `weight` is 0 for rows that only fill the batch."""
        found = model(batch.chain, batch.partner, keys[0])
        if self.data.kind == "classes":
            wrong, _ = losses.negative_log_likelihood(found, batch.label)
        else:
            wrong = (found - batch.label) ** 2
        return {"loss": Mean(jnp.sum(wrong * weight), jnp.sum(weight))}

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Figures of the validation part (of the training part, where there is none)."""
        table = self.data
        part = table.part("valid")
        part = self._train if not len(part) else part
        if len(part) > self.evaluated:
            part = part[np.linspace(0, len(part) - 1, self.evaluated).astype(int)]
        if len(np.unique(table.labels[part])) < 2:
            raise InputError(
                f"{self.table}: all validation labels are the same, so no weights can be chosen by them; give more "
                "rows, or a column split with both kinds in the part 'valid'"
            )
        apply = jax.jit(lambda variables, *pair: nnx.merge(graphdef, variables)(*pair))

        def evaluate(variables: Any) -> dict[str, float]:
            told = figures(table, self.predict(functools.partial(apply, variables), part)[0], table.labels[part])
            return {**told, "score": told.get(table.monitor, 0.0)}  # constant predictions have no correlation

        return evaluate

    def predict(self, apply: Callable[..., Array], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and labels of rows: numbers in the units of the table, or (n, classes) probabilities.

        Args:
          apply: outputs of proteins and partners.
          rows: of the table.
        """
        table = self.data
        texts = [table.sequences[i] for i in rows], [table.partners[i] for i in rows]
        found = run(apply, *texts, table.ligands, items=self.items, longest=self.longest)
        return _outputs(found, table.kind, self.scale), table.labels[rows]


def _outputs(found: np.ndarray, kind: str, scale: Sequence[float]) -> np.ndarray:
    """What a user reads, from what the head gives."""
    found = found.astype(np.float64)
    if kind == "classes":
        shares = np.exp(found - found.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)
    return found * scale[1] + scale[0]


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """Area under the precision-recall curve, as the sum of its steps without interpolation; ties are one step.

    Args:
      score: (n,) numbers, higher for positives.
      label: (n,) true or false.

    Returns:
      From the share of positives (by chance) to 1; NaN without positives.
    """
    score, label = np.asarray(score, float), np.asarray(label, bool)
    if not label.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of equal scores
    hits = np.cumsum(label[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float(np.sum(precision * np.diff(hits, prepend=0)) / label.sum())


def figures(table: PairTable, found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All usual figures, without those that are not defined (correlations of constants, curves of one class).

    Of numbers `pearson`, `spearman`, `rmse` and `mae`; of two classes `roc_auc`, `pr_auc` (average precision) and
    `accuracy`; of more the last alone.

    Args:
      table: for the kind of the task.
      found: (n,) numbers, or (n, classes) probabilities.
      labels: (n,).

    Raises:
      InputError: predictions that are not finite.
    """
    if not np.isfinite(found).all():
        raise InputError("predictions that are not finite")
    if table.kind == "regression":
        told = {
            "pearson": metrics.pearson(found, labels), "spearman": metrics.spearman(found, labels),
            "rmse": metrics.rmse(found, labels), "mae": metrics.mae(found, labels),
        }  # fmt: skip
    else:
        told = {"accuracy": np.mean(found.argmax(-1) == labels)}
        if table.classes == 2:
            score, label = found[:, 1], labels == 1
            told = {"roc_auc": metrics.auroc(score, label), "pr_auc": average_precision(score, label), **told}
            if label.all():
                del told["pr_auc"]  # always 1
    return {name: float(value) for name, value in told.items() if np.isfinite(value)}


class PairPredictor:
    """A network of pairs with its weights and what its outputs mean.

    Args:
      net: the network.
      task: of the weights' header: name, kind, partner, classes, class_names, scale and longest.

    Attributes:
      kind: of the task.
      partner: `smiles` or `sequence2`.
      class_names: texts of the classes; empty where classes are numbers.
    """

    def __init__(self, net: PairNetwork, task: dict[str, Any]):
        self.module, self.task = net, task
        self.kind, self.partner, self.class_names = task["kind"], task["partner"], tuple(task["class_names"])
        graphdef, leaves = nnx.split(net)
        compiled = jax.jit(lambda leaves, *pair: nnx.merge(graphdef, leaves)(*pair))
        self.apply = functools.partial(compiled, leaves)

    def predict(self, sequences: Sequence[str], partners: Sequence[str]) -> np.ndarray:
        """Of each pair a number, or (classes,) probabilities; sequences are cut as in training.

        Args:
          sequences: of proteins.
          partners: SMILES strings, or sequences of second proteins.

        Raises:
          InputError: letters that stand for no residue, strings that are no molecules (with the row, from 1), lists of
            different lengths, or no pairs.
        """
        if not len(sequences) or len(sequences) != len(partners):
            raise InputError(f"{len(sequences)} proteins and {len(partners)} partners; give as many of both")
        texts = [check_letters(text, f"pair {i}") for i, text in enumerate(sequences, 1)]
        ligands: dict[str, Ligand] = {}
        if self.partner == "smiles":
            for i, text in enumerate(partners, 1):
                ligands[text] = ligands[text] if text in ligands else _molecule(text, f"pair {i}")
        else:
            partners = [check_letters(text, f"pair {i}, sequence2") for i, text in enumerate(partners, 1)]
        found = run(self.apply, texts, partners, ligands, longest=self.task["longest"])
        return _outputs(found, self.kind, self.task["scale"])


def load(path: str | os.PathLike) -> PairPredictor:
    """The predictor of a run of fine-tuning on pairs, or of its exported weights.

    Args:
      path: `best.safetensors`, or the folder that holds it.

    Raises:
      InputError: no such file.
      CheckpointError: weights of something else.
    """
    path = Path(path)
    path = path / "best.safetensors" if path.is_dir() else path
    _, tensors, header = inspect.read(path)
    if header.get("network") != NETWORK:
        raise CheckpointError(f"{path}: not weights of pairs; `jaxprot massa finetune` makes such from tables of pairs")
    try:
        cfg, task = MASSAConfig(**header["config"]), header["task"]
        build = module.Blueprint(lambda rngs: PairNetwork(cfg, task["partner"], task["classes"], rngs=rngs))
        return PairPredictor(module.assemble(build, tensors), task)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its header fits no network of pairs ({error})") from error
