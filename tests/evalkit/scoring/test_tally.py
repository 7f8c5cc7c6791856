import numpy as np
import pandas as pd
import pytest

from evalkit.errors import InputError
from evalkit.scoring import tally as tally_module
from evalkit.scoring.confusion import confusion_matrix
from evalkit.scoring.tally import Tally


def tally_of(*batches):
    tally = Tally()
    for batch in batches:
        tally.add(pd.DataFrame(batch))
    return tally


@pytest.mark.parametrize("rows_per_batch", [1, 7, 400])
def test_batches_count_like_the_whole_table(rows_per_batch):
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(6)]
    labels, predictions = rng.choice(names, size=(2, 400))
    table = pd.DataFrame({"label": labels, "prediction": predictions})
    starts = range(0, 400, rows_per_batch)

    tally = tally_of(*(table.iloc[start : start + rows_per_batch] for start in starts))

    expected = confusion_matrix(labels, predictions, names)
    pd.testing.assert_frame_equal(tally.confusion(names), expected)
    assert tally.samples == 400


def test_classes_may_first_appear_in_a_later_batch_or_only_as_predictions():
    tally = tally_of(
        {"label": ["b"], "prediction": ["b"]},
        {"label": ["a"], "prediction": ["c"]},
    )

    assert tally.classes() == ["a", "b", "c"]
    assert tally.confusion(tally.classes()).loc["a", "c"] == 1


def test_numbers_as_classes_are_sorted_as_numbers():
    tally = tally_of({"label": [10, 9], "prediction": [-1, 10]})

    assert tally.classes() == ["-1", "9", "10"]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 0, 1]),
        pd.Series(["1", "0", "1"]),
        pd.Series([1, 0, 1], dtype="Int64"),
        pd.Series(pd.Categorical([1, 0, 1], categories=[2, 1, 0])),
    ],
)
def test_a_number_and_its_text_are_the_same_class(column):
    tally = tally_of({"label": column, "prediction": ["1", "1", "1"]})

    assert tally.confusion(tally.classes()).to_numpy().tolist() == [[0, 1], [0, 2]]


def test_missing_classes_of_all_batches_are_counted():
    tally = tally_of(
        {"label": ["a", None], "prediction": ["a", "a"]},
        {"label": [None, "a"], "prediction": ["a", None]},
    )

    with pytest.raises(InputError) as caught:
        tally.confusion(["a"])

    assert str(caught.value) == (
        "every sample must have a label and a prediction, got 2 missing in column label, the first "
        "in row 2 and 1 missing in column prediction, the first in row 4, of 4 rows: fill them in "
        "or drop these rows"
    )


def test_strangers_of_all_batches_are_counted():
    tally = tally_of(
        {"label": ["a", "wolf"], "prediction": ["a", "a"]},
        {"label": ["wolf"], "prediction": ["elk"]},
    )

    with pytest.raises(InputError) as caught:
        tally.confusion(["a", "b"])

    assert str(caught.value) == (
        "labels and predictions must be among the 2 classes ('a', 'b'), got 2 other names "
        "('wolf', 'elk') in 2 labels and 1 prediction: add them to the classes or correct them"
    )


def test_measured_numbers_are_no_classes():
    with pytest.raises(InputError, match=r"column label must hold class names or integers, got f"):
        tally_of({"label": [0.5, 0.25], "prediction": ["a", "b"]})


def test_a_column_of_file_names_is_no_column_of_classes(monkeypatch):
    monkeypatch.setattr(tally_module, "MAX_CLASSES", 3)

    with pytest.raises(
        InputError, match=r"got more than 3 different values \('0', '1', '2', '3'\)"
    ):
        tally_of({"label": list("0123"), "prediction": list("0123")})


def test_figures_are_sums_over_batches():
    tally = tally_of(
        {"label": ["a"], "prediction": ["a"], "label_probability": [0.5], "confidence": [0.5]},
        {"label": ["a"], "prediction": ["b"], "label_probability": [0.25], "confidence": [0.75]},
    )

    figures, reasons = tally.figures()

    assert figures["nll"] == pytest.approx(1.5 * np.log(2))
    assert figures["ece"] == pytest.approx((0.5 + 0.75) / 2)
    assert reasons == {"top5": "the predictions have no column top5 of lists of class names"}


def test_top5_counts_labels_in_the_list():
    top5 = [["b", "a"], np.array(["b", "c"], dtype=object)]

    figures, _ = tally_of({"label": ["a", "a"], "prediction": ["b", "b"], "top5": top5}).figures()

    assert figures["top5"] == 0.5


def test_top5_takes_numbers_for_names_and_the_first_five_of_a_longer_list():
    top = [np.array([3, 7]), [1, 2, 3, 4, 5, 7]]

    figures, _ = tally_of({"label": [7, 7], "prediction": [7, 7], "top5": top}).figures()

    assert figures["top5"] == 0.5


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan, "high"])
def test_what_is_no_probability_gives_no_figure_but_the_reason(bad):
    tally = tally_of({"label": ["a", "a"], "prediction": ["a", "a"], "confidence": [0.5, bad]})

    figures, reasons = tally.figures()

    assert "ece" not in figures
    assert reasons["ece"] == (
        "column confidence must hold probabilities in [0, 1], got 1 of 2 values that are missing, "
        "not numbers or outside"
    )


def test_a_softmax_in_single_precision_may_end_a_little_above_one():
    tally = tally_of({"label": ["a"], "prediction": ["a"], "confidence": [np.float32(1.0000001)]})

    assert tally.figures()[0]["ece"] == 0


def test_an_impossible_truth_makes_the_log_loss_infinite_and_says_so():
    tally = tally_of({"label": ["a"], "prediction": ["b"], "label_probability": [0.0]})

    assert tally.figures()[1]["nll"] == (
        "it is infinite: 1 of 1 samples gave their true class the probability 0"
    )
