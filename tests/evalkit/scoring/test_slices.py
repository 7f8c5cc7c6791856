import numpy as np
import pandas as pd
import pytest

from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.report.text import as_text
from evalkit.scoring import slices as slices_module
from evalkit.scoring.intervals import difference_interval
from evalkit.scoring.method import Method


def sites(seed=0, *, samples=1200, worst=0.6, usual=0.85):
    """Four sites, of which the last is worse and another is small."""
    rng = np.random.default_rng(seed)
    site = rng.choice(["north", "south", "tiny", "west"], samples, p=[0.4, 0.35, 0.01, 0.24])
    label = rng.choice(["a", "b", "c"], samples)
    right = rng.random(samples) < np.where(site == "west", worst, usual)
    other = np.array(["a", "b", "c"])[(np.char.find("abc", label) + 1) % 3]
    return pd.DataFrame(
        {
            "label": label,
            "prediction": np.where(right, label, other),
            "site": site,
            "night": rng.random(samples) < 0.5,
        }
    )


def sliced(frame, *columns, classes="abc", **method):
    return Evaluation.from_predictions(
        frame, classes=list(classes), method=Method(**method), group_by=columns
    )


def test_every_slice_scores_like_a_table_of_its_own():
    frame = sites()

    table = sliced(frame, "site").slices.set_index("value")

    for value in ("north", "south", "west"):
        alone = Evaluation.from_predictions(frame[frame["site"] == value], classes=list("abc"))
        for name in ("accuracy", "balanced_accuracy", "mcc", "kappa"):
            for end in ("", "_low", "_high"):
                assert table.loc[value, name + end] == pytest.approx(alone.summary[name + end])
        for kind in ("macro", "weighted"):
            for name, score in alone.summary[kind].items():
                assert table.loc[value, f"{kind}_{name}"] == pytest.approx(score)
        assert table.loc[value, "samples"] == alone.summary["samples"]


def test_what_probabilities_tell_has_intervals_in_every_slice():
    frame = sites(samples=600)
    right = frame["label"] == frame["prediction"]
    sure = np.random.default_rng(1).uniform(0.5, 1, len(frame))
    frame = frame.assign(
        confidence=sure,
        label_probability=np.where(right, sure, (1 - sure) / 2),
        patient=np.arange(len(frame)) % 100,
    )

    table = sliced(frame, "site").slices.set_index("value")
    in_groups = sliced(frame, "site", group_column="patient").slices.set_index("value")

    alone = Evaluation.from_predictions(frame[frame["site"] == "west"], classes=list("abc")).summary
    for name in ("nll", "ece"):
        for end in ("", "_low", "_high"):
            assert table.loc["west", name + end] == pytest.approx(alone[name + end])
        assert in_groups.loc["west", name] == pytest.approx(alone[name])
        assert np.isnan(in_groups.loc["west", f"{name}_low"])
    assert np.isnan(table.loc["west", "top5_high"])  # the table has no such column


def test_slices_of_batches_are_those_of_the_whole_table(tmp_path, monkeypatch):
    frame = sites().astype({"night": str})
    frame.to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.setattr("evalkit.predictions.BATCH_ROWS", 100)

    streamed = Evaluation.from_table(tmp_path / "t.csv", group_by=["site", "night"])

    pd.testing.assert_frame_equal(streamed.slices, sliced(frame, "site", "night").slices)


def test_the_worst_come_first_by_what_they_could_be_at_best():
    frame = pd.DataFrame(
        {
            "label": ["a"] * 103,
            "prediction": ["b", "a", "a"] + ["a"] * 50 + ["b"] * 30 + ["a"] * 20,
            "site": ["few"] * 3 + ["many"] * 100,  # few: 2 of 3 right, which says little
        }
    )

    table = sliced(frame, "site", classes="ab").slices

    assert table["value"].tolist() == ["many", "few"]
    assert table["accuracy"].tolist() == pytest.approx([0.7, 2 / 3])


def test_a_clearly_worse_slice_is_one_line_of_warning():
    result = sliced(sites(), "site", "night")

    found = [text for text in result.summary["warnings"] if "clearly worse" in text]

    row = result.slices.iloc[0]
    assert (row["value"], bool(row["worse"])) == ("west", True)
    assert found == [
        f"clearly worse than elsewhere where site is west: accuracy {row['accuracy']:.3f} of "
        f"{row['samples']} samples, difference {row['difference']:+.3f} "
        f"[{row['difference_low']:+.3f}, {row['difference_high']:+.3f}] "
        "(95% for all 6 slices together)"
    ]


def test_chance_seldom_makes_a_slice_worse():
    """Sixty tables of equal sites: about one in forty may warn."""
    warned = sum(
        bool(sliced(sites(seed, samples=300, worst=0.85), "site").slices["worse"].any())
        for seed in range(60)
    )

    assert warned <= 5


def test_the_difference_is_to_all_other_samples():
    frame = pd.DataFrame(
        {"label": ["a"] * 150, "prediction": ["a"] * 56 + ["b"] * 14 + ["a"] * 48 + ["b"] * 32,
         "site": ["x"] * 70 + ["y"] * 80},
    )  # fmt: skip

    table = sliced(frame, "site", classes="ab", level=0.95).slices.set_index("value")

    assert table.loc["x", "difference"] == pytest.approx(0.2)
    low, high = difference_interval(56, 70, 48, 80, level=0.95**0.5)
    assert table.loc["x", ["difference_low", "difference_high"]].tolist() == [low, high]
    assert table.loc["y", "difference_high"] == pytest.approx(-low)


def test_newcombe_as_published():
    """Newcombe (1998), table II, a: 56/70 - 48/80, method 10."""
    assert difference_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference_interval(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_one_slice_has_nothing_to_differ_from():
    table = sliced(sites().assign(site="x"), "site").slices

    assert np.isnan(table.loc[0, "difference"])
    assert not table.loc[0, "worse"]


def test_missing_values_are_a_slice():
    frame = sites(samples=100)
    frame.loc[:30, "site"] = None

    assert "(missing)" in set(sliced(frame, "site").slices["value"])


def test_too_many_slices_are_refused(monkeypatch):
    monkeypatch.setattr(slices_module, "MOST_SLICES", 3)

    with pytest.raises(InputError, match="at most 3 different values, got more in 'site'"):
        sliced(sites(), "site")


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="must have the column 'place' to group by it, got label"):
        sliced(sites(), "place")


def test_slices_are_a_file_and_a_table_on_the_screen(tmp_path):
    frame = sites()
    frame["site"] = frame["site"].replace("west", "=cmd()")
    result = sliced(frame, "site")

    result.save(tmp_path)

    rows = pd.read_csv(tmp_path / "slices.csv")
    assert rows.columns[:6].tolist() == [
        "column", "value", "samples", "accuracy", "accuracy_low", "accuracy_high",
    ]  # fmt: skip
    assert rows.loc[0, "value"] == "'=cmd()"
    assert "slice: column  value   accuracy" in as_text(result)


def test_groups_widen_the_intervals_of_slices():
    frame = sites()
    doubled = pd.concat([frame.assign(patient=np.arange(len(frame)))] * 4, ignore_index=True)

    alone = sliced(doubled, "site").slices.set_index("value")
    grouped = sliced(doubled, "site", group_column="patient").slices.set_index("value")

    for name in ("accuracy", "macro_f1", "difference"):
        widths = [
            table.loc["north", f"{name}_high"] - table.loc["north", f"{name}_low"]
            for table in (alone, grouped)
        ]
        assert widths[1] / widths[0] == pytest.approx(2, rel=0.15)
