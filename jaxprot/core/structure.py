"""`Structure`: atoms, residues and chains of a macromolecule as flat numpy arrays."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxprot.core import residues
from jaxprot.core.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """A molecule as read, nothing dropped and nothing renamed.

    Three levels point upwards: atom -> residue (`atom_residue`) -> chain (`res_chain`). Order is that of the file,
    except that all atoms of a chain stand together. Each model has residues and chains of its own, so a file of
    several models holds as many rows for chain `A`.

    Attributes:
      name: stem of the file, or what the caller called it.
      xyz: (N, 3) float32 coordinates in Å; NaN where the file says so.
      atom_name: (N,) U4 names without padding (`CA`).
      element: (N,) U2 symbols in upper case.
      altloc: (N,) U1 alternate location, '' for none.
      occupancy: (N,) float32, 0 to 1.
      bfactor: (N,) float32 in Å² (or whatever the file keeps there).
      serial: (N,) int32 atom numbers of the file.
      model: (N,) int32 model numbers, from 1.
      atom_residue: (N,) int32 row of the residue of each atom, ascending.
      res_name: (R,) U5 residue names as in the file.
      resid: (R,) int32 author residue numbers.
      icode: (R,) U1 insertion codes, '' for none.
      hetero: (R,) bool, True for HETATM records.
      res_chain: (R,) int32 row of the chain of each residue, ascending.
      chain_id: (C,) U8 author chain identifiers; '' for a blank one.
    """

    name: str
    xyz: np.ndarray
    atom_name: np.ndarray
    element: np.ndarray
    altloc: np.ndarray
    occupancy: np.ndarray
    bfactor: np.ndarray
    serial: np.ndarray
    model: np.ndarray
    atom_residue: np.ndarray
    res_name: np.ndarray
    resid: np.ndarray
    icode: np.ndarray
    hetero: np.ndarray
    res_chain: np.ndarray
    chain_id: np.ndarray

    def __post_init__(self):
        for fields, n in ((_ATOM_FIELDS, len(self.xyz)), (_RESIDUE_FIELDS, len(self.res_name))):
            for field in fields:
                if len(getattr(self, field)) != n:
                    raise ValueError(f"{self.name}: {field} has {len(getattr(self, field))} entries, expected {n}")

    def __repr__(self) -> str:
        chains = ",".join(dict.fromkeys(map(str, self.chain_id)))
        return f"Structure({self.name!r}, {self.n_atoms} atoms, {self.n_residues} residues, chains {chains})"

    @property
    def n_atoms(self) -> int:
        """Number of atoms, over all models and alternate locations."""
        return len(self.xyz)

    @property
    def n_residues(self) -> int:
        """Number of residue rows, waters and ligands included, over all models."""
        return len(self.res_name)

    @property
    def n_chains(self) -> int:
        """Number of chain rows, over all models."""
        return len(self.chain_id)

    @property
    def letters(self) -> np.ndarray:
        """(R,) U1 one-letter codes of the parent residues; `X` where there is none (water, ligand, unknown)."""
        return residues.letters(self.res_name)

    @property
    def atom_chain_id(self) -> np.ndarray:
        """(N,) U8 chain identifier of each atom."""
        return self.chain_id[self.res_chain[self.atom_residue]]

    def select(self, atom_mask: np.ndarray) -> "Structure":
        """Keeps the marked atoms; residues and chains left without atoms disappear.

        Args:
          atom_mask: (N,) bool.

        Raises:
          ValueError: the mask is of another length.
        """
        mask = np.asarray(atom_mask, bool)
        if mask.shape != (self.n_atoms,):
            raise ValueError(f"{self.name}: mask of shape {mask.shape}, expected ({self.n_atoms},)")
        kept_residues, atom_residue = np.unique(self.atom_residue[mask], return_inverse=True)
        kept_chains, res_chain = np.unique(self.res_chain[kept_residues], return_inverse=True)
        return dataclasses.replace(
            self,
            **{field: getattr(self, field)[mask] for field in _ATOM_FIELDS if field != "atom_residue"},
            **{field: getattr(self, field)[kept_residues] for field in _RESIDUE_FIELDS if field != "res_chain"},
            atom_residue=atom_residue.astype(np.int32),
            res_chain=res_chain.astype(np.int32),
            chain_id=self.chain_id[kept_chains],
        )

    def chain(self, chain: str) -> "Structure":
        """Keeps one chain, in every model. Raises `InputError` with the chains there are if it is not one of them."""
        return self.chains([chain])

    def chains(self, chains: Iterable[str]) -> "Structure":
        """Keeps several chains (in file order). Raises `InputError` naming those that do not exist."""
        wanted = [str(chain) for chain in chains]
        check_chains(self, wanted)
        return self.select(np.isin(self.atom_chain_id, wanted))

    def first_model(self) -> "Structure":
        """Keeps the first model."""
        if self.n_atoms == 0 or (self.model == self.model[0]).all():
            return self
        return self.select(self.model == self.model[0])

    def first_altlocs(self) -> "Structure":
        """Keeps, of every atom name in a residue number, the first one in the file; labels become blank.

        Two residue types at one number (micro-heterogeneity) count as alternatives: the first type is kept.
        """
        if self.n_atoms == 0 or (self.altloc == "").all():
            return self
        chain = self.res_chain.astype(np.int64)
        site = np.stack([chain, self.resid.astype(np.int64), _codes(self.icode)], 1)
        _, first, inverse = np.unique(site, axis=0, return_index=True, return_inverse=True)
        same_type = self.res_name == self.res_name[first[inverse.reshape(-1)]]
        _, names = np.unique(self.atom_name, return_inverse=True)
        key = inverse.reshape(-1)[self.atom_residue].astype(np.int64) * (names.max() + 1) + names.reshape(-1)
        key = np.where(same_type[self.atom_residue], key, -1)
        _, keep = np.unique(key, return_index=True)
        mask = np.zeros(self.n_atoms, bool)
        mask[keep] = True
        mask &= key >= 0
        kept = self.select(mask)
        return dataclasses.replace(kept, altloc=np.zeros(kept.n_atoms, "U1"))

    def with_bfactor(self, values: np.ndarray) -> "Structure":
        """Returns a copy with other B-factors, the usual carrier of a per-residue prediction.

        Args:
          values: (N,) per atom or (R,) per residue.

        Raises:
          ValueError: the length is neither that of the atoms nor that of the residues.
        """
        values = np.asarray(values, np.float32)
        if values.shape == (self.n_atoms,):
            return dataclasses.replace(self, bfactor=values.copy())
        if values.shape == (self.n_residues,):
            return dataclasses.replace(self, bfactor=values[self.atom_residue])
        raise ValueError(
            f"{self.name}: {values.shape} values, expected ({self.n_atoms},) atoms or ({self.n_residues},) residues"
        )


_ATOM_FIELDS = (
    "xyz", "atom_name", "element", "altloc", "occupancy", "bfactor", "serial", "model", "atom_residue",
)  # fmt: skip
_RESIDUE_FIELDS = ("res_name", "resid", "icode", "hetero", "res_chain")


def _codes(icode: np.ndarray) -> np.ndarray:
    """(R,) int64 code points of one-character strings, 0 for ''."""
    return np.ascontiguousarray(icode.astype("U1")).view(np.uint32).astype(np.int64)


def describe_chains(structure: Structure) -> str:
    """Returns the chain identifiers of a structure as words for a message."""
    names = dict.fromkeys(map(str, structure.chain_id))
    return ", ".join(name if name else "'' (blank)" for name in names) or "none"


def check_chains(structure: Structure, chains: Iterable[str]) -> None:
    """Raises `InputError` naming the chains that the structure lacks and those it has."""
    known = set(map(str, structure.chain_id))
    missing = [chain for chain in chains if chain not in known]
    if missing:
        raise InputError(
            f"{structure.name}: no chain {', '.join(map(repr, missing))}; chains in the file: "
            f"{describe_chains(structure)} (identifiers are case-sensitive)"
        )
