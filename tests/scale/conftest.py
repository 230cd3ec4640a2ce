"""The fixtures of the commands, and Ray started once for the tests that can share it."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("cli_fixtures", Path(__file__).parents[1] / "cli" / "conftest.py")
_CLI = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CLI)
_environment, run, fold = _CLI._environment, _CLI.run, _CLI.fold


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Ray with two cores, which commands in the process of the tests find and leave running."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'jaxprot[ray]'")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    patch.undo()
