import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InputError
from evalkit.scoring import confusion as confusion_module
from evalkit.scoring.confusion import confusion_matrix

NAMES = ["ant", "bee", "cat"]


def message_of(labels, predictions, classes):
    with pytest.raises(InputError) as caught:
        confusion_matrix(labels, predictions, classes)
    return str(caught.value)


def test_rows_are_true_and_columns_are_predicted():
    counts = confusion_matrix(["ant", "ant", "ant", "bee"], ["bee", "bee", "ant", "bee"], NAMES)

    assert counts.loc["ant", "bee"] == 2
    assert counts.loc["bee", "ant"] == 0
    assert counts.index.name == "true"
    assert counts.columns.name == "predicted"
    assert list(counts.index) == list(counts.columns) == NAMES
    assert set(counts.dtypes) == {np.dtype(np.int64)}


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12),
    st.sampled_from([np.int8, np.uint8, np.int16, np.uint64, np.int64]),
)
def test_agrees_with_scikit_learn(pairs, dtype):
    labels, predictions = np.array(pairs, dtype=dtype).T

    counts = confusion_matrix(labels, predictions, 5)

    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(5))
    np.testing.assert_array_equal(counts, expected)


def test_every_kind_of_column_counts_the_same():
    labels, predictions = ["bee", "ant", "bee"], ["bee", "bee", "ant"]
    expected = [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    categorical = pd.Categorical(labels, categories=["cat", "bee", "ant", "unused"])
    same_order = pd.Series(pd.Categorical(labels, categories=NAMES))
    dictionary = pd.Series(labels, dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())))
    arrow = pa.chunked_array([labels])
    text = pd.Series(labels, dtype="string")
    numpy = np.array(labels)

    for given_labels in (labels, categorical, same_order, dictionary, arrow, text, numpy):
        np.testing.assert_array_equal(
            confusion_matrix(given_labels, predictions, NAMES), np.array(expected)
        )


def test_integers_are_the_classes_themselves():
    by_value = confusion_matrix([10, 30, 30], [10, 10, 30], [30, 10])
    from_tensor = confusion_matrix(torch.tensor([1, 0]), torch.tensor([1, 1]), 2)
    nullable = confusion_matrix(pd.Series([1, 0], dtype="Int64"), [1, 1], range(2))

    assert by_value.to_numpy().tolist() == [[1, 1], [0, 1]]
    assert list(by_value.index) == [30, 10]
    assert from_tensor.to_numpy().tolist() == nullable.to_numpy().tolist() == [[0, 1], [0, 1]]


def test_integers_are_never_positions_in_a_list_of_names():
    assert message_of([0, 1], [1, 1], ["ant", "bee"]) == (
        "labels must be names as the classes are ('ant', 'bee'), got integers (0, 1); integers are "
        "never read as positions: use classes=2, or pd.Categorical.from_codes(labels, classes)"
    )
    positions = pd.Categorical.from_codes([0, 1], NAMES)
    assert confusion_matrix(positions, positions, NAMES).to_numpy().trace() == 2


def test_names_where_the_classes_are_integers_are_refused():
    assert message_of(["ant"], ["ant"], 2) == (
        "labels must be integers as the classes are (0, 1), got names ('ant')"
    )


def test_all_strangers_are_reported_together():
    labels = ["ant", "wolf", "Ant", "bee"]
    predictions = ["ant", "bee", "elk", "bee"]

    assert message_of(labels, predictions, NAMES) == (
        "labels and predictions must be among the 3 classes ('ant', 'bee', 'cat'), got others: "
        "2 of 4 labels ('wolf', 'Ant') and 1 of 4 predictions ('elk'); "
        "add them to classes or correct them"
    )


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (np.array([0, 3], dtype=np.uint8), "1 of 2 labels (3)"),
        (np.array([0, -1], dtype=np.int16), "1 of 2 labels (-1)"),
        ([2**62, 0], f"1 of 2 labels ({2**62})"),
        (pd.Categorical([0, 9]), "1 of 2 labels (9)"),
        (np.arange(1, 9).repeat(2)[:8], "4 of 8 labels (3, 3, 4, 4)"),
        (np.full(2_000_000, 7), "2000000 of 2000000 labels (7, 7, 7, 7, 7, ...)"),
    ],
)
def test_labels_out_of_range_are_counted_and_shown(labels, shown):
    assert shown in message_of(labels, np.zeros(len(labels), dtype=int), 3)


