"""PDB and mmCIF files to `Structure` and back (gemmi), and from Biopython objects.

Policy: author numbering and author chain names; every atom, alternate location and hetero group is kept. What to
drop is decided by who uses the structure (`Structure.first_altlocs`, the parser of a system, ...).
"""

import dataclasses
import gzip
import itertools
import logging
import os
import re
import string
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.io.outputs import atomic_path

log = logging.getLogger(__name__)

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
"""File names that a folder of structures is searched for."""

# A character that no number has, inside the 24 columns of x, y, z. gemmi would read '3x.142' as 3 and '***.***' as 0.
_ODD_COORDINATE = re.compile(rb"^(?:ATOM  |HETATM)[^\n]{24}[ 0-9.+\-]{0,23}[^ 0-9.+\-\r\n][^\r\n]*", re.MULTILINE)
_NUMBERS = re.compile(rb"(?:[ 0-9.+\-]|\bnan\b)*", re.IGNORECASE)
_CIF_START = re.compile(rb"\A(?:\xef\xbb\xbf)?(?:\s|#[^\n]*\n)*data_", re.IGNORECASE)


def read_structure(
    path: str | os.PathLike | bytes, *, models: Literal["first", "all"] | int = "first", name: str | None = None
) -> Structure:
    """Reads a PDB or mmCIF file, gzipped or not.

    The format is told by the content, so a wrong suffix does no harm.

    Args:
      path: the file, or its content as bytes.
      models: `"first"`, `"all"`, or the number of one model as the file gives it.
      name: name of the result; default the stem of the file.

    Returns:
      The structure with author numbering.

    Raises:
      InputError: no such file, empty, damaged, no atoms, or no such model; the message names the file.
    """
    import gemmi

    data, source, stem = _content(path)
    if not data.strip(b"\0 \t\r\n"):
        raise InputError(f"{source}: the file is empty; give a PDB or mmCIF file")
    try:
        if _CIF_START.match(data):
            block = _coordinate_block(gemmi.cif.read_string(data), source)
            parsed = gemmi.make_structure_from_block(block)
        else:
            _check_coordinates(data, source)
            parsed = gemmi.read_pdb_string(data)
        parsed.merge_chain_parts()  # the waters and ligands of a chain stand at the end of the file
        flat = gemmi.FlatStructure(parsed)
        chain_ids = _chain_characters(parsed, flat)
        numbers = [model.num for model in parsed]
    except InputError:
        raise
    except Exception as error:  # gemmi raises RuntimeError, ValueError, IndexError, ... on damaged text
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source}: cannot be read as PDB or mmCIF ({reason}); is the file complete?") from error
    if len(flat.pos) == 0:
        raise InputError(f"{source}: no ATOM records; is this a structure file (PDB or mmCIF)?")
    structure = _from_flat(flat, chain_ids, name or stem)
    if models == "all":
        return structure
    if models == "first":
        return structure.first_model()
    chosen = structure.model == models
    if not chosen.any():
        raise InputError(f"{source}: no model {models}; the file has models {_ranges(numbers)}")
    return structure.select(chosen)


def write_structure(structure: Structure, path: str | os.PathLike, *, fit: bool = False) -> None:
    """Writes PDB (`.pdb`, `.ent`) or mmCIF (`.cif`, `.mmcif`), gzipped with a further `.gz`; all or nothing.

    Args:
      structure: what to write; coordinates in Å.
      path: target, format by suffix.
      fit: into a PDB file, write chain names of more than two letters as a free single letter and cut residue names
        of more than three, instead of an error. For files that are only looked at.

    Raises:
      InputError: unknown suffix, or the structure does not fit the PDB format (chain name, coordinate range).
      OutputError: the file cannot be written.
    """
    path = Path(path)
    zipped = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if zipped else path.suffix.lower()
    if suffix in (".pdb", ".ent"):
        structure = _fitted(structure) if fit else structure
        _check_pdb_limits(structure, path)
        text = _pdb_text(structure)
    elif suffix in (".cif", ".mmcif"):
        text = _to_gemmi(structure).make_mmcif_document().as_string()
    else:
        raise InputError(f"{path}: unknown suffix {suffix!r}; use .pdb or .cif (with .gz if wanted)")
    data = text.encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if zipped else data)


