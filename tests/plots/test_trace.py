import matplotlib.image
import numpy as np
import pytest

from jaxprot.plots.trace import _panels, trace


def numbers(length):
    return [str(i) for i in range(1, length + 1)]


@pytest.mark.parametrize("length", [1, 76, 900])
def test_pictures_of_all_lengths(length, tmp_path):
    values = np.random.default_rng(0).gamma(2, 0.5, length)
    trace(values, numbers(length), tmp_path / "a.png", "title", per_row=400)
    image = matplotlib.image.imread(tmp_path / "a.png")
    assert image.shape[0] > 200 * -(-length // 400)
    assert max(image.shape) < 8000
    assert (image[..., :3] == [31 / 255, 119 / 255, 180 / 255]).all(-1).any() or image[..., 2].min() < 0.8
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_chains_gaps_and_several_series(tmp_path):
    values = np.arange(12.0)
    values[[3, 5]] = np.nan  # 4 stands alone
    labels = ["-2", "-1", "0", "1", "1A", "1B", "9", "10", "1", "2", "3", "4"]
    trace({"a": values, "b": values * np.nan}, labels, tmp_path / "a.svg", chains=["A"] * 8 + ["B"] * 4, unit="Å")
    text = (tmp_path / "a.svg").read_text()
    assert "chain A" in text and "chain B" in text and "<!-- Å -->" in text and "<!-- 1 -->" in text


def test_no_values_at_all(tmp_path):
    trace(np.full(5, np.nan), numbers(5), tmp_path / "a.png")
    trace(np.zeros(0), [], tmp_path / "b.png")
    trace(np.zeros(3), numbers(3), tmp_path / "c.png")


def test_panels_follow_the_chains_and_stay_few():
    chains = ["A"] * 500 + ["B"] * 3
    assert _panels(503, chains, 400) == [(0, 250), (250, 500), (500, 503)]
    assert len(_panels(30_000, None, 400)) <= 24
    many = [str(i // 50) for i in range(5000)]  # more chains than panels of their own
    assert len(_panels(5000, many, 400)) == 100


def test_a_virus_shell_is_one_picture(tmp_path):
    chains = [str(i // 20) for i in range(2000)]
    trace(np.ones(2000), numbers(20) * 100, tmp_path / "a.png", chains=chains)
    assert max(matplotlib.image.imread(tmp_path / "a.png").shape) < 8000


def test_lengths_must_agree(tmp_path):
    for values, labels, chains in ((np.zeros(4), numbers(5), None), (np.zeros(5), numbers(5), ["A"]), ({}, [], None)):
        with pytest.raises(ValueError, match="lengths do not agree"):
            trace(values, labels, tmp_path / "a.png", chains=chains)
