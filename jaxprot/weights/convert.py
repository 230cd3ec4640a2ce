"""From the names and layouts of a foreign checkpoint to ours, by a table of rules; every problem reported at once."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxprot.core.errors import CheckpointError

Transform = Callable[[np.ndarray], np.ndarray] | str | None
_KINDS = ("missing", "unexpected", "of wrong shape", "not finite", "filled twice")
_SHOWN = 12  # lines of each kind in an error


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Where a tensor of the file goes.

    Attributes:
      pattern: regular expression that the whole foreign name must match.
      target: our dotted name, with `\1` for the first group of the pattern; several names if the tensor is split.
      transform: what is done to the array: nothing, `"T"` (transpose of a matrix), or a function; one for each target
        if there are several.
    """

    pattern: str
    target: str | tuple[str, ...]
    transform: Transform | tuple[Transform, ...] = None

    def __post_init__(self):
        if isinstance(self.target, tuple) and isinstance(self.transform, tuple):
            if len(self.target) != len(self.transform):
                raise ValueError(f"rule {self.pattern!r}: {len(self.target)} targets, {len(self.transform)} transforms")

    def apply(self, key: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Our names and arrays for a tensor whose name the pattern matches."""
        match = re.fullmatch(self.pattern, key)
        if match is None:
            raise ValueError(f"{key} does not match {self.pattern}")
        targets = self.target if isinstance(self.target, tuple) else (self.target,)
        transforms = self.transform if isinstance(self.transform, tuple) else (self.transform,) * len(targets)
        return [(match.expand(t), _transformed(array, f)) for t, f in zip(targets, transforms, strict=True)]

    def origin(self, name: str) -> str | None:
        """Name in the file that would fill `name`; None if this rule cannot tell."""
        targets = self.target if isinstance(self.target, tuple) else (self.target,)
        groups = _GROUP.findall(self.pattern)
        for target in targets:
            # The target becomes a pattern and the pattern a template: groups change places with references.
            literal = re.split(r"\\(\d)", target)
            regex, order = re.escape(literal[0]), []
            for number, after in zip(literal[1::2], literal[2::2], strict=True):
                regex += f"(?P=g{number})" if number in order else f"(?P<g{number}>{groups[int(number) - 1]})"
                regex += re.escape(after)
                order.append(number)
            match = re.fullmatch(regex, name)
            if match is not None and len(set(order)) == len(groups):
                pieces = _GROUP.split(self.pattern)
                for index in range(len(groups)):
                    pieces[2 * index + 1] = match[f"g{index + 1}"]
                return "".join(pieces).replace("\\.", ".")
        return None


_GROUP = re.compile(r"\((?!\?)([^()]*)\)")


def _transformed(array: np.ndarray, transform: Transform) -> np.ndarray:
    if transform is None:
        return array
    if transform == "T":
        return array.T if array.ndim == 2 else array  # a wrong rank shows as a wrong shape
    if isinstance(transform, str):
        raise ValueError(f"unknown transform {transform!r}; 'T' or a function")
    return transform(array)


def _shape(expected: Any) -> tuple[int, ...]:
    return tuple(getattr(expected, "shape", expected))


def _single(array: np.ndarray) -> np.ndarray:
    """float32 for every kind of real number; integers and booleans stay."""
    if array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float8")):
        return np.ascontiguousarray(array, np.float32)
    return np.ascontiguousarray(array)


def fill(
    expected: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    ignored: Iterable[str] = (),
    source: str = "file",
) -> dict[str, np.ndarray]:
    """Fills our parameters from the tensors of a foreign checkpoint.

    Every tensor must be used or match a pattern of `ignored`, and every parameter must be filled exactly once. The
    first rule whose pattern matches a name decides.

    Args:
      expected: our dotted name -> shape (or anything with a `shape`).
      tensors: name in the file -> array.
      rules: the table.
      ignored: patterns of names that carry nothing we need.
      source: the file's name, for the message.

    Returns:
      Our dotted name -> array (real numbers as float32).

    Raises:
      CheckpointError: lists all missing, unexpected, wrongly shaped and non-finite tensors.
    """
    filled, problems, _ = _rename(tensors, rules, ignored)
    for name in [name for name in filled if name not in expected]:
        key, array = filled.pop(name)
        problems["unexpected"].append(f"{key}  {array.shape}  (would be {name})")
    for name, shape in expected.items():
        if name not in filled:
            foreign = next((key for key in (rule.origin(name) for rule in rules) if key), None)
            problems["missing"].append(f"{name}  (from {foreign})" if foreign else name)
        elif filled[name][1].shape != _shape(shape):
            key, array = filled[name]
            problems["of wrong shape"].append(f"{name}  {array.shape}, expected {_shape(shape)}  (from {key})")
    _refuse(source, problems)
    return {name: filled[name][1] for name in expected}


def rename(
    tensors: Mapping[str, np.ndarray], rules: Sequence[Rule], ignored: Iterable[str] = (), source: str = "file"
) -> dict[str, np.ndarray]:
    """As `fill`, where the sizes of our parameters are not known: every tensor and every rule must find its match.

    Raises:
      CheckpointError: lists all tensors without a rule, rules without a tensor, and non-finite tensors.
    """
    filled, problems, unused = _rename(tensors, rules, ignored)
    problems["missing"] += [rule.pattern.replace("\\.", ".") for rule in unused]
    _refuse(source, problems)
    return {name: array for name, (_, array) in filled.items()}


def _rename(
    tensors: Mapping[str, np.ndarray], rules: Sequence[Rule], ignored: Iterable[str]
) -> tuple[dict[str, tuple[str, np.ndarray]], dict[str, list[str]], list[Rule]]:
    """Our name -> (name in the file, array); what went wrong; rules that matched nothing."""
    skipped = tuple(re.compile(pattern) for pattern in ignored)
    filled: dict[str, tuple[str, np.ndarray]] = {}
    problems: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    unused = dict.fromkeys(rules)
    for key, array in tensors.items():
        if any(pattern.fullmatch(key) for pattern in skipped):
            continue
        array = np.asarray(array)
        rule = next((rule for rule in rules if re.fullmatch(rule.pattern, key)), None)
        if rule is None:
            problems["unexpected"].append(f"{key}  {array.shape}")
            continue
        unused.pop(rule, None)
        try:
            parts = rule.apply(key, array)
        except (ValueError, IndexError) as error:
            problems["of wrong shape"].append(f"{key}  {array.shape} cannot be rearranged ({error})")
            continue
        for name, value in parts:
            if name in filled:
                problems["filled twice"].append(f"{name}  (from {filled[name][0]} and {key})")
                continue
            value = _single(value)
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                problems["not finite"].append(f"{name}  (from {key})")
            filled[name] = key, value
    return filled, problems, list(unused)


def _refuse(source: str, problems: Mapping[str, list[str]]) -> None:
    if any(problems.values()):
        raise CheckpointError(_message(source, problems))


def _message(source: str, problems: Mapping[str, list[str]]) -> str:
    present = [(kind, lines) for kind, lines in problems.items() if lines]
    counts = [f"{len(lines)} {kind}" for kind, lines in present]
    first = len(present[0][1])
    counts[0] = counts[0].replace(" ", " tensor " if first == 1 else " tensors ", 1)
    text = [f"{source}: {', '.join(counts)}"]
    for kind, lines in present:
        text += [f"  {kind:<14} {line}" for line in lines[:_SHOWN]]
        if len(lines) > _SHOWN:
            text.append(f"  {'':<14} ... and {len(lines) - _SHOWN} more")
    text.append("Is this a checkpoint of another model? `jaxprot weights inspect FILE` lists its keys.")
    return "\n".join(text)