def from_biopython(obj: Any, name: str | None = None) -> Structure:
    """Converts a `Bio.PDB` structure, model, chain or residue.

    Args:
      obj: the entity; disordered atoms become alternate locations.
      name: name of the result; default the identifier of `obj`.

    Raises:
      InputError: `obj` is no Bio.PDB entity or holds no atoms.
    """
    if not hasattr(obj, "level"):
        raise InputError(f"{type(obj).__name__} is no Bio.PDB structure, model, chain or residue")
    rows = []
    previous, residue_row, chain_row = None, -1, -1
    residue_columns, chain_ids = [], []
    for model_number, chain_id, residue in _biopython_residues(obj):
        if previous is None or (model_number, chain_id) != previous:
            chain_row += 1
            chain_ids.append(chain_id.strip())
            previous = (model_number, chain_id)
        variants = residue.disordered_get_list() if residue.is_disordered() == 2 else [residue]
        for variant in variants:
            atoms = variant.get_unpacked_list()
            if not atoms:
                continue
            residue_row += 1
            flag, number, icode = variant.id
            residue_columns.append((variant.resname.strip(), number, icode.strip(), flag.strip() != "", chain_row))
            for atom in atoms:
                rows.append((atom, model_number, residue_row))
    if not rows:
        raise InputError(f"{name or obj.id}: the Bio.PDB object holds no atoms")
    atoms = [atom for atom, _, _ in rows]
    res_name, resid, icode, hetero, res_chain = zip(*residue_columns, strict=True)
    return Structure(
        name=str(name if name is not None else obj.id),
        xyz=np.array([atom.coord for atom in atoms], np.float32),
        atom_name=np.array([atom.name.strip() for atom in atoms], "U4"),
        element=np.array([(atom.element or "").upper() for atom in atoms], "U2"),
        altloc=np.array([atom.altloc.strip() for atom in atoms], "U1"),
        occupancy=np.array([1.0 if atom.occupancy is None else atom.occupancy for atom in atoms], np.float32),
        bfactor=np.array([atom.bfactor or 0.0 for atom in atoms], np.float32),
        serial=np.array([atom.serial_number or i + 1 for i, atom in enumerate(atoms)], np.int32),
        model=np.array([model for _, model, _ in rows], np.int32),
        atom_residue=np.array([row for _, _, row in rows], np.int32),
        res_name=np.array(res_name, "U5"),
        resid=np.array(resid, np.int32),
        icode=np.array(icode, "U1"),
        hetero=np.array(hetero, bool),
        res_chain=np.array(res_chain, np.int32),
        chain_id=np.array(chain_ids, "U8"),
    )


def stem_of(path: str | os.PathLike) -> str:
    """Returns the name of a structure file without folder and suffixes (`7xyz.cif.gz` -> `7xyz`)."""
    name = Path(path).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return Path(name).stem if Path(name).stem else name


def _content(path: str | os.PathLike | bytes) -> tuple[bytes, str, str]:
    """Returns the unzipped content, what to call it in messages, and the stem."""
    if isinstance(path, bytes | bytearray | memoryview):
        data, source, stem = bytes(path), "structure", "structure"
    else:
        source, stem = str(path), stem_of(path)
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError as error:
            raise InputError(f"{source}: no such file") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{source}: the gzip file is truncated or damaged ({error}); fetch it again") from error
    return data, source, stem


def _coordinate_block(document: Any, source: str) -> Any:
    """The first block with atoms; a file of the component dictionary or of reflections has none."""
    for block in document:
        if block.find_values("_atom_site.id") or block.find_values("_atom_site.Cartn_x"):
            return block
    raise InputError(f"{source}: no ATOM records (no _atom_site loop); is this a coordinate file?")


def _check_coordinates(data: bytes, source: str) -> None:
    for found in _ODD_COORDINATE.finditer(data):
        if _NUMBERS.fullmatch(found.group()[30:54]):
            continue
        line = data.count(b"\n", 0, found.start()) + 1
        shown = found.group()[:54].decode("ascii", "replace")
        raise InputError(f"{source}, line {line}: coordinates cannot be read in {shown!r}; is the file damaged?")


