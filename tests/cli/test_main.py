"""The frame of the command line: help, options, exit codes, and the commands that need no model."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from jaxprot.cli import main as cli
from jaxprot.cli import options
from jaxprot.core.errors import InputError
from jaxprot.weights import portable


def jaxprot(*arguments, **keywords):
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jaxprot.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **keywords,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeOptions(options.StructureOptions):
    """Options of a command that only this test knows."""

    raises: str = ""
    """Kind of error."""


@pytest.fixture
def fake(monkeypatch):
    """A command `fake` that notes its options and raises what it is told to."""
    seen = []

    def run(options: FakeOptions) -> int:
        """Does as it is told."""
        seen.append(options)
        errors = {"input": InputError("x.pdb: no atoms"), "bug": ZeroDivisionError("a\nb"), "stop": KeyboardInterrupt()}
        if options.raises:
            raise errors[options.raises]
        return 0

    module = types.ModuleType("fake_command")
    module.run = run
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command:run", "a test"))
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "JAX_PLATFORMS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("MIN_COMPILE_TIME_SECS", "MIN_ENTRY_SIZE_BYTES"):
        monkeypatch.setenv(f"JAX_PERSISTENT_CACHE_{name}", "1")
    return seen


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=str)
def test_help_lists_every_command(arguments, capsys):
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_group_alone_lists_its_verbs(capsys):
    assert cli.main(["weights"]) == 0
    shown = capsys.readouterr().out
    assert "weights inspect" in shown
    assert "thermompnn" not in shown


def test_version(capsys):
    import jaxprot

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxprot {jaxprot.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["wieghts"], "did you mean `weights`"), (["weights", "ls"], "no command `weights ls`"), (["zzz"], "--help")],
    ids=str,
)
def test_unknown_command(arguments, hint, capsys):
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert hint in shown.err
    assert shown.err.startswith("jaxprot: error: ")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_every_command_that_is_there_shows_its_options():
    for name, (target, _) in cli.COMMANDS.items():
        module = target.partition(":")[0]
        if not (Path(cli.__file__).parents[2] / (module.replace(".", "/") + ".py")).is_file():
            continue
        code = f"""
import sys
from jaxprot.cli.main import main
try:
    main({[*name.split(), "--help"]!r})
except SystemExit as end:
    assert not end.code
