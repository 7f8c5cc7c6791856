import pandas as pd
import pytest

from evalkit.evaluation import Evaluation
from evalkit.report.markdown import WORST_CLASSES, as_markdown, escape, name_in_cell


def markdown(labels, predictions, classes=None, run=None):
    frame = pd.DataFrame({"label": labels, "prediction": predictions})
    names = classes or sorted({*labels, *predictions})
    return as_markdown(Evaluation.from_predictions(frame, classes=names, run=run))


def test_numbers_classes_and_confusions_are_tables():
    text = markdown(["cat", "cat", "dog"] * 4, ["cat", "dog", "dog"] * 4)

    assert text.startswith("## Evaluation\n\n12 samples, 2 classes\n\n| ")
    assert "| accuracy | 0.667 | [0.391, 0.862] |" in text
    assert "### Classes" in text
    assert "| `cat` | 0.667 [" in text
    assert "| `cat` | `dog` | 4 | 0.500 |" in text


def test_warnings_come_first():
    text = markdown(["cat"], ["cat"], run={"warnings": ["2 images were odd"]})

    assert text.index("2 images were odd") < text.index("1 sample")


def test_of_many_classes_the_worst_are_shown():
    names = [f"c{number:02}" for number in range(30)]

    text = markdown(names, [*names[1:], names[-1]])

    assert "### Worst classes" in text
    classes = text.partition("### Worst")[2].partition("###")[0]
    assert classes.count("\n| `c") == WORST_CLASSES


def test_without_mistakes_nothing_is_confused():
    assert "Most confused" not in markdown(["cat"], ["cat"])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"`a\|b`"),
        ("<script>", "`<script>`"),
        ("a`b``c", "``` a`b``c ```"),
        ("two\nlines", r"`two\nlines`"),
        ("@everyone #1", "`@everyone #1`"),
        ("", "(empty)"),
        ("x" * 99, f"`{'x' * 59}…`"),
    ],
)
def test_class_names_are_code(name, shown):
    assert name_in_cell(name) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](http://b)", r"\[a\](http\://b)"),
        ("www.b.com", r"www\.b.com"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("fixes #12 by @me", r"fixes \#<!-- -->12 by @<!-- -->me"),
        ("a\n# b", r"a\\n\# b"),
        ("0.5 of 3-4", "0.5 of 3-4"),
    ],
)
def test_other_text_is_escaped(text, shown):
    assert escape(text) == shown


def test_slices_are_told_the_worst_first():
    frame = pd.DataFrame(
        {
            "label": ["a"] * 80 + ["b"] * 80,
            "prediction": ["a"] * 100 + ["b"] * 60,
            "site|x": ["north"] * 80 + ["south"] * 80,
        }
    )
    result = Evaluation.from_predictions(frame, classes=["a", "b"], group_by=["site|x"])

    text = as_markdown(result)

    assert "| `site\\|x = south` | 0.750 [0.645, 0.832] | -0.250 **worse** | 80 |" in text
    assert text.index("= south") < text.index("= north")
