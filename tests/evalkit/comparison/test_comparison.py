import csv
import json
import math

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import f1_score, matthews_corrcoef

from evalkit.cli import cli
from evalkit.comparison import compare
from evalkit.comparison.join import model_names
from evalkit.comparison.paired import mcnemar
from evalkit.comparison.render import FORMATS, as_dict, as_html, as_text, save
from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.scoring.method import Method


def runs(seed=0, *, samples=400, right=(0.8, 0.85), classes="abc"):
    """Models whose mistakes have much in common, as those of real models do."""
    rng = np.random.default_rng(seed)
    names = np.array(list(classes))
    label = rng.integers(0, len(names), samples)
    difficulty = rng.random(samples)
    found = {}
    for position, share in enumerate(right):
        noise = 0.1 * rng.standard_normal(samples)
        wrong = (label + 1 + (rng.random(samples) < 0.2)) % len(names)
        given = np.where(difficulty + noise < share, label, wrong)
        found[f"m{position}"] = pd.DataFrame(
            {
                "path": [f"{i}.png" for i in range(samples)],
                "label": names[label],
                "prediction": names[given],
            }
        )
    return found


def saved(folder, found):
    for name, frame in found.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    return [folder / f"{name}.csv" for name in found]


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        (["a", None, "b"], "every sample must have a prediction, got 1 missing value in m1, the"),
        ([0, math.nan, 1], "every sample must have a prediction, got 1 missing value in m1"),
        ([0.0, 1.0, 1.0], "column prediction must hold class names or integers, got float64 in m1"),
    ],
)
def test_frames_whose_predictions_are_no_classes(prediction, said):
    labels = pd.DataFrame({"path": list("xyz"), "label": [0, 1, 1]})
    found = {"m0": labels.assign(prediction=0), "m1": labels.assign(prediction=prediction)}

    with pytest.raises(InputError) as error:
        compare(found)

    assert str(error.value).startswith(said)


def test_a_column_that_names_no_sample_may_have_gaps():
    labels = pd.DataFrame({"index": [0, 1], "path": [None, None], "label": [0, 1]})
    found = {name: labels.assign(prediction=[0, 0]) for name in ("m0", "m1")}

    assert compare(found, key="index").samples == 2


def test_a_frame_without_predictions_is_named():
    labels = pd.DataFrame({"path": list("xyz"), "label": [0, 1, 1]})

    with pytest.raises(InputError, match="got m1 without prediction: it has path, label"):
        compare({"m0": labels.assign(prediction=0), "m1": labels})


def test_predictions_of_no_class_of_the_samples_are_told():
    """As where one table has positions and the other one names."""
    labels = pd.DataFrame({"path": list("xyz"), "label": ["cat", "dog", "dog"]})
    found = compare(
        {"m0": labels.assign(prediction="dog"), "m1": labels.assign(prediction=[0, 1, 1])}
    )

    said = "3 predictions of m1 are of classes without samples: 0, 1"
    assert found.warnings == (said,)
    assert f"! {said}" in as_text(found)
    assert as_dict(found)["warnings"] == [said]
    assert said in as_html(found)


def test_other_data_under_the_same_paths_are_told(tmp_path):
    labels = pd.DataFrame({"path": list("xyz"), "label": list("aab"), "prediction": "a"})
    for name, data, digest in (("m0", "val", "12"), ("m1", "test", "34"), ("m2", "copy", "12")):
        run = {"data": {"name": data, "sha256": digest}}
        Evaluation.from_predictions(labels, classes=["a", "b"], run=run).save(tmp_path / name)

    assert compare([tmp_path / "m0", tmp_path / "m2"]).warnings == ()
    assert compare([tmp_path / "m0", tmp_path / "m1"]).warnings == (
        "the runs read other data (val, test) under the same path: labels, columns or images "
        "differ, so that samples of one name need not be the same",
    )


def test_scores_and_flips_by_hand():
    """Asymmetric: one gained, two lost, one wrong in another way, one wrong the same way."""
    labels = pd.DataFrame({"path": list("123456"), "label": list("aaabbc")})
    first = labels.assign(prediction=list("aaabaa"))  # wrong: 5, 6
    second = labels.assign(prediction=list("abcbba"))  # wrong: 2, 3, 6; 5 gained

    pair = compare({"first": first, "second": second}).pairs[0]

    assert pair.flips == {
        "both right": 2, "right to wrong": 2, "wrong to right": 1, "wrong to other wrong": 0,
        "same wrong": 1,
    }  # fmt: skip
    assert pair.scores.loc["accuracy", ["first", "second"]].tolist() == pytest.approx([4 / 6, 0.5])
    assert pair.scores.loc["accuracy", "difference"] == pytest.approx(-1 / 6)
    assert pair.changed.to_numpy().tolist() == [
        ["2", "a", "a", "b", "right to wrong"],
        ["3", "a", "a", "c", "right to wrong"],
        ["5", "b", "a", "b", "wrong to right"],
    ]
    assert pair.per_class.loc["a", "difference"] == pytest.approx(-2 / 3)
    assert pair.p_value == mcnemar(1, 2)


