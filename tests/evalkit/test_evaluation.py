import json
import math
import os
import stat

import numpy as np
import pandas as pd
import pytest

from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.predictions import COLUMNS
from evalkit.scoring.method import Method

CLASSES = ["ant", "bee", "cat"]
FILES = [
    "confusion_matrix.csv", "per_class.csv", "predictions.parquet", "report.html", "summary.json",
    "summary.md",
]  # fmt: skip
FIELDS = {
    "samples", "unreadable", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy",
    "macro", "weighted", "mcc", "kappa", "top_k", "nll", "brier", "ece", "checkpoint", "model",
    "transform", "precision_flags", "environment", "throughput", "warnings",
}  # fmt: skip


def predictions(**columns):
    basic = {
        "index": [0, 1, 2, 3],
        "label": ["ant", "ant", "bee", "bee"],
        "prediction": ["ant", "bee", "bee", "bee"],
    }
    return pd.DataFrame(basic | columns)


def evaluation(frame=None, *, classes=CLASSES, run=None):
    frame = predictions() if frame is None else frame
    return Evaluation.from_predictions(frame, classes=classes, run=run)


def tree(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else None


def test_classes_by_position_are_ordered_by_it():
    probabilities = [[0.1, 0.7, 0.2], [0.1, 0.2, 0.7], [0.7, 0.2, 0.1], [0.8, 0.1, 0.1]]
    frame = predictions(probabilities=probabilities)

    result = evaluation(frame, classes={"ant": 1, "bee": 0, "cat": 2})

    assert list(result.per_class.index) == ["bee", "ant", "cat"]
    assert result.ranking.loc["bee", "auroc"] == 1


def test_scores_and_keeps_the_predictions_in_order():
    frame = predictions(site=["n", "s", "n", "s"], confidence=[0.9, 0.6, 0.8, 1.0])

    result = evaluation(frame)

    assert result.confusion.loc["ant", "bee"] == 1
    assert result.per_class.loc["bee", "precision"] == pytest.approx(2 / 3)
    assert result.summary["accuracy"] == 0.75
    assert result.summary["ece"] == pytest.approx((0.1 + 0.6 + 0.2) / 4)
    assert list(result.predictions.columns) == [
        "index", "label", "prediction", "confidence", "site",
    ]  # fmt: skip


def test_categorical_and_text_columns_score_alike():
    coded = predictions(
        label=pd.Categorical.from_codes([0, 0, 1, 1], CLASSES),
        prediction=pd.Categorical.from_codes([0, 1, 1, 1], CLASSES),
    )

    pd.testing.assert_frame_equal(evaluation(coded).confusion, evaluation().confusion)


def test_every_field_is_there_and_every_null_has_its_reason():
    summary = evaluation().summary

    assert set(summary) >= FIELDS
    unknown = {name for name in FIELDS if summary[name] is None}
    assert unknown == {
        "unreadable", "nll", "brier", "ece", "checkpoint", "model", "transform",
        "precision_flags", "environment", "throughput",
    }  # fmt: skip
    further = {"top_k.5", "aurc", "auroc", "average_precision", "reading", "data"}
    further |= {f"{name}_{side}" for name in ("nll", "brier", "ece") for side in ("low", "high")}
    assert set(summary["not_available"]) == unknown | further
    assert all(summary["not_available"].values())


def test_what_the_run_knows_goes_into_the_summary():
    run = {
        "unreadable": [{"path": "broken.png", "reason": "truncated"}],
        "checkpoint": {"sha256": "ab", "matched_fraction": np.float32(1.0)},
        "warnings": ["a prefix was removed"],
        "scores": {"nll": 0.5, "brier": np.float64(0.25), "top_k": {1: 0.75, 5: 1.0}},
    }
    frame = predictions(label_probability=[0.5] * 4)

    summary = evaluation(frame, run=run).summary

    assert summary["unreadable"] == [{"path": "broken.png", "reason": "truncated"}]
    assert summary["checkpoint"]["matched_fraction"] == 1.0
    assert summary["nll"] == 0.5  # not ln 2, which the column would give
    assert summary["brier"] == 0.25
    assert summary["top_k"] == {"1": 0.75, "5": 1.0}
    assert summary["top_k_low"]["5"] < 1 == summary["top_k_high"]["5"]
    assert summary["warnings"][0] == "a prefix was removed"
    assert summary["not_available"]["model"] == "the run did not record it"
    json.dumps(summary, allow_nan=False)


def test_figures_come_from_the_columns_where_they_can():
    names = [f"c{i}" for i in range(8)]
    frame = pd.DataFrame(
        {
            "label": ["c0", "c1"],
            "prediction": ["c0", "c2"],
            "label_probability": [0.5, 0.25],
            "top5": [["c0", "c1", "c2", "c3", "c4"], ["c2", "c3", "c4", "c5", "c6"]],
        }
    )

    summary = evaluation(frame, classes=names).summary

    assert summary["top_k"] == {"1": 0.5, "5": 0.5}
    assert summary["nll"] == pytest.approx(1.5 * math.log(2))


def test_classes_without_samples_are_warned_about():
    frame = predictions(prediction=["ant", "cat", "bee", "bee"])

    assert evaluation(frame).summary["warnings"] == [
        "no samples of 1 of 3 classes (cat): their recall is undefined",
        "1 prediction of a class without samples: macro recall counts it as 0, balanced accuracy "
        "leaves it out",
        "only 4 samples: below 10 the intervals of averages, MCC and kappa change with the seed "
        "and miss too often; that of the accuracy holds",
    ]


@pytest.mark.parametrize(("samples", "is_warned"), [(2, True), (9, True), (10, False)])
def test_too_few_samples_for_intervals_of_averages_are_warned_about(samples, is_warned):
    names = (["ant", "bee"] * samples)[:samples]
    frame = pd.DataFrame(
        {"label": names, "prediction": [*names[:-1], "ant" if samples % 2 == 0 else "bee"]}
    )

    warnings = Evaluation.from_predictions(frame, classes=["ant", "bee"]).summary["warnings"]

    assert any(one.startswith(f"only {samples} samples") for one in warnings) is is_warned


def test_without_such_intervals_there_is_nothing_to_warn_of():
    """All right: no replicate differs, and only the accuracy has an interval."""
    frame = pd.DataFrame({"label": ["ant", "bee"], "prediction": ["ant", "bee"]})

    summary = Evaluation.from_predictions(frame, classes=["ant", "bee"]).summary

    assert summary["kappa_low"] is None
    assert summary["warnings"] == []


@pytest.mark.parametrize(
    ("frame", "run", "fault"),
    [
        (predictions().iloc[:0], None, "predictions must have at least one row, got none"),
        (
            pd.concat([predictions(), predictions()[["label"]]], axis=1),
            None,
            "predictions must have every column once, got label more than once: rename the others",
        ),
        (predictions().drop(columns="label"), None, "got no label among index, prediction"),
        (
            predictions(index=[0, 1, 1, 0]),
            None,
            "every sample once, got 2 values of index more than once, the first 1",
        ),
        (predictions(), {"modle": "resnet"}, "warnings and scores, got modle"),
        (predictions(label=["ant", "ant", "bee", None]), None, "got 1 missing in column label"),
        (predictions(label=["ant", "ant", "bee", "wolf"]), None, r"1 other name \('wolf'\)"),
    ],
)
def test_unusable_predictions_are_refused(frame, run, fault):
    with pytest.raises(InputError, match=fault):
        evaluation(frame, run=run)


def test_a_table_larger_than_a_batch_scores_like_its_predictions(tmp_path, monkeypatch):
    monkeypatch.setattr("evalkit.predictions.BATCH_ROWS", 3)
    frame = predictions(confidence=[0.9, 0.6, 0.8, 1.0])
    frame.to_csv(tmp_path / "t.csv", index=False)

    result = Evaluation.from_table(tmp_path / "t.csv", classes=CLASSES)

    assert result.predictions is None
    assert result.summary == evaluation(frame).summary
    pd.testing.assert_frame_equal(result.per_class, evaluation(frame).per_class)


def test_classes_of_a_table_are_those_that_occur(tmp_path):
    predictions().to_parquet(tmp_path / "t.parquet")

    result = Evaluation.from_table(tmp_path / "t.parquet")

    assert list(result.confusion.index) == ["ant", "bee"]


PROBABILITIES = [[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.6, 0.3], [0.2, 0.7, 0.1]]


def saved(folder, **columns):
    """The predictions in a table of ours, with the classes in an order that is not sorted."""
    frame = predictions(probabilities=PROBABILITIES, **columns)
    renamed = {"ant": "cat", "cat": "ant"}  # so: cat, bee, ant
    for name in ("label", "prediction"):
        frame[name] = frame[name].replace(renamed)
    found = evaluation(frame, classes=["cat", "bee", "ant"])
    found.save(folder)
    return found


def test_our_own_table_scores_as_it_did_and_keeps_its_classes(tmp_path):
    whole = saved(tmp_path / "out")

    again = Evaluation.from_table(tmp_path / "out/predictions.parquet")

    assert list(again.per_class.index) == ["cat", "bee", "ant"]
    for name in ("brier", "auroc", "average_precision"):
        assert again.summary[name] == pytest.approx(whole.summary[name], rel=1e-6)
    assert again.summary["warnings"] == whole.summary["warnings"]


def test_lists_in_an_order_that_nobody_named_are_left_out(tmp_path):
    path = tmp_path / "t.parquet"
    predictions(probabilities=PROBABILITIES).to_parquet(path)

    unnamed = Evaluation.from_table(path).summary
    named = Evaluation.from_table(path, classes=CLASSES).summary

    assert unnamed["brier"] is None
    (warning,) = [one for one in unnamed["warnings"] if "probabilities" in one]
    assert warning.endswith("nobody named: name the classes with classes (--classes FILE)")
    assert named["brier"] == pytest.approx(0.29)
    assert not [one for one in named["warnings"] if "probabilities" in one]


def test_a_threshold_that_was_moved_far_keeps_the_probabilities():
    rng = np.random.default_rng(0)
    ill = rng.random(400) < 0.2
    p_ill = np.clip(rng.normal(0.15 + 0.2 * ill, 0.1), 0.01, 0.99)
    given = np.where(p_ill > 0.05, "ill", "well")
    frame = pd.DataFrame(
        {
            "label": np.where(ill, "ill", "well"),
            "prediction": given,
            "p_ill": p_ill,
            "p_well": 1 - p_ill,
        }
    )

    summary = evaluation(frame, classes=["ill", "well"]).summary

    assert (given != np.where(p_ill > 0.5, "ill", "well")).mean() > 0.5
    assert summary["auroc"] > 0.8


def test_probabilities_of_two_digits_add_up_to_about_one():
    columns = {"p_ant": [0.33] * 4, "p_bee": [0.33] * 4, "p_cat": [0.33] * 4}

    summary = evaluation(predictions(**columns)).summary

    assert summary["brier"] is not None


def test_probabilities_that_the_predictions_defy():
    """A threshold moves some predictions; most of them means another model."""
    columns = {f"p_{name}": [row[at] for row in PROBABILITIES] for at, name in enumerate(CLASSES)}
    some = predictions(prediction=["ant", "bee", "bee", "cat"], **columns)
    most = predictions(prediction=["cat", "cat", "bee", "cat"], **columns)

    found = [evaluation(frame).summary for frame in (some, most)]

    assert [one["auroc"] is None for one in found] == [False, True]
    assert found[0]["warnings"][-1] == (
        "1 of 4 samples were given a class that is not the most probable one by the probabilities "
        "of all classes"
    )
    assert found[1]["warnings"][-1] == (
        "the probabilities of all classes were left out: they are not of these predictions: 3 of 4 "
        "samples were given a class that is not their most probable one"
    )


def test_another_column_of_predictions_has_nothing_of_the_models(tmp_path):
    path = tmp_path / "t.parquet"
    predictions(
        human=["bee", "ant", "bee", "bee"],
        confidence=0.9,
        label_probability=0.5,
        top5=[["ant"]] * 4,
    ).to_parquet(path)

    model = Evaluation.from_table(path).summary
    human = Evaluation.from_table(path, prediction_column="human").summary

    assert (model["ece"], model["nll"]) != (None, None)
    assert (human["ece"], human["nll"], human["accuracy"]) == (None, None, 0.75)


@pytest.mark.parametrize(
    "columns",
    [
        {"path": [f"{part}/{number}.png" for part in "ab" for number in range(4)]},
        {"index": [*range(4), *range(4)]},
        {"index": [*range(4), *range(4)], "confidence": np.linspace(0.5, 0.9, 8)},
        {"path": ["film.mp4"] * 8, "confidence": np.linspace(0.5, 0.9, 8)},
        {"path": [None] * 8, "confidence": [0.5] * 8},
        {"path": [{"bytes": b"a", "path": "a.png"}] * 8, "confidence": [0.5] * 8},
    ],
    ids=["folders", "shards", "other models", "frames", "gaps", "structs"],
)
def test_what_is_no_sample_twice(tmp_path, columns):
    """An index that begins again, frames of one film, and paths that are none."""
    frame = pd.concat([predictions()] * 2, ignore_index=True).drop(columns="index")
    frame.assign(**columns).to_parquet(tmp_path / "t.parquet", index=False)

    warnings = Evaluation.from_table(tmp_path / "t.parquet").summary["warnings"]

    assert not [one for one in warnings if "the table has already" in one]


@pytest.mark.parametrize("key", ["index", "path"])
def test_samples_that_a_table_holds_twice_are_told(tmp_path, monkeypatch, key):
    monkeypatch.setattr("evalkit.predictions.BATCH_ROWS", 2)
    frame = predictions(confidence=[0.9, 0.8, 0.7, 0.6]).rename(columns={"index": key})
    pd.concat([frame, frame[:1]]).to_parquet(tmp_path / "t.parquet", index=False)

    summary = Evaluation.from_table(tmp_path / "t.parquet").summary

    assert (
        f"1 of 5 rows is of a sample that the table has already, by {key}: counted as often, so "
        "that the intervals are too narrow; leave them out"
    ) in summary["warnings"]


def test_a_broken_confidence_is_refused_when_asked_for_and_else_only_left_out(tmp_path):
    table = tmp_path / "t.csv"
    predictions(confidence=[90, 60, 80, 100]).to_csv(table, index=False)

    with pytest.raises(InputError, match=r"column confidence must hold probabilities in \[0, 1\]"):
        Evaluation.from_table(table, confidence_column="confidence")
    summary = Evaluation.from_table(table).summary

    assert summary["ece"] is None
    assert "got 4 of 4 values" in summary["not_available"]["ece"]
    assert summary["not_available"]["ece"] in summary["warnings"]


def test_saves_files_that_say_the_same(tmp_path):
    result = evaluation()

    written = result.save(tmp_path / "deep" / "report")

    assert tree(tmp_path / "deep" / "report") == FILES
    assert sorted(path.name for path in written) == FILES
    folder = tmp_path / "deep" / "report"
    per_class = pd.read_csv(folder / "per_class.csv", index_col="class")
    pd.testing.assert_frame_equal(per_class, result.per_class, rtol=1e-14, atol=0)
    confusion = pd.read_csv(folder / "confusion_matrix.csv", index_col="true")
    np.testing.assert_array_equal(confusion, result.confusion)
    assert json.loads((folder / "summary.json").read_text()) == result.summary
    back = pd.read_parquet(folder / "predictions.parquet")
    assert [name for name in back if name in COLUMNS] == ["index", "label", "prediction"]


def test_files_look_as_promised(tmp_path):
    evaluation().save(tmp_path)

    assert (tmp_path / "confusion_matrix.csv").read_text() == (
        "true,ant,bee,cat\nant,1,1,0\nbee,0,2,0\ncat,0,0,0\n"
    )
    lines = (tmp_path / "per_class.csv").read_text().splitlines()
    assert lines[0] == (
        "class,precision,precision_low,precision_high,recall,recall_low,recall_high,"
        "f1,f1_low,f1_high,support,predicted"
    )
    assert lines[3] == "cat,,,,,,,,,,0,0"


def test_other_files_stay_and_old_results_are_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    evaluation().save(tmp_path)
    (tmp_path / "per_class.csv").write_text("old")
    (tmp_path / "plot_reliability.svg").write_text("old, and not drawn this time")

    evaluation().save(tmp_path)

    assert tree(tmp_path) == sorted([*FILES, "notes.txt"])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "per_class.csv").read_text().startswith("class,")


