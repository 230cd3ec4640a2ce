import matplotlib.image
import numpy as np
import pytest

from jaxprot.plots.landscape import _limits, landscape


@pytest.mark.parametrize("n", [1, 40, 20_000])
def test_pictures_of_all_sizes(n, tmp_path):
    plane = np.random.default_rng(0).normal(size=(n, 2))
    landscape(plane, tmp_path / "a.png", "title", centres=plane[:10], sizes=[1] * len(plane[:10]))
    image = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    assert image.min() < 0.5 and (image < 0.9).any(-1).mean() > 0.005
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_numbers_paths_and_axes_are_there(tmp_path):
    plane = np.random.default_rng(0).normal(size=(50, 2))
    plane[3] = np.nan
    line = np.linspace([-5, 0], [5, 0], 10)
    landscape(plane, tmp_path / "a.svg", axes=("UMAP 1", "UMAP 2"), centres=plane[:3], sizes=[7, 1234, 5],
              paths={"path 1": line})  # fmt: skip
    text = (tmp_path / "a.svg").read_text()
    for word in ("UMAP 1", "UMAP 2", "path 1", "1  1,234", "49 particles"):
        assert f"<!-- {word} -->" in text or word in text


def test_a_stray_particle_does_not_take_the_picture():
    plane = np.concatenate([np.random.default_rng(0).normal(size=(5000, 2)), [[1e4, 0]]])
    low, high = _limits(plane, np.array([[0, 9.0]]), None)
    assert high[0] < 6 and 9 < high[1] < 11 and low.min() > -6
    low, high = _limits(np.zeros((3, 2)), None, None)
    assert (high > low).all()


def test_nothing_to_draw(tmp_path):
    for plane in (np.zeros((0, 2)), np.full((3, 2), np.nan), np.zeros((3, 3))):
        with pytest.raises(ValueError, match="expected"):
            landscape(plane, tmp_path / "a.png")
