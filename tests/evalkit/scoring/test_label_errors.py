import sys

import numpy as np
import pandas as pd
import pytest

from evalkit.evaluation import Evaluation
from evalkit.report.html import as_html
from evalkit.scoring import label_errors as module
from evalkit.scoring.label_errors import label_errors


@pytest.fixture
def without_cleanlab(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)


def drawn(seed):
    """Labels of which a fifth are drawn at random, some classes without samples."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 12))
    table = rng.dirichlet(np.full(classes, rng.uniform(0.2, 2)), int(rng.integers(5, 600)))
    labels = np.where(
        rng.random(len(table)) < 0.8,
        table.argmax(axis=1),
        rng.integers(0, classes, len(table)),
    )
    return np.where(labels == seed % classes, (seed + 1) % classes, labels), table


@pytest.mark.usefixtures("without_cleanlab")
def test_a_label_is_suspected_where_another_class_is_given_as_surely_as_usual():
    table = [[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.45, 0.55], [0.2, 0.8], [0.3, 0.7]]

    found = label_errors([0, 0, 0, 0, 1, 1], table)

    # Samples of class 1 are given it with 0.75 on average: 0.55 is no more than a mistake.
    assert found.rows.tolist() == [2]
    assert found.method == "confident learning on the probabilities of all classes"


@pytest.mark.parametrize("seed", range(20))
def test_cleanlab_finds_the_same_in_the_same_order(seed, monkeypatch):
    cleanlab = pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    labels, table = drawn(seed)

    theirs = label_errors(labels, table)
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setattr(module, "VALUES", 300)
    ours = label_errors(labels, table)

    assert theirs.method.endswith(f", by cleanlab {cleanlab.__version__}")
    assert ours.rows.tolist() == theirs.rows.tolist()


def test_one_class_leaves_nothing_to_suspect():
    assert label_errors([1, 1], [[0.9, 0.1], [0.2, 0.8]]).rows.size == 0


@pytest.mark.usefixtures("without_cleanlab")
def test_the_report_shows_what_all_probabilities_tell():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    table = np.full((300, 3), 0.04)
    table[np.arange(300), truth] = 0.92
    label = truth.copy()
    label[[7, 250]] = (truth[[7, 250]] + 1) % 3
    frame = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(300)],
            "label": np.array(list("abc"))[label],
            "prediction": np.array(list("abc"))[truth],
            **{f"p_{name}": table[:, column] for column, name in enumerate("abc")},
        }
    )

    result = Evaluation.from_predictions(frame, classes=["a", "b", "c"])
    page = as_html(result)

    assert result.label_errors is not None
    assert result.label_errors.rows.tolist() == [7, 250]
    assert "(confident learning on the probabilities of all classes). Some" in page
    assert "7.png" in page