@pytest.mark.parametrize(
    "labels",
    [
        ["ant", None],
        np.array([1.0, np.nan]),
        pd.Series(["ant", pd.NA], dtype="string"),
        pd.Categorical(["ant", None]),
        pd.Series([1, None], dtype="Int64"),
        pa.array(["ant", None]),
    ],
)
def test_missing_labels_are_refused(labels):
    assert message_of(labels, ["ant", "ant"], NAMES) == (
        "labels must give a class for every sample, got 1 missing value in 2, "
        "the first at position 1"
    )


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ([0.0, 1.0], "got floating (0.0, 1.0)"),
        ([True, False], "got boolean (True, False)"),
        ([0, "ant"], "got mixed-integer (0, 'ant')"),
        (np.array([b"ant"]), "got bytes (b'ant')"),
        (np.eye(2), "got shape (2, 2): use labels.argmax(axis=1) if these are scores"),
        ("ant", "got shape ()"),
        ([2**70], f"must be integers of 64 bits, got {2**70}"),
    ],
)
def test_anything_but_names_and_integers_is_refused(labels, fault):
    assert fault in message_of(labels, [0, 1], 2)


def test_different_lengths_are_refused():
    assert message_of([0, 1], [0], 2) == (
        "labels and predictions must be equally many, got 2 labels and 1 prediction"
    )


@pytest.mark.parametrize(
    ("classes", "fault"),
    [
        (["ant", "ant", "bee"], "classes must differ from each other, got 'ant' more than once"),
        ([], "got empty: no classes"),
        (["ant", 1], "got mixed-integer: 'ant', 1"),
        (0, "classes must be at least 1, got 0"),
        (True, "classes must be a number or a list of classes, got True"),
        ("ant", "classes must be a number or a list of classes, got 'ant'"),
    ],
)
def test_classes_must_be_different_and_of_one_kind(classes, fault):
    assert fault in message_of(["ant"], ["ant"], classes)


@pytest.mark.parametrize("empty", [[], np.array([]), pd.Series([], dtype=str)])
def test_no_samples_are_no_counts(empty):
    counts = confusion_matrix(empty, empty, NAMES)

    assert counts.shape == (3, 3)
    assert counts.to_numpy().sum() == 0


@pytest.mark.parametrize("n_samples", [9, 10, 11, 25])
def test_blocks_add_up(monkeypatch, n_samples):
    monkeypatch.setattr(confusion_module, "BLOCK", 10)
    labels, predictions = np.random.default_rng(n_samples).integers(0, 3, size=(2, n_samples))

    counts = confusion_matrix(labels, predictions, 3)

    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(3))
    np.testing.assert_array_equal(counts, expected)


def test_small_integers_do_not_overflow():
    """200 * 10 + 3 is 211 in uint8 (torchmetrics issue 1510)."""
    labels = np.array([200, 255], dtype=np.uint8)
    predictions = np.array([3, 254], dtype=np.uint8)

    counts = confusion_matrix(labels, predictions, 256)

    assert counts.loc[200, 3] == counts.loc[255, 254] == 1


def test_strided_and_foreign_byte_order_arrays_are_read_right():
    strided = np.array([0, 9, 1, 9])[::2]
    foreign = np.array([0, 1], dtype=">i4")

    assert confusion_matrix(strided, foreign, 2).to_numpy().tolist() == [[1, 0], [0, 1]]


def test_names_that_utf8_cannot_hold_are_refused():
    """Folder names that are not UTF-8 come out of Python like this; pandas cannot keep them."""
    expected = "must be text that UTF-8 can hold, got 'caf\\udce9': rename it"

    assert message_of(["ant"], ["ant"], ["ant", "caf\udce9"]) == f"classes {expected}"
    assert message_of(["ant"], ["caf\udce9"], NAMES) == f"predictions {expected}"


def test_messages_are_one_line():
    for fault in (message_of(["a\nb"], ["ant"], NAMES), message_of(np.eye(3), [0], 3)):
        assert re.fullmatch(r"[^\n]+", fault)
