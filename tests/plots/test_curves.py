import matplotlib.image
import numpy as np
import pytest

from jaxprot.plots.curves import training_curves


def records(count=50, terms=("loss", "loss_a", "loss_b"), rate=True):
    out = []
    for step in range(1, count + 1):
        out.append({"step": step, **{name: 1.0 / (step + i) for i, name in enumerate(terms)}, "seconds_per_step": 0.1})
        if rate:
            out[-1]["learning_rate"] = 1e-3 * step
        if step % 10 == 0:
            out.append({"step": step, "val_spearman": step / 100, "val_rmse": 2.0 - step / 100, "val_n": 7})
    return out


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_picture_with_a_panel_for_loss_figures_and_rate(tmp_path, suffix):
    path = tmp_path / f"curves.{suffix}"
    training_curves(records(), path, "a run")
    assert path.stat().st_size > 3000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix == "svg":
        text = path.read_text()
        for label in ("loss", "validation spearman", "validation rmse", "learning rate"):
            assert f"<!-- {label} -->" in text
        for label in ("validation n", "seconds_per_step"):
            assert f"<!-- {label} -->" not in text


def test_the_picture_grows_with_the_panels(tmp_path):
    training_curves(records(rate=False, count=5), tmp_path / "one.png")
    training_curves(records(), tmp_path / "four.png")
    one, four = (matplotlib.image.imread(tmp_path / f"{name}.png").shape for name in ("one", "four"))
    assert four[0] > 1.9 * one[0] and four[1] > 2.9 * one[1]


def test_gaps_and_single_points(tmp_path):
    training_curves(
        [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}, {"note": "no step"}, {"step": 3, "loss": float("inf")}],
        tmp_path / "a.png",
    )
    image = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    assert (np.ptp(image, axis=-1) > 0.3).any()  # the lone point is drawn, in colour


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="has the run logged a step"):
        training_curves([{"step": 1, "loss": None}, {"step": 1, "count": 3}], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
