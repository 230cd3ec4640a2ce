"""`jaxprot train` on a task of seconds, and configurations as files and overrides."""

import dataclasses
import json

import pytest

from jaxprot.cli import main as cli
from jaxprot.core.errors import InputError
from jaxprot.train import config
from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.weights import portable

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
    # The folder needs nothing else, not even the file with the user's own task.
    experiment.unlink()
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert cli.main(["train", "--resume", str(run), "--set", "steps=30"]) == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 30
    assert min(record["step"] for record in records[3:]) > 20


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
