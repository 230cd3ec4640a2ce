import matplotlib.image
import numpy as np
import pytest

from jaxprot.plots import transfer

LINKAGE = np.array([[0, 2, 1.0, 2], [1, 3, 4.0, 3]])
DISTANCES = np.array([[0, 4.0, 1], [4, 0, 4], [1, 4, 0]])


def test_leaves_stand_beside_their_kin():
    order, lines = transfer.leaves(LINKAGE)
    assert sorted(order) == [0, 1, 2] and abs(order.index(0) - order.index(2)) == 1
    (x, y), (x2, y2) = lines
    assert y == [0, 1, 1, 0] and {x[0], x[2]} == {float(order.index(0)), float(order.index(2))}
    assert sorted((y2[0], y2[3])) == [0, 1] and y2[1] == 4 and (x[0] + x[2]) / 2 in (x2[0], x2[2])


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_matrix_with_tree(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    transfer.matrix(DISTANCES, ["stability", "fold", "b"], path, linkage=LINKAGE, title="t", unit="root of it")
    assert path.stat().st_size > 3000 and [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix == "svg":
        text = path.read_text()
        assert all(f"<!-- {label} -->" in text for label in ("stability", "fold", "root of it", "4", "1"))


def test_matrix_grows_with_the_tasks_and_has_no_tree_without_linkage(tmp_path):
    for t in (2, 30):
        transfer.matrix(np.ones((t, t)), [f"t{i}" for i in range(t)], tmp_path / f"{t}.png")
    small, large = (matplotlib.image.imread(tmp_path / f"{t}.png").shape for t in (2, 30))
    assert large[0] > 2 * small[0]
    transfer.matrix(np.zeros((1, 1)), ["alone"], tmp_path / "one.png", linkage=np.zeros((0, 4)))


def test_map(tmp_path):
    transfer.task_map(np.array([[0.0, 0], [3, 1]]), ["one", "two"], tmp_path / "map.svg", title="tasks")
    text = (tmp_path / "map.svg").read_text()
    assert "<!-- one -->" in text and "<!-- two -->" in text


def test_sizes_that_do_not_agree(tmp_path):
    with pytest.raises(ValueError, match="do not agree"):
        transfer.matrix(DISTANCES, ["a", "b"], tmp_path / "m.png")
    with pytest.raises(ValueError, match="do not agree"):
        transfer.task_map(DISTANCES, ["a", "b", "c"], tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


def test_the_way_of_features(tmp_path):
    steps, there = np.arange(5) * 10, np.arange(5.0)
    path = tmp_path / "way.png"
    transfer.trajectory(steps, there, there[::-1], path)
    plain = path.read_bytes()
    transfer.trajectory(
        steps, there, there[::-1], path, score=np.array([np.nan, 0.1, 0.2, 0.3, 0.2]), metric="accuracy"
    )
    assert plain[:4] == b"\x89PNG" and path.read_bytes() != plain
    for wrong in ((steps, there[:4], there), (steps[:1], there[:1], there[:1])):
        with pytest.raises(ValueError, match="do not agree"):
            transfer.trajectory(*wrong, path)
