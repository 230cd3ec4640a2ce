"""Commands that the README shows are there, with their options; they are parsed, not run."""

import importlib
import inspect
import re
import shlex
import typing
from pathlib import Path

import pytest

from jaxprot.cli import main, options

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")


def commands():
    """Command lines of the README's bash blocks, without their comments."""
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("jaxprot "):
                yield shlex.split(line, comments=True)[1:]


def test_the_readme_shows_commands():
    assert len(list(commands())) > 5


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_command_parses(arguments):
    name = next(n for n in (" ".join(arguments[:2]), arguments[0]) if n in main.COMMANDS)
    module, _, attribute = main.COMMANDS[name][0].partition(":")
    function = getattr(importlib.import_module(module), attribute)
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    (kind,) = hints.values()
    rest = arguments[len(name.split()) :]
    assert isinstance(options.parse(kind, rest, name, inspect.getdoc(function) or ""), kind)


@pytest.mark.parametrize("text", sorted(set(re.findall(r"`(jaxprot [a-z][^`]*)`", README))))
def test_command_named_in_the_text_is_there(text):
    words = text.split()[1:]
    groups = {name.split()[0] for name in main.COMMANDS if " " in name}
    assert " ".join(words[: 2 if words[0] in groups else 1]) in main.COMMANDS
