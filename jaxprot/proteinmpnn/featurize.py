"""Structures to backbone chains to the tensors of ProteinMPNN (numpy only).

Numbering follows the published parser: every integer residue number between the first and the last of a chain gets a
place, missing ones as '-' without coordinates. So position i of a chain here is position i + 1 of the fixed, tied and
biased positions that users write.
"""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from jaxprot.core import buckets, residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure, check_chains, describe_chains

log = logging.getLogger(__name__)

MAX_GAP = 1000
"""Longest run of missing residue numbers that is filled; a longer one is damage or a trick of numbering."""

_COMPAT_CHAINS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PEPTIDE_BOND = 2.0  # Å; a C-N bond is 1.33 Å, strained models reach 1.7 Å
_O_ALIASES = ("OT1", "O1", "OC1", "OXT", "OT")  # names of the carbonyl O where a program wrote no plain O


@dataclasses.dataclass(frozen=True, eq=False)
class BackboneChain:
    """One protein chain with its numbering gaps filled.

    Attributes:
      id: author chain identifier.
      sequence: L letters; '-' for gaps and unknown residues.
      xyz: (L, 4, 3) float32 coordinates of N, CA, C, O in Å; NaN where missing.
      resid: (L,) int32 author residue numbers (of filled gaps: the number that is missing).
      icode: (L,) U1 insertion codes, '' for none.
      present: (L,) bool, False at filled gaps.
      resn_list: residue identifiers (number + insertion code) in file order, without gaps.
    """

    id: str
    sequence: str
    xyz: np.ndarray
    resid: np.ndarray
    icode: np.ndarray
    present: np.ndarray
    resn_list: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def mask(self) -> np.ndarray:
        """(L,) bool, True where all four backbone atoms are there."""
        return np.asarray(np.isfinite(self.xyz).all((1, 2)))

    def index(self, resid: int, icode: str = "") -> int:
        """Returns the 0-based gap-filled position of an author residue number.

        An insertion code is looked up as given, then in the other case.

        Raises:
          InputError: the chain has no such residue; the message gives its range.
        """
        for code in dict.fromkeys((icode, icode.upper(), icode.lower())):
            found = np.flatnonzero((self.resid == resid) & (self.icode == code) & self.present)
            if len(found):
                return int(found[0])
        held = np.flatnonzero(self.present)
        first, last = (f"{self.resid[i]}{self.icode[i]}" for i in (held[0], held[-1]))
        raise InputError(f"chain {self.id!r} has no residue {resid}{icode}; it has residues {first} to {last}")


class Features(NamedTuple):
    """Input tensors of one structure; the leading axis is the concatenation of all chains.

    Attributes:
      X: (L, 4, 3) float32 backbone in Å, 0 where missing.
      S: (L,) int32 indices into `core.residues.ALPHABET`.
      mask: (L,) float32, 1 where all four backbone atoms are there.
      residue_idx: (L,) int32 running index plus 100 per chain; -100 in padding.
      chain_encoding: (L,) int32 chain number from 1; 0 in padding.
      design: (L,) float32, 1 where the sequence may change.
    """

    X: np.ndarray
    S: np.ndarray
    mask: np.ndarray
    residue_idx: np.ndarray
    chain_encoding: np.ndarray
    design: np.ndarray


LABELS = ("other", "interface", "buried")
"""Labels of residues in the model of membrane proteins with a label for each, by number."""
SOLUBLE, MEMBRANE = 0, 1
"""Labels of all residues in the model with one label for the whole structure."""


class LabelledFeatures(NamedTuple):
    """`Features` for a network that also reads a label of each residue (`ProteinMPNNConfig.node_labels`).

    Attributes:
      X: as in `Features`, like all others but the last.
      S: letters.
      mask: resolved residues.
      residue_idx: running index.
      chain_encoding: chain number.
      design: where the sequence may change.
      labels: (L,) int32, `SOLUBLE` or `MEMBRANE` for all residues, or for each an index into `LABELS`.
    """

    X: np.ndarray
    S: np.ndarray
    mask: np.ndarray
    residue_idx: np.ndarray
    chain_encoding: np.ndarray
    design: np.ndarray
    labels: np.ndarray


_F = TypeVar("_F", Features, LabelledFeatures)


