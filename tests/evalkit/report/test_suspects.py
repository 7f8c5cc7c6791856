import numpy as np
import pandas as pd

from evalkit.report.samples import Samples
from evalkit.report.suspects import label_suspects


def rows(*samples):
    columns = ["label", "prediction", "confidence", "label_probability"]
    return pd.DataFrame(samples, columns=columns)


def test_a_class_must_be_given_as_surely_as_it_usually_is():
    table = rows(("a", "b", 0.90, 0.05), ("a", "b", 0.89, 0.05), ("a", "c", 0.6, 0.3))

    suspects = label_suspects(table, {"a": 0.5, "b": 0.9, "c": 0.6})

    assert suspects.index.tolist() == [0, 2]  # by the margin of the given class over the label


def test_right_answers_and_classes_without_samples_are_never_suspected():
    table = rows(("a", "a", 1.0, 1.0), ("a", "unseen", 1.0, 0.0))

    assert label_suspects(table, {"a": 0.5}).empty


def test_without_probabilities_nothing_is_suspected():
    assert label_suspects(rows(("a", "b", 0.9, 0.1))[["label", "prediction"]], {"b": 0.1}).empty


def test_planted_label_errors_come_first():
    """A model that is right and sure, unsure where it errs; 40 of 2,000 labels are then changed."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 2_000)
    errs = rng.random(2_000) < 0.1
    given = np.where(errs, (truth + 1) % 5, truth)
    confidence = np.where(errs, rng.uniform(0.4, 0.7, 2_000), rng.uniform(0.8, 1, 2_000))
    label = truth.copy()
    planted = rng.choice(np.flatnonzero(~errs), 40, replace=False)
    label[planted] = (truth[planted] + 2) % 5
    table = pd.DataFrame(
        {
            "label": label.astype(str),
            "prediction": given.astype(str),
            "confidence": confidence,
            "label_probability": np.where(given == label, confidence, (1 - confidence) / 4),
        }
    )
    samples = Samples()
    samples.add(table)

    found = label_suspects(samples.rows(), samples.self_confidence())

    assert len(found) >= 25
    assert set(found["index"]) <= set(planted)
