import numpy as np
import pandas as pd
import pytest

from evalkit.report import samples as samples_module
from evalkit.report.samples import PER_CELL, Samples


def table(**columns):
    return pd.DataFrame(columns)


def collected(*batches):
    samples = Samples()
    for batch in batches:
        samples.add(batch)
    return samples


def random_table(size, seed=0):
    rng = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cat"])
    return table(
        label=names[rng.integers(0, 3, size)],
        prediction=names[rng.integers(0, 3, size)],
        confidence=rng.random(size),
        label_probability=rng.random(size) / 2,
        path=[f"{number}.png" for number in range(size)],
    )


def test_of_mistakes_the_most_confident_are_kept_and_of_right_answers_the_least():
    confidence = np.linspace(0.5, 0.99, 100)
    wrong = table(label=["a"] * 100, prediction=["b"] * 100, confidence=confidence)
    right = wrong.assign(prediction="a")

    rows = collected(pd.concat([wrong, right], ignore_index=True)).rows()

    mistaken = rows["label"] != rows["prediction"]
    np.testing.assert_allclose(rows[mistaken]["confidence"], confidence[-PER_CELL:])
    np.testing.assert_allclose(rows[~mistaken]["confidence"], confidence[:PER_CELL])


def test_batches_keep_what_the_whole_table_keeps():
    whole = random_table(3_000)

    at_once = collected(whole)
    in_parts = collected(*(whole.iloc[start : start + 101] for start in range(0, 3_000, 101)))

    columns = ["index", "path", "label", "prediction", "confidence"]
    pd.testing.assert_frame_equal(
        at_once.rows()[columns].sort_values("index", ignore_index=True),
        in_parts.rows()[columns].sort_values("index", ignore_index=True),
    )
    np.testing.assert_allclose(at_once.cells, in_parts.cells)
    assert at_once.self_confidence() == pytest.approx(in_parts.self_confidence())


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(samples_module, "KEPT", 10)

    samples = collected(*(random_table(200, seed) for seed in range(5)))

    assert len(samples.rows()) == 10


def test_self_confidence_is_the_mean_probability_of_a_class_for_its_samples():
    batch = table(label=["a", "a", "b"], prediction=["a"] * 3, label_probability=[0.9, 0.7, None])

    assert collected(batch).self_confidence() == {"a": pytest.approx(0.8)}


@pytest.mark.parametrize("confidence", [[0.5, 1.5], [0.5, None], ["high", "low"]])
def test_a_confidence_that_is_no_probability_gives_no_diagram(confidence):
    good = table(label=["a"], prediction=["a"], confidence=[0.5])

    samples = collected(good, table(label=["a"] * 2, prediction=["b"] * 2, confidence=confidence))

    assert samples.cells is None


def test_samples_without_a_label_are_left_out():
    samples = collected(table(label=["a", None], prediction=["a", "a"]))

    assert samples.rows()["index"].tolist() == [0]


def test_nothing_added_gives_no_rows():
    assert Samples().rows().empty