def parse_chains(
    structure: Structure,
    chains: Sequence[str] | str | None = None,
    *,
    compat: bool = False,
    ca_only: bool = False,
) -> list[BackboneChain]:
    """Extracts protein chains with filled numbering gaps.

    The default keeps amino acids only: modified ones and other protonation states under the letter of their parent
    (HETATM ones where they are bonded into the chain), the first of alternate locations, the first model. `compat`
    reproduces the published parser: only ATOM records and HETATM MSE count, any other name than the twenty and that
    MSE is '-', caps and nucleotides included, and later models add the atoms that the first lacks (so read the file
    with `models="all"`).

    Args:
      structure: what was read.
      chains: identifiers in the wanted order (or one string, separated by commas); None for all protein chains in
        file order (`compat`: in the order of the published alphabet scan).
      compat: published behaviour to the letter.
      ca_only: accept chains of which only CA atoms are known.

    Returns:
      The chains; at least one.

    Raises:
      InputError: unknown chain, a chain (or a whole file) without protein backbone, or a numbering hole of more than
        `MAX_GAP` residues.
    """
    if not compat:
        structure = structure.first_model()
    if chains is None:
        names = list(dict.fromkeys(map(str, structure.chain_id)))
        wanted = [c for c in _COMPAT_CHAINS if c in names] if compat else names
    else:
        wanted = [c.strip() for c in chains.split(",")] if isinstance(chains, str) else [str(c) for c in chains]
        wanted = list(dict.fromkeys(wanted))
        if not wanted:
            raise InputError(f"{structure.name}: no chain named; chains in the file: {describe_chains(structure)}")
        check_chains(structure, wanted)
    out = []
    for name in wanted:
        try:
            parsed = _parse_chain(structure, name, compat, ca_only)
        except _NoBackbone as error:
            if chains is not None:
                raise
            log.debug("%s", error)
            continue
        out.append(parsed)
    if not out:
        raise InputError(
            f"{structure.name}: no chain has a residue with a complete protein backbone (N, CA, C, O); "
            f"chains in the file: {describe_chains(structure)}"
        )
    return out


def order_chains(
    chains: Sequence[BackboneChain], designed: Iterable[str] | None = None, sort: bool = True
) -> tuple[list[BackboneChain], list[bool]]:
    """Puts chains in the order of the tensors: designed ones first, then the fixed ones, each by name.

    Args:
      chains: parsed chains.
      designed: identifiers of the chains to design; None for all.
      sort: False keeps the given order (as the published stability model does).

    Returns:
      The chains in order, and whether each is designed.

    Raises:
      InputError: `designed` names a chain that is not there, or there are no chains.
    """
    names = [chain.id for chain in chains]
    if not chains:
        raise InputError("no chains to featurize")
    if isinstance(designed, str):
        designed = [name.strip() for name in designed.split(",")]
    chosen = set(names) if designed is None else set(designed)
    missing = sorted(chosen - set(names))
    if missing:
        raise InputError(f"no chain {', '.join(map(repr, missing))} to design; chains: {', '.join(names)}")
    ordered = sorted(chains, key=lambda chain: (chain.id not in chosen, chain.id)) if sort else list(chains)
    return ordered, [chain.id in chosen for chain in ordered]


