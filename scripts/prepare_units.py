"""Conformations of capped amino acids with energies and forces: what the potential is trained on.

    python scripts/prepare_units.py --units all --starts 480 --output data/units          # sample and label
    python scripts/prepare_units.py --label picked.npz --output data/picked                # label what is given
    python scripts/prepare_units.py --label run.dcd --topology ala.pdb --output data/run   # frames of one unit

A unit is ACE - amino acid - NME; `acenme` is the two caps alone. For each start φ, ψ and every torsion of the side
chain are drawn uniformly (φ of proline between -100 and -45 degrees). A stiff torsion term holds them during a short
minimisation and 0.1 ps of dynamics (ff14SB in vacuum, 0.5 fs) at one of `--temperatures`; then the term is weak, and a
snapshot is taken every 75 fs, five in all. The fifth takes three small steps down the force before it is labelled
(`kind` 1). Starts whose centres turned into their mirror images are left out, and so are conformations with a
component of the force above 40 eV/Å or without convergence.

Methods: `gfn2` is GFN2-xTB (Bannwarth et al., J. Chem. Theory Comput. 15:1652 (2019); `pip install tblite`); `m062x` is
M06-2X/6-31G* with spherical functions, the level that AI2BMD was trained at (`pip install pyscf`), minutes per
conformation. Sampling needs `jaxprot[prepare]`, trajectories `jaxprot[trajectories]`.

Files `<unit>_<seed>.npz` hold, for n conformations of A atoms: Z (A,), R (n, A, 3) in Å about their mean, E (n,) in eV,
F (n, A, 3) in eV/Å, charge (e), temperature (n,) in K, kind (n,), atom_name and residue_name (A,). Labelled ones keep
the name of their file and what it holds of these, with `rows` (n,), the places that they had there, and `source`, its
hash; the name up to the first `.` or `_` is that of the molecule. Without a charge in the file or by `--charge` it is
that of the unit of the same composition. A file that is there already is not made again, so a run that was stopped
goes on when it is repeated; `settings.json` keeps a folder to one recipe. Runs of different units may share a folder,
a process each.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

UNITS = tuple(
    "ala arg asn asp cys gln glu gly hid hie hip ile leu lys met phe pro ser thr trp tyr val acenme ash glh lyn".split()
)
METHODS = ("gfn2", "m062x")
TEMPERATURES = (300.0, 350.0, 400.0, 500.0, 700.0)
LARGEST = 40.0  # eV/Å, component of a force
SNAPSHOTS = 5  # of a start
STEP, HELD, APART = 0.5, 200, 150  # fs; steps under the stiff term, and between snapshots
STIFF, WEAK = 1000.0, 20.0  # kJ/mol per 1 - cos of a torsion's deviation
MINIMISE = 50  # iterations
DOWN, SLOPE, FARTHEST = 3, 0.01, 0.06  # steps down the force, Å per eV/Å, Å at most
# From 0.015 Å per eV/Å on such steps overshoot in double bonds: what is left of the forces of alanine after three is
# 0.31 eV/Å (root mean square) with 0.01, 0.84 with 0.015 and 1.3 with 0.03, more than before them.
PROLINE = (-100.0, -45.0)  # φ
ACE, NME = ("CH3", "H1", "H2", "H3", "C", "O"), ("N", "H", "C", "H1", "H2", "H3")
PROGRESS = 30.0  # s


class Torsion(NamedTuple):
    """A bond that is turned.

    Attributes:
      atoms: four places, the middle two the bond.
      moved: places that turn with the third; none in a ring, where the stiff term alone brings the angle about.
      low: degrees, of the angles drawn.
      high: likewise.
    """

    atoms: tuple[int, int, int, int]
    moved: tuple[int, ...]
    low: float = -180.0
    high: float = 180.0


class Unit(NamedTuple):
    """A capped amino acid to sample.

    Attributes:
      topology: OpenMM's.
      positions: (A, 3) Å.
      order: (A,) the place in the topology of each atom of the files.
      z: (A,) atomic numbers, in the topology's order as all that follows.
      atom_name: (A,).
      residue_name: (A,).
      charge: e.
      torsions: those drawn.
      centres: (c, 4) chiral atoms and three of their neighbours.
    """

    topology: Any
    positions: Any
    order: Any
    z: Any
    atom_name: Any
    residue_name: Any
    charge: int
    torsions: tuple[Torsion, ...]
    centres: tuple[tuple[int, int, int, int], ...]


class Given(NamedTuple):
    """Conformations to label.

    Attributes:
      z: (A,) atomic numbers.
      positions: (n, A, 3) Å.
      charge: e; None if the file does not tell.
      others: arrays of n rows (temperature, kind) and names of the atoms, as far as there are.
    """

    z: Any
    positions: Any
    charge: int | None
    others: dict[str, Any]


def build(name: str) -> Unit:
    """A unit from PDBFixer's template of its amino acid, with caps and hydrogens of ideal geometry.

    Raises:
      InputError: OpenMM or PDBFixer is not installed.
    """
    import random
    from importlib import resources

    import numpy as np

    from jaxprot.ai2bmd import templates
    from jaxprot.core.errors import InputError

    try:
        import openmm
        from openmm import app, unit

        folder = resources.files("pdbfixer") / "templates"
    except ImportError as error:
        raise InputError('sampling needs OpenMM and PDBFixer: pip install "jaxprot[prepare]"') from error
    form = None if name == "acenme" else name.upper()
    family = templates.family(form) if form else None
    parts = []
    for residue in ("ACE", family, "NME") if family else ("ACE", "NME"):
        with resources.as_file(folder / f"{residue}.pdb") as path:
            file = app.PDBFile(str(path))
        xyz = np.array(file.positions.value_in_unit(unit.angstrom))
        parts.append(
            (residue, {atom.name: (atom.element, x) for atom, x in zip(file.topology.atoms(), xyz, strict=True)})
        )
    _cap(parts)
    topology = app.Topology()
    chain = topology.addChain()
    places = []
    for residue, atoms in parts:
        own = topology.addResidue(residue, chain)
        for atom, (element, x) in atoms.items():
            topology.addAtom(atom, element, own)
            places.append(x)
    topology.createStandardBonds()
    modeller = app.Modeller(topology, np.array(places) * unit.angstrom)
    variants: list[str | None] = [None] * len(parts)
    if family and len(templates.VARIANTS[family]) > 1:
        variants[1] = form
    field = app.ForceField("amber14-all.xml")
    random.seed(name)  # OpenMM draws first places of hydrogens from it; the same unit is to be the same each time
    modeller.addHydrogens(field, variants=variants, platform=openmm.Platform.getPlatformByName("Reference"))
    atoms = list(modeller.topology.atoms())
    place = {(atom.residue.name, atom.name): atom.index for atom in atoms}
    order = [place["ACE", atom] for atom in ACE]
    if family:
        own = [atom for atom in atoms if atom.residue.name == family]
        found, missing, _ = templates.match(form, [atom.name for atom in own])
        if missing:
            raise InputError(f"{name}: this OpenMM builds it without {', '.join(missing)}; it needs 8.2 or newer")
        order += [own[found[atom]].index for atom in templates.residues()[form].atoms]
    order += [place["NME", atom] for atom in NME]
    z = np.array([atom.element.atomic_number for atom in atoms], np.int32)
    neighbours: list[list[int]] = [[] for _ in atoms]
    for i, j in modeller.topology.bonds():
        neighbours[i.index].append(j.index)
        neighbours[j.index].append(i.index)
    names = np.array([atom.name for atom in atoms])
    residues = np.array([atom.residue.name for atom in atoms])
    return Unit(
        modeller.topology,
        np.array(modeller.positions.value_in_unit(unit.angstrom)),
        np.array(order),
        z,
        names,
        residues,
        templates.charge(form) if form else 0,
        _torsions(place, family, z, neighbours) if family else (),
        _centres(place, family),
    )


def _cap(parts: list[tuple[str, dict[str, Any]]]) -> None:
    """Brings the heavy atoms of neighbouring residues together, with trans peptide bonds."""
    import numpy as np

    def away(at: Any, *others: Any) -> Any:
        """Unit vector from an atom away from its neighbours."""
        out = -sum((x - at) / np.linalg.norm(x - at) for x in others)
        return out / np.linalg.norm(out)

    def next_to(a: Any, b: Any, c: Any, length: float, angle: float, torsion: float) -> Any:
        """An atom bonded to c, by the angle to b and the torsion about b - c (degrees)."""
        angle, torsion = np.radians([angle, torsion])
        along = (c - b) / np.linalg.norm(c - b)
        across = np.cross(b - a, along)
        across /= np.linalg.norm(across)
        up = np.cross(across, along)
        inplane, out = np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion)
        return c + length * (-np.cos(angle) * along + inplane * up + out * across)

    first, last = parts[0][1], parts[-1][1]

    def at(part: int, name: str) -> Any:
        return parts[part][1][name][1]

    def put(atoms: dict[str, Any], name: str, x: Any) -> None:
        atoms[name] = (atoms[name][0], x)

    if len(parts) == 3:
        n, ca = at(1, "N"), at(1, "CA")
        # Two bonds of proline's nitrogen are in its template, one of the others'.
        if "CD" in parts[1][1] and parts[1][0] == "PRO":
            carbonyl = n + 1.335 * away(n, ca, at(1, "CD"))
        else:
            carbonyl = next_to(at(1, "C"), ca, n, 1.335, 121.9, -75.0)
        put(first, "C", carbonyl)
        put(first, "CH3", next_to(ca, n, carbonyl, 1.522, 116.6, 180.0))
        put(first, "O", next_to(ca, n, carbonyl, 1.229, 122.9, 0.0))
        before, c, o = ca, at(1, "C"), at(1, "O")
    else:
        before, c, o = at(0, "CH3"), at(0, "C"), at(0, "O")
    nitrogen = c + 1.335 * away(c, before, o)
    put(last, "N", nitrogen)
    put(last, "C", next_to(before, c, nitrogen, 1.449, 121.9, 180.0))


def _torsions(
    place: dict[tuple[str, str], int], family: str, z: Any, neighbours: list[list[int]]
) -> tuple[Torsion, ...]:
    """φ, ψ, and the bonds of the side chain that turn."""
    alpha, n, c = (place[family, atom] for atom in ("CA", "N", "C"))

    def side(near: int, far: int) -> tuple[int, ...]:
        """What hangs on `far`, without it; empty in a ring."""
        found, stack = {far}, [far]
        while stack:
            here = stack.pop()
            for other in neighbours[here]:
                if here == far and other == near:
                    continue
                if other == near:
                    return ()
                if other not in found:
                    found.add(other)
                    stack.append(other)
        return tuple(sorted(found - {far}))

    def about(near: int, far: int) -> tuple[int, int, int, int]:
        """Four atoms of a torsion, heavy ones first."""
        a, b = (
            min((i for i in neighbours[x] if i != y), key=lambda i: (z[i] == 1, i))
            for x, y in ((near, far), (far, near))
        )
        return a, near, far, b

    low, high = PROLINE if family == "PRO" else (-180.0, 180.0)
    out = [
        Torsion((c, alpha, n, place["ACE", "C"]), side(alpha, n), low, high),
        Torsion((n, alpha, c, place["NME", "N"]), side(alpha, c)),
    ]
    seen, stack = {alpha, n, c}, [alpha]
    while stack:  # outwards from CA
        near = stack.pop()
        for far in neighbours[near]:
            if far in seen or z[far] == 1:
                continue
            seen.add(far)
            stack.append(far)
            moved = side(near, far)
            hydrogens = sum(z[i] == 1 for i in neighbours[far])
            # Methyl and ammonium groups look alike after a third of a turn; bonds between two flat atoms do not turn.
            turns = any(len(neighbours[i]) == 4 or z[i] in (8, 16) for i in (near, far))
            if moved and hydrogens < 3 and turns:
                out.append(Torsion(about(near, far), moved))
    return tuple(out)


def _centres(place: dict[tuple[str, str], int], family: str | None) -> tuple[tuple[int, int, int, int], ...]:
    around = {"": ("CA", "N", "C", "CB"), "ILE": ("CB", "CA", "CG1", "CG2"), "THR": ("CB", "CA", "OG1", "CG2")}
    rows = [around[key] for key in ("", family) if key in around and family not in (None, "GLY")]
    return tuple(tuple(place[family, atom] for atom in row) for row in rows)  # type: ignore[misc]


def turned(xyz: Any, torsions: tuple[Torsion, ...], targets: Any) -> Any:
    """(A, 3) positions with the torsions at their targets (degrees); those in rings stay."""
    import numpy as np
    from scipy.spatial.transform import Rotation

    from jaxprot.core.geometry import dihedrals

    xyz = np.array(xyz, np.float64)
    for torsion, target in zip(torsions, targets, strict=True):
        moved = list(torsion.moved)
        if moved:
            _, near, far, _ = torsion.atoms
            axis = (xyz[far] - xyz[near]) / np.linalg.norm(xyz[far] - xyz[near])
            turn = Rotation.from_rotvec(np.radians(target - dihedrals(xyz[list(torsion.atoms)])) * axis)
            xyz[moved] = turn.apply(xyz[moved] - xyz[far]) + xyz[far]
    return xyz


def sample(unit: Unit, starts: int, temperatures: tuple[float, ...], rng: Any) -> Iterator[tuple[float, Any]]:
    """Temperature and (5, A, 3) snapshots in Å, in the order of the files, of each start; None for one left out."""
    import numpy as np
    import openmm
    from openmm import app
    from openmm import unit as u

    system = app.ForceField("amber14-all.xml").createSystem(unit.topology, constraints=None, rigidWater=False)
    hold = openmm.CustomTorsionForce("strength * (1 - cos(theta - target))")
    hold.addGlobalParameter("strength", 0.0)
    hold.addPerTorsionParameter("target")
    for torsion in unit.torsions:
        hold.addTorsion(*torsion.atoms, [0.0])
    system.addForce(hold)
    integrator = openmm.LangevinMiddleIntegrator(300 * u.kelvin, 5 / u.picosecond, STEP * u.femtosecond)
    integrator.setRandomNumberSeed(int(rng.integers(1, 2**31)))
    # The reference platform is the fastest for so few atoms, and the only one that repeats a run.
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))

    def positions() -> Any:
        return np.array(context.getState(getPositions=True).getPositions().value_in_unit(u.angstrom))

    context.setPositions(unit.positions * u.angstrom)
    openmm.LocalEnergyMinimizer.minimize(context)
    relaxed = positions()
    hands = _hands(unit.positions, unit.centres)
    for _ in range(starts):
        targets = np.array([rng.uniform(torsion.low, torsion.high) for torsion in unit.torsions])
        temperature, seed = float(rng.choice(temperatures)), int(rng.integers(1, 2**31))
        for number, (torsion, target) in enumerate(zip(unit.torsions, targets, strict=True)):
            hold.setTorsionParameters(number, *torsion.atoms, [np.radians(target)])
        hold.updateParametersInContext(context)
        context.setParameter("strength", STIFF)
        frames = []
        try:
            context.setPositions(turned(relaxed, unit.torsions, targets) * u.angstrom)
            openmm.LocalEnergyMinimizer.minimize(context, maxIterations=MINIMISE)
            integrator.setTemperature(temperature * u.kelvin)
            context.setVelocitiesToTemperature(temperature * u.kelvin, seed)
            integrator.step(HELD)
            context.setParameter("strength", WEAK)
            for _ in range(SNAPSHOTS):
                integrator.step(APART)
                frames.append(positions())
        except openmm.OpenMMException:  # atoms on top of each other flew apart
            frames = []
        found = np.array(frames)
        good = len(found) > 0 and np.isfinite(found).all() and (_hands(found, unit.centres) == hands).all()
        yield temperature, found[:, unit.order] if good else None


def _hands(xyz: Any, centres: tuple[tuple[int, int, int, int], ...]) -> Any:
    """(..., c) handedness of centres, -1 or 1."""
    import numpy as np

    at = np.asarray(xyz)[..., np.array(centres, int).reshape(-1, 4), :]
    return np.sign(np.linalg.det(at[..., 1:, :] - at[..., :1, :]))


def labeller(method: str, z: Any, charge: int, source: str) -> Callable[[Any], tuple[float, Any] | None]:
    """A function of (A, 3) positions in Å: energy in eV and (A, 3) forces in eV/Å, or None without convergence.

    Args:
      method: one of `METHODS`.
      z: (A,) atomic numbers.
      charge: e.
      source: what to name in errors.

    Raises:
      InputError: a number of electrons that is odd, or the program of the method is not installed.
    """
    import os

    import numpy as np

    from jaxprot.core.errors import InputError
    from jaxprot.core.units import BOHR_ANGSTROM, HARTREE_EV

    if (int(np.sum(z)) - charge) % 2:
        raise InputError(f"{source}: a charge of {charge:+d} leaves an electron unpaired; is it right (--charge)?")

    def scaled(energy: Any, gradient: Any) -> tuple[float, Any]:
        return float(energy) * HARTREE_EV, -np.asarray(gradient, np.float64) * (HARTREE_EV / BOHR_ANGSTROM)

    if method == "gfn2":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # more are slower for molecules this small
        try:
            from tblite.exceptions import TBLiteRuntimeError
            from tblite.interface import Calculator
        except ImportError as error:
            raise InputError("--method gfn2 needs tblite: pip install tblite") from error

        def gfn2(xyz: Any) -> tuple[float, Any] | None:
            calculator = Calculator("GFN2-xTB", np.asarray(z), np.asarray(xyz) / BOHR_ANGSTROM, float(charge), 0)
            calculator.set("verbosity", 0)
            try:
                found = calculator.singlepoint()
            except TBLiteRuntimeError:
                return None
            return scaled(found.get("energy"), found.get("gradient"))

        return gfn2
    try:
        from pyscf import dft, gto
    except ImportError as error:
        raise InputError("--method m062x needs PySCF: pip install pyscf") from error

    def m062x(xyz: Any) -> tuple[float, Any] | None:
        atoms = [(int(number), x) for number, x in zip(z, np.asarray(xyz) / BOHR_ANGSTROM, strict=True)]
        molecule = gto.M(atom=atoms, unit="Bohr", basis="6-31g*", charge=charge, spin=0, cart=False, verbose=0)
        field = dft.RKS(molecule, xc="m062x")
        field.grids.level = 4  # this functional is sensitive to the grid
        field.conv_tol = 1e-9
        energy = field.kernel()
        return scaled(energy, field.nuc_grad_method().kernel()) if field.converged else None

    return m062x


def down(xyz: Any, evaluate: Callable[[Any], tuple[float, Any] | None]) -> Any:
    """Positions after small steps down the force; None if one cannot be taken."""
    import numpy as np

    for _ in range(DOWN):
        found = evaluate(xyz)
        if found is None:
            return None
        step = SLOPE * found[1]
        length = np.linalg.norm(step, axis=-1, keepdims=True)
        xyz = xyz + step * np.minimum(1, FARTHEST / np.maximum(length, FARTHEST))
    return xyz


def stored(xyz: Any) -> Any:
    """Positions about their mean as the files hold them, float32; labels are of these, not of what was rounded."""
    import numpy as np

    return np.asarray(xyz - np.mean(xyz, 0), np.float32)


def label(xyz: Any, evaluate: Callable[[Any], tuple[float, Any] | None]) -> tuple[float, Any] | None:
    """Energy and forces of positions; None if they cannot be had or are too large."""
    import numpy as np

    found = evaluate(np.asarray(xyz, np.float64))
    return None if found is None or not np.abs(found[1]).max() <= LARGEST else found


def make_unit(name: str, args: argparse.Namespace, path: pathlib.Path) -> tuple[int, int] | None:
    """Samples, labels and writes a unit.

    Returns:
      Conformations that are in the file, and that were left out; None if the file is there.

    Raises:
      InputError: a program is missing, or no conformation is left.
    """
    import numpy as np

    if path.exists():
        return None
    unit = build(name)
    z = unit.z[unit.order]
    evaluate = labeller(args.method, z, unit.charge, name)
    rng = np.random.default_rng([args.seed, zlib.crc32(name.encode())])
    rows: list[tuple[Any, float, Any, float, int]] = []
    said = time.monotonic()
    for number, (temperature, frames) in enumerate(sample(unit, args.starts, args.temperatures, rng)):
        for place, xyz in enumerate(() if frames is None else frames):
            kind = int(place == SNAPSHOTS - 1)
            xyz = down(xyz, evaluate) if kind else xyz
            found = None if xyz is None else label(xyz := stored(xyz), evaluate)
            if found is not None:
                rows.append((xyz, *found, temperature, kind))
        if time.monotonic() - said > PROGRESS:
            said = time.monotonic()
            print(f"{name}: {number + 1} of {args.starts} starts, {len(rows)} conformations", file=sys.stderr)
    columns = _columns(rows, name)
    write(
        path, Z=z, **columns, charge=unit.charge, atom_name=unit.atom_name[unit.order],
        residue_name=unit.residue_name[unit.order],
    )  # fmt: skip
    return len(rows), args.starts * SNAPSHOTS - len(rows)


def _columns(rows: list[tuple[Any, float, Any, float, int]], source: str) -> dict[str, Any]:
    import numpy as np

    from jaxprot.core.errors import InputError

    if not rows:
        raise InputError(
            f"{source}: no conformation is left; all have forces above {LARGEST:g} eV/Å, or none converged"
        )
    kinds = (np.float32, np.float64, np.float32, np.float64, np.int8)
    return {
        key: np.array(column, kind)
        for key, column, kind in zip(
            ("R", "E", "F", "temperature", "kind"), zip(*rows, strict=True), kinds, strict=True
        )
    }


def read_given(path: pathlib.Path, topology: pathlib.Path | None) -> Given:
    """Conformations without labels.

    Raises:
      InputError: missing, damaged, or of another form.
    """
    import zipfile

    import numpy as np

    from jaxprot.core.errors import InputError
    from jaxprot.core.residues import atomic_numbers

    if path.suffix != ".npz":
        from jaxprot.io.trajectories import read_trajectory

        read = read_trajectory(path, topology)
        structure = read.structure
        names = {"atom_name": structure.atom_name, "residue_name": structure.res_name[structure.atom_residue]}
        z, positions, charge, others = atomic_numbers(structure.element), read.frames, None, names
    else:
        try:
            with np.load(path, allow_pickle=False) as file:
                z, positions = np.asarray(file["Z"]), np.asarray(file["R"], np.float32)
                charge = int(file["charge"]) if "charge" in file else None
                others = {key: file[key] for key in ("temperature", "kind", "atom_name", "residue_name") if key in file}
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: no conformations (Z and R of an .npz file): {error}") from error
    if z.ndim != 1 or positions.ndim != 3 or positions.shape[1:] != (len(z), 3) or not len(positions):
        raise InputError(f"{path}: Z {z.shape}, R {positions.shape}; expected (A,) and (n, A, 3)")
    if not np.issubdtype(z.dtype, np.integer) or (z < 1).any():
        raise InputError(f"{path}: elements that are not known, of atom {int(np.argmax(z < 1)) + 1} for one")
    if not np.isfinite(positions).all():
        bad = int(np.argwhere(~np.isfinite(positions))[0][0])
        raise InputError(f"{path}: R of conformation {bad} not finite; leave it out")
    for key, array in others.items():
        rows = len(positions) if key in ("temperature", "kind") else len(z)
        if array.shape != (rows,):
            raise InputError(f"{path}: {key} {array.shape}; expected ({rows},)")
    return Given(z.astype(np.int32), positions, charge, others)


def usual_charge(z: Any) -> int | None:
    """Charge of the unit of a composition; None if there is no such unit.

    Units of one composition have one charge, because a proton more or less tells charged from neutral.
    """
    import numpy as np

    from jaxprot.ai2bmd import templates

    known = {tuple(sorted(unit.z.tolist())): round(float(unit.charge.sum())) for unit in templates.units().values()}
    caps = templates.residues()
    known[tuple(sorted([*caps["ACE"].z.tolist(), *caps["NME"].z.tolist()]))] = 0
    return known.get(tuple(sorted(np.asarray(z).tolist())))


def make_labels(source: pathlib.Path, args: argparse.Namespace, path: pathlib.Path) -> tuple[int, int] | None:
    """Labels the conformations of a file.

    Returns:
      Conformations in the new file, and left out; None if they are labelled already.

    Raises:
      InputError: a file that cannot be used.
      OutputError: the new file is there, and of another source.
    """
    import numpy as np

    from jaxprot.core.errors import InputError, OutputError
    from jaxprot.io.outputs import sha256

    given = read_given(source, args.topology)
    charge = next((c for c in (given.charge, args.charge, usual_charge(given.z)) if c is not None), None)
    if charge is None:
        raise InputError(f"{source}: not the atoms of a unit; give --charge, or `charge` in the file")
    digest = sha256(source)
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            if "source" not in file or str(file["source"]) != digest or int(file["charge"]) != charge:
                raise OutputError(f"{path}: not made of {source} as it is now; remove it, or choose another folder")
        return None
    evaluate = labeller(args.method, given.z, charge, str(source))
    rows, kept = [], []
    said = time.monotonic()
    for number, xyz in enumerate(given.positions):
        found = label(xyz, evaluate)
        if found is not None:
            rows.append((xyz, *found, 0.0, 0))
            kept.append(number)
        if time.monotonic() - said > PROGRESS:
            said = time.monotonic()
            print(f"{source.name}: {number + 1} of {len(given.positions)} conformations", file=sys.stderr)
    columns = _columns(rows, str(source))
    # Where and how the conformations came about is for the file to tell, if it does.
    for key in ("temperature", "kind"):
        del columns[key]
        if key in given.others:
            columns[key] = given.others[key][kept]
    names = {key: given.others[key] for key in ("atom_name", "residue_name") if key in given.others}
    write(path, Z=given.z, **columns, charge=charge, **names, rows=np.array(kept), source=digest)
    return len(kept), len(given.positions) - len(kept)


def write(path: pathlib.Path, **arrays: Any) -> None:
    """Arrays as a file, whole or not at all."""
    import numpy as np

    from jaxprot.io.outputs import atomic_path

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _chosen(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    wrong = [name for name in names if name not in (*UNITS, "all")]
    if wrong or not names:
        raise argparse.ArgumentTypeError(f"no unit {', '.join(wrong) or text!r}; there are {', '.join(UNITS)}, or all")
    return UNITS if "all" in names else names


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < value < float("inf") for value in found):
        raise argparse.ArgumentTypeError(f"{text!r}; give temperatures in K such as 300,500")
    return found


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--units", type=_chosen, help=f"to sample, with commas between, or all: {', '.join(UNITS)}")
    what.add_argument(
        "--label", type=pathlib.Path, nargs="+", metavar="FILE", help=".npz files with Z and R, or trajectories"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("--method", choices=METHODS, default="gfn2")
    parser.add_argument("--starts", type=int, default=480, help=f"of each unit, {SNAPSHOTS} snapshots each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperatures", type=_temperatures, default=TEMPERATURES, help="K, with commas between")
    parser.add_argument("--topology", type=pathlib.Path, help="PDB or mmCIF file of the trajectories of --label")
    parser.add_argument("--charge", type=int, help="of what --label names, if the files do not tell")
    args = parser.parse_args(argv)
    if args.starts < 1 or args.seed < 0:
        parser.error("--starts must be 1 or more, and --seed not negative")
    if args.units and (args.topology or args.charge is not None):
        parser.error("--topology and --charge go with --label")

    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import keep_settings

    jobs: dict[pathlib.Path, Callable[[pathlib.Path], tuple[int, int] | None]] = {}
    for name in args.units or ():
        jobs[args.output / f"{name}_{args.seed}.npz"] = functools.partial(make_unit, name, args)
    for source in args.label or ():
        if not source.is_file():
            parser.error(f"{source}: no such file")
        path = args.output / f"{source.stem}.npz"
        if path in jobs:
            parser.error(f"{source}: another file of --label has this name; label it into a folder of its own")
        jobs[path] = functools.partial(make_labels, source, args)
    recipe = {"starts": args.starts, "temperatures": args.temperatures} if args.units else {"labels": "of given files"}
    try:
        labeller(args.method, (1, 1), 0, "H2")  # a program that is missing is told before anything is written
        keep_settings(args.output, {"method": args.method, **recipe})
        for path, make in jobs.items():
            begun = time.monotonic()
            done = make(path)
            if done is None:
                print(f"{path}: is there already", file=sys.stderr)
            else:
                seconds = time.monotonic() - begun
                print(f"{path}: {done[0]} conformations, {done[1]} left out, {seconds:.1f} s", file=sys.stderr)
    except JaxprotError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
