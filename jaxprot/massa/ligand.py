"""Small molecules: AttentiveFP, and its features from SMILES through RDKit.

Z. Xiong et al., J. Med. Chem. 2020, doi 10.1021/acs.jmedchem.9b00959. Atoms collect from their bonded neighbours, the
molecule from its atoms, with attention and gated recurrent units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core import buckets
from jaxprot.core.errors import InputError
from jaxprot.nn.gvp import dropout, gather, split_key

ATOM_FEATURES, BOND_FEATURES, NEIGHBOURS = 39, 10, 6
_SYMBOLS = ("B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "As", "Se", "Br", "Te", "I", "At")
_ABSENT = -9e8
_xavier = nnx.initializers.xavier_uniform()


class Ligand(NamedTuple):
    """Padded arrays of a small molecule, or of several with an axis in front.

    Attributes:
      atoms: features (a, 39).
      bonds: features (e, 10).
      neighbours: atoms bonded to each (a, 6), 0 where there is none.
      bonds_of: the bonds to them (a, 6).
      present: whether there is such a neighbour (a, 6).
      mask: True for atoms, False for padding (a,).
    """

    atoms: np.ndarray
    bonds: np.ndarray
    neighbours: np.ndarray
    bonds_of: np.ndarray
    present: np.ndarray
    mask: np.ndarray


def _linear(inputs: int, outputs: int, rngs: Any) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=_xavier, rngs=rngs)


class GatedUnit(nnx.Module):
    """Gated recurrent unit: reset, update and new state, side by side in the kernels."""

    def __init__(self, width: int, *, rngs: Any):
        self.input, self.state = _linear(width, 3 * width, rngs), _linear(width, 3 * width, rngs)

    def __call__(self, x: Float[Array, "*n c"], h: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """The new state."""
        xr, xz, xn = jnp.split(self.input(x), 3, -1)
        hr, hz, hn = jnp.split(self.state(h), 3, -1)
        z = jax.nn.sigmoid(xz + hz)
        return (1 - z) * jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn) + z * h


class AttentiveFP(nnx.Module):
    """Vectors of molecules and of their atoms.

    Args:
      width: channels.
      radius: rounds between atoms.
      rounds: between molecule and atoms.
      rate: of dropout.
      rngs: for the weights.
    """

    def __init__(self, width: int = 128, radius: int = 3, rounds: int = 1, rate: float = 0.4, *, rngs: Any):
        self.rounds, self.rate = rounds, rate
        self.atom = _linear(ATOM_FEATURES, width, rngs)
        self.neighbour = _linear(ATOM_FEATURES + BOND_FEATURES, width, rngs)
        self.units = nnx.List([GatedUnit(width, rngs=rngs) for _ in range(radius)])
        self.align = nnx.List([_linear(2 * width, 1, rngs) for _ in range(radius)])
        self.attend = nnx.List([_linear(width, width, rngs) for _ in range(radius)])
        self.molecule_unit = GatedUnit(width, rngs=rngs)
        self.molecule_align = _linear(2 * width, 1, rngs)
        self.molecule_attend = _linear(width, width, rngs)
        self.molecule = _linear(width, width, rngs)
        self.norm = nnx.LayerNorm(width, epsilon=1e-12, use_fast_variance=False, rngs=rngs)
        self.dense = nnx.List([_linear(width, width, rngs) for _ in range(3)])

    def __call__(self, ligand: Ligand, key: PRNGKeyArray | None = None) -> tuple[Array, Array]:
        """Vectors (b, c) of molecules and (b, a, c) of atoms; a key switches dropout on."""
        keys = split_key(key, len(self.units) + 2)
        leaky = jax.nn.leaky_relu  # with slope 0.01
        present = ligand.present[..., None]
        h = leaky(self.atom(ligand.atoms))
        around = [
            gather(jnp.asarray(x), i) for x, i in ((ligand.atoms, ligand.neighbours), (ligand.bonds, ligand.bonds_of))
        ]
        near, seen = leaky(self.neighbour(jnp.where(present, jnp.concatenate(around, -1), 0))), h
        for number, unit in enumerate(self.units):
            if number:
                near = jnp.where(present, gather(seen, ligand.neighbours), 0)
            own = jnp.broadcast_to(seen[:, :, None], near.shape)
            both = dropout(jnp.concatenate([own, near], -1), self.rate, keys[number])
            score = leaky(self.align[number](both)) + jnp.where(present, 0, _ABSENT)
            weight = jax.nn.softmax(score, 2) * present
            told = self.attend[number](dropout(near, self.rate, keys[number]))
            h = unit(jax.nn.elu(jnp.sum(weight * told, 2)), h)
            seen = jax.nn.relu(h)
        mask = ligand.mask[..., None]
        m = jnp.sum(seen * mask, 1)
        for _ in range(self.rounds):
            own = jnp.broadcast_to(jax.nn.relu(m)[:, None], seen.shape)
            score = leaky(self.molecule_align(jnp.concatenate([own, seen], -1))) + jnp.where(mask, 0, _ABSENT)
            weight = jax.nn.softmax(score, 1) * mask
            told = self.molecule_attend(dropout(seen, self.rate, keys[-2]))
            m = self.molecule_unit(jax.nn.elu(jnp.sum(weight * told, 1)), m)
        atoms = h
        for number, layer in enumerate(self.dense):
            atoms = layer(atoms)
            atoms = jax.nn.relu(atoms) if number + 1 < len(self.dense) else atoms
        return self.norm(self.molecule(dropout(m, self.rate, keys[-1]))), atoms


def from_smiles(smiles: Sequence[str], atoms: int | None = None, bonds: int | None = None) -> Ligand:
    """Features of molecules through RDKit; hydrogens are implicit, atoms in the order of their degrees.

    Args:
      smiles: one string per molecule.
      atoms: padded number of atoms; a multiple of 16 by default.
      bonds: padded number of bonds; a multiple of 16 by default.

    Raises:
      InputError: RDKit is not installed, or a string that it cannot read (it is named).
    """
    try:
        from rdkit import Chem, RDLogger
    except ImportError as error:
        raise InputError("small molecules need RDKit: pip install 'jaxprot[ligands]'") from error
    RDLogger.DisableLog("rdApp.*")
    if not smiles:
        raise InputError("no molecules given")
    made = []
    for number, text in enumerate(smiles):
        molecule = Chem.MolFromSmiles(text) if isinstance(text, str) and text else None
        if molecule is None or molecule.GetNumAtoms() == 0:
            raise InputError(f"molecule {number}: {text!r} is no SMILES string of a molecule; correct or remove it")
        made.append(_one(molecule, text))
    most = max(len(one.atoms) for one in made), max(len(one.bonds) for one in made)
    sizes = tuple(16 * max(1, -(-n // 16)) for n in most)
    sizes = (sizes[0] if atoms is None else atoms, sizes[1] if bonds is None else bonds)
    if sizes[0] < most[0] or sizes[1] < most[1]:
        raise InputError(
            f"molecules of up to {most[0]} atoms and {most[1]} bonds do not fit in {sizes[0]} and {sizes[1]}"
        )
    padded = [
        Ligand(*(buckets.pad_to(x, sizes[name == "bonds"]) for name, x in zip(Ligand._fields, one, strict=True)))
        for one in made
    ]
    return Ligand(*map(np.stack, zip(*padded, strict=True)))


def _one(molecule: Any, text: str) -> Ligand:
    """Of one molecule, not padded."""
    order = sorted(molecule.GetAtoms(), key=lambda atom: atom.GetDegree())
    place = {atom.GetIdx(): row for row, atom in enumerate(order)}
    shape = (len(order), NEIGHBOURS)
    neighbours, bonds_of, present = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, atom in enumerate(order):
        if atom.GetDegree() > NEIGHBOURS:
            raise InputError(
                f"{text}: atom {atom.GetSymbol()} has {atom.GetDegree()} bonds, at most {NEIGHBOURS} are read"
            )
        for slot, bond in enumerate(atom.GetBonds()):
            neighbours[row, slot] = place[bond.GetOtherAtomIdx(atom.GetIdx())]
            bonds_of[row, slot], present[row, slot] = bond.GetIdx(), True
    bonds = [_bond(bond) for bond in molecule.GetBonds()]
    return Ligand(
        np.array([_atom(atom) for atom in order], np.float32),
        np.array(bonds, np.float32).reshape(-1, BOND_FEATURES),
        neighbours,
        bonds_of,
        present,
        np.ones(len(order), bool),
    )


def _hot(value: Any, choices: Sequence[Any]) -> list[bool]:
    return [value == choice for choice in choices]


def _atom(atom: Any) -> list[float]:
    """39 features: symbol, degree, charge, radicals, hybridisation, aromaticity, hydrogens, chirality."""
    symbol, kind = atom.GetSymbol(), str(atom.GetHybridization())
    kinds = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
    code = atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else ""
    return [
        *_hot(symbol, _SYMBOLS),
        symbol not in _SYMBOLS,
        *_hot(atom.GetDegree(), range(6)),
        atom.GetFormalCharge(),
        atom.GetNumRadicalElectrons(),
        *_hot(kind, kinds),
        kind not in kinds,
        atom.GetIsAromatic(),
        *_hot(min(atom.GetTotalNumHs(), 4), range(5)),
        *_hot(code, ("R", "S")),
        atom.HasProp("_ChiralityPossible"),
    ]


def _bond(bond: Any) -> list[float]:
    """10 features: order, conjugation, ring, stereo."""
    return [
        *_hot(str(bond.GetBondType()), ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")),
        bond.GetIsConjugated(),
        bond.IsInRing(),
        *_hot(str(bond.GetStereo()), ("STEREONONE", "STEREOANY", "STEREOZ", "STEREOE")),
    ]