heavy = {{"jax", "flax", "numpy", "pandas", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert f"usage: jaxprot {name}" in done.stdout


def test_options_are_parsed(fake, tmp_path):
    arguments = ["a.pdb", "b.cif", "-o", str(tmp_path), "--seed", "7", "--device", "cpu", "--format", "parquet"]
    assert cli.main(["fake", *arguments, "--overwrite", "--weights", "official"]) == 0
    (seen,) = fake
    assert seen.inputs == (Path("a.pdb"), Path("b.cif"))
    assert (seen.output, seen.seed, seen.format, seen.overwrite) == (tmp_path, 7, "parquet", True)
    assert (seen.device, seen.weights, seen.debug) == ("cpu", "official", False)
    assert os.environ["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize("seed", ["-1", "2147483648", "99999999999999999999"])
def test_seed_out_of_range(fake, seed, capsys):
    assert cli.main(["fake", "--seed", seed]) == 2
    assert f"--seed {seed}: give a number from 0 to 2147483647" in capsys.readouterr().err
    assert not fake


def test_parquet_without_its_library_is_refused_before_anything_runs(fake, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert cli.main(["fake", "--format", "parquet"]) == 2
    assert "needs pyarrow" in capsys.readouterr().err
    assert not fake


def test_a_device_that_is_not_there(tmp_path):
    done = jaxprot("thermompnn", "scan", "x.pdb", "--device", "tpu", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("jaxprot: error: --device tpu: there is none")
    assert "there is: cpu" in done.stderr or "there is: gpu" in done.stderr


@pytest.mark.parametrize("arguments", [["--bogus"], ["--seed", "x"], ["--format", "xls"]], ids=str)
def test_wrong_options_end_with_code_2(fake, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(["fake", *arguments])
    assert caught.value.code == 2
    assert not fake


@pytest.mark.parametrize(
    ("kind", "code", "line"),
    [
        ("input", 2, "jaxprot: error: x.pdb: no atoms\n"),
        ("bug", 1, "jaxprot: error: internal: ZeroDivisionError: a b (--debug shows where)\n"),
        ("stop", 130, "jaxprot: error: interrupted\n"),
    ],
)
def test_errors_are_one_line_and_a_code(fake, kind, code, line, capsys):
    assert cli.main(["fake", "--raises", kind]) == code
    assert capsys.readouterr().err == line


def test_debug_shows_the_traceback(fake):
    with pytest.raises(InputError):
        cli.main(["fake", "--raises", "input", "--debug"])


def test_command_that_this_version_lacks(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "later", ("jaxprot.cli.later_command:run", "not yet"))
    assert cli.main(["later"]) == 2
    assert "not part of this version" in capsys.readouterr().err


def test_compilation_cache_is_switched_on_unless_off(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path / "cache"))
    cli.main(["fake"])
    folder = tmp_path / "cache" / "xla" / options.processor()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert folder.is_dir()
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    cli.main(["fake", "--compile-cache", str(tmp_path / "own")])
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "own")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    cli.main(["fake", "--compile-cache", "off"])
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_cache_folder_that_cannot_be_made(fake, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXPROT_CACHE", str(tmp_path / "file"))
    assert cli.main(["fake"]) == 0  # a convenience only
    assert cli.main(["fake", "--compile-cache", str(tmp_path / "file" / "x")]) == 2
    assert "--compile-cache" in capsys.readouterr().err


def test_second_start_compiles_nothing_and_is_quiet(tmp_path):
    code = f"""
from jaxprot.cli import options
options.start(options.Common(compile_cache={str(tmp_path)!r}))
import jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.sort(jnp.sin(x) @ x).sum())(jnp.ones((50, 50))))
"""
    # jax sets the log level of the process that imports it, here that of the tests.
    clean = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}

    def start():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=clean)
        return done, set(os.listdir(tmp_path))

    first, second = start(), start()
    assert any(name.endswith("-cache") for name in first[1])
    assert first[1] == second[1]
    assert [done.returncode for done, _ in (first, second)] == [0, 0]
    assert first[0].stdout == second[0].stdout
    assert (first[0].stderr, second[0].stderr) == ("", "")


def test_folders_stand_for_their_structures(tmp_path):
    for name in ("b.pdb", "a.cif.gz", "c.ENT", "notes.txt", ".b.pdb.part"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub.pdb").mkdir()
    assert [path.name for path in options.expand([tmp_path])] == ["a.cif.gz", "b.pdb", "c.ENT"]
    assert options.expand([tmp_path / "x.pdb"]) == [tmp_path / "x.pdb"]
    with pytest.raises(InputError, match="no input"):
        options.expand([])
    with pytest.raises(InputError, match="in this folder"):
        options.expand([tmp_path / "sub.pdb"])


def test_results_of_equal_stems_do_not_meet():
    paths = [Path("x/1abc.pdb"), Path("y/1abc.cif.gz"), Path("1ABC.ent"), Path("1abc-2.pdb"), Path("2def.v1.pdb")]
    assert options.stems(paths) == ["1abc", "1abc-2", "1ABC-3", "1abc-2-2", "2def.v1"]


def test_one_bad_input_of_many_is_listed_and_the_rest_is_done(capsys):
    def work(path):
        if path.name == "bad":
            raise InputError("bad: no atoms")
        if path.name == "bug":
            raise IndexError("3")
        return path.name.upper()

    outcome = options.run_many([Path("a"), Path("bad"), Path("bug"), Path("b")], work)
    assert outcome.results == {Path("a"): "A", Path("b"): "B"}
    assert outcome.code == 1
    shown = capsys.readouterr().err
    assert shown.splitlines() == [
        "jaxprot: 2 of 4 structures failed:",
        "  bad: no atoms",
        "  bug: internal: IndexError: 3",
    ]
    with pytest.raises(IndexError):
        options.run_many([Path("a"), Path("bug")], work, debug=True)
    with pytest.raises(InputError):
        options.run_many([Path("bad")], work)
    assert options.run_many([Path("a")], work).code == 0


def test_weights_list(capsys):
    assert cli.main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    assert "thermompnn:official" in shown
    assert cli.main(["weights", "list", "--json", "--system", "proteinmpnn"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["system"] for row in rows} == {"proteinmpnn"}
    assert cli.main(["weights", "list", "--system", "bogus"]) == 2


@pytest.mark.golden
def test_weights_inspect_and_convert(golden_checkpoint, tmp_path, capsys):
    path = golden_checkpoint("thermoMPNN_default.pt")
    assert cli.main(["weights", "inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "130 tensors" in shown
    assert "model.both_out.1.weight" in shown
    assert "can be read by: thermompnn (jaxprot.thermompnn.weights:OFFICIAL)" in shown
    target = tmp_path / "w.safetensors"
    assert cli.main(["weights", "convert", str(path), "-o", str(target)]) == 0
    assert portable.load(target)[1]["system"] == "thermompnn"
    assert cli.main(["weights", "convert", str(path), "-o", str(target)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["weights", "convert", str(path), "-o", str(target), "--overwrite"]) == 0
    assert cli.main(["weights", "convert", str(path), "-o", str(tmp_path / "w.npz")]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["weights", "inspect", "absent.pt"],
        ["weights", "fetch"],
        ["weights", "fetch", "bogus"],
        ["weights", "convert", "absent.pt", "-o", "x.safetensors"],
        ["cite", "bogus"],
    ],
    ids=" ".join,
)
def test_wrong_input_is_one_line_and_code_2(arguments, capsys):
    assert cli.main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("jaxprot: error: ")
    assert shown.count("\n") == 1


def test_malicious_checkpoint_is_refused(writer, tmp_path, capsys):
    mark = tmp_path / "mark"
    path = writer.write(tmp_path / "bad.pt", {"x": writer.Call(writer.Global("os", "system"), f"touch {mark}")})
    assert cli.main(["weights", "inspect", str(path)]) == 2
    assert "refused" in capsys.readouterr().err
    assert not mark.exists()


def test_weights_of_unknown_kind_are_still_listed(tmp_path, capsys):
    portable.save(tmp_path / "w.safetensors", {"a.10": np.zeros(3), "a.9": np.zeros(2)}, {})
    assert cli.main(["weights", "inspect", str(tmp_path / "w.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert shown.index("a.9 ") < shown.index("a.10 ")
    assert "no system of this version" in shown


def test_cite_and_info(capsys):
    assert cli.main(["cite", "thermompnn"]) == 0
    shown = capsys.readouterr().out
    assert "10.1073/pnas.2314853121" in shown
    assert "10.1126/science.add2187" in shown
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "jaxprot " in shown
    assert "devices" in shown


def test_reader_that_leaves_early_causes_no_noise():
    run = f"{sys.executable} -m jaxprot.cli.main"
    command = f"{run} weights list | true; {run} --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith("usage: jaxprot")


def test_installed_script_has_the_same_entry():
    done = jaxprot("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("jaxprot ")
