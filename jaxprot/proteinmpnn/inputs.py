"""The JSON and jsonl inputs of the published design tool, as plain arrays on the concatenated layout.

Positions in the files are 1-based in the gap-filled numbering of their chain (a gap counts). Each option may be a path
or the object that such a file holds: `{structure name: ...}` for all but `bias_AA`, which is `{letter: bias}`.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.residues import ALPHABET, BACKBONE
from jaxprot.io.outputs import atomic_path
from jaxprot.proteinmpnn.featurize import BackboneChain, Features, featurize, order_chains
from jaxprot.proteinmpnn.membrane import residue_labels

log = logging.getLogger(__name__)

Source = str | os.PathLike | Mapping[str, Any]

NO_LOG_ODDS = 1e4
"""Log-odds of residues without a PSSM: above every threshold, so nothing is held back."""


@dataclasses.dataclass(frozen=True, eq=False)
class DesignInputs:
    """All that restricts or biases a design. L counts the residues of `chains`, concatenated in that order.

    Attributes:
      chains: chains in the order of the tensors (designed first, then fixed ones, each by name).
      designed: identifiers of the chains to design.
      fixed: chain -> 1-based positions that keep their residue.
      tied_groups: groups of 0-based concatenated positions that get one letter together.
      tied_weights: (L,) float32 weight of a position in the mean of its group; 1 unless given, may be negative.
      omit_AA: (21,) float32, 1 for letters never drawn.
      omit_by_pos: (L, 21) float32, 1 for letters never drawn at a position.
      bias_AA: (21,) float32 added to the logits everywhere.
      bias_by_res: (L, 21) float32 added to the logits of a position.
      pssm_coef: (L,) float32 share of the PSSM in the distribution, 0 to 1.
      pssm_bias: (L, 21) float32 distribution mixed in.
      pssm_log_odds: (L, 21) float32; letters below a threshold are held back.
      has_log_odds: whether any `pssm_log_odds` was given.
      membrane: whether the protein lies in a membrane; None if not told.
      labels: (L,) int32 membrane label of each residue, see `featurize.LABELS`; None if not told.
    """

    chains: tuple[BackboneChain, ...]
    designed: tuple[str, ...]
    fixed: dict[str, list[int]]
    tied_groups: list[list[int]]
    tied_weights: np.ndarray
    omit_AA: np.ndarray  # noqa: N815 - the tool's name
    omit_by_pos: np.ndarray
    bias_AA: np.ndarray  # noqa: N815 - the tool's name
    bias_by_res: np.ndarray
    pssm_coef: np.ndarray
    pssm_bias: np.ndarray
    pssm_log_odds: np.ndarray
    has_log_odds: bool
    membrane: bool | None = None
    labels: np.ndarray | None = None

    def features(self) -> Features:
        """The tensors of the chains, not padded."""
        return featurize(self.chains, designed=self.designed, fixed_positions=self.fixed)


def design_inputs(
    name: str,
    chains: Sequence[BackboneChain],
    *,
    designed: Source | Sequence[str] | None = None,
    fixed: Source | None = None,
    tied: Source | None = None,
    omit_AA: str = "X",  # noqa: N803
    omit: Source | None = None,
    bias_AA: Source | None = None,  # noqa: N803
    bias_by_res: Source | None = None,
    pssm: Source | None = None,
    membrane: bool | None = None,
    membrane_buried: Source | None = None,
    membrane_interface: Source | None = None,
) -> DesignInputs:
    """Gathers the inputs of one structure.

    Args:
      name: the structure's key in the files.
      chains: its parsed chains.
      designed: `{name: [[designed chains], [fixed chains]]}` (chains in neither list are left out), or a plain list of
        the chains to design; None for all.
      fixed: `{name: {chain: [positions]}}`.
      tied: `{name: [{chain: [positions], ...} or {chain: [[positions], [weights]], ...}, ...]}`.
      omit_AA: letters never drawn.
      omit: `{name: {chain: [[[positions], letters], ...]}}`.
      bias_AA: `{letter: bias}`.
      bias_by_res: `{name: {chain: (L, 21) numbers}}`.
      pssm: `{name: {chain: {"pssm_coef": (L,), "pssm_bias": (L, 21), "pssm_log_odds": (L, 21)}}}`.
      membrane: whether the protein lies in a membrane, for the weights with one label for the whole structure.
      membrane_buried: `{name: {chain: [positions]}}` that touch the lipid, for the weights with a label per residue.
      membrane_interface: the same, at the height of the lipid heads.

    Raises:
      InputError: unknown name, chain, letter or position, or an array of another length; says which file and record.
    """
    ordered, chosen = _choose_chains(name, list(chains), designed)
    layout = _Layout(ordered)
    n = layout.length
    pssm_entry = _entry(pssm, name, "pssm")
    coef = np.zeros(n, np.float32)
    mixed = np.zeros((n, 21), np.float32)
    log_odds = np.full((n, 21), NO_LOG_ODDS, np.float32)
    for chain, given in layout.per_chain(pssm_entry, "pssm"):
        where = f"pssm of {name!r}, chain {chain!r}"
        unknown = sorted(set(_mapping(given, where)) - {"pssm_coef", "pssm_bias", "pssm_log_odds"})
        if unknown:
            raise InputError(f"{where}: unknown key {unknown[0]!r}; known: pssm_coef, pssm_bias, pssm_log_odds")
        for key, array in (("pssm_coef", coef), ("pssm_bias", mixed), ("pssm_log_odds", log_odds)):
            if key in given:
                layout.fill(array, chain, given[key], f"{where}, {key}")
    by_residue = np.zeros((n, 21), np.float32)
    for chain, given in layout.per_chain(_entry(bias_by_res, name, "bias_by_res"), "bias_by_res"):
        layout.fill(by_residue, chain, given, f"bias_by_res of {name!r}, chain {chain!r}")
    fixed_positions = _positions(layout, name, fixed, "fixed positions")
    labels = None
    if membrane_buried is not None or membrane_interface is not None:
        buried = _positions(layout, name, membrane_buried, "buried positions")
        interface = _positions(layout, name, membrane_interface, "interface positions")
        labels = residue_labels(ordered, buried, interface, name)
    groups, weights = _ties(layout, name, _entry(tied, name, "tied positions"))
    _warn_of_unresolved_ties(name, ordered, groups)
    everywhere = _letter_mask(omit_AA, "omit_AA")
    by_position = _omitted(layout, name, _entry(omit, name, "omitted letters"))
    _check_letters_left(name, ordered, chosen, fixed_positions, np.maximum(everywhere, by_position))
    return DesignInputs(
        chains=tuple(ordered),
        designed=tuple(chosen),
        fixed=fixed_positions,
        tied_groups=groups,
        tied_weights=weights,
        omit_AA=everywhere,
        omit_by_pos=by_position,
        bias_AA=_letter_bias(bias_AA),
        bias_by_res=by_residue,
        pssm_coef=coef,
        pssm_bias=mixed,
        pssm_log_odds=log_odds,
        has_log_odds=bool((log_odds != NO_LOG_ODDS).any()),
        membrane=membrane,
        labels=labels,
    )


def homo_oligomer_ties(chains: Sequence[BackboneChain]) -> list[dict[str, list[int]]]:
    """Ties equal positions of all chains, in the tool's form.

    Raises:
      InputError: the chains differ in length (they must have the same gap-filled numbering).
    """
    lengths = {chain.id: len(chain) for chain in chains}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError(f"chains of a homo-oligomer must have the same length (gaps count), got {shown}")
    return [{chain: [i] for chain in lengths} for i in range(1, next(iter(lengths.values()), 0) + 1)]


def read_parsed_jsonl(path: str | os.PathLike) -> dict[str, list[BackboneChain]]:
    """Reads structures in the tool's parsed form, one JSON object per line.

    Returns:
      Name -> chains. The form has no residue numbers: they run from 1.

    Raises:
      InputError: not jsonl, or a chain whose sequence and coordinates differ in length.
    """
    out: dict[str, list[BackboneChain]] = {}
    for number, entry in _lines(path):
        where = f"{path}, line {number}"
        name = str(_mapping(entry, where).get("name", ""))
        ids = [key.removeprefix("seq_chain_") for key in entry if key.startswith("seq_chain_")]
        if not name or not ids:
            raise InputError(f"{where}: no 'name' or no 'seq_chain_...'; is this a parsed structure file?")
        if name in out:
            raise InputError(f"{where}: a second structure {name!r}")
        out[name] = [_parsed_chain(entry, chain, where) for chain in ids]
    if not out:
        raise InputError(f"{path}: no structures")
    return out


def write_parsed_jsonl(structures: Mapping[str, Sequence[BackboneChain]], path: str | os.PathLike) -> None:
    """Writes structures in the tool's parsed form (NaN where an atom is missing), all or nothing."""
    lines = []
    for name, chains in structures.items():
        entry: dict[str, Any] = {}
        for chain in chains:
            # Through the shortest text that gives the same float32 back: 27.113 and not 27.113000869750977.
            xyz = chain.xyz.astype(np.float32).astype("U32").astype(float)
            entry[f"seq_chain_{chain.id}"] = chain.sequence
            entry[f"coords_chain_{chain.id}"] = {
                f"{atom}_chain_{chain.id}": xyz[:, i].tolist() for i, atom in enumerate(BACKBONE)
            }
        entry |= {"name": name, "num_of_chains": len(chains), "seq": "".join(chain.sequence for chain in chains)}
        lines.append(json.dumps(entry))
    _write_lines(lines, path)


