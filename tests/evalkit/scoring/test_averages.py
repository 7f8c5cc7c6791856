import numpy as np
import pytest
import sklearn.metrics as oracle

from evalkit.errors import InputError
from evalkit.scoring.averages import AVERAGE_RULES, averages, slopes
from evalkit.scoring.sparse import sparse_confusion

CLASSES = 6
SCORES = [
    *(f"{kind}.{name}" for kind in ("macro", "weighted") for name in ("precision", "recall", "f1")),
    "balanced_accuracy",
    "mcc",
    "kappa",
]


def pairs(seed, *, samples=12):
    """Few samples of five of six classes: some class is always missing on one side."""
    return np.random.default_rng(seed).integers(0, CLASSES - 1, size=(2, samples))


def margins(labels, predictions):
    counts = sparse_confusion(labels, predictions, CLASSES)
    return counts.hits, counts.support, counts.predicted


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("scikit-learn", {"zero_division": 0}),
        ("all", {"zero_division": 0, "labels": range(CLASSES)}),
        ("defined", {"zero_division": np.nan, "labels": range(CLASSES)}),
    ],
)
def test_rules_are_those_of_scikit_learn(seed, rule, options):
    labels, predictions = pairs(seed)

    found = averages(*margins(labels, predictions), rule=rule)

    for kind in ("macro", "weighted"):
        expected = oracle.precision_recall_fscore_support(
            labels, predictions, average=kind, **options
        )
        ours = [found[f"{kind}.{name}"] for name in ("precision", "recall", "f1")]
        assert ours == pytest.approx(expected[:3], abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(
        oracle.balanced_accuracy_score(labels, predictions)
    )
    assert found["mcc"] == pytest.approx(oracle.matthews_corrcoef(labels, predictions))
    assert found["kappa"] == pytest.approx(oracle.cohen_kappa_score(labels, predictions))


def test_rules_differ_by_hand():
    """Of a, b, c, d: b is only predicted, d does not occur."""
    counts = np.array([2, 0, 1, 0]), np.array([4, 0, 1, 0]), np.array([2, 2, 1, 0])

    recalls = {rule: averages(*counts, rule=rule)["macro.recall"].item() for rule in AVERAGE_RULES}

    assert recalls == {
        "scikit-learn": 0.5,  # (1/2 + 0 + 1) / 3
        "all": 0.375,
        "with-samples": 0.75,
        "defined": 0.75,
    }
    precisions = [averages(*counts, rule=rule)["macro.precision"] for rule in AVERAGE_RULES]
    assert precisions == pytest.approx([2 / 3, 0.5, 1.0, 2 / 3])


def test_many_tables_score_like_each_alone():
    tables = [margins(*pairs(seed)) for seed in range(4)]

    together = averages(*map(np.array, zip(*tables, strict=True)), rule="scikit-learn")

    for position, table in enumerate(tables):
        alone = averages(*table, rule="scikit-learn")
        assert [values[position] for values in together.values()] == pytest.approx(
            [float(value) for value in alone.values()]
        )


@pytest.mark.parametrize("rule", AVERAGE_RULES)
@pytest.mark.parametrize("seed", range(3))
def test_slopes_are_the_differences_of_a_sample_more(seed, rule):
    counts = [table.astype(float) for table in margins(*pairs(seed, samples=60))]
    found = slopes(*counts, rule=rule)
    step = 1e-6

    for part, kind in enumerate(("hits", "support", "predicted")):
        for position in np.flatnonzero(counts[1] * counts[2]):
            up, down = ([table.copy() for table in counts] for _ in range(2))
            up[part][position] += step
            down[part][position] -= step
            above, below = averages(*up, rule=rule), averages(*down, rule=rule)
            for name in SCORES:
                slope = (above[name] - below[name]) / (2 * step)
                assert getattr(found[name], kind)[position] == pytest.approx(slope, abs=1e-6)


def test_there_are_no_other_rules():
    with pytest.raises(InputError, match="one of scikit-learn, all, with-samples, defined, got 'm"):
        averages(np.ones(2), np.ones(2), np.ones(2), rule="mean")