def featurize(
    chains: Sequence[BackboneChain],
    *,
    designed: Iterable[str] | None = None,
    fixed_positions: Mapping[str, Iterable[int]] | None = None,
    sort: bool = True,
) -> Features:
    """Concatenates chains into the model's tensors.

    Args:
      chains: parsed chains.
      designed: identifiers of the chains to design; None for all.
      fixed_positions: chain -> 1-based positions in its gap-filled numbering that keep their residue.
      sort: designed chains first, each group by name; False keeps the given order.

    Returns:
      The tensors, L = total length; not padded.

    Raises:
      InputError: unknown chain, or a fixed position outside its chain.
    """
    ordered, is_designed = order_chains(chains, designed, sort)
    lengths = [len(chain) for chain in ordered]
    xyz = np.concatenate([chain.xyz for chain in ordered]).astype(np.float32)
    finite = np.isfinite(xyz)
    number = np.repeat(np.arange(1, len(ordered) + 1, dtype=np.int32), lengths)
    design = np.repeat(np.array(is_designed, np.float32), lengths)
    offsets = dict(zip([chain.id for chain in ordered], np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
    for name, positions in (fixed_positions or {}).items():
        if name not in offsets:
            raise InputError(f"fixed positions for chain {name!r}, which is not there; chains: {', '.join(offsets)}")
        length = lengths[list(offsets).index(name)]
        rows = np.array(sorted(positions), int)
        outside = rows[(rows < 1) | (rows > length)]
        if len(outside):
            raise InputError(f"fixed position {outside[0]} of chain {name!r} is outside 1..{length} (gap-filled)")
        design[offsets[name] + rows - 1] = 0
    return Features(
        X=np.where(finite, xyz, np.float32(0)),
        S=residues.encode("".join(chain.sequence for chain in ordered)).astype(np.int32),
        mask=np.asarray(finite.all((1, 2)), np.float32),
        residue_idx=(100 * (number - 1) + np.arange(len(number))).astype(np.int32),
        chain_encoding=number,
        design=design,
    )


def pad_features(features: _F, length: int) -> _F:
    """Pads to `length` residues that no real one sees (mask 0, S `X`, residue_idx -100, chain 0, not designed)."""
    fill = {"S": residues.UNKNOWN, "residue_idx": -100}
    return type(features)(**{
        name: buckets.pad_to(array, length, fill.get(name, 0)) for name, array in features._asdict().items()
    })  # fmt: skip


class _NoBackbone(InputError):
    """A chain that is no protein; left out unless it was asked for by name."""


def _parse_chain(structure: Structure, name: str, compat: bool, ca_only: bool) -> BackboneChain:
    """One chain of all the models that are there; the first occurrence of every (number, code, atom) wins."""
    of_chain = (structure.chain_id == name)[structure.res_chain]
    kept, letter = _amino_acids(structure, of_chain, compat)
    rows = np.flatnonzero(kept)
    if len(rows) == 0:
        raise _NoBackbone(f"{structure.name}: chain {name!r} holds no amino acids")
    icode = structure.icode[rows]
    # One sortable number per (residue number, insertion code); '' < 'A' < 'a' as strings sort.
    key = structure.resid[rows].astype(np.int64) * 0x200000 + np.ascontiguousarray(icode).view(np.uint32).astype(int)
    sites, first, site_of_row = np.unique(key, return_index=True, return_inverse=True)
    site_of_row = site_of_row.reshape(-1)
    resid = structure.resid[rows][first]
    place, length = _fill_gaps(structure.name, name, resid)

    site_of_residue = np.full(structure.n_residues, -1)
    site_of_residue[rows] = site_of_row
    if not compat:
        _warn_of_copies(structure, name, site_of_residue)
    xyz = np.full((length, 4, 3), np.nan, np.float32)
    atoms, slot = _backbone_atoms(structure, site_of_residue, compat)
    xyz[place[site_of_residue[structure.atom_residue[atoms]]], slot] = structure.xyz[atoms]
    xyz[~np.isfinite(xyz)] = np.nan

    present = np.zeros(length, bool)
    present[place] = True
    sequence = np.full(length, "-", "U1")
    sequence[place] = letter[rows][first]
    all_resid = np.zeros(length, np.int32)
    all_resid[place] = resid
    gaps = np.flatnonzero(~present)
    # A filled gap carries the missing number: that of the last residue before it, plus the distance.
    before = np.maximum.accumulate(np.where(present, np.arange(length), 0))
    all_resid[gaps] = all_resid[before[gaps]] + gaps - before[gaps]
    all_icode = np.zeros(length, "U1")
    all_icode[place] = icode[first]
    in_file_order = np.sort(first)
    chain = BackboneChain(
        id=name,
        sequence="".join(sequence.tolist()),
        xyz=xyz,
        resid=all_resid,
        icode=all_icode,
        present=present,
        resn_list=tuple(
            f"{n}{c}" for n, c in zip(structure.resid[rows][in_file_order], icode[in_file_order], strict=True)
        ),
    )
    if not compat:
        complete = np.isfinite(xyz[:, 1]).all(1) if ca_only else chain.mask
        if not complete.any():
            atoms_needed = "CA" if ca_only else "N, CA, C, O"
            raise _NoBackbone(
                f"{structure.name}: chain {name!r} has no residue with a complete backbone ({atoms_needed}); "
                "side-chain or CA-only models cannot be used"
            )
    return chain


def _amino_acids(structure: Structure, of_chain: np.ndarray, compat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which residues of a chain count, (R,) bool, and the letter of each residue, (R,) U1 with '-' for unknown."""
    names = structure.res_name
    if compat:
        selenomethionine = (names == "MSE") & structure.hetero
        standard = np.isin(names, list(residues.THREE_TO_ONE))
        letter = np.where(standard, residues.letters(names), "-")
        return of_chain & (~structure.hetero | selenomethionine), np.where(selenomethionine, "M", letter)
    letter = structure.letters
    known = letter != "X"
    polymer = known & ~structure.hetero
    # Names nobody knows stay, as unknown residues with their coordinates, where they have an N, CA and C.
    unknown = of_chain & ~known & ~structure.hetero & ~np.isin(names, list(residues.CAPS | residues.WATER))
    if unknown.any():
        polymer |= unknown & _has_atoms(structure, ("N", "CA", "C"))
    candidates = of_chain & structure.hetero & known
    if candidates.any():
        polymer |= candidates & ((names == "MSE") | _bonded(structure, of_chain & (polymer | candidates)))
    return of_chain & polymer, np.where(known, letter, "-")


def _has_atoms(structure: Structure, names: tuple[str, ...]) -> np.ndarray:
    """(R,) bool, True for residues that have all of these atoms."""
    out = np.ones(structure.n_residues, bool)
    for name in names:
        found = np.zeros(structure.n_residues, bool)
        found[structure.atom_residue[structure.atom_name == name]] = True
        out &= found
    return out


def _bonded(structure: Structure, among: np.ndarray) -> np.ndarray:
    """(R,) bool, True for residues of `among` that share a peptide bond with another: a free amino acid has none."""
    of = among[structure.atom_residue]
    n_atoms = np.flatnonzero(of & (structure.atom_name == "N"))
    c_atoms = np.flatnonzero(of & (structure.atom_name == "C"))
    hetero = structure.hetero[structure.atom_residue]
    out = np.zeros(structure.n_residues, bool)
    for ends, others in ((n_atoms, c_atoms), (c_atoms, n_atoms)):
        ends = ends[hetero[ends]]
        if len(ends) == 0 or len(others) == 0:
            continue
        gap = np.linalg.norm(structure.xyz[ends][:, None] - structure.xyz[others][None], axis=-1)
        own = structure.atom_residue[ends][:, None] == structure.atom_residue[others][None]
        out[structure.atom_residue[ends[((gap < _PEPTIDE_BOND) & ~own).any(1)]]] = True
    return out


def _warn_of_copies(structure: Structure, chain: str, site: np.ndarray) -> None:
    """Says so when two molecules share a chain name and numbers: only the first is used."""
    alpha = (structure.atom_name == "CA") & (structure.altloc == "") & (site[structure.atom_residue] >= 0)
    atoms = np.flatnonzero(alpha)
    sites = site[structure.atom_residue[atoms]]
    copies = np.bincount(sites) > 1
    if copies.any():
        row = structure.atom_residue[atoms[np.flatnonzero(copies[sites])[0]]]
        log.warning(
            "%s: chain %r holds residue %s%s more than once (%d residues in all); the first is used. "
            "Give every molecule a chain name of its own",
            structure.name, chain, structure.resid[row], structure.icode[row], int(copies.sum()),
        )  # fmt: skip


def _fill_gaps(source: str, chain: str, resid: np.ndarray) -> tuple[np.ndarray, int]:
    """Places of ascending residue numbers once every missing number has one, and the length of the whole."""
    step = np.diff(resid.astype(np.int64))
    missing = np.maximum(step - 1, 0)
    if len(step) and missing.max() > MAX_GAP:
        at = int(missing.argmax())
        raise InputError(
            f"{source}: chain {chain!r} jumps from residue {resid[at]} to {resid[at + 1]}; {missing[at]} missing "
            f"numbers are more than the {MAX_GAP} that are filled. Renumber the residues, or make that part a chain "
            "of its own"
        )
    if missing.sum() > 10 * MAX_GAP:
        raise InputError(
            f"{source}: chain {chain!r} lacks {missing.sum()} residue numbers between {resid[0]} and {resid[-1]}; "
            "renumber the residues"
        )
    place = np.arange(len(resid)) + np.concatenate([[0], np.cumsum(missing)])
    return place.astype(int), int(place[-1]) + 1


def _backbone_atoms(structure: Structure, site: np.ndarray, compat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first N, CA, C and O atom of every site, and the slot (0..3) of each.

    Args:
      structure: all models and alternate locations.
      site: (R,) site of each residue, -1 for residues that do not count.
      compat: without the other names of the carbonyl oxygen.
    """
    atom_site = site[structure.atom_residue]
    slot = np.full(structure.n_atoms, -1)
    for i, name in enumerate(residues.BACKBONE):
        slot[structure.atom_name == name] = i
    rank = np.zeros(structure.n_atoms, int)
    if not compat:
        # A carbonyl O under another name is used only where there is no plain one: it sorts behind it.
        for i, name in enumerate(_O_ALIASES, 1):
            alias = structure.atom_name == name
            slot[alias], rank[alias] = 3, i
    candidates = np.flatnonzero((slot >= 0) & (atom_site >= 0))
    candidates = candidates[np.argsort(rank[candidates], kind="stable")]
    _, first = np.unique(atom_site[candidates] * 4 + slot[candidates], return_index=True)
    chosen = candidates[first]
    return chosen, slot[chosen]
