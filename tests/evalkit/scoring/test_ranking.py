import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.scoring.probabilities import ABSENT, Probabilities
from evalkit.scoring.ranking import auroc, auroc_interval, average_precision, ranking_table

SAMPLES = st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.1, 0.2, 0.7])), min_size=2)


@given(SAMPLES)
def test_are_those_of_scikit_learn_whatever_is_tied(samples):
    positive, scores = (np.array(column) for column in zip(*samples, strict=True))
    if positive.all() or not positive.any():
        assert math.isnan(auroc(positive, scores))
        return

    assert auroc(positive, scores) == pytest.approx(roc_auc_score(positive, scores))
    assert average_precision(positive, scores) == pytest.approx(
        average_precision_score(positive, scores)
    )


def test_high_scores_are_good_by_hand():
    assert auroc([True, True, False], [0.9, 0.2, 0.5]) == 0.5
    assert auroc([False, True], [0.1, 0.9]) == 1.0
    assert average_precision([False, True, True], [0.9, 0.8, 0.1]) == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )


def test_delong_by_pairs():
    """Variance by its definition, a double sum over pairs, on the logit scale."""
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    scores = np.round(rng.normal(positive * 1.0), 1)
    above, below = scores[positive], scores[~positive]
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    area = wins.mean()
    variance = (
        wins.mean(axis=1).var(ddof=1) / above.size + wins.mean(axis=0).var(ddof=1) / below.size
    )
    half = 1.959964 * math.sqrt(variance) / (area * (1 - area))

    low, high = auroc_interval(positive, scores)

    assert math.log(low / (1 - low)) == pytest.approx(math.log(area / (1 - area)) - half, rel=1e-5)
    assert math.log(high / (1 - high)) == pytest.approx(
        math.log(area / (1 - area)) + half, rel=1e-5
    )


def test_delong_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = 0.7602499  # of two normal distributions one standard deviation apart
    held = []
    for _ in range(1000):
        positive = np.arange(120) < 40
        low, high = auroc_interval(positive, rng.normal(positive * 1.0))
        held.append(low <= truth <= high)

    assert 0.93 <= np.mean(held) <= 0.97


def test_separation_without_an_error_has_no_interval():
    assert np.isnan(auroc_interval([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1])).all()
    assert np.isnan(auroc_interval([1, 0, 0], [0.15, 0.2, 0.1])).all()  # one positive sample


def test_without_positives_precision_is_undefined():
    assert math.isnan(average_precision([False], [0.5]))


@pytest.mark.parametrize(
    ("function", "arguments", "fault"),
    [
        (auroc, ([True], [0.1, 0.2]), r"shape \(N,\), got \(1,\) and \(2,\)"),
        (auroc, ([True, False], [0.1, np.nan]), "got NaN in 1 of them"),
        (ranking_table, ([0], [[0.5, 0.5]], ["a"]), r"shape \(1, 1\), got \(1, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(function, arguments, fault):
    with pytest.raises(InputError, match=fault):
        function(*arguments)


def probable(seed=0, *, samples=200, classes="abc"):
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.ones(len(classes)), samples)
    names = np.array(list(classes))
    label = names[[rng.choice(len(classes), p=row) for row in table]]
    frame = pd.DataFrame({"label": label, "prediction": names[table.argmax(axis=1)]})
    return frame, table


@pytest.mark.parametrize("kind", ["columns", "lists"])
def test_probabilities_of_all_classes_give_every_score(tmp_path, kind):
    frame, table = probable()
    if kind == "columns":
        frame = frame.assign(**{f"p_{name}": table[:, i] for i, name in enumerate("abc")})
    else:
        frame = frame.assign(probabilities=table.tolist())
    frame.to_parquet(tmp_path / "t.parquet")

    result = Evaluation.from_table(tmp_path / "t.parquet", classes=list("abc"))

    truth = frame["label"].to_numpy()
    one_hot = truth[:, None] == np.array(list("abc"))
    summary = result.summary
    assert summary["brier"] == pytest.approx(((table - one_hot) ** 2).sum(axis=1).mean(), abs=1e-6)
    assert summary["nll"] == pytest.approx(log_loss(truth, table, labels=list("abc")), rel=1e-5)
    assert summary["auroc"] == pytest.approx(
        roc_auc_score(truth, table, multi_class="ovr", labels=list("abc")), abs=1e-6
    )
    assert summary["average_precision"] == pytest.approx(
        np.mean([average_precision_score(one_hot[:, i], table[:, i]) for i in range(3)]), abs=1e-6
    )
    assert list(result.ranking.index) == list("abc")
    assert (result.ranking["auroc_low"] < result.ranking["auroc"]).all()
    result.save(tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "ranking.csv")) == 3


def test_columns_may_be_in_any_order():
    frame, table = probable()
    right = frame.assign(**{f"p_{name}": table[:, i] for i, name in enumerate("abc")})
    turned = right[["p_c", "p_a", "label", "p_b"]]

    found = []
    for one in (right, turned):
        collected = Probabilities()
        collected.add(one)
        found.append(collected.scores(list("abc"))[0])

    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda table: {"p_a": table[:, 0]}, f"{ABSENT}; there is none of 'b', 'c'"),
        (
            lambda table: {f"p_{n}": table[:, i] * 2 for i, n in enumerate("abc")},
            "of 200 samples with others or with missing ones",
        ),
        (
            lambda table: {f"p_{n}": table[:, i] / 2 for i, n in enumerate("abc")},
            "must add up to 1, got 200 of 200 samples whose do not",
        ),
        (lambda table: {"probabilities": table[:, :2].tolist()}, "each of 3 classes, got 2"),
        (
            lambda table: {"probabilities": [[1.0], *table[1:].tolist()]},
            "the lists in probabilities must be of one length, got others",
        ),
        (lambda _: {}, ABSENT),
    ],
)
def test_what_is_not_all_probabilities_is_no_score_but_a_reason(change, fault):
    frame, table = probable()

    result = Evaluation.from_predictions(frame.assign(**change(table)), classes=list("abc"))

    assert result.ranking is None
    assert result.summary["brier"] is None
    for name in ("brier", "auroc", "average_precision"):
        assert fault in result.summary["not_available"][name]


def test_too_many_probabilities_are_not_kept(monkeypatch):
    monkeypatch.setattr("evalkit.scoring.probabilities.MOST_VALUES", 500)
    frame, table = probable()
    collected = Probabilities()

    collected.add(frame.assign(probabilities=table.tolist()))
    collected.add(frame.iloc[:1].assign(probabilities=table[:1].tolist()))

    assert "at most 500 numbers, got more" in collected.scores(list("abc"))[1]["brier"]