def test_scores_are_those_of_scikit_learn():
    found = runs()

    table = compare(found).pairs[0].scores

    for column, frame in zip(("first", "second"), found.values(), strict=True):
        pair = frame["label"], frame["prediction"]
        assert table.loc["macro.f1", column] == pytest.approx(f1_score(*pair, average="macro"))
        assert table.loc["mcc", column] == pytest.approx(matthews_corrcoef(*pair))
    np.testing.assert_allclose(table["difference"], table["second"] - table["first"])
    assert (table["difference_low"] <= table["difference"]).all()
    assert (table["difference"] <= table["difference_high"]).all()


def test_intervals_of_differences_are_those_of_drawing_samples():
    found = runs()
    first, second = (frame["prediction"].to_numpy() for frame in found.values())
    label = found["m0"]["label"].to_numpy()

    row = compare(found, method=Method(replicates=4000)).pairs[0].scores.loc["macro.f1"]

    rng = np.random.default_rng(1)
    differences = []
    for _ in range(600):
        drawn = rng.integers(0, label.size, label.size)
        scores = [f1_score(label[drawn], one[drawn], average="macro") for one in (first, second)]
        differences.append(scores[1] - scores[0])
    low, high = np.quantile(differences, [0.025, 0.975])
    width = high - low
    assert row["difference_high"] - row["difference_low"] == pytest.approx(width, rel=0.15)
    assert row["difference_low"] == pytest.approx(low, abs=0.15 * width)


def test_pairing_tells_apart_what_two_intervals_cannot():
    found = runs(samples=3000, right=(0.80, 0.82))
    alone = [
        Evaluation.from_predictions(frame, classes=list("abc")).summary for frame in found.values()
    ]

    pair = compare(found).pairs[0]

    assert alone[0]["accuracy_high"] > alone[1]["accuracy_low"]  # the intervals overlap
    assert pair.p_value < 0.05
    assert pair.scores.loc["accuracy", "difference_low"] > 0


def test_a_model_and_itself_are_equal():
    frame = runs()["m0"]

    pair = compare({"a": frame, "b": frame}, margin=0.02).pairs[0]

    assert pair.p_value == 1.0
    assert pair.equivalence_p_value < 0.05
    assert pair.changed.empty
    assert math.isnan(pair.scores.loc["macro.f1", "difference_low"])


def test_many_cells_take_the_delta_method(monkeypatch):
    found = runs(samples=5000)
    exact = compare(found).pairs[0].scores
    monkeypatch.setattr("evalkit.comparison.pair.CELLS_TO_RESAMPLE", 3)

    pair = compare(found).pairs[0]

    assert pair.method.startswith("delta method")
    np.testing.assert_allclose(pair.scores["difference_low"], exact["difference_low"], atol=0.004)


def test_classes_are_corrected_for_their_number():
    table = compare(runs(classes="abcdefgh")).pairs[0].per_class

    assert (table["p_value_holm"] >= table["p_value"]).all()
    assert table["p_value_holm"].min() == pytest.approx(min(1, table["p_value"].min() * 8))


def test_more_than_two_models_are_compared_two_by_two():
    found = compare(runs(right=(0.6, 0.8, 0.82)))

    assert found.cochran_q[1] < 1e-6
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("m0", "m1"), ("m0", "m2"), ("m1", "m2"),
    ]  # fmt: skip
    assert found.p_values_holm[0] >= found.pairs[0].p_value
    assert "Cochran's Q" in as_text(found)


def test_order_of_the_rows_does_not_matter():
    found = runs()
    shuffled = dict(found, m1=found["m1"].sample(frac=1, random_state=0))

    pd.testing.assert_frame_equal(compare(shuffled).pairs[0].scores, compare(found).pairs[0].scores)


def test_unmatched_samples_are_counted_and_refused_or_left_out():
    found = runs(samples=50)
    found["m1"] = found["m1"].iloc[3:]

    with pytest.raises(InputError) as caught:
        compare(found)
    skipped = compare(found, on_unmatched="skip")

    assert str(caught.value) == (
        "runs must have the same samples, got 47 in common by path and 3 only in m0, 0 only in m1: "
        "leave those out with on_unmatched='skip'"
    )
    assert skipped.samples == 47
    assert "! left out: 3 only in m0" in as_text(skipped)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda frame: frame.assign(label=frame["label"].where(frame.index != 4, "zebra")),
            r"same label .*, got 1 of 50 that differ between m0 and m1, the first path '4.png'",
        ),
        (
            lambda frame: pd.concat([frame, frame.iloc[:2]]),
            "sample must be there once, got 2 values of path more than once in m1: '0.png', '1",
        ),
        (
            lambda frame: frame.assign(path="x" + frame["path"]),
            "samples in common, got none with the same path in m0 and m1: for example '0.png'",
        ),
        (
            lambda frame: frame.drop(columns="path"),
            "share a column that names the samples, got none of path, index in all",
        ),
    ],
)
def test_runs_that_do_not_go_together_are_refused(change, fault):
    found = runs(samples=50)
    found["m1"] = change(found["m1"])

    with pytest.raises(InputError, match=fault):
        compare(found)


