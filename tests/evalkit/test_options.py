import json

import pandas as pd
import pytest
from click.testing import CliRunner

from evalkit.cli import cli
from evalkit.commands import options
from evalkit.errors import InputError
from evalkit.scoring.averages import AVERAGE_RULES
from evalkit.scoring.method import REPLICATES, USUAL


@pytest.fixture
def table(tmp_path):
    frame = pd.DataFrame(
        {
            "label": ["cat", "dog"] * 60,
            "prediction": ["cat", "dog", "dog", "dog"] * 30,
            "patient": [i // 4 for i in range(120)],
            "site": ["north"] * 60 + ["south"] * 60,
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def report(table, *arguments):
    out = table.parent / "out"
    done = CliRunner().invoke(
        cli, ["report", str(table), "--out", str(out), *arguments], standalone_mode=False
    )
    if done.exception:
        raise done.exception
    return json.loads((out / "summary.json").read_text())


def test_the_options_reach_the_summary(table):
    summary = report(
        table, "--group-column", "patient", "--group-by", "site", "--group-by", "patient",
        "--seed", "3", "--replicates", "150", "--average-rule", "defined", "--simultaneous",
    )  # fmt: skip

    recorded = summary["resampling"]
    assert (recorded["seed"], recorded["replicates"], recorded["groups"]) == (3, 150, 30)
    assert summary["average_rule"] == "defined"
    assert "hold together" in summary["interval"]
    slices = pd.read_csv(table.parent / "out" / "slices.csv")
    assert set(slices["column"]) == {"site", "patient"}


def test_balanced_classes_are_drawn_by_class(table):
    assert report(table, "--class-balanced")["resampling"]["class_balanced"] is True


def test_options_that_exclude_each_other_are_refused(table):
    with pytest.raises(InputError, match="--class-balanced and --group-column exclude each other"):
        report(table, "--class-balanced", "--group-column", "patient")


def test_a_column_that_is_not_there_is_named(table):
    with pytest.raises(
        InputError,
        match=r"'label', 'prediction', 'sight' once, got no 'sight' \(did you mean 'site'",
    ):
        report(table, "--group-by", "sight")


def test_without_options_all_is_as_usual(table):
    summary = report(table)

    assert summary["resampling"]["replicates"] == USUAL.replicates == REPLICATES
    assert not (table.parent / "out" / "slices.csv").exists()


def test_the_help_names_the_rules_that_there_are():
    assert tuple(AVERAGE_RULES) == options.RULES


def test_columns_of_data_are_looked_for_before_the_work(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"")

    with pytest.raises(InputError) as caught:
        options.open_source(str(tmp_path), USUAL, ["site"])

    assert str(caught.value) == (
        f"data must have the columns to group by, got no 'site' in {tmp_path} among 'path', "
        "'label': use a manifest that has them"
    )
    assert options.open_source("anything", USUAL, []) == "anything"
