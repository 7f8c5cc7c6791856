import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InputError
from evalkit.scoring.confusion import confusion_matrix
from evalkit.scoring.scores import accuracy, overall_scores, per_class_scores

CLASSES = 5
PAIRS = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=10
)
EXACT = {"rtol": 0, "atol": 1e-12}


def frame(counts, names):
    return pd.DataFrame(counts, index=list(names), columns=list(names))


def test_hand_worked_asymmetric_case():
    """7 dogs, of which 2 were called cat; 4 cats, of which 1 was called dog; nobody is a fox."""
    table = per_class_scores(frame([[3, 1, 0], [2, 4, 1], [0, 0, 0]], ["cat", "dog", "fox"]))

    assert table.loc["cat", ["precision", "recall"]].tolist() == [3 / 5, 3 / 4]
    assert table.loc["dog", ["precision", "recall"]].tolist() == [4 / 5, 4 / 7]
    assert table.loc["dog", "f1"] == pytest.approx(2 / 3)
    assert table["support"].tolist() == [4, 7, 0]
    assert table["predicted"].tolist() == [5, 5, 1]
    assert table.index.name == "class"


@given(PAIRS)
def test_per_class_agrees_with_scikit_learn(pairs):
    """Few samples: some class is always missing in labels, predictions or both."""
    labels, predictions = np.array(pairs).T

    table = per_class_scores(confusion_matrix(labels, predictions, CLASSES))

    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(CLASSES), average=None, zero_division=np.nan
    )
    ours = table[["precision", "recall", "f1", "support"]].T
    np.testing.assert_allclose(ours, np.array(expected), **EXACT)


@given(PAIRS)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_overall_agrees_with_scikit_learn(pairs):
    labels, predictions = np.array(pairs).T

    scores = overall_scores(confusion_matrix(labels, predictions, CLASSES))

    for average in ("macro", "weighted"):
        *expected, _ = sklearn.metrics.precision_recall_fscore_support(
            labels, predictions, average=average, zero_division=0
        )
        np.testing.assert_allclose(list(scores[average].values()), expected, **EXACT)
    *expected, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(CLASSES), average="macro", zero_division=0
    )
    np.testing.assert_allclose(list(scores["macro_over_all_classes"].values()), expected, **EXACT)
    assert scores["accuracy"] == np.mean(labels == predictions)
    assert scores["balanced_accuracy"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, predictions), abs=1e-12
    )
    if not math.isnan(scores["mcc"]):
        expected_mcc = sklearn.metrics.matthews_corrcoef(labels, predictions)
        assert scores["mcc"] == pytest.approx(expected_mcc, abs=1e-12)
    if not math.isnan(scores["kappa"]):
        expected_kappa = sklearn.metrics.cohen_kappa_score(labels, predictions)
        assert scores["kappa"] == pytest.approx(expected_kappa, abs=1e-12)


def test_undefined_is_nan_and_never_zero():
    counts = frame([[2, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], "abcd")

    table = per_class_scores(counts)

    assert math.isnan(table.loc["b", "recall"])  # predicted, but nobody is one
    assert table.loc["b", "precision"] == table.loc["b", "f1"] == 0
    assert math.isnan(table.loc["c", "precision"])  # never predicted
    assert table.loc["c", "recall"] == table.loc["c", "f1"] == 0
    assert table.loc["d"].drop(["support", "predicted"]).isna().all()


def test_one_class_on_both_sides_leaves_mcc_and_kappa_undefined():
    """scikit-learn calls this MCC 0.0, which reads as no better than chance; all are right."""
    scores = overall_scores(frame([[5, 0], [0, 0]], "ab"))

    assert math.isnan(scores["mcc"])
    assert math.isnan(scores["kappa"])
    assert scores["accuracy"] == scores["macro"]["f1"] == 1


def test_no_samples_leave_everything_undefined():
    scores = overall_scores(frame(np.zeros((2, 2), dtype=int), "ab"))

    assert scores["samples"] == 0
    for name in ("accuracy", "accuracy_low", "balanced_accuracy", "mcc", "kappa"):
        assert math.isnan(scores[name])
    assert all(math.isnan(value) for value in scores["macro"].values())


def test_ten_billion_samples_do_not_overflow():
    counts = np.array([[6, 1], [1, 2]])
    small = overall_scores(frame(counts, "ab"))
    large = overall_scores(frame(counts * 10**9, "ab"))

    assert large["mcc"] == pytest.approx(small["mcc"], abs=1e-12)
    assert large["kappa"] == pytest.approx(small["kappa"], abs=1e-12)


def test_intervals_hold_their_score():
    counts = np.random.default_rng(0).integers(0, 9, size=(6, 6)) + np.diag([40] * 6)

    table = per_class_scores(frame(counts, "abcdef"))

    for name in ("precision", "recall", "f1"):
        assert (table[f"{name}_low"] < table[name]).all()
        assert (table[name] < table[f"{name}_high"]).all()


def test_rejects_axes_in_different_order():
    counts = pd.DataFrame([[1, 0], [0, 1]], index=["cat", "dog"], columns=["dog", "cat"])

    with pytest.raises(InputError, match=r"got rows \['cat', 'dog'\] and columns \['dog', 'cat'\]"):
        per_class_scores(counts)


def test_rejects_what_is_no_count():
    with pytest.raises(InputError, match="got a negative one: -1"):
        per_class_scores(frame([[1, 0], [-1, 1]], "ab"))
    with pytest.raises(InputError, match="must hold counts, which are integers, got float64"):
        overall_scores(frame([[0.5, 0.5], [0.0, 1.0]], "ab"))


@pytest.mark.parametrize("seed", range(5))
def test_top_k_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(40, 7)), rng.integers(0, 7, size=40)

    found = accuracy(scores, labels, top=(1, 3, 5))

    for k, value in found.items():
        expected = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(7))
        assert value == pytest.approx(expected, abs=1e-12)


def test_top_1_is_argmax_even_for_equal_scores():
    scores, labels = np.zeros((3, 4)), np.array([0, 1, 0])

    assert accuracy(scores, labels, top=1) == {1: 2 / 3}
    assert accuracy(scores, labels, top=2) == {2: 1.0}


def test_top_k_of_all_classes_is_always_met():
    assert accuracy(torch.eye(3), torch.tensor([0, 0, 0])) == {1: 1 / 3, 5: 1.0}


def test_top_k_of_no_samples_is_undefined():
    assert math.isnan(accuracy(np.zeros((0, 3)), np.zeros(0, dtype=int))[1])


@pytest.mark.parametrize(
    ("scores", "labels", "top", "fault"),
    [
        (np.eye(2), [0], 1, r"shapes \(N, C\) and \(N,\), got \(2, 2\) and \(1,\)"),
        ([0.5], [0], 1, r"got \(1,\) and \(1,\)"),
        (np.eye(2), [0, 2], 1, "integers from 0 to 1, .* got int64 from 0 to 2"),
        (np.eye(2), [0.0, 1.0], 1, "got float64 from 0.0 to 1.0"),
        (np.eye(2), [0, 1], (0, 1), r"top must be 1 or more, got \(0, 1\)"),
        ([[0.1, 0.9], [np.nan, 0.5]], [0, 1], 1, "must be numbers, got NaN, first in row 1"),
    ],
)
def test_top_k_rejects_what_does_not_fit(scores, labels, top, fault):
    with pytest.raises(InputError, match=fault):
        accuracy(scores, labels, top=top)
