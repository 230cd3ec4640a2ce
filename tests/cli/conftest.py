"""Commands run in the process of the tests: what a start would set stays behind neither here nor there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what XLA says of programs from a folder


class Done(NamedTuple):
    """Of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """Every command makes a new model; the programs of equal ones come from a folder, as they do for users."""
    import jax

    folder = str(tmp_path_factory.mktemp("programs"))
    before = {name: getattr(jax.config, name) for name in _CACHE}
    for name, value in zip(_CACHE, (folder, 0, -1), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def _environment():
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def run(capsys) -> Callable[..., Done]:
    """`run("thermompnn", "scan", path, "-o", folder)`: exit code and what was printed."""
    from jaxprot.cli import main

    def command(*arguments) -> Done:
        capsys.readouterr()
        try:
            code = main.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return command


@pytest.fixture(scope="session")
def fold(tmp_path_factory, example) -> Callable[..., Path]:
    """`fold("name", 20)`: the first residues of ubiquitin, every line put through a function."""
    folder = tmp_path_factory.mktemp("structures")
    lines = [line for line in example("ubiquitin").read_text().splitlines() if line.startswith("ATOM")]

    def make(name: str, residues: int = 76, change: Callable[[str], str | None] = lambda line: line) -> Path:
        kept = [change(line) for line in lines if int(line[22:26]) <= residues]
        path = folder / name
        path.write_text("\n".join([*(line for line in kept if line is not None), "TER", "END", ""]))
        return path

    return make
