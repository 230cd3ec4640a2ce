"""Small structures shipped with the package, for demonstrations, notebooks and tests."""

from pathlib import Path

NAMES = ("ubiquitin", "trpcage", "chignolin", "alanine")


def path(name: str) -> Path:
    """Returns the path of a shipped structure.

    Args:
      name: one of `NAMES`, with or without `.pdb`.

    Raises:
      KeyError: there is no such example; the message lists them.
    """
    stem = name.removesuffix(".pdb")
    if stem not in NAMES:
        raise KeyError(f"no example {name!r}; there are {', '.join(NAMES)}")
    return Path(__file__).with_name(f"{stem}.pdb")
