"""Labels of the map of tasks."""

import itertools

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.text import Annotation

from jaxprot.plots import transfer


@pytest.fixture
def labels(tmp_path, monkeypatch):
    """Text and box of each label of a map, and its picture."""

    def drawn(coordinates, names):
        figures, save = [], matplotlib.figure.Figure.savefig
        monkeypatch.setattr(
            matplotlib.figure.Figure, "savefig", lambda self, *args: (figures.append(self), save(self, *args))
        )
        transfer.task_map(np.asarray(coordinates, float), names, tmp_path / "map.png")
        (figure,) = figures
        found = [one for one in figure.axes[0].texts if isinstance(one, Annotation) and one.get_text()]
        return {one.get_text(): one.get_window_extent() for one in found}, figure.bbox

    return drawn


def test_tasks_at_one_place_share_a_label(labels):
    found, _ = labels([[0, 0], [0, 0], [1, 2]], ["A", "A2", "B"])
    assert set(found) == {"A, A2", "B"}
    found, _ = labels(np.zeros((3, 2)), ["A", "A2", "B"])
    assert set(found) == {"A, A2, B"}


def test_labels_cover_neither_each_other_nor_leave_the_picture(labels):
    places = [[0, 0], [0.1, 0.03], [0.2, 0.0], [0.1, -0.1], [0.2, 0.1], [3, 1], [3, 1.1]]
    names = [
        "stability",
        "fluorescence",
        "remote_homology",
        "secondary_structure",
        "gb1",
        "a_long_name_at_the_edge",
        "x",
    ]
    found, picture = labels(places, names)
    assert set(found) == set(names)
    for a, b in itertools.combinations(found.values(), 2):
        assert not a.overlaps(b)
    for box in found.values():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= picture.x1 and box.y1 <= picture.y1
