import csv
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.evaluation import Evaluation
from evalkit.report.tables import FORMULA_STARTS, escape_cell, unescape_cell

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
