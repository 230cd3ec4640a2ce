"""Fixtures for every test, and the platform that they run on."""

import importlib.util
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# Before anything imports jax; environment variables so that started processes see them as well.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "float32")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # silent broadcasting is a bug that tests should see
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_configure(config):
    """Without the slow tests nearly all of the time is XLA's compiler: its optimiser takes as long as all the rest.

    Any other selection of tests, or flags of one's own, tests the programs as users run them.
    """
    if config.option.markexpr == "not slow":
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing under the user's own cache folder is read or written by a test."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.delenv("JAXPROT_CACHE", raising=False)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of goldens and data beside the repository; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of goldens and data beside the repository (../shared)")
    return SHARED


@pytest.fixture(scope="session")
def goldens(shared) -> Callable[[str], Path]:
    """`goldens("thermompnn")`: folder of the stored reference outputs of a system."""

    def folder(system: str) -> Path:
        path = shared / "goldens" / system
        if not path.is_dir():
            pytest.skip(f"no stored reference outputs of {system}")
        return path

    return folder


@pytest.fixture(scope="session")
def example() -> Callable[[str], Path]:
    """`example("ubiquitin")`: path of an input that ships with the package."""

    def path(name: str) -> Path:
        folder = ROOT / "jaxprot" / "examples"
        exact = folder / name
        if exact.is_file():
            return exact
        return next(iter(sorted(folder.glob(f"{name}.*"))))

    return path


@pytest.fixture(scope="session")
def golden_checkpoint(goldens, tmp_path_factory) -> Callable[[str], Path]:
    """`golden_checkpoint("v_48_020.pt")`: a checkpoint of random weights in the published layout, unpacked once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def path(name: str) -> Path:
        target = folder / name
        if not target.exists():
            packed = goldens("thermompnn") / "checkpoints" / f"{name}.xz"
            target.write_bytes(lzma.decompress(packed.read_bytes()))
        return target

    return path


@pytest.fixture(scope="session")
def writer():
    """The module `torch_writer.py`: writes checkpoints in PyTorch's layouts, good and bad ones."""
    return _beside("torch_writer")


@pytest.fixture(scope="session")
def wheels():
    """The module `wheel_writer.py`: writes small wheels."""
    return _beside("wheel_writer")


def _beside(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """pip and uv see no index but the wheels in this folder, whatever they are configured for."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    settings = {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(folder)}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


@pytest.fixture
def key():
    """A typed PRNG key."""
    import jax

    return jax.random.key(0)
