import json

import numpy as np
import pandas as pd
import pytest

from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.scoring.method import Method
from evalkit.scoring.sparse import SparseConfusion


def videos(seed=0, *, videos=50, frames=8):
    """All frames of a video are right or wrong together."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.choice(["cat", "dog"], videos), frames)
    right = np.repeat(rng.random(videos) < 0.8, frames)
    other = np.where(label == "cat", "dog", "cat")
    return pd.DataFrame(
        {
            "label": label,
            "prediction": np.where(right, label, other),
            "video": np.repeat([f"v{i}" for i in range(videos)], frames),
            "confidence": rng.uniform(0.5, 1, label.size),
        }
    )


def scored(frame, **method):
    return Evaluation.from_predictions(frame, classes=["cat", "dog"], method=Method(**method))


def widths(summary):
    return {
        "accuracy": summary["accuracy_high"] - summary["accuracy_low"],
        "mcc": summary["mcc_high"] - summary["mcc_low"],
        "f1": summary["macro"]["f1_high"] - summary["macro"]["f1_low"],
    }


def test_groups_count_once_however_many_samples_they_have():
    alone, grouped = scored(videos()).summary, scored(videos(), group_column="video").summary

    for name, width in widths(grouped).items():
        assert width / widths(alone)[name] == pytest.approx(8**0.5, rel=0.15)
    assert grouped["resampling"]["groups"] == 50
    assert grouped["interval"].endswith("of the effective sample size by video (Rao & Scott)")
    assert grouped["top_k_low"]["1"] == grouped["accuracy_low"]


def test_groups_widen_the_intervals_of_the_classes():
    alone, grouped = scored(videos()), scored(videos(), group_column="video")

    for name in ("precision", "recall", "f1"):
        ratio = (grouped.per_class[f"{name}_high"] - grouped.per_class[f"{name}_low"]) / (
            alone.per_class[f"{name}_high"] - alone.per_class[f"{name}_low"]
        )
        assert (ratio > 1.8).all()
        pd.testing.assert_series_equal(grouped.per_class[name], alone.per_class[name])


def test_streamed_groups_are_those_of_the_whole_table(tmp_path, monkeypatch):
    frame = videos()
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr("evalkit.predictions.BATCH_ROWS", 7)
    monkeypatch.setattr("evalkit.scoring.tally.PENDING_BATCHES", 3)

    result = Evaluation.from_table(
        tmp_path / "t.parquet", method=Method(group_column="video", replicates=4000)
    )

    whole = scored(frame, group_column="video", replicates=4000)
    for name in ("precision", "recall", "f1"):
        pd.testing.assert_series_equal(
            result.per_class[f"{name}_low"], whole.per_class[f"{name}_low"]
        )
    assert result.summary["mcc_low"] == pytest.approx(whole.summary["mcc_low"], abs=0.03)


def test_few_groups_are_warned_about():
    result = scored(videos(videos=19), group_column="video")

    assert result.summary["warnings"] == [
        "only 19 groups of video: intervals from fewer than 20 are too narrow"
    ]
    assert scored(videos(videos=20), group_column="video").summary["warnings"] == []


def test_a_sample_without_its_group_is_refused():
    frame = videos()
    frame.loc[[3, 5], "video"] = None

    with pytest.raises(InputError) as caught:
        scored(frame, group_column="video")

    assert str(caught.value) == (
        "every sample must have a label, a prediction and a group, got 2 missing in the groups, "
        "the first in row 4, of 400 rows: fill them in or drop these rows"
    )


def test_the_summary_says_how_intervals_were_made():
    summary = scored(videos(), seed=7, replicates=200, class_balanced=True).summary

    assert summary["resampling"] == {
        "method": "BCa percentiles of 200 replicates, moved by their bias, samples within each "
        "class drawn with replacement",
        "level": 0.95,
        "replicates": 200,
        "seed": 7,
        "class_balanced": True,
        "group_column": None,
        "groups": None,
        "undefined": {},
        "replicates_that_lost_a_class": 0,
    }
    json.dumps(summary, allow_nan=False)


def test_a_perfect_score_says_why_it_has_no_interval():
    frame = pd.DataFrame({"label": ["cat", "dog"] * 5, "prediction": ["cat", "dog"] * 5})

    summary = scored(frame).summary

    assert summary["macro"]["f1_low"] is None
    assert "cannot tell" in summary["not_available"]["macro.f1_low"]
    assert "cannot tell" in summary["not_available"]["mcc_high"]
    assert 0.7 < summary["accuracy_low"] < 1


def test_simultaneous_intervals_are_wider_and_named():
    alone, together = scored(videos()), scored(videos(), simultaneous=True)

    assert (together.per_class["f1_low"] < alone.per_class["f1_low"]).all()
    assert together.summary["interval"].endswith(
        "; those of the classes hold together (Šidák over 2 classes: 97.467943% each)"
    )
    assert together.summary["accuracy_low"] == alone.summary["accuracy_low"]


def test_another_rule_is_named():
    frame = videos()
    result = Evaluation.from_predictions(
        frame, classes=["cat", "dog", "elk"], method=Method(average_rule="all")
    )

    usual = Evaluation.from_predictions(frame, classes=["cat", "dog", "elk"])
    assert result.summary["macro"]["f1"] == pytest.approx(usual.summary["macro"]["f1"] * 2 / 3)
    assert result.summary["average_rule"] == "all"
    assert result.summary["absent_class_rule"].startswith("every named class counts")


def test_an_evaluation_can_be_scored_another_way():
    run = {"model": {"spec": "toy"}, "warnings": ["odd"]}
    first = Evaluation.from_predictions(videos(), classes=["cat", "dog"], run=run)

    again = first.scored_by(Method(group_column="video"), group_by=["video"])

    assert again.summary["model"] == {"spec": "toy"}
    assert again.summary["warnings"][0] == "odd"
    assert len(again.slices) == 50
    assert again.summary["accuracy_low"] < first.summary["accuracy_low"]


def test_a_table_cannot_be_scored_another_way(tmp_path):
    videos().to_csv(tmp_path / "t.csv")

    with pytest.raises(InputError, match="give method and group_by to from_table"):
        Evaluation.from_table(tmp_path / "t.csv").scored_by(Method())


def test_many_classes_are_written_as_a_list_of_cells(tmp_path, monkeypatch):
    for module in ("scoring.study", "evaluation"):
        monkeypatch.setattr(f"evalkit.{module}.DENSE_CLASSES", 3)
    names = ["a", "b", "=c", "d"]
    frame = pd.DataFrame({"label": ["a", "a", "=c"], "prediction": ["b", "b", "=c"]})

    result = Evaluation.from_predictions(frame, classes=names)
    result.save(tmp_path)

    assert isinstance(result.cells, SparseConfusion)
    assert (tmp_path / "confusion_matrix.csv").read_text() == (
        "true,predicted,count\na,b,2\n'=c,'=c,1\n"
    )
    assert len(pd.read_csv(tmp_path / "per_class.csv")) == 4
    assert (tmp_path / "report.html").exists()
    assert result.summary["warnings"][-1] == (
        "more than 3 classes: confusion_matrix.csv lists the cells that are not 0, and report.html "
        "shows some of the classes"
    )