def test_files_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        evaluation().save(tmp_path)
    finally:
        os.umask(before)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o640}


def test_a_failure_leaves_nothing_new_and_everything_old(tmp_path):
    former = '{"samples": 1, "accuracy": 1.0, "not_available": {}}'
    (tmp_path / "summary.json").write_text(former)
    mixed = evaluation(predictions(site=[1, "north", 2.5, None]))

    for folder in (tmp_path, tmp_path / "new" / "report"):
        with pytest.raises(InputError, match="columns of one type each"):
            mixed.save(folder)

    assert tree(tmp_path) == ["summary.json"]
    assert (tmp_path / "summary.json").read_text() == former


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(InputError) as caught:
        evaluation().save(tmp_path / "report")

    assert str(caught.value) == (
        f"out must be a folder that can be written to, got {tmp_path}/report: "
        "No space left on device"
    )
    assert tree(tmp_path) == []


def test_out_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "summary.json").mkdir(parents=True)

    for folder, fault in {
        "file": f"out must be a folder, got {tmp_path}/file: {tmp_path}/file is a file; "
        "choose another name",
        "file/deep": f"out must be a folder, got {tmp_path}/file/deep: {tmp_path}/file is a file; "
        "choose another name",
        "taken": "out must be free for a file summary.json, got a folder "
        f"{tmp_path}/taken/summary.json",
    }.items():
        with pytest.raises(InputError) as caught:
            evaluation().save(tmp_path / folder)
        assert str(caught.value) == fault