def write_inputs(entries: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Writes any of the other inputs: one line, the object that the tool expects; all or nothing."""
    _write_lines([json.dumps(entries)], path)


def read_inputs(source: Source) -> dict[str, Any]:
    """Reads an input file; the objects of several lines are joined.

    Raises:
      InputError: no such file, no JSON object, or a key given twice.
    """
    if isinstance(source, Mapping):
        return dict(source)
    out: dict[str, Any] = {}
    for number, entry in _lines(source):
        twice = sorted(set(out) & set(_mapping(entry, f"{source}, line {number}")))
        if twice:
            raise InputError(f"{source}, line {number}: a second entry {twice[0]!r}")
        out |= entry
    return out


class _Layout:
    """Where every chain lies in the concatenation."""

    def __init__(self, chains: Sequence[BackboneChain]):
        lengths = [len(chain) for chain in chains]
        self.size = dict(zip([chain.id for chain in chains], lengths, strict=True))
        self.start = dict(zip(self.size, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
        self.length = sum(lengths)

    def check(self, chain: str, where: str) -> None:
        if chain not in self.size:
            raise InputError(f"{where}: no chain {chain!r}; chains: {', '.join(self.size)}")

    def per_chain(self, entry: Any, where: str) -> Iterable[tuple[str, Any]]:
        for chain, given in _mapping(entry or {}, where).items():
            self.check(chain, where)
            yield chain, given

    def rows(self, chain: str, positions: Iterable[int], where: str) -> np.ndarray:
        """0-based concatenated rows of 1-based positions of a chain."""
        self.check(chain, where)
        out = np.array(_integers(positions, f"{where}, chain {chain!r}"), int)
        outside = out[(out < 1) | (out > self.size[chain])]
        if len(outside):
            raise InputError(
                f"{where}: position {outside[0]} of chain {chain!r} is outside 1..{self.size[chain]} "
                "(positions count filled gaps and start at 1)"
            )
        return out - 1 + self.start[chain]

    def fill(self, array: np.ndarray, chain: str, given: Any, where: str) -> None:
        """Writes the numbers of a chain into its rows."""
        shape = (self.size[chain], *array.shape[1:])
        try:
            values = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: expected numbers of shape {shape}") from error
        if values.shape != shape:
            raise InputError(f"{where}: numbers of shape {values.shape}, expected {shape} (gaps count)")
        if not np.isfinite(values).all():
            raise InputError(f"{where}: holds NaN or infinity")
        array[self.start[chain] : self.start[chain] + self.size[chain]] = values


def _positions(layout: _Layout, name: str, source: Source | None, what: str) -> dict[str, list[int]]:
    """Chain -> 1-based positions of one kind."""
    out, where = {}, f"{what} of {name!r}"
    for chain, given in layout.per_chain(_entry(source, name, what), what):
        out[chain] = _integers(given, where)
        layout.rows(chain, out[chain], where)
    return out


def _choose_chains(
    name: str, chains: list[BackboneChain], designed: Source | Sequence[str] | None
) -> tuple[list[BackboneChain], list[str]]:
    if isinstance(designed, str | os.PathLike | Mapping):
        entry = _entry(designed, name, "chains")
        if not isinstance(entry, Sequence) or len(entry) != 2 or any(isinstance(part, str) for part in entry):
            raise InputError(f"chains of {name!r}: expected [[designed chains], [fixed chains]], got {entry!r}")
        change, keep = [list(map(str, part)) for part in entry]
        both = sorted(set(change) & set(keep))
        if both:
            raise InputError(f"chains of {name!r}: {both[0]!r} is listed as designed and as fixed")
        known = [chain.id for chain in chains]
        missing = [chain for chain in change + keep if chain not in known]
        if missing:
            raise InputError(f"chains of {name!r}: no chain {missing[0]!r}; chains: {', '.join(known)}")
        chains = [chain for chain in chains if chain.id in change + keep]
        designed = change
    ordered, flags = order_chains(chains, designed)
    return ordered, [chain.id for chain, flag in zip(ordered, flags, strict=True) if flag]


def _ties(layout: _Layout, name: str, entry: Any) -> tuple[list[list[int]], np.ndarray]:
    where = f"tied positions of {name!r}"
    weights = np.ones(layout.length, np.float32)
    groups: list[list[int]] = []
    taken: set[int] = set()
    if entry is not None and (isinstance(entry, str | Mapping) or not isinstance(entry, Sequence)):
        raise InputError(f"{where}: expected a list of groups, got {type(entry).__name__}")
    for number, group in enumerate(entry or [], 1):
        rows: list[int] = []
        for chain, given in layout.per_chain(group, f"{where}, group {number}"):
            weighted = isinstance(given, Sequence) and len(given) > 0 and isinstance(given[0], Sequence)
            positions, betas = (given[0], given[1] if len(given) == 2 else None) if weighted else (given, None)
            found = layout.rows(chain, positions, f"{where}, group {number}")
            if weighted:
                if betas is None or not isinstance(betas, Sequence) or len(betas) != len(found):
                    raise InputError(f"{where}, group {number}, chain {chain!r}: expected [[positions], [weights]]")
                try:
                    weights[found] = np.array(betas, np.float32)
                except (TypeError, ValueError) as error:
                    raise InputError(f"{where}, group {number}, chain {chain!r}: weights are no numbers") from error
            rows += found.tolist()
        twice = taken & set(rows)
        if twice or len(set(rows)) != len(rows):
            raise InputError(f"{where}, group {number}: a position is tied twice")
        taken |= set(rows)
        if rows:
            groups.append(rows)
    return groups, weights


def _warn_of_unresolved_ties(name: str, chains: Sequence[BackboneChain], groups: Sequence[Sequence[int]]) -> None:
    """Says which residues decide the letter of their tied partners, as in the published tool, by being unresolved."""
    labels = [
        f"{chain.id}:{resid}{icode}"
        for chain in chains
        for resid, icode in zip(chain.resid.tolist(), chain.icode.tolist(), strict=True)
    ]
    # CA alone: a chain of a CA-only model has no other atoms.
    seen = np.concatenate([np.isfinite(c.xyz[:, 1]).all(-1) & ((c.mask > 0) | ~(c.mask > 0).any()) for c in chains])
    found = [row for group in groups if seen[list(group)].any() for row in group if not seen[row]]
    if found:
        shown = ", ".join(labels[row] for row in found[:10]) + (
            f" and {len(found) - 10} more" if len(found) > 10 else ""
        )
        log.warning(
            "%s: tied residues without a whole backbone keep their letter (a gap: X), and their partners get it: %s",
            name,
            shown,
        )


def _check_letters_left(
    name: str, chains: Sequence[BackboneChain], designed: Sequence[str], fixed: Mapping[str, list[int]], out: np.ndarray
) -> None:
    """Raises if a position that is designed may take no amino acid at all."""
    start = 0
    for chain in chains:
        none = out[start : start + len(chain), :20].all(1)
        start += len(chain)
        rows = [i for i in np.flatnonzero(none) + 1 if i not in fixed.get(chain.id, ())] if none.any() else []
        if rows and chain.id in designed:
            raise InputError(
                f"omitted letters of {name!r}: position {rows[0]} of chain {chain.id!r} has no amino acid left; "
                "omit fewer, or fix the position"
            )


def _omitted(layout: _Layout, name: str, entry: Any) -> np.ndarray:
    out = np.zeros((layout.length, 21), np.float32)
    for chain, items in layout.per_chain(entry, "omitted letters"):
        where = f"omitted letters of {name!r}, chain {chain!r}"
        for item in items if isinstance(items, Sequence) else [items]:
            if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
                raise InputError(f"{where}: expected [[positions], letters], got {item!r}")
            rows = layout.rows(chain, item[0], f"omitted letters of {name!r}")
            out[rows] = np.maximum(out[rows], _letter_mask("".join(item[1]), where))
    return out


def _letter_mask(letters: str, where: str) -> np.ndarray:
    out = np.zeros(21, np.float32)
    for letter in letters:
        if letter not in ALPHABET:
            raise InputError(f"{where}: {letter!r} is no letter of {ALPHABET}")
        out[ALPHABET.index(letter)] = 1
    if out[:20].all():
        raise InputError(f"{where}: all twenty amino acids are omitted; leave at least one")
    return out


def _letter_bias(source: Source | None) -> np.ndarray:
    out = np.zeros(21, np.float32)
    for letter, bias in (read_inputs(source) if source is not None else {}).items():
        if len(letter) != 1 or letter not in ALPHABET:
            raise InputError(f"bias_AA: {letter!r} is no letter of {ALPHABET}")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not np.isfinite(bias):
            raise InputError(f"bias_AA: {bias!r} for {letter} is no number")
        out[ALPHABET.index(letter)] = bias
    return out


def _entry(source: Source | None, name: str, what: str) -> Any:
    """The entry of one structure; an error with the names there are if the file has none."""
    if source is None:
        return None
    entries = read_inputs(source)
    if name not in entries:
        file = "" if isinstance(source, Mapping) else f"{source}: "
        names = ", ".join(list(entries)[:5]) + (", ..." if len(entries) > 5 else "")
        raise InputError(f"{file}no {what} for structure {name!r}; there are entries for {names or 'nothing'}")
    return entries[name]


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected a JSON object {{...}}, got {type(value).__name__}")
    return value


def _integers(values: Any, where: str) -> list[int]:
    values = [values] if isinstance(values, int) else values
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"{where}: expected a list of positions, got {values!r}")
    wrong = [v for v in values if isinstance(v, bool) or not isinstance(v, int | np.integer)]
    if wrong:
        raise InputError(f"{where}: {wrong[0]!r} is no position (a whole number from 1)")
    # A number too large for an index is outside every chain; the range check says so.
    return [min(max(int(v), -1), 2**31) for v in values]


def _parsed_chain(entry: Mapping[str, Any], chain: str, where: str) -> BackboneChain:
    sequence = str(entry[f"seq_chain_{chain}"])
    coords = _mapping(entry.get(f"coords_chain_{chain}"), f"{where}, coords_chain_{chain}")
    xyz = np.full((len(sequence), 4, 3), np.nan, np.float32)
    for i, atom in enumerate(BACKBONE):
        given = coords.get(f"{atom}_chain_{chain}")
        if given is None and atom != "CA":
            continue  # CA-only files
        try:
            array = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: coordinates of {atom} in chain {chain!r} are no numbers") from error
        if array.shape != (len(sequence), 3):
            raise InputError(
                f"{where}: chain {chain!r} has {len(sequence)} letters and {atom} coordinates of shape {array.shape}"
            )
        xyz[:, i] = array
    xyz[~np.isfinite(xyz)] = np.nan
    present = (np.array(list(sequence), "U1") != "-") | np.isfinite(xyz).any((1, 2))
    resid = np.arange(1, len(sequence) + 1, dtype=np.int32)
    return BackboneChain(
        id=chain,
        sequence=sequence,
        xyz=xyz,
        resid=resid,
        icode=np.zeros(len(sequence), "U1"),
        present=present,
        resn_list=tuple(map(str, resid[present])),
    )


def _lines(path: str | os.PathLike) -> list[tuple[int, Any]]:
    """JSON values of a file: one per line, or the whole file as one (pretty-printed) value."""
    try:
        text = Path(path).read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; expected JSON lines") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from error
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            out.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            try:
                return [(1, json.loads(text))]
            except (ValueError, RecursionError):
                raise InputError(f"{path}, line {number}: no JSON ({error})") from error
    if not out:
        raise InputError(f"{path}: the file is empty; expected JSON lines")
    return out


def _write_lines(lines: list[str], path: str | os.PathLike) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
