import numpy as np
import pytest

from evalkit.report import order
from evalkit.report.order import similarity_order


def hidden_blocks(classes, blocks, seed=0):
    """Classes of a block are mistaken for each other; which block one is in is drawn."""
    rng = np.random.default_rng(seed)
    block = rng.permutation(np.arange(classes) % blocks)
    counts = np.where(block[:, None] == block, rng.integers(5, 15, (classes, classes)), 0)
    counts += rng.integers(0, 2, (classes, classes))
    np.fill_diagonal(counts, 200)
    return counts, block


@pytest.mark.parametrize(("classes", "blocks"), [(12, 3), (90, 9), (400, 20)])
def test_blocks_stand_together(classes, blocks):
    counts, block = hidden_blocks(classes, blocks)

    in_order = block[similarity_order(counts)]

    assert (in_order[1:] != in_order[:-1]).sum() == blocks - 1


def test_every_class_is_there_once():
    counts = np.random.default_rng(0).integers(0, 9, (30, 30))

    assert sorted(similarity_order(counts)) == list(range(30))


@pytest.mark.parametrize("counts", [np.eye(4, dtype=int), np.zeros((4, 4), int), np.ones((1, 1))])
def test_without_confusions_the_order_stays(counts):
    assert similarity_order(counts) == list(range(len(counts)))


def test_too_many_classes_have_no_such_order(monkeypatch):
    monkeypatch.setattr(order, "MOST_CLASSES", 3)

    assert similarity_order(np.ones((4, 4), int)) is None
