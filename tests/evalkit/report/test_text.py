import numpy as np
import pandas as pd
import pytest

from evalkit.evaluation import Evaluation
from evalkit.report.text import as_text, one_line
from evalkit.wording import printable


def evaluation(labels, predictions, classes, **run):
    frame = pd.DataFrame({"label": labels, "prediction": predictions})
    return Evaluation.from_predictions(frame, classes=classes, run=run)


def test_whole_screen():
    result = evaluation(
        ["ant"] * 4 + ["bee"] * 6,
        ["ant"] * 3 + ["bee"] * 7,
        ["ant", "bee", "cat"],
        warnings=["the labels look permuted"],
        unreadable=2,
        scores={"nll": 0.25, "top_k": {5: 1.0}},
    )

    assert as_text(result) == (
        """\
! the labels look permuted
! no samples of 1 of 3 classes (cat): their recall is undefined

10 samples, 3 classes, 2 more could not be read

accuracy           0.900  [0.596, 0.982]
top-5 accuracy     1.000  [0.722, 1.000]
balanced accuracy  0.875  [0.498, 0.998]
macro F1           0.890  [0.423, 1.000]
weighted F1        0.897  [0.426, 1.000]
MCC                0.802  [0.322, 0.989]
Cohen's kappa      0.783  [0.046, 1.000]
NLL                0.250

class  precision         recall            F1                support  predicted
ant    1.000 [.44, 1.0]  0.750 [.30, .95]  0.857 [.46, .98]        4          3
bee    0.857 [.49, .97]  1.000 [.61, 1.0]  0.923 [.65, .99]        6          7
cat    -                 -                 -                       0          0

most confused: true  predicted  samples  of the true class
ant                  bee              1              0.250""".replace(
            "-      ", "\N{EN DASH}      "
        )
    )


def test_fits_100_columns_whatever_the_names_are():
    names = [f"a very long name of a class, number {i}, 日本語の名前" for i in range(15)]
    names += [f"日本語の名前日本語の名前日本語の名前{i}" for i in range(15)]
    result = evaluation(names, names[1:] + names[:1], names, warnings=["word " * 60])

    lines = as_text(result).splitlines()

    assert max(len(line) for line in lines) <= 100


def test_of_many_classes_the_worst_come_first():
    rng = np.random.default_rng(0)
    names = [f"class {i:02}" for i in range(30)]
    labels = np.repeat(names, 40)
    spoiled = rng.random(labels.size) < (labels == "class 17") * 0.5 + 0.02
    predictions = np.where(spoiled, rng.choice(names, labels.size), labels)

    lines = as_text(evaluation(labels, predictions, names)).splitlines()

    table = lines.index(next(line for line in lines if line.startswith("class  ")))
    assert lines[table + 1].startswith("class 17")
    assert lines[table + 21] == "the 20 worst of 30 classes; all are in per_class.csv"


def test_twenty_classes_are_shown_in_their_order():
    names = [f"n{i}" for i in range(20)]

    text = as_text(evaluation(names, names, names))

    shown = [line.split()[0] for line in text.splitlines() if line.startswith("n")]
    assert shown == names
    assert "most confused" not in text


def test_a_terminal_is_not_obeyed():
    result = evaluation(["a\x1b[2J\n"], ["a\x1b[2J\n"], ["a\x1b[2J\n", "b\x07"])

    text = as_text(result)

    assert "\x1b" not in text
    assert "\x07" not in text
    assert "a\\x1b[2J\\n" in text


@pytest.mark.parametrize(
    ("text", "shown"), [("abcd", "abcd"), ("abcde", "abc…"), ("日本", "日本"), ("日本語", "日…")]
)
def test_names_are_cut_to_columns_of_a_terminal(text, shown):
    assert printable(text, width=4) == shown


def test_one_sample_of_one_class_is_no_plural():
    pairs = pd.DataFrame({"label": ["cat"], "prediction": ["cat"]})

    assert one_line(Evaluation.from_predictions(pairs, classes=["cat"])) == "1 sample, 1 class"