def _text(chars: np.ndarray, width: int) -> np.ndarray:
    """(N, 8) int8 characters, zero-padded, to (N,) unicode of a width."""
    chars = np.ascontiguousarray(chars)
    # Non-ASCII bytes of a damaged file become '?', so that every later comparison and message is safe.
    chars = np.where(chars < 0, ord("?"), chars).astype(np.uint8)
    return np.char.strip(chars.view(f"S{chars.shape[1]}").reshape(-1).astype(f"U{chars.shape[1]}")).astype(f"U{width}")


def _character(chars: np.ndarray) -> np.ndarray:
    """(N,) int8 characters to (N,) U1, where blank and zero become ''."""
    codes = np.where(chars < 0, ord("?"), chars).astype(np.uint32)
    return np.where(codes == ord(" "), 0, codes).astype(np.uint32).view("U1")


def _chain_characters(parsed: Any, flat: Any) -> np.ndarray:
    """(N, 8) int8 chain names; blank chains of several segments (CHARMM, NAMD) get a letter per segment.

    Without this the second copy of a protein would share chain and numbers with the first.
    """
    chars = np.ascontiguousarray(flat.chain_ids)
    blank = chars[:, 0] == 0
    if not blank.any():
        return chars
    segments = [residue.segment for model in parsed for chain in model for residue in chain for _ in residue]
    found = list(dict.fromkeys(segment for segment, is_blank in zip(segments, blank, strict=True) if is_blank))
    if len(found) < 2:
        return chars
    used = {str(name) for name in _text(chars[~blank], 8)}
    short = _short_names([*used, *(f"segment {segment}" for segment in found)], keep=8)
    log.info("blank chains named by segment: %s", {segment: short[f"segment {segment}"] for segment in found})
    names = np.array([short[f"segment {segment}"] for segment in segments], "S8")
    return np.where(blank[:, None], names.view(np.int8).reshape(-1, 8), chars)


def _from_flat(flat: Any, chain_ids: np.ndarray, name: str) -> Structure:
    """Finds residues and chains as runs of equal labels along gemmi's flat atom arrays."""
    model = np.asarray(flat.model_num, np.int32)
    raw_chain = np.ascontiguousarray(chain_ids).view(np.int64).reshape(-1)
    raw_name = np.ascontiguousarray(flat.residue_names).view(np.int64).reshape(-1)
    resnums, icodes, het = np.asarray(flat.resnums), np.asarray(flat.icodes), np.asarray(flat.het_flags)
    new_chain = _changes(model, raw_chain)
    new_residue = new_chain | _changes(resnums, icodes, raw_name)
    starts = np.flatnonzero(new_residue)
    chain_starts = np.flatnonzero(new_chain)
    return Structure(
        name=name,
        xyz=np.asarray(flat.pos, np.float32),
        atom_name=_text(flat.atom_names, 4),
        element=np.char.upper(np.asarray(flat.element_names).astype("U2")),
        altloc=_character(np.asarray(flat.altlocs)),
        occupancy=np.array(flat.occ, np.float32),
        bfactor=np.array(flat.b_iso, np.float32),
        serial=np.array(flat.serials, np.int32),
        model=model.copy(),
        atom_residue=(np.cumsum(new_residue) - 1).astype(np.int32),
        res_name=_text(flat.residue_names[starts], 5),
        resid=resnums[starts].astype(np.int32),
        icode=_character(icodes[starts]),
        hetero=het[starts] == ord("H"),
        res_chain=(np.cumsum(new_chain) - 1)[starts].astype(np.int32),
        chain_id=_text(chain_ids[chain_starts], 8),
    )


def _changes(*columns: np.ndarray) -> np.ndarray:
    """(N,) bool, True where any column differs from the row before (and at the first row)."""
    out = np.zeros(len(columns[0]), bool)
    out[:1] = True
    for column in columns:
        out[1:] |= column[1:] != column[:-1]
    return out


