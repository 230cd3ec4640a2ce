"""Every experiment file makes a configuration, and it fits the network that it names."""

import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.cryostar.config import VAEConfig
from jaxprot.cryostar.model import VAE
from jaxprot.massa.model import Pretraining
from jaxprot.proteinmpnn.model import ProteinMPNN
from jaxprot.rmsfnet.model import RMSFNet
from jaxprot.thermompnn.model import ThermoMPNN
from jaxprot.train import config
from jaxprot.train.optimisers import optimiser, partition, trainable
from jaxprot.train.schedules import rates
from jaxprot.visnet.model import ViSNet
from jaxprot.weights.module import UnusedKeys

NETWORKS = {
    "ai2bmd": ViSNet,
    "cryostar": VAE,
    "massa": Pretraining,
    "proteinmpnn": ProteinMPNN,
    "rmsfnet": RMSFNet,
    "thermompnn": ThermoMPNN,
}


def experiments():
    from pathlib import Path

    return sorted((Path(__file__).resolve().parents[1] / "experiments").glob("*/*.py"))


@pytest.mark.parametrize("path", experiments(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_experiment(path, tmp_path):
    try:
        cfg = config.load_experiment(path)
    except InputError as error:
        if "no such file" not in str(error):
            raise
        pytest.skip(f"lists its data: {error}")
    config.write_config(cfg, tmp_path / "config.yaml", path)
    assert config.read_config(tmp_path / "config.yaml") == cfg
    network = NETWORKS[path.parent.name]
    # The sizes of cryoSTAR's network are those of the particles and the reference, which are not at hand.
    sizes = VAEConfig(side=16, beads=5) if network is VAE else cfg.task.model
    model = nnx.eval_shape(lambda: network(sizes, rngs=UnusedKeys()))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    trained, _ = partition(params, trainable(cfg.optim, params))
    optimiser(cfg.optim, trained)
    values = rates(cfg.optim, cfg.steps)
    assert values.max() == pytest.approx(cfg.optim.lr, rel=1e-5) and values.min() >= 0
    assert cfg.steps >= cfg.evaluate_every


def test_the_published_recipes(root):
    paper = config.load_experiment(root / "experiments" / "thermompnn" / "paper.py")
    assert paper.optim.frozen == ("backbone",) and paper.optim.clip is None and paper.optim.ema == 0
    assert paper.task.backbone == "proteinmpnn:v_48_020" and paper.task.model.backbone.neighbours == 48
    assert paper.steps == 100 * paper.evaluate_every
    design = config.load_experiment(root / "experiments" / "proteinmpnn" / "paper.py")
    assert rates(design.optim, 4000)[-1] == pytest.approx(2 * 128**-0.5 * 4000**-0.5)
    assert design.task.items == 10000 and design.task.fixed_noise


def test_sizes_go_with_the_data(shared, root):
    """The constants of the published recipes are the sizes of the data at hand."""
    for name in ("paper", "fireprot"):
        cfg = config.load_experiment(root / "experiments" / "thermompnn" / f"{name}.py")
        assert cfg.task._batches.per_epoch == cfg.evaluate_every
    cfg = config.load_experiment(root / "experiments" / "proteinmpnn" / "paper.py")
    assert cfg.task._batches.per_epoch * 150 == cfg.steps
