"""What is said, in one line each, of molecules that can be computed but that a potential describes less well."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np

from jaxprot.ai2bmd import templates
from jaxprot.ai2bmd.fragment import ACENME, Fragmentation
from jaxprot.visnet import featurize

_log = logging.getLogger(__name__)
_SHOWN = 3  # residues named in a line
_LARGER = 1.5  # times the largest unit, up to which a whole molecule is still like what the weights learnt from


def unseen_units(made: Fragmentation, known: Collection[str] | None) -> None:
    """Warns of kinds of units that weights never learnt from.

    Args:
      made: the units of a protein.
      known: names of what the weights learnt from, units as in `Fragmentation.unit_name`; None if nobody tells, and
        names of other molecules alone tell nothing of units.
    """
    if known is None or not {ACENME, *templates.units()} & set(known):
        return
    unseen = sorted(set(made.unit_name.tolist()) - set(known))
    if not unseen:
        return
    kinds = []
    for name in unseen:
        where = [place for place, one in zip(made.unit_label, made.unit_name, strict=True) if one == name]
        kinds.append(f"{name} ({_few(where)})")
    _log.warning(
        "%s: these weights never learnt from %s; energies and forces there are extrapolation: watch what happens, or "
        "train on such units (scripts/prepare_units.py makes them)",
        made.name,
        ", ".join(kinds),
    )


def larger_than_units(name: str, atoms: int, known: Collection[str] | None) -> None:
    """Warns of a molecule that goes as a whole through a network that learnt from units alone.

    Args:
      name: of the structure.
      atoms: of the molecule.
      known: names of what the weights learnt from, see `unseen_units`.
    """
    units = templates.units()
    if not known or set(known) - {ACENME, *units}:
        return
    largest = max(len(units[name].z) for name in known if name in units) if set(known) - {ACENME} else 12
    if atoms > _LARGER * largest:
        _log.warning(
            "%s: %d atoms go through the network as a whole, but these weights learnt from capped residues of at most "
            "%d atoms: what lies farther apart than in those is extrapolation; fragments (--mode fragment) are what "
            "they are for",
            name,
            atoms,
            largest,
        )


def crowded(name: str, molecules: Collection[np.ndarray], cutoff: float, cap: int | None) -> None:
    """Warns where atoms have more neighbours than published weights look at.

    Args:
      name: of the structure.
      molecules: (n, 3) positions in Å of what goes through the network.
      cutoff: of the network, Å.
      cap: most neighbours of an atom, itself counted; None for no cap.
    """
    if cap is None:
        return
    over = sum(int((featurize.degrees(xyz, cutoff) > cap).sum()) for xyz in molecules if len(xyz) > cap)
    if over:
        _log.warning(
            "%s: %d atoms have more than %d neighbours within %g Å; as published those of lowest number are kept, so "
            "that energies depend on the order of atoms and jump when it matters (`max_neighbors=None` on loading "
            "lifts the cap)",
            name,
            over,
            cap,
            cutoff,
        )


def charged_in_vacuum(made: Fragmentation) -> None:
    """Warns of charged residues, whose charges nothing screens without a solvent.

    Args:
      made: the units of a protein.
    """
    charged = [place for place, charge in zip(made.unit_label, made.unit_charge, strict=True) if charge]
    if charged:
        _log.warning(
            "%s: net charge %+d and %d charged residue%s (%s) in vacuum, where nothing screens charges: salt bridges "
            'close and protons may leave; --solvent gb (solvent="gb") puts it into water',
            made.name,
            made.total_charge,
            len(charged),
            "" if len(charged) == 1 else "s",
            _few(charged),
        )


def capped_positions(made: Fragmentation, xyz: np.ndarray) -> list[np.ndarray]:
    """Positions in Å of the atoms of every unit, caps as placed, of (N, 3) positions of the protein."""
    xyz = np.asarray(xyz, np.float64)
    parent = xyz[made.cap_parent]
    bond = xyz[made.cap_removed] - parent
    length = np.linalg.norm(bond, axis=-1, keepdims=True)
    everything = np.concatenate([xyz, parent + made.cap_length[:, None] * bond / length])
    return np.split(everything[made.row_source], made.unit_start[1:-1])


def _few(places: list[str]) -> str:
    return ", ".join(places[:_SHOWN]) + (f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else "")
