import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from evalkit.errors import InputError
from evalkit.scoring.confusion import confusion_matrix
from evalkit.scoring.scores import overall_scores, per_class_scores
from evalkit.scoring.sparse import DENSE_CLASSES, of_cells, of_frame, refuse_dense, sparse_confusion


def random_pairs(seed=0, *, classes=7, samples=200):
    return np.random.default_rng(seed).integers(0, classes, size=(2, samples))


def test_is_the_dense_matrix_without_its_zeros():
    labels, predictions = random_pairs()

    sparse = sparse_confusion(labels, predictions, 9)

    dense = confusion_matrix(labels, predictions, 9)
    pd.testing.assert_frame_equal(sparse.to_frame(), dense)
    assert sparse.samples == 200
    assert (sparse.counts > 0).all()


def test_true_is_the_first_axis():
    """Asymmetric by hand: two cats taken for dogs, no dog taken for a cat."""
    sparse = sparse_confusion(["cat", "cat", "dog"], ["dog", "dog", "dog"], ["cat", "dog"])

    assert sparse.to_long().to_numpy().tolist() == [["cat", "dog", 2], ["dog", "dog", 1]]
    assert sparse.support.tolist() == [2, 1]
    assert sparse.predicted.tolist() == [0, 3]
    assert sparse.hits.tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_dense_matrix(seed):
    labels, predictions = random_pairs(seed, classes=8, samples=30)
    sparse, dense = (
        count(labels, predictions, 9) for count in (sparse_confusion, confusion_matrix)
    )

    pd.testing.assert_frame_equal(per_class_scores(sparse), per_class_scores(dense))
    assert overall_scores(sparse) == overall_scores(dense)


@pytest.mark.parametrize("cut", [0, 1, 77, 200])
def test_shares_add_up(cut):
    labels, predictions = random_pairs()

    both = sparse_confusion(labels[:cut], predictions[:cut], 7) + sparse_confusion(
        labels[cut:], predictions[cut:], 7
    )

    assert both.to_frame().equals(confusion_matrix(labels, predictions, 7))


def test_frames_and_cells_become_the_same():
    labels, predictions = random_pairs()
    whole = sparse_confusion(labels, predictions, 7)

    shuffled = np.random.default_rng(1).permutation(len(whole.counts))
    again = of_cells(
        whole.labels[shuffled], whole.predictions[shuffled], whole.counts[shuffled], whole.classes
    )

    for sparse in (again, of_frame(whole.to_frame())):
        assert sparse.to_frame().equals(whole.to_frame())


def test_shares_of_other_classes_are_refused():
    one, two = sparse_confusion([0], [0], 2), sparse_confusion([0], [0], 3)

    with pytest.raises(InputError, match=r"same classes in the same order, got 2 .* and 3 "):
        one + two


@pytest.mark.parametrize(
    ("counts", "columns", "fault"),
    [
        ([[1, 0], [-1, 1]], ["a", "b"], "negative one: -1"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a", "b"], "integers, got float64"),
        ([[1, 0], [0, 1]], ["b", "a"], r"got rows \['a', 'b'\] and columns \['b', 'a'\]"),
    ],
)
def test_what_is_no_confusion_is_refused(counts, columns, fault):
    with pytest.raises(InputError, match=fault):
        of_frame(pd.DataFrame(counts, index=["a", "b"], columns=columns))


def test_a_square_of_too_many_classes_is_refused():
    refuse_dense(DENSE_CLASSES)

    with pytest.raises(InputError, match="at most 10,000 classes, got 10,001 classes: use"):
        refuse_dense(DENSE_CLASSES + 1)


def test_without_samples_there_are_no_cells():
    assert len(sparse_confusion([], [], 100_000).counts) == 0


def test_a_hundred_thousand_classes_take_less_than_one_gibibyte():
    program = (
        "import numpy as np\n"
        "from evalkit.scoring.sparse import sparse_confusion\n"
        "from evalkit.scoring.scores import per_class_scores\n"
        "rng = np.random.default_rng(0)\n"
        "labels = rng.integers(0, 100_000, 2_000_000)\n"
        "given = np.where(rng.random(labels.size) < 0.7, labels, rng.permutation(labels))\n"
        "assert len(per_class_scores(sparse_confusion(labels, given, 100_000))) == 100_000\n"
        "status = open('/proc/self/status').read()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert int(done.stdout) < 1 << 20  # in KiB