def _check_pdb_limits(structure: Structure, path: Path) -> None:
    long = sorted({str(c) for c in structure.chain_id if len(c) > 2})
    if long:
        raise InputError(f"{path}: chain name {long[0]!r} does not fit the PDB format; write .cif")
    if any(len(n) > 3 for n in structure.res_name):
        name = next(n for n in structure.res_name if len(n) > 3)
        raise InputError(f"{path}: residue name {str(name)!r} does not fit the PDB format; write .cif")
    finite = structure.xyz[np.isfinite(structure.xyz)]
    if finite.size and (finite.min() <= -1000 or finite.max() >= 10000):
        raise InputError(f"{path}: coordinates beyond -1000..10000 Å do not fit the PDB format; write .cif")


def _fitted(structure: Structure) -> Structure:
    """Chain and residue names short enough for a PDB file."""
    names = list(dict.fromkeys(map(str, structure.chain_id)))
    short = _short_names(names, keep=2)
    return dataclasses.replace(
        structure,
        chain_id=np.array([short[str(name)] for name in structure.chain_id], "U8"),
        res_name=structure.res_name.astype("U3").astype("U5"),
    )


def _short_names(names: list[str], keep: int) -> dict[str, str]:
    """Names longer than `keep` letters become free single letters, then pairs; the others stay."""
    taken = {name for name in names if len(name) <= keep}
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits
    free = (new for new in (*letters, *map("".join, itertools.product(letters, repeat=2))) if new not in taken)
    return {name: name if len(name) <= keep else next(free) for name in names}


def _pdb_text(structure: Structure) -> str:
    import gemmi

    options = gemmi.PdbWriteOptions(minimal=True)
    options.preserve_serial = bool((structure.serial > 0).all() and (structure.serial < 100_000).all())
    options.cryst1_record = False
    return _to_gemmi(structure).make_pdb_string(options)


def _to_gemmi(structure: Structure) -> Any:
    import gemmi

    out = gemmi.Structure()
    out.name = structure.name
    first_atom = np.searchsorted(structure.atom_residue, np.arange(structure.n_residues + 1))
    first_residue = np.searchsorted(structure.res_chain, np.arange(structure.n_chains + 1))
    xyz, names, elements = structure.xyz.tolist(), structure.atom_name.tolist(), structure.element.tolist()
    altlocs, occupancy, bfactor = structure.altloc.tolist(), structure.occupancy.tolist(), structure.bfactor.tolist()
    serial = structure.serial.tolist()
    symbols = {symbol: gemmi.Element(symbol) for symbol in set(elements)}
    model = None
    for c in range(structure.n_chains):
        number = int(structure.model[first_atom[first_residue[c]]])
        if model is None or model.num != number:
            model = out.add_model(gemmi.Model(number))
        chain = gemmi.Chain(str(structure.chain_id[c]))
        for r in range(first_residue[c], first_residue[c + 1]):
            residue = gemmi.Residue()
            residue.name = str(structure.res_name[r])
            residue.seqid = gemmi.SeqId(int(structure.resid[r]), str(structure.icode[r]) or " ")
            residue.het_flag = "H" if structure.hetero[r] else "A"
            for i in range(first_atom[r], first_atom[r + 1]):
                atom = gemmi.Atom()
                atom.name, atom.element, atom.serial = names[i], symbols[elements[i]], serial[i]
                atom.altloc = altlocs[i] or "\0"
                atom.pos = gemmi.Position(*xyz[i])
                atom.occ, atom.b_iso = occupancy[i], bfactor[i]
                residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    out.setup_entities()
    return out


def _biopython_residues(obj: Any):
    """Yields (model number from 1, chain name, residue) of any Bio.PDB entity."""
    if obj.level == "S":
        for model in obj:
            yield from _biopython_residues(model)
    elif obj.level == "M":
        for chain in obj:
            for residue in chain.get_unpacked_list():
                yield (obj.serial_num or obj.id + 1), chain.id, residue
    elif obj.level == "C":
        for residue in obj.get_unpacked_list():
            yield 1, obj.id, residue
    elif obj.level == "R":
        yield 1, (obj.parent.id if obj.parent is not None else ""), obj
    else:
        raise InputError(f"cannot make a structure of a Bio.PDB entity of level {obj.level!r}")


def _ranges(numbers: list[int]) -> str:
    return f"{numbers[0]}..{numbers[-1]}" if len(numbers) > 3 else ", ".join(map(str, numbers))
