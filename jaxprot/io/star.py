"""STAR files as tables of text, parsed and written by starfile, so that what is written again is what was read."""

import linecache
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot._version import __version__
from jaxprot.core.errors import InputError
from jaxprot.core.particles import Table

_TEXT = np.dtypes.StringDType()
# What starfile would change is carried through its parser as these (of a private area of Unicode).
_APOSTROPHE, _HASH, _WORD = "\ue0f1", "\ue0f2", "\ue0f3"


def read_star(source: Path) -> list[Table]:
    """All tables, every value as text.

    Raises:
      InputError: no STAR file, or a damaged one.
    """
    import starfile

    try:
        text = source.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{source}: cannot be opened ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: no text at byte {error.start}; is it a STAR file? Save it as UTF-8") from error
    if not text.strip():
        raise InputError(f"{source}: is empty")
    wanted = re.findall(r"^[ \t]*data_(\S*)", text, re.M)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"{source}: two tables of the same name ({', '.join(wanted)}); rename or remove one")
    # starfile makes every apostrophe a quotation mark, ends lines at any # and takes `nan` and `""` for nothing.
    changed = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    if any(word in text for word in ("nan", "NaN", "<NA>")):  # these expressions are slow, and most files need none
        changed = re.sub(r"(?<!\S)(nan|NaN|<NA>)(?!\S)", _WORD + r"\1", changed)
    if "'" in text or '"' in text or re.search(r"#(?<=\S#)(?=\S)", text):
        quoted = r"(?<!\S)(?:'[^'\n]*'|\"[^\"\n]*\")(?!\S)"
        changed = re.sub(rf"{quoted}|'|(?<=\S)#(?=\S)", lambda match: _carry(match[0]), changed)
    names = re.findall(r"^\s*_(\S+)", changed, re.M)
    with tempfile.TemporaryDirectory(prefix="jaxprot-") as folder:
        path = source
        if changed != text:
            path = Path(folder) / "changed.star"
            path.write_text(changed, encoding="utf-8", newline="")
        linecache.cache.pop(str(path), None)  # starfile reads through this cache, which may know an older content
        try:
            blocks: Any = starfile.read(path, always_dict=True, parse_as_string=names)
        # starfile has no error of its own: what damaged text causes comes from its own code, pandas or shlex.
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise InputError(
                f"{source}: cannot be read as a STAR file ({' '.join(str(error).split())}); is it complete, with as "
                "many values in each row as columns?"
            ) from error
    if not blocks:
        raise InputError(f"{source}: no STAR file (no line that starts with data_)")
    special = changed != text or '"' in text
    return [_table(name, block, special, source) for name, block in blocks.items()]


def _carry(text: str) -> str:
    """A quoted text, or a single character, with what starfile would change replaced."""
    single = {"'": _APOSTROPHE, "#": _HASH}.get(text)
    return single or text[0] + (text[1:-1].replace("'", _APOSTROPHE) or _WORD) + text[-1]


def _restore(value: str) -> str:
    return value.replace(_APOSTROPHE, "'").replace(_HASH, "#").replace(_WORD, "")


def _table(name: str, block: Any, special: bool, source: Path) -> Table:
    if isinstance(block, dict):
        return Table(name, {key: np.array([_restore(str(value))], _TEXT) for key, value in block.items()}, loop=False)
    if block.columns.duplicated().any():
        twice = block.columns[block.columns.duplicated()][0]
        raise InputError(f"{source}: column {twice} appears twice in table {name!r}; remove one")
    columns = {}
    for key in block.columns:
        missing = (block[key].isna() | (block[key] == "")).to_numpy()  # a quoted "" was carried as something
        if missing.any():
            raise InputError(
                f"{source}: row {int(np.argmax(missing)) + 1} of table {name!r} has no value for {key}; is the file "
                "complete?"
            )
        values = list(map(str, block[key].tolist()))
        values = list(map(_restore, values)) if special else values
        unclosed = next((row for row, value in enumerate(values) if special and "\n" in value), None)
        if unclosed is not None:
            raise InputError(f"{source}: row {unclosed + 1} of table {name!r} has a quotation mark that is not closed")
        columns[_restore(key)] = np.array(values, _TEXT)
    return Table(name, columns)


def star_text(tables: Sequence[Table], target: Path) -> str:
    """The text of a file of tables; equal tables, equal texts.

    Args:
      tables: whose values are written as they are.
      target: file that errors name.

    Raises:
      InputError: a value that the format cannot hold.
    """
    import pandas
    import starfile

    blocks: dict[str, Any] = {}
    for table in tables:
        columns = {key: [str(value) for value in values.tolist()] for key, values in table.columns.items()}
        for key, values in columns.items():
            wrong = next((text for text in values if re.search(r'[\t\r\n]|^["#]|".* | .*"', text)), None)
            if wrong is not None:
                raise InputError(f"{target}: {wrong!r} of column {key} cannot be written to a STAR file; rename it")
        blocks[table.name] = pandas.DataFrame(columns) if table.loop else {k: v[0] for k, v in columns.items()}
    text = starfile.to_string(blocks)
    # starfile's first line holds the time; equal stacks shall give equal files.
    return f"# Written by jaxprot {__version__}\n" + text.partition("\n")[2]
