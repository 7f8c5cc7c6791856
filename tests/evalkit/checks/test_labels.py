import numpy as np
import pandas as pd
import pytest

from evalkit.checks.evidence import LEVEL, Paired, least_gained, paired
from evalkit.checks.finding import Check, skipped, warnings_of
from evalkit.checks.joined import joined_checks
from evalkit.checks.labels import MOST_CLASSES, check_label_order, find_order, least_skill
from evalkit.checks.orders import likely_orders
from evalkit.evaluation import Evaluation
from evalkit.report.html import as_html
from evalkit.report.markdown import as_markdown
from evalkit.report.text import as_text
from evalkit.scoring.sparse import of_pairs

ANIMALS = ["ant", "bee", "cat", "dog", "eel", "fox"]


def honest(*, classes, samples, accuracy=0.9, seed=0):
    """Labels and predictions of a model that is right for a share of every class."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    wrong = random.integers(classes, size=samples)
    return labels, np.where(random.random(samples) < accuracy, labels, wrong)


def cells(labels, predictions, names):
    return of_pairs(np.asarray(labels), np.asarray(predictions), pd.Index(names))


def test_a_good_model_passes():
    check = check_label_order(cells(*honest(classes=6, samples=300), ANIMALS))

    assert check.verdict == "passed"
    assert check.evidence == "no other order of the classes fits the predictions clearly better"


def test_labels_counted_from_1_are_named_as_such():
    labels, predictions = honest(classes=6, samples=300)

    check = check_label_order(cells(labels, (predictions + 1) % 6, ANIMALS))

    right = (labels == predictions).mean()
    assert check.verdict == "warning"
    assert check.figures["accuracy"] < 0.1
    assert check.figures["accuracy_other"] == pytest.approx(right)
    assert check.figures["moved_classes"] == 6
    assert check.evidence == (
        f"the labels look permuted: accuracy is {check.figures['accuracy']:.3f}, and {right:.3f} "
        "as if every prediction were one class too late (counting begins at 1, not 0); 6 classes "
        "would be meant otherwise: ant -> fox, bee -> ant, cat -> bee and 3 more: check the list "
        "of classes against the one of the training"
    )


def test_a_background_class_is_named_as_such():
    labels, predictions = honest(classes=6, samples=300)

    check = check_label_order(cells(labels, (predictions - 1) % 6, ANIMALS))

    assert "one class too early (a background class comes first)" in check.evidence


def test_numbers_that_were_sorted_as_text_are_named_as_such():
    names = [str(number) for number in range(12)]
    outputs = sorted(names)  # what torchvision's folders give: 0, 1, 10, 11, 2
    labels, predictions = honest(classes=12, samples=600)

    given = np.array([names.index(outputs[one]) for one in predictions])
    check = check_label_order(cells(labels, given, names))

    assert check.verdict == "warning"
    assert "sorted order (1, 10, 2; a, B as B, a)" in check.evidence
    assert check.figures["accuracy_other"] == pytest.approx((labels == predictions).mean())


def test_any_permutation_is_found_by_assignment():
    labels, predictions = honest(classes=6, samples=300)
    order = np.array([3, 5, 0, 2, 1, 4])

    found = find_order(cells(labels, order[predictions], ANIMALS))

    np.testing.assert_array_equal(found.meaning[order], np.arange(6))
    assert found.words == "labels and predictions counted the classes in two orders"


def test_two_classes_that_changed_places_among_a_hundred():
    names = [f"class {number:03}" for number in range(100)]
    labels, predictions = honest(classes=100, samples=8000)
    order = np.arange(100)
    order[[17, 60]] = [60, 17]

    check = check_label_order(cells(labels, order[predictions], names))

    assert check.verdict == "warning"
    assert check.figures["moved_classes"] == 2
    assert "class 017 -> class 060, class 060 -> class 017" in check.evidence
    assert "the names of a few classes were exchanged" in check.evidence


def test_two_classes_that_changed_places_among_classes_with_hardly_a_sample():
    """The best assignment moves many of these by chance; each move is judged by itself."""
    names = [f"class {number:03}" for number in range(100)]
    few, few_given = honest(classes=100, samples=400, accuracy=0.4)
    many, many_given = honest(classes=2, samples=200)

    check = check_label_order(
        cells(
            np.concatenate([few, 17 + 43 * many]),
            np.concatenate([few_given, 60 - 43 * many_given]),
            names,
        )
    )

    assert "class 017 -> class 060, class 060 -> class 017" in check.evidence
    assert check.figures["moved_classes"] == 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_model_that_guesses_is_not_accused_of_permuted_labels(classes, seed):
    random = np.random.default_rng(seed)
    labels = random.choice(classes, 400, p=random.dirichlet(np.ones(classes)))
    predictions = random.choice(classes, 400, p=random.dirichlet(np.ones(classes)))

    assert find_order(cells(labels, predictions, list(map(str, range(classes))))) is None


def test_a_collapsed_model_is_not_accused_of_permuted_labels():
    labels = np.repeat(np.arange(6), [200, 20, 20, 20, 20, 20])

    assert find_order(cells(labels, np.full(300, 3), ANIMALS)) is None


def test_a_rare_class_that_attracts_a_common_one_is_no_swap():
    """600 of 1,000 healthy called ill: wrong, but the ill are recognised."""
    labels = np.repeat([0, 1], [1000, 20])
    predictions = np.concatenate([np.repeat([1, 0], [600, 400]), np.ones(20, dtype=int)])

    assert find_order(cells(labels, predictions, ["healthy", "ill"])) is None


def test_few_samples_cannot_accuse():
    labels = np.arange(10) % 2

    assert find_order(cells(labels, 1 - labels, ["a", "b"])) is None  # 10 of 10 swapped
    labels = np.arange(40) % 2
    assert find_order(cells(labels, 1 - labels, ["a", "b"])) is not None


def test_false_alarms_are_rarer_than_their_level_says():
    """500 runs of models of all qualities; the level is 1 in 1,000 for each."""
    alarms = 0
    for seed in range(500):
        random = np.random.default_rng(seed)
        classes = int(random.choice([2, 3, 5, 10, 30]))
        labels = random.choice(classes, 200, p=random.dirichlet(np.ones(classes)))
        mistakes = random.dirichlet(np.full(classes, 0.5), classes).cumsum(axis=1)
        drawn = (random.random((200, 1)) > mistakes[labels]).sum(axis=1).clip(0, classes - 1)
        recall = np.clip(random.uniform(0.4, 1) + random.normal(0, 0.1, classes), 0, 1)
        predictions = np.where(random.random(200) < recall[labels], labels, drawn)
        names = [f"class {number}" for number in range(classes)]
        alarms += find_order(cells(labels, predictions, names)) is not None

    assert alarms == 0


def test_more_classes_than_an_assignment_can_take():
    size = MOST_CLASSES + 1
    labels, predictions = honest(classes=size, samples=3 * size)
    names = [f"class {number:05}" for number in range(size)]

    check = check_label_order(cells(labels, predictions, names))
    shifted = check_label_order(cells(labels, (predictions + 1) % size, names))

    assert check.verdict == "skipped"
    assert check.evidence == (
        "with more than 2,000 classes only the usual mistakes of order were looked for, and none "
        "was found"
    )
    assert shifted.verdict == "warning"


def test_one_class_has_one_order():
    assert likely_orders(["only"]) == []
    assert check_label_order(cells([0, 0], [0, 0], ["only"])).verdict == "passed"


def test_every_likely_order_is_a_permutation_that_moves_something():
    names = ["10", "9", "b", "A", "a1", "a10", "a2"]

    orders = likely_orders(names)

    for order in orders:
        assert sorted(order.meaning.tolist()) == list(range(7))
        assert order.meaning.tolist() != list(range(7))
    assert len({tuple(order.meaning.tolist()) for order in orders}) == len(orders)


def test_evidence_counts_both_sides_and_ignores_what_is_behind():
    found = paired(np.array([True, True, False]), np.array([True, False, True]))

    assert (found.gained, found.lost, found.samples, found.gain) == (1, 1, 3, 0.0)
    assert found.p_value == 1.0
    assert Paired(gained=0, lost=30, samples=30).p_value == 1.0
    assert Paired(gained=0, lost=0, samples=0).gain == 0.0


@pytest.mark.parametrize("alternatives", [1, 5, 12, 100])
def test_the_least_that_can_be_significant(alternatives):
    least = least_gained(alternatives)

    assert Paired(gained=least, lost=0, samples=99).is_better(alternatives=alternatives)
    assert not Paired(gained=least - 1, lost=0, samples=99).is_better(alternatives=alternatives)
    assert 2 * 0.5**least * alternatives <= LEVEL


def test_more_classes_need_less_skill():
    assert [least_skill(number) for number in (2, 16, 100, 10_000)] == [0.5, 0.5, 0.2, 0.2]


def frame(labels, predictions, names):
    return pd.DataFrame(
        {
            "label": [names[one] for one in labels],
            "prediction": [names[one] for one in predictions],
        }
    )


def test_a_table_of_predictions_is_checked_and_every_report_begins_with_it():
    labels, predictions = honest(classes=6, samples=300)
    table = frame(labels, (predictions + 1) % 6, ANIMALS)

    evaluation = Evaluation.from_predictions(table, classes=ANIMALS)

    (check,) = evaluation.summary["checks"]
    assert (check["id"], check["verdict"]) == ("label-order", "warning")
    assert evaluation.summary["warnings"][0] == check["evidence"]
    assert as_text(evaluation).startswith("! the labels look permuted")
    first, then = as_markdown(evaluation).split("300 samples")
    assert "the labels look permuted" in first
    assert "the labels look permuted" not in then
    page = as_html(evaluation)
    assert page.index("the labels look permuted") < page.index("balanced accuracy")


def test_a_good_table_has_a_check_and_no_warning():
    table = frame(*honest(classes=6, samples=300), ANIMALS)

    summary = Evaluation.from_predictions(table, classes=ANIMALS).summary

    assert [check["verdict"] for check in summary["checks"]] == ["passed"]
    assert summary["warnings"] == []


def test_pixels_that_do_better_than_another_order_explain_it():
    labels, predictions = honest(classes=6, samples=300)
    swapped = cells(labels, (predictions + 1) % 6, ANIMALS)
    pixels = {"id": "normalisation", "verdict": "warning", "as_labelled": True}

    def label_check(**figures):
        checks, warnings = joined_checks(swapped, [pixels | figures])
        return checks[0]["verdict"], bool(warnings)

    assert label_check(accuracy_other=0.99) == ("explained", False)
    assert label_check(accuracy_other=0.5) == ("warning", True)
    assert label_check(accuracy_other=0.99, as_labelled=False) == ("warning", True)


def test_only_warnings_are_said():
    checks = [
        Check(id="one", verdict="warning", evidence="something is wrong"),
        Check(id="two", verdict="passed", evidence="nothing is wrong"),
        skipped("three", "nobody looked"),
    ]

    assert warnings_of(checks) == ["something is wrong"]
    explained = checks[0].explained_by(checks[1])
    assert (explained.verdict, explained.evidence) == (
        "explained",
        "something is wrong (explained by two)",
    )