def test_out_must_be_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere

    with pytest.raises(InputError, match=r"can be written to, got .*: no permission for "):
        evaluation().save(tmp_path)


def test_a_checkpoint_whose_name_is_not_utf8_comes_back_from_the_summary(tmp_path):
    evaluation(run={"checkpoint": {"path": "caf\udce9.pth"}}).save(tmp_path)

    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["checkpoint"]["path"] == "caf\udce9.pth"


def test_a_notebook_shows_the_table():
    frame = pd.DataFrame({"label": ["<b>"], "prediction": ["<b>"]})

    html = evaluation(frame, classes=["<b>", "c"])._repr_html_()

    assert html.startswith("<p>1 sample, 2 classes: accuracy 1.000 [0.207, 1.000]</p><table")
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "NaN" not in html


def test_a_prompt_shows_one_line():
    evaluation = Evaluation.from_predictions(
        pd.DataFrame({"label": ["ant", "bee"], "prediction": ["ant", "cat"]}), classes=CLASSES
    )

    assert repr(evaluation) == f"<Evaluation: {evaluation}>"
    assert "\n" not in repr(evaluation)


def test_the_level_is_that_of_every_table():
    frame = predictions(confidence=[0.9, 0.6, 0.8, 1.0])
    usual, narrow = (evaluation(frame).scored_by(Method(level=level)) for level in (0.95, 0.5))

    for name, column in {
        "per_class": "recall",
        "reliability": "accuracy",
        "coverage_risk": "risk",
    }.items():
        wide, less = (getattr(one, name) for one in (usual, narrow))
        spread = [(one[f"{column}_high"] - one[f"{column}_low"]).dropna() for one in (wide, less)]
        assert (spread[0] > spread[1]).all()
    assert narrow.summary["accuracy_low"] > usual.summary["accuracy_low"]
