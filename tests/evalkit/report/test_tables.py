import csv
import io
import os
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.report.tables import FORMULA_STARTS, check_folder, escape_cell, unescape_cell
from evalkit.whole_file import tidied

FORMULAS = ["=cmd()", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1", "'"]


@given(st.text())
def test_every_name_comes_back(name):
    assert unescape_cell(escape_cell(name)) == name


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_text(name):
    assert escape_cell(name) == f"'{name}"


@pytest.mark.parametrize("name", ["-1", "+3.5", "cat", "a=b", "", 7, -7])
def test_numbers_and_harmless_names_stay(name):
    assert escape_cell(name) == name


def test_formulas_as_class_names_are_escaped_in_both_tables(tmp_path):
    names = [*FORMULAS, "a,b", 'say "a"', "two\nlines", "cat"]
    frame = pd.DataFrame({"label": names, "prediction": names[::-1]})
    result = Evaluation.from_predictions(frame, classes=names)

    result.save(tmp_path)

    for file in ("per_class.csv", "confusion_matrix.csv"):
        text = (tmp_path / file).read_bytes().decode()
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert [unescape_cell(row[0]) for row in rows[1:]] == names
        assert not any(cell.startswith(FORMULA_STARTS) for row in rows for cell in row)
    header = (tmp_path / "confusion_matrix.csv").read_text().splitlines()[0]
    assert header.startswith("true,'=cmd(),'+1+1,'-2+3,'@SUM(A1),")


def pets():
    frame = pd.DataFrame({"label": ["cat", "dog"], "prediction": ["cat", "cat"]})
    return Evaluation.from_predictions(frame, classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", '{"samples": 3, "mine": true}'),
        ("summary.json", "not JSON"),
        ("summary.json", "[" * 200_000),
        ("per_class.csv", "a,b\n1,2\n"),
        ("slices.csv", "a,b\n1,2\n"),  # this evaluation has none and would remove it
        ("predictions.parquet", "mine"),
    ],
)
def test_files_that_evalkit_did_not_write_are_not_replaced(tmp_path, name, content):
    (tmp_path / name).write_text(content)

    with pytest.raises(InputError, match=f"with {re.escape(name)} and no results of evalkit"):
        pets().save(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "summary.json")

    with pytest.raises(InputError, match=r"with summary\.json and no results of evalkit"):
        check_folder(tmp_path)


def test_a_former_result_is_replaced_and_other_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    pets().save(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())

    pets().save(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_check_before_hours_of_work_finds_strangers_too(tmp_path):
    (tmp_path / "summary.json").write_text("[1, 2]")

    with pytest.raises(InputError, match=r"choose another folder, or move them away"):
        check_folder(tmp_path)
    check_folder(tmp_path / "new")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / ".per_class.csv.0123abcd.tmp"
    others = [".mine.csv.0123abcd.tmp", ".per_class.csv.tmp", "notes.0123abcd.tmp"]
    for name in (left.name, *others):
        (tmp_path / name).write_text("cut o")

    written = {path.name for path in pets().save(tmp_path)}

    assert {path.name for path in tmp_path.iterdir()} == written | {*others}


def test_what_another_process_is_writing_is_left_to_it(tmp_path):
    at_work = tmp_path / ".per_class.csv.0123abcd.tmp"
    with tidied(tmp_path, {"per_class.csv"}):
        at_work.write_text("half of i")

        pets().save(tmp_path)

        assert at_work.exists()


def test_a_folder_with_the_name_of_a_file_is_not_made(tmp_path):
    with pytest.raises(InputError, match=r"report\.html, the name of one: leave '\.html' out"):
        check_folder(tmp_path / "report.html")

    (tmp_path / "v1.html").mkdir()
    check_folder(tmp_path / "v1.html")
    check_folder(tmp_path / "run-1.5")
