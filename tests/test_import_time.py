"""`import jaxprot` and `jaxprot --help` load nothing heavy; generous limits, since machines differ."""

import importlib
import pathlib
import subprocess
import sys
import time

import jaxprot

HEAVY = "jax flax optax orbax ott jax_md numpy pandas scipy matplotlib gemmi tyro rich".split()


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(sorted(name.partition('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split()) & set(HEAVY)


def best_of_three(*arguments: str) -> float:
    def once() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True, timeout=60)
        return time.perf_counter() - begin

    # The bare interpreter is taken off, so that a busy or slow machine does not fail the package.
    return min(once() for _ in range(3))


def test_import_loads_nothing_heavy():
    assert loaded_by("import jaxprot; jaxprot.__version__; dir(jaxprot)") == set()


def test_help_loads_nothing_heavy():
    assert loaded_by("from jaxprot.cli.main import main; main([])") == set()


def test_import_and_help_are_quick():
    bare = best_of_three("-c", "pass")
    assert best_of_three("-c", "import jaxprot") - bare < 0.3
    assert best_of_three("-m", "jaxprot.cli.main", "--help") - bare < 0.5


def test_public_names_are_complete():
    assert sorted(jaxprot.__all__) == sorted({*jaxprot._NAMES, *jaxprot._MODULES, "__version__"})
    assert set(jaxprot.__all__) <= set(dir(jaxprot))
    for name in jaxprot._NAMES:
        assert callable(getattr(jaxprot, name))


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(jaxprot, "no_such_name")


def test_public_names_of_packages_hide_no_module():
    """A name that a module of the package has too would be that module as soon as anything imports it."""
    for package in pathlib.Path(jaxprot.__file__).parent.iterdir():
        if not (package / "__init__.py").is_file():
            continue
        names = getattr(importlib.import_module(f"jaxprot.{package.name}"), "__all__", [])
        modules = {path.stem for path in package.iterdir()}
        assert not modules & set(names), package.name
