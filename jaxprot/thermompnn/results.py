"""What a stability prediction gives: arrays with units, and the files users open."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from jaxprot.core.residues import STANDARD
from jaxprot.core.structure import Structure
from jaxprot.io.outputs import RunDirectory, atomic_path
from jaxprot.io.tables import write_table
from jaxprot.io.viewers import write_bfactor_model, write_view_scripts
from jaxprot.proteinmpnn.featurize import BackboneChain

if TYPE_CHECKING:
    import pandas

RANGE = (-1.0, 5.0)
"""ddG, kcal/mol, that the training data resolve; predictions outside are flagged."""

_BROKEN_BOND = 2.0  # Å from C to N; a peptide bond is 1.33 Å, strained models reach 1.7 Å


@dataclasses.dataclass(frozen=True, eq=False)
class Sites:
    """The residues of a prediction: the chains after one another, their numbering gaps filled.

    Attributes:
      chains: as parsed.
      chain: (n,) chain identifier of each residue.
      resid: (n,) author residue number.
      icode: (n,) insertion code, '' for none.
      index: (n,) 0-based place in the gap-filled chain.
      letter: (n,) one-letter code, '-' for gaps and unknown residues.
      resolved: (n,) True where N, CA, C and O are known.
    """

    chains: tuple[BackboneChain, ...]
    chain: np.ndarray
    resid: np.ndarray
    icode: np.ndarray
    index: np.ndarray
    letter: np.ndarray
    resolved: np.ndarray

    @classmethod
    def of(cls, chains: list[BackboneChain]) -> Sites:
        """Sites of parsed chains, in their order."""
        return cls(
            chains=tuple(chains),
            chain=np.concatenate([np.full(len(c), c.id, dtype="U16") for c in chains]),
            resid=np.concatenate([c.resid for c in chains]),
            icode=np.concatenate([c.icode for c in chains]),
            index=np.concatenate([np.arange(len(c)) for c in chains]),
            letter=np.array(list("".join(c.sequence for c in chains))),
            resolved=np.concatenate([c.mask for c in chains]),
        )

    @property
    def predicted(self) -> np.ndarray:
        """(n,) True for residues with a letter: the ones that get values."""
        return self.letter != "-"

    def flags(self) -> list[list[str]]:
        """Doubts about each residue, whatever the mutation."""
        gap = self.letter == "-"
        ends = self.index == 0
        before = np.concatenate([[False], gap[:-1]]) & ~ends
        after = np.concatenate([gap[1:], [False]]) & ~np.concatenate([ends[1:], [True]])
        xyz = np.concatenate([chain.xyz for chain in self.chains])
        bond = np.linalg.norm(xyz[1:, 0] - xyz[:-1, 2], axis=-1)
        broken = np.concatenate([[False], (bond > _BROKEN_BOND) & ~ends[1:]])
        before, after = before | broken, after | np.concatenate([broken[1:], [False]])
        out = []
        for resolved, beside, letter in zip(self.resolved, before | after, self.letter, strict=True):
            doubts = []
            if not resolved:
                doubts.append("missing_backbone")
            if beside:
                doubts.append("gap_neighbour")
            if letter == "C":
                doubts.append("cysteine")
            out.append(doubts)
        return out

    def label(self, i: int) -> str:
        """Author number with insertion code."""
        return f"{self.resid[i]}{self.icode[i]}"


def value_flags(ddg: float | np.ndarray, mutants: str) -> list[str]:
    """Doubts about a value: a new cysteine, or a prediction outside the range of the training data."""
    doubts = ["cysteine"] if "C" in mutants else []
    if np.isfinite(ddg) and not RANGE[0] <= ddg <= RANGE[1]:
        doubts.append("outside_training_range")
    return doubts


def spread_name(calibrated: bool) -> str:
    """Column of an uncertainty: a standard deviation, or the bare spread of weights without a calibration."""
    return "sd_kcal_mol" if calibrated else "uncalibrated_spread_kcal_mol"


def _remove_earlier(directory: pathlib.Path, tables: tuple[str, ...], files: tuple[str, ...] = ()) -> None:
    """Removes what an earlier run left, so that files of two runs do not stand side by side."""
    for name in (*files, *(f"{table}.{suffix}" for table in tables for suffix in ("csv", "parquet"))):
        (directory / name).unlink(missing_ok=True)


def joined(*groups: list[str]) -> str:
    """Flags of several sources, each once, separated by ';'."""
    return ";".join(dict.fromkeys(flag for group in groups for flag in group))


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """Site-saturation scan of a structure.

    Attributes:
      name: of the structure.
      structure: what was read.
      sites: its residues.
      ddg: (n, 20) kcal/mol in the order ACDEFGHIKLMNPQRSTVWY, positive = destabilising; 0 for the wild type, NaN for
        gaps.
      sd: (n, 20) kcal/mol, uncertainty of each value (one standard deviation); NaN where not estimated.
      calibrated: whether `sd` was fitted to errors on held-out proteins; otherwise it is the bare spread over noised
        backbones, which says nothing of the errors of the model itself.
    """

    name: str
    structure: Structure
    sites: Sites
    ddg: np.ndarray
    sd: np.ndarray
    calibrated: bool = True

    @property
    def mean(self) -> np.ndarray:
        """(n,) mean ddG of the 19 substitutions of each residue, kcal/mol; NaN for gaps."""
        return np.where(self.sites.predicted, np.nansum(self.ddg, axis=1) / 19, np.nan)

    def neighbours(self, cutoff: float = 10.0) -> np.ndarray:
        """(n,) residues with a CA within `cutoff` Å, itself not counted; 0 where the CA is unknown."""
        ca = np.concatenate([c.xyz for c in self.sites.chains])[:, 1]
        with np.errstate(invalid="ignore"):
            near = np.stack([((ca - one) ** 2).sum(axis=1) < cutoff**2 for one in ca])
        return near.sum(axis=1) - near.diagonal()

    def best(self, *, cysteine: bool = True) -> dict[str, np.ndarray]:
        """Columns of `best.csv`: the most stabilising substitution of each residue, and how buried the residue is.

        Args:
          cysteine: whether a substitution to cysteine may be chosen.
        """
        s, rows = self.sites, np.flatnonzero(self.sites.predicted)
        letters = np.array(list(STANDARD))
        allowed = letters[None] != s.letter[rows][:, None]
        if not cysteine:
            allowed &= letters[None] != "C"
        chosen = np.argmin(np.where(allowed, self.ddg[rows], np.inf), axis=1)
        return {
            "chain": s.chain[rows],
            "resid": s.resid[rows],
            "icode": s.icode[rows],
            "index": s.index[rows],
            "wt": s.letter[rows],
            "mut": letters[chosen],
            "ddg_kcal_mol": self.ddg[rows, chosen],
            "sd_kcal_mol": self.sd[rows, chosen],
            "neighbours": self.neighbours()[rows],
        }

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of `scan.csv`: 20 rows for each residue with a letter."""
        s, rows = self.sites, np.flatnonzero(self.sites.predicted)
        ddg, flags = self.ddg[rows], s.flags()
        outside = (ddg < RANGE[0]) | (ddg > RANGE[1])
        flag = []
        for r, out in zip(rows, outside, strict=True):
            for letter, far in zip(STANDARD, out, strict=True):
                if letter == s.letter[r]:
                    flag.append(joined(flags[r]))
                else:
                    flag.append(
                        joined(
                            flags[r],
                            ["cysteine"] if letter == "C" else [],
                            ["outside_training_range"] if far else [],
                        )
                    )
        each = np.repeat(rows, 20)
        return {
            "chain": s.chain[each],
            "resid": s.resid[each],
            "icode": s.icode[each],
            "index": s.index[each],
            "wt": s.letter[each],
            "mut": np.tile(np.array(list(STANDARD)), len(rows)),
            "ddg_kcal_mol": ddg.reshape(-1),
            "flag": np.array(flag, dtype=object),
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """`columns` and the uncertainty as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame({**self.columns(), "sd_kcal_mol": self.sd[self.sites.predicted].reshape(-1)})

    def plot(self, path: str | os.PathLike) -> None:
        """Writes the 20 x n heatmap."""
        from jaxprot.plots.heatmap import heatmap

        s = self.sites
        with atomic_path(path) as temporary:
            heatmap(
                self.ddg,
                "".join(s.letter),
                [s.label(i) for i in range(len(s.letter))],
                temporary,
                title=self.name,
                chains=list(s.chain),
            )

    def write_structure(self, path: str | os.PathLike) -> None:
        """Writes the structure with the mean ddG of each residue in the B-factor column."""
        s = self.structure.first_model()
        value = {
            (str(c), int(r), str(i)): float(v)
            for c, r, i, v in zip(self.sites.chain, self.sites.resid, self.sites.icode, self.mean, strict=True)
            if np.isfinite(v)
        }
        keys = zip(s.chain_id[s.res_chain], s.resid, s.icode, s.letters, strict=True)
        values = [0.0 if x == "X" else value.get((str(c), int(r), str(i)), 0.0) for c, r, i, x in keys]
        write_bfactor_model(s, np.array(values), path)

    def write(
        self,
        directory: str | os.PathLike,
        *,
        format: str = "csv",  # noqa: A002
        overwrite: bool = False,
        cysteine: bool = True,
        best: bool = False,
    ) -> pathlib.Path:
        """Writes `scan`, `uncertainty` (tables), `heatmap.png`, `ddg.pdb`, `view.pml` and `view.cxc`.

        Args:
          directory: where.
          format: `csv` or `parquet`.
          overwrite: write into a folder that holds results.
          cysteine: False leaves substitutions to cysteine out of the tables (the assay of the training data could not
            measure them well).
          best: also write the table `best`.

        Raises:
          OutputError: the folder already holds results (and not `overwrite`), or cannot be written.
        """
        directory = RunDirectory(directory, overwrite).folder()
        _remove_earlier(directory, ("scan", "uncertainty", "best"), ("ddg.pdb", "ddg.cif"))
        columns = {**self.columns(), "sd_kcal_mol": self.sd[self.sites.predicted].reshape(-1)}
        if not cysteine:
            kept = (columns["mut"] != "C") | (columns["wt"] == "C")
            columns = {name: values[kept] for name, values in columns.items()}
        sd = columns.pop("sd_kcal_mol")
        write_table(columns, directory / "scan", format)
        if np.isfinite(sd).any():
            del columns["flag"]
            write_table({**columns, spread_name(self.calibrated): sd}, directory / "uncertainty", format)
        if best:
            write_table(self.best(cysteine=cysteine), directory / "best", format)
        self.plot(directory / "heatmap.png")
        model = "ddg.pdb"
        if max(map(len, self.structure.chain_id), default=1) > 1 or self.structure.n_atoms > 99_999:
            model = "ddg.cif"  # what the PDB format cannot hold
        self.write_structure(directory / model)
        finite = self.mean[np.isfinite(self.mean)]
        limit = max(0.5, float(np.percentile(np.abs(finite), 95))) if len(finite) else 1.0
        write_view_scripts(directory, model, -limit, limit, "mean ddG of the 19 substitutions, kcal/mol")
        return directory


@dataclasses.dataclass(frozen=True, eq=False)
class Mutants:
    """Predicted ddG of a list of mutations of one structure.

    Attributes:
      name: of the structure.
      ddg: (m,) kcal/mol, positive = destabilising.
      sd: (m,) kcal/mol uncertainty.
      flag: (m,) doubts, joined by ';'. `additive` marks sums of single mutations.
    """

    name: str
    ddg: np.ndarray
    sd: np.ndarray
    flag: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Doubles:
    """Double mutants of a structure.

    Attributes:
      name: of the structure.
      sites: its residues.
      mode: `additive` or `epistatic`.
      positions: (p, 2) residues, the first before the second.
      mutants: (p, 2) letters as indices into ACDEFGHIKLMNPQRSTVWY.
      distance: (p,) CA-CA distance in Å.
      ddg: (p,) kcal/mol, positive = destabilising.
      sd: (p,) kcal/mol, from those of the two single mutations as if independent (additive mode); NaN otherwise.
      calibrated: as for `Scan`.
    """

    name: str
    sites: Sites
    mode: str
    positions: np.ndarray
    mutants: np.ndarray
    distance: np.ndarray
    ddg: np.ndarray
    sd: np.ndarray
    calibrated: bool = True

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of `doubles.csv`."""
        s, letters = self.sites, np.array(list(STANDARD))
        out: dict[str, np.ndarray] = {}
        for side in (0, 1):
            at, n = self.positions[:, side], side + 1
            out |= {
                f"chain{n}": s.chain[at],
                f"resid{n}": s.resid[at],
                f"icode{n}": s.icode[at],
                f"wt{n}": s.letter[at],
                f"mut{n}": letters[self.mutants[:, side]],
            }
        return {**out, "ca_distance": self.distance, "ddg_kcal_mol": self.ddg}

    def to_dataframe(self) -> pandas.DataFrame:
        """`columns` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.columns())

    def write(self, directory: str | os.PathLike, *, format: str = "csv", overwrite: bool = False) -> pathlib.Path:  # noqa: A002
        """Writes the tables `doubles` and, where it is known, `uncertainty` (row by row the same mutants)."""
        directory = RunDirectory(directory, overwrite).folder()
        _remove_earlier(directory, ("doubles", "uncertainty"))
        columns = self.columns()
        write_table(columns, directory / "doubles", format)
        if np.isfinite(self.sd).any():
            del columns["ca_distance"]
            write_table({**columns, spread_name(self.calibrated): self.sd}, directory / "uncertainty", format)
        return directory
