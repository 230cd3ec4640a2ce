"""What design and scoring give, and the files users open."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from jaxprot.core.residues import ALPHABET
from jaxprot.io.outputs import RunDirectory, atomic_path
from jaxprot.io.sequences import write_fasta
from jaxprot.io.tables import write_table
from jaxprot.proteinmpnn.featurize import BackboneChain

if TYPE_CHECKING:
    import pandas


def join_chains(letters: np.ndarray, chains: tuple[BackboneChain, ...], chosen: tuple[str, ...]) -> str:
    """Sequences of the chosen chains, by name, joined by '/' as in the published tool."""
    parts, start = {}, 0
    for chain in chains:
        parts[chain.id] = "".join(ALPHABET[i] for i in letters[start : start + len(chain)])
        start += len(chain)
    return "/".join(parts[name] for name in sorted(chosen))


@dataclasses.dataclass(frozen=True, eq=False)
class Designs:
    """Designed sequences of one structure; b counts samples, n residues of all chains in the model's order.

    Attributes:
      name: of the structure.
      chains: chains in the order of the arrays.
      designed: identifiers of the designed chains.
      native: (n,) letters of the structure as indices into ACDEFGHIKLMNPQRSTVWYX.
      native_score: its mean -log p over designed residues (nats), global: over all resolved residues.
      native_global_score: see above.
      letters: (b, n) designed letters.
      score: (b,) mean -log p over designed residues, re-scored in the decoding order; lower is better.
      global_score: (b,) the same over all resolved residues.
      recovery: (b,) share of designed residues that kept the native letter.
      temperature: (b,) sampling temperature.
      probs: (b, n, 21) distributions the letters were drawn from; zeros where nothing was designed.
      log_probs: (b, n, 21) log-probabilities at temperature 1 without biases.
      design: (n,) 1 where designed.
      mask: (n,) 1 where resolved.
      ddg: (b,) predicted stability change against the native sequence, kcal/mol, or None.
    """

    name: str
    chains: tuple[BackboneChain, ...]
    designed: tuple[str, ...]
    native: np.ndarray
    native_score: float
    native_global_score: float
    letters: np.ndarray
    score: np.ndarray
    global_score: np.ndarray
    recovery: np.ndarray
    temperature: np.ndarray
    probs: np.ndarray
    log_probs: np.ndarray
    design: np.ndarray
    mask: np.ndarray
    ddg: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.letters)

    def sequence(self, sample: int) -> str:
        """Designed chains of a sample, by name, joined by '/'."""
        return join_chains(self.letters[sample], self.chains, self.designed)

    def ranked(self, by: str = "score") -> Designs:
        """The same designs, best first (lowest `score`, `global_score` or `ddg`).

        Raises:
          ValueError: unknown key, or `ddg` was not predicted.
        """
        if by not in ("score", "global_score", "ddg") or getattr(self, by) is None:
            raise ValueError(f"cannot rank by {by!r}; use score, global_score, or ddg after rank_designs")
        order = np.argsort(getattr(self, by), kind="stable")
        fields = ("letters", "score", "global_score", "recovery", "temperature", "probs", "log_probs")
        changed = {f: getattr(self, f)[order] for f in fields}
        return dataclasses.replace(self, **changed, ddg=None if self.ddg is None else self.ddg[order])

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of `designs.csv`."""
        out = {
            "sample": np.arange(1, len(self) + 1),
            "temperature": self.temperature,
            "score": self.score,
            "global_score": self.global_score,
            "seq_recovery": self.recovery,
        }
        if self.ddg is not None:
            out["ddg_kcal_mol"] = self.ddg
        return {**out, "sequence": np.array([self.sequence(i) for i in range(len(self))], dtype=object)}

    def to_dataframe(self) -> pandas.DataFrame:
        """`columns` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.columns())

    def write_fasta(self, path: str | os.PathLike, *, model_name: str = "default", seed: int = 0) -> None:
        """The native sequence, then the designs, with the published tool's headers."""
        from jaxprot import __version__

        fixed = sorted(c.id for c in self.chains if c.id not in self.designed)
        records = [
            (
                f"{self.name}, score={self.native_score:.4f}, global_score={self.native_global_score:.4f}, "
                f"fixed_chains={fixed}, designed_chains={sorted(self.designed)}, model_name={model_name}, "
                f"version={__version__}, seed={seed}",
                join_chains(self.native, self.chains, self.designed),
            )
        ]
        for i in range(len(self)):
            ddg = "" if self.ddg is None else f", ddg={self.ddg[i]:.3f}"
            records.append(
                (
                    f"T={self.temperature[i]:g}, sample={i + 1}, score={self.score[i]:.4f}, "
                    f"global_score={self.global_score[i]:.4f}, seq_recovery={self.recovery[i]:.4f}{ddg}",
                    self.sequence(i),
                )
            )
        write_fasta(records, path)

    def write_probs(self, path: str | os.PathLike) -> None:
        """npz with probs, log_probs, S, mask (resolved) and chain_order."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                probs=self.probs,
                log_probs=self.log_probs,
                S=self.letters,
                mask=self.mask,
                chain_order=np.array([c.id for c in self.chains]),
            )

    def write(
        self,
        directory: str | os.PathLike,
        *,
        format: str = "csv",  # noqa: A002
        overwrite: bool = False,
        model_name: str = "default",
        seed: int = 0,
    ) -> pathlib.Path:
        """Writes `designs.fasta`, the table `designs` and `probs.npz`.

        Raises:
          OutputError: the folder already holds results (and not `overwrite`), or cannot be written.
        """
        directory = RunDirectory(directory, overwrite).folder()
        self.write_fasta(directory / "designs.fasta", model_name=model_name, seed=seed)
        write_table(self.columns(), directory / "designs", format)
        self.write_probs(directory / "probs.npz")
        return directory


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of sequences on one backbone; s counts sequences, d decoding orders.

    Attributes:
      name: of the structure.
      labels: of the sequences; the first is the structure's own, `native`.
      sequences: designed chains, by name, joined by '/'.
      score: (s, d) mean -log p over designed and resolved residues, nats.
      global_score: (s, d) over all resolved residues.
    """

    name: str
    labels: tuple[str, ...]
    sequences: tuple[str, ...]
    score: np.ndarray
    global_score: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of `scores.csv`: mean and spread over the decoding orders."""
        many = self.score.shape[1] > 1
        nothing = np.full(len(self.labels), np.nan)
        return {
            "structure": np.full(len(self.labels), self.name, dtype=object),
            "sequence_name": np.array(self.labels, dtype=object),
            "score": self.score.mean(axis=1),
            "score_sd": self.score.std(axis=1, ddof=1) if many else nothing,
            "global_score": self.global_score.mean(axis=1),
            "global_score_sd": self.global_score.std(axis=1, ddof=1) if many else nothing,
            "draws": np.full(len(self.labels), self.score.shape[1]),
            "sequence": np.array(self.sequences, dtype=object),
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """`columns` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.columns())


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """Log-probabilities of every letter at every residue.

    Attributes:
      name: of the structure.
      chains: chains in the order of the arrays.
      log_probs: (n, 21) nats.
      letters: (n,) native letters.
      mask: (n,) 1 where resolved.
      design: (n,) 1 where designed.
    """

    name: str
    chains: tuple[BackboneChain, ...]
    log_probs: np.ndarray
    letters: np.ndarray
    mask: np.ndarray
    design: np.ndarray

    def write(self, path: str | os.PathLike) -> None:
        """npz with the published tool's names: log_p, S, mask, design_mask."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, log_p=self.log_probs, S=self.letters, mask=self.mask, design_mask=self.design)