def test_unusable_calls_are_refused(tmp_path):
    found = runs(samples=20)
    with pytest.raises(InputError, match="at least two runs, got 1"):
        compare({"m0": found["m0"]})
    with pytest.raises(InputError, match="fail or skip, got 'drop'"):
        compare(found, on_unmatched="drop")
    with pytest.raises(InputError, match="draws single samples, got a method with group_column"):
        compare(found, method=Method(group_column="path"))
    with pytest.raises(InputError, match=r"folder with predictions\.parquet.*without that file"):
        compare([tmp_path, tmp_path])


def test_folders_of_evaluations_are_runs(tmp_path):
    for name, frame in runs(samples=60).items():
        Evaluation.from_predictions(frame, classes=list("abc")).save(tmp_path / name)

    found = compare([tmp_path / "m0", tmp_path / "m1"])

    assert found.names == ("m0", "m1")
    assert found.samples == 60


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda frame: frame.drop(columns="path"),
            r"must name its samples in a column path or index, got 'label', 'prediction': name",
        ),
        (
            lambda frame: frame.assign(path=frame["path"].where(frame.index != 2)),
            r"have a path, got 1 missing value in .*m0.csv, the first in row 3",
        ),
        (lambda frame: frame.iloc[:0], "at least one row, got .*m0.csv with none"),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(tmp_path, change, fault):
    found = runs(samples=5)
    found["m0"] = change(found["m0"])

    with pytest.raises(InputError, match=fault):
        compare(saved(tmp_path, found))


def test_any_column_can_name_the_samples(tmp_path):
    found = {name: frame.rename(columns={"path": "id"}) for name, frame in runs().items()}

    assert compare(saved(tmp_path, found), key="id").key == "id"
    assert compare(found, key="id").key == "id"


def test_names_are_as_long_as_they_must_be():
    assert model_names(["a/x", "b/y"]) == ("x", "y")
    assert model_names(["a/x", "b/x"]) == ("a/x", "b/x")
    assert model_names(["x", "x"]) == ("x (1)", "x (2)")


def test_json_is_strict_and_whole():
    found = compare(runs(), margin=0.05)

    values = json.loads(FORMATS["json"](found))

    assert values == as_dict(found)
    pair = values["pairs"][0]
    assert sum(pair["flips"].values()) == values["samples"] == 400
    assert {row["score"] for row in pair["scores"]} >= {"accuracy", "macro.f1", "mcc"}
    assert pair["equivalence_p_value"] is not None


def test_csv_has_a_row_per_score():
    rows = list(csv.DictReader(FORMATS["csv"](compare(runs(right=(0.5, 0.7, 0.9)))).splitlines()))

    assert len(rows) == 3 * 10
    assert rows[0]["first_model"] == "m0"
    assert rows[0]["score"] == "accuracy"


def test_the_screen_says_who_is_better():
    text = as_text(compare(runs(samples=2000, right=(0.7, 0.85)), margin=0.01))

    assert "m1 is better than m0: accuracy +0.1" in text
    assert "not shown to be within 0.01 of each other" in text
    assert "training one of the models again" in text
    assert max(map(len, text.split("\n\n")[2].splitlines())) < 200


def test_the_page_escapes_everything_and_asks_for_nothing():
    bad = "<script>alert(1)</script>"
    found = runs(samples=60)
    found = {
        f"{name}{bad}": frame.assign(
            **{column: frame[column] + bad for column in ("path", "label", "prediction")}
        )
        for name, frame in found.items()
    }  # fmt: skip

    page = as_html(compare(found))

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page


def test_everything_is_written(tmp_path):
    found = runs()
    found = {n: f.assign(path="=cmd" + f["path"]) for n, f in found.items()}

    save(compare(found), tmp_path / "out")

    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "comparison.html", "comparison.json", "flips.csv", "per_class_differences.csv",
        "scores.csv",
    ]  # fmt: skip
    flips = pd.read_csv(tmp_path / "out" / "flips.csv")
    assert list(flips) == [
        "first_model",
        "second_model",
        "path",
        "label",
        "first",
        "second",
        "flip",
    ]
    assert flips["path"].str.startswith("'=cmd").all()


@pytest.mark.parametrize("output", ["text", "json", "csv", "html"])
def test_the_command_prints_every_format(tmp_path, output):
    files = [str(path) for path in saved(tmp_path, runs())]

    done = CliRunner().invoke(
        cli, ["compare", *files, "--format", output, "--seed", "1", "--out", str(tmp_path / "o")]
    )

    expected = FORMATS[output](compare(files, method=Method(seed=1)))
    note = f"\nwritten to {tmp_path / 'o'}\n"
    assert done.exit_code == 0
    assert done.stdout == expected + "\n" + (note if output == "text" else "")
    assert (tmp_path / "o" / "flips.csv").exists()


def test_the_command_refuses_one_run(tmp_path):
    files = saved(tmp_path, runs())

    done = CliRunner().invoke(cli, ["compare", str(files[0])])

    assert isinstance(done.exception, InputError)
