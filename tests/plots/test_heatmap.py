import matplotlib.image
import numpy as np
import pytest

from jaxprot.plots.heatmap import COLUMNS, ROWS, heatmap


def scan(length, seed=0):
    rng = np.random.default_rng(seed)
    sequence = "".join(rng.choice(list(COLUMNS), length))
    ddg = rng.normal(1, 1, (length, 20))
    return ddg, sequence, [str(number) for number in range(1, length + 1)]


@pytest.mark.parametrize("length", [1, 76, 101, 600])
def test_pictures_of_all_lengths(length, tmp_path):
    heatmap(*scan(length), tmp_path / "a.png", "title")
    image = matplotlib.image.imread(tmp_path / "a.png")
    panels = -(-length // 100)
    assert image.shape[0] > 400 * panels
    assert max(image.shape) < 8000
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def grey_pixels(path):
    image = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    return int((image == 208).all(axis=-1).sum())


def test_gaps_are_grey_and_all_gaps_still_a_picture(tmp_path):
    ddg, sequence, labels = scan(30)
    heatmap(ddg, sequence, labels, tmp_path / "full.png")
    ddg[10:13] = np.nan
    heatmap(ddg, sequence[:10] + "---" + sequence[13:], labels, tmp_path / "gap.png")
    cell = 0.125 * 150 * 0.135 * 150
    assert grey_pixels(tmp_path / "full.png") < cell
    assert grey_pixels(tmp_path / "gap.png") > 3 * 20 * cell * 0.7
    heatmap(np.full((5, 20), np.nan), "-----", labels[:5], tmp_path / "none.png")


def test_colours_are_centred_on_zero(tmp_path):
    heatmap(np.full((4, 20), 3.0), "AAAA", list("1234"), tmp_path / "up.png", limit=3)
    heatmap(np.full((4, 20), -3.0), "AAAA", list("1234"), tmp_path / "down.png", limit=3)

    def centre(name):  # a cell in the middle of the map, away from the dots
        image = matplotlib.image.imread(tmp_path / name)
        return image[image.shape[0] // 2, int(0.62 * 150 + 0.06 * 150)][:3]

    assert centre("up.png")[0] > centre("up.png")[2]  # destabilising: red
    assert centre("down.png")[2] > centre("down.png")[0]  # stabilising: blue


def test_insertion_codes_negative_numbers_and_chains(tmp_path):
    ddg, sequence, _ = scan(12)
    labels = ["-2", "-1", "0", "1", "1A", "1B", "2", "3", "10", "11", "12", "13"]
    heatmap(ddg, sequence, labels, tmp_path / "a.svg", chains=["A"] * 8 + ["b"] * 4)
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_rows_hold_every_amino_acid_once():
    assert sorted(ROWS) == sorted(COLUMNS)


def test_lengths_must_agree(tmp_path):
    ddg, sequence, labels = scan(5)
    with pytest.raises(ValueError, match="lengths do not agree"):
        heatmap(ddg, sequence[:4], labels, tmp_path / "a.png")
