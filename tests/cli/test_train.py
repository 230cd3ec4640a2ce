"""`jaxprot train` on a task of seconds, and configurations as files and overrides."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxprot.cli import main as cli
from jaxprot.core.errors import InputError
from jaxprot.train import config
from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.weights import portable

ROOT = Path(__file__).resolve().parents[2]
TOY = '''
import dataclasses
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxprot.train.data import Batch
from jaxprot.train.task import Mean, OptimConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class Toy:
    """A line through noiseless points."""

    slope: float = 2.0
    width: int = 4
    monitor: str = "fit"

    def build(self, key):
        return nnx.Linear(self.width, 1, rngs=nnx.Rngs(key))

    def batches(self, step, seed):
        return Batch(None, np.arange(8) + 8 * step)

    def load(self, shape, members):
        return np.stack([np.random.default_rng(i).normal(size=self.width) for i in members]).astype(np.float32)

    def loss(self, model, example, key):
        return {"square": Mean(jnp.sum((model(example) - self.slope * example.sum()) ** 2), jnp.ones(()))}

    def evaluator(self, graphdef):
        def evaluate(params):
            x = jnp.ones(self.width)
            return {"fit": -float(jnp.sum((nnx.merge(graphdef, params)(x) - self.slope * x.sum()) ** 2))}
        return evaluate


def config():
    return TrainConfig(task=Toy(), optim=OptimConfig(lr=1e-2, warmup=2), steps=20, evaluate_every=10, save_every=10)
'''


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    return path


def test_run_writes_its_files_and_goes_on(experiment, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["train", str(experiment), "-o", str(run), "--set", "task.slope=3", "--set", "optim.lr=2e-2"]
    assert cli.main(arguments) == 0
    written = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert written == {"config.yaml", "experiment.py", "ckpt", "metrics.jsonl", "best.safetensors", "run.json"}
    text = (run / "config.yaml").read_text()
    assert "slope: 3.0" in text and "lr: 0.02" in text
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "val_fit" in record] == [10, 20]
    assert portable.load(run / "best.safetensors")[1]["figures"]["fit"] <= 0
    shown = capsys.readouterr()
    assert "best weights" in shown.out
    assert '"val_fit"' in shown.err

    assert cli.main(arguments) == 2
    assert "already holds" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite"]) == 2
    assert "--resume" in capsys.readouterr().err
    note = json.loads((run / "run.json").read_text())
    assert note["seed"] == 0 and note["versions"]["optax"] and note["devices"]
    assert [(start["step"], start["last step"]) for start in note["starts"]] == [(0, 20)]
    # The folder needs nothing else, not even the file with the user's own task.
    experiment.unlink()
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert cli.main(["train", "--resume", str(run), "--set", "steps=30"]) == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 30
    assert min(record["step"] for record in records[3:]) > 20
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [(start["step"], start["last step"]) for start in starts] == [(0, 20), (20, 20), (20, 30)]
    assert starts[2]["set"] == ["steps=30"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("task.width=5", "not a checkpoint of this model and optimiser (ema.kernel: (4, 1) there, (5, 1) wanted)"),
        ("steps=10", "has done 20 steps already"),
        ("optim.frozen=kernell", "no parameter path holds 'kernell'; near ones: kernel"),
    ],
)
def test_a_resumption_that_does_not_fit_changes_nothing(experiment, tmp_path, capfd, setting, message):
    run = tmp_path / "run"
    assert cli.main(["train", str(experiment), "-o", str(run)]) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    capfd.readouterr()
    assert cli.main(["train", "--resume", str(run), "--set", setting]) == 2
    said = capfd.readouterr().err
    assert message in said and "internal" not in said
    assert len(said.splitlines()) <= 2  # the start of the run, and the error
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert cli.main(["train", "--resume", str(run), "--set", "steps=22"]) == 0


@pytest.mark.parametrize("setting", ["optim.frozen=kernell", "optim.rates=kernel:0.1", "optim.warmup=-1"])
def test_settings_that_do_not_fit_the_model_leave_no_folder(experiment, tmp_path, capsys, setting):
    assert cli.main(["train", str(experiment), "-o", str(tmp_path / "run"), "--set", setting]) == 2
    said = capsys.readouterr().err
    assert setting.partition("=")[0].split(".")[-1] in said and "internal" not in said
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_the_beginning(experiment, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config.write_config(config.load_experiment(experiment), run / "config.yaml", experiment)
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert json.loads((run / "run.json").read_text())["starts"][0]["step"] == 0


RESIDENT = TOY.replace(
    "    def load(self, shape, members):",
    "    def resident(self):\n        return self._rows(range(200))\n\n    def _rows(self, members):",
)


def test_data_that_stay_on_the_device_need_no_load(tmp_path):
    (tmp_path / "resident.py").write_text(RESIDENT)
    assert "def load" not in RESIDENT
    assert cli.main(["train", str(tmp_path / "resident.py"), "-o", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("count", [2, 12])
def test_data_that_change_between_starts_are_named(tmp_path, capsys, count):
    """Also files that are new, of a folder so full that it has one hash."""
    data = tmp_path / "data"
    data.mkdir()
    for i in range(count):
        (data / f"{i}.txt").write_text(str(i))
    files = (
        f'    def files(self):\n        from pathlib import Path\n        return sorted(Path("{data}").iterdir())\n\n'
    )
    path, run = tmp_path / "toy.py", tmp_path / "run"
    path.write_text(TOY.replace("    def build(", files + "    def build("))
    assert cli.main(["train", str(path), "-o", str(run)]) == 0
    assert "data changed" not in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert "data changed" not in capsys.readouterr().err
    (data / "new.txt").write_text("new")
    assert cli.main(["train", "--resume", str(run)]) == 0
    said = capsys.readouterr().err
    assert "data changed since the last start: " in said and str(data) in said
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [bool(start["changed"]) for start in starts] == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "optim.lrr=1"], "did you mean optim.lr?"),
        (["--set", "optim=1"], "set one of optim.name"),
        (["--set", "steps.x=1"], "has no key x"),
        (["--set", "steps=many"], "no whole number"),
        (["--set", "steps"], "KEY=VALUE"),
        (["--resume", "absent"], "no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_settings_end_before_anything_is_written(experiment, tmp_path, capsys, arguments, message):
    assert cli.main(["train", str(experiment), "-o", str(tmp_path / "run"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "define `def config()"),
        ("def config(): return 1", "define `def config()"),
        ("def config(): raise OSError('no data')", "OSError: no data"),
        ("def config(:", "SyntaxError"),
    ],
    ids=["no config", "another thing", "fails", "syntax"],
)
def test_wrong_experiment_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "wrong.py"
    path.write_text(content)
    assert cli.main(["train", str(path)]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert cli.main(["train", str(tmp_path / "absent.py")]) == 2
    assert cli.main(["train"]) == 2


def test_configuration_survives_yaml(tmp_path):
    from jaxprot.proteinmpnn.config import ProteinMPNNConfig
    from jaxprot.proteinmpnn.data import DesignTask

    task = DesignTask(train="a.npz", val="b.npz", structures=("x.pdb",), model=ProteinMPNNConfig(neighbours=7))
    cfg = TrainConfig(task=task, optim=OptimConfig(lr=0.5), steps=3)
    config.write_config(cfg, tmp_path / "config.yaml")
    assert config.read_config(tmp_path / "config.yaml") == cfg
    changed = config.override(cfg, ["task.model.neighbours=9", "task.structures=p.pdb,q.pdb", "optim.name=muon"])
    assert changed.task.model.neighbours == 9
    assert changed.task.structures == ("p.pdb", "q.pdb")
    assert changed.optim.name == "muon"
    assert cfg.task.model.neighbours == 7


def test_values_are_converted_by_type():
    @dataclasses.dataclass(frozen=True)
    class Leaf:
        flag: bool = False
        name: str | None = "x"
        sizes: tuple[int, ...] = (1,)
        number: float = 1.0

    def of(setting):
        return config.override(Leaf(), [setting])

    assert of("flag=true").flag is True
    assert of("name=none").name is None
    assert of("sizes=3,4").sizes == (3, 4)
    assert of("number=3").number == 3.0
    with pytest.raises(InputError, match="truth"):
        of("flag=2")


@pytest.mark.parametrize(
    "text",
    ["- 1", "kind: os:system", "kind: jaxprot.train.task:Gone", "a: [", "kind: jaxprot.train.task:OptimConfig\nlrr: 1"],
)
def test_damaged_configuration_is_an_input_error(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        config.read_config(tmp_path / "config.yaml")


SLOW_TOY = TOY.replace(
    "    def load(self, shape, members):", "    def load(self, shape, members):\n        time.sleep(0.05)"
).replace("import dataclasses", "import dataclasses\nimport time", 1)


def command(*arguments, **more):
    known = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxprot.cli.main", "train", *map(str, arguments)],
        env={**known, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sigterm_saves_exits_with_0_and_names_the_command_that_goes_on(tmp_path):
    (tmp_path / "toy.py").write_text(SLOW_TOY)
    run = tmp_path / "run"
    process = command(tmp_path / "toy.py", "-o", run, "--set", "steps=200", "--set", "log_every=1")
    for line in process.stderr:
        if '"step": 3' in line:
            break
    process.terminate()
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    step = int(out.split("after step ")[1].split()[0])
    assert 3 <= step < 200
    *_, last = out.splitlines()
    assert last == f"jaxprot train --resume {run}"
    assert (run / "ckpt" / str(step)).is_dir()
    resumed = command(*last.split()[2:], "--set", f"steps={step + 2}")
    out, said = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, said
    assert f"trained to step {step + 2}" in out


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.multidevice
@pytest.mark.slow
def test_two_processes_by_flags_and_by_slurm_variables(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    alone = command(tmp_path / "toy.py", "-o", tmp_path / "alone")
    assert alone.communicate(timeout=60) and alone.returncode == 0
    expected = portable.load(tmp_path / "alone" / "best.safetensors")[0]
    for kind in ("flags", "slurm"):
        port, started = free_port(), []
        for i in (0, 1):
            flags, variables = (), {}
            if kind == "flags":
                flags = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", 2, "--process-id", i)
            else:
                variables = {
                    "SLURM_JOB_ID": str(port),
                    "SLURM_STEP_NODELIST": "localhost",
                    "SLURM_NTASKS": "2",
                    "SLURM_PROCID": str(i),
                    "SLURM_LOCALID": str(i),
                    "SLURM_STEP_NUM_NODES": "1",
                }
            arguments = (tmp_path / "toy.py", "-o", tmp_path / kind, "--distributed", *flags)
            started.append(command(*arguments, **variables))
        said = [process.communicate(timeout=120) for process in started]
        assert [process.returncode for process in started] == [0, 0], said
        assert "best weights" in said[0][0] and "best weights" not in said[1][0]
        found = portable.load(tmp_path / kind / "best.safetensors")[0]
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.multidevice
@pytest.mark.slow
def test_processes_with_different_configurations_all_end(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    peers = ("--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", 2, "--process-id")
    started = [command(tmp_path / "toy.py", "-o", tmp_path / "run", *peers, i, "--set", f"seed={i}") for i in (0, 1)]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    assert all("different configurations" in text for text in said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coordinator", "host:1"], "need --distributed"),
        (["--distributed", "--process-id", "0"], "give all of --coordinator"),
    ],
)
def test_half_an_address_is_refused(experiment, tmp_path, capsys, arguments, message):
    assert cli.main(["train", str(experiment), "-o", str(tmp_path / "run"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.multidevice
@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_step(tmp_path):
    (tmp_path / "toy.py").write_text(SLOW_TOY)
    peers = ("--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", 2, "--process-id")
    settings = ("--set", "steps=2000", "--set", "log_every=1")
    started = [command(tmp_path / "toy.py", "-o", tmp_path / "run", *peers, i, *settings) for i in (0, 1)]
    for line in started[0].stderr:
        if '"step": 3' in line:
            break
    started[1].terminate()
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    step = int(said[0][0].split("after step ")[1].split()[0])
    assert 3 <= step < 2000
    alone = command("--resume", tmp_path / "run", "--set", f"steps={step + 2}")
    out, text = alone.communicate(timeout=60)
    assert alone.returncode == 0, text
    assert f"trained to step {step + 2}" in out
