"""What is said of a failure in code that is not ours."""

import json

import pytest

from evalkit.user_code import told


def raised(code, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with pytest.raises(Exception) as failure:  # noqa: PT011 - whatever it is
        exec(compile(code, str(path), "exec"), {"json": json})
    own = failure.value.__traceback__.tb_next  # without this file's own line
    return told(failure.value.with_traceback(own))


def test_the_innermost_line_of_the_users_own_is_named(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    code = "def inner():\n    json.loads('{')\n\ninner()\n"
    path.write_text(code)

    assert raised(code, path, monkeypatch) == (
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1) (mine.py, line 2)"
    )


def test_code_that_is_in_no_file_has_no_line(tmp_path, monkeypatch):
    assert (
        raised("1 / 0", tmp_path / "gone.py", monkeypatch) == "ZeroDivisionError: division by zero"
    )


def test_libraries_are_not_the_users(tmp_path, monkeypatch):
    path = tmp_path / "site-packages" / "library.py"
    path.parent.mkdir()
    path.write_text("raise KeyError\n")

    assert raised("raise KeyError", path, monkeypatch) == "KeyError"
