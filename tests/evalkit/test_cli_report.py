import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from evalkit import cli

TABLE = "label,prediction\ncat,cat\ncat,dog\ndog,dog\n"
SCREEN = """\
! only 3 samples: below 10 the intervals of averages, MCC and kappa change with the seed and miss
  too often; that of the accuracy holds

3 samples, 2 classes

accuracy           0.667  [0.208, 0.939]
balanced accuracy  0.750  [0.127, 1.000]
macro F1           0.667  [0.150, 1.000]
weighted F1        0.667  [0.006, 1.000]
MCC                0.500  [-0.031, 0.500]
Cohen's kappa      0.400  [0.105, 1.000]

class  precision         recall            F1                support  predicted
cat    1.000 [.21, 1.0]  0.500 [.09, .91]  0.667 [.17, .95]        2          1
dog    0.500 [.09, .91]  1.000 [.21, 1.0]  0.667 [.17, .95]        1          2

most confused: true  predicted  samples  of the true class
cat                  dog              1              0.500

written to {out}
"""


@pytest.fixture
def evalkit(capfd, tmp_path, monkeypatch):
    """Run the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["evalkit", *map(str, arguments)])
            with pytest.raises(SystemExit) as exited:
                cli.main()
        return exited.value.code, *capfd.readouterr()

    return run


def test_report_prints_a_screen_and_writes_its_files(evalkit, tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)

    code, out, err = evalkit("report", "t.csv", "--out", "report")

    assert (code, err) == (0, "")
    assert out == SCREEN.format(out="report")
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == [
        "confusion_matrix.csv", "per_class.csv", "report.html", "summary.json", "summary.md",
    ]  # fmt: skip


def test_report_takes_other_columns_and_classes(evalkit, tmp_path):
    frame = pd.DataFrame({"truth": [1, 0], "guess": [1, 1], "p": [0.5, 1.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "classes.txt").write_text("2\n1\n0\n")
    columns = ("--label-column=truth", "--prediction-column=guess", "--confidence-column=p")

    code, _, err = evalkit(
        "report", "t.parquet", "--out", "report", *columns, "--classes", "classes.txt"
    )

    assert (code, err) == (0, "")
    header = (tmp_path / "report" / "confusion_matrix.csv").read_text().splitlines()[0]
    assert header == "true,2,1,0"
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["ece"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("content", "options", "fault"),
    [
        (
            None,
            [],
            "table must be a CSV or Parquet file, got t.csv: No such file or directory; name the "
            "file with the predictions, such as predictions.parquet",
        ),
        (
            "",
            [],
            "table must have a header and at least one row, got t.csv with nothing in it: write "
            "the predictions again",
        ),
        (
            "label,prediction\n",
            [],
            "table must have a header and at least one row, got t.csv with no rows",
        ),
        (
            "Labels,prediction\na,b\n",
            [],
            "t.csv must have each of the columns 'label', 'prediction' once, got no 'label' (did "
            "you mean --label-column Labels?) among 'Labels', 'prediction'",
        ),
        (
            TABLE + ",dog\n",
            [],
            "every sample must have a label and a prediction, got 1 missing in column label, the "
            "first in row 4, of 4 rows: fill them in or drop these rows",
        ),
        (
            TABLE,
            ["--classes", "classes.txt"],
            "labels and predictions must be among the 2 classes ('cat', 'fox'), got 1 other name "
            "('dog') in 1 label and 2 predictions: add them to the classes or correct them",
        ),
        (
            TABLE,
            ["--confidence-column", "p"],
            "t.csv must have each of the columns 'label', 'prediction', 'p' once, got no 'p' among "
            "'label', 'prediction'",
        ),
        (
            TABLE,
            ["--classes", "."],
            "classes must be a text file with one name per line, got .: Is a directory",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(evalkit, tmp_path, content, options, fault):
    if content is not None:
        (tmp_path / "t.csv").write_text(content)
    (tmp_path / "classes.txt").write_text("cat\nfox\n")

    code, out, err = evalkit("report", "t.csv", "--out", "report", *options)

    assert (code, out, err) == (2, "", f"evalkit: {fault}\n")
    assert not (tmp_path / "report").exists()


def test_a_folder_or_disguised_text_is_no_table(evalkit, tmp_path):
    (tmp_path / "t.parquet").write_text(TABLE)

    assert evalkit("report", ".", "--out", "report") == (
        2, "", "evalkit: table must be a CSV or Parquet file, got .: Is a directory; name the file "
        "with the predictions, such as predictions.parquet\n",
    )  # fmt: skip
    assert evalkit("report", "t.parquet", "--out", "report") == (
        2,
        "",
        "evalkit: a Parquet file must begin with b'PAR1', got t.parquet beginning with b'labe': "
        "if it is a CSV file, name it .csv\n",
    )
    assert not (tmp_path / "report").exists()


def test_an_out_that_is_a_file_is_found_before_the_work(evalkit, tmp_path):
    (tmp_path / "report").write_text("mine")

    code, _, err = evalkit("report", "huge-or-missing.csv", "--out", "report")

    assert code == 2
    assert err == (
        f"evalkit: out must be a folder, got report: {'report'} is a file; choose another name\n"
    )
    assert (tmp_path / "report").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["report"], "Missing argument 'TABLE'. See 'evalkit report --help'."),
        (["report", "t.csv"], "Missing option '--out'. See 'evalkit report --help'."),
        (
            ["reprot"],
            "No such command 'reprot'. Did you mean 'report'? See 'evalkit --help'.",
        ),
    ],
)
def test_usage_errors_are_one_line(evalkit, arguments, fault):
    assert evalkit(*arguments) == (2, "", f"evalkit: {fault}\n")


def test_without_a_command_the_help_is_shown(evalkit):
    code, out, err = evalkit()

    assert (code, out) == (2, "")
    assert err.startswith("Usage: evalkit")


def test_version(evalkit):
    code, out, _ = evalkit("--version")

    assert code == 0
    assert out.startswith("evalkit ")


def test_an_own_fault_is_one_line_too(evalkit, monkeypatch):
    def fail(_):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("evalkit.report.tables.check_folder", fail)

    code, _, err = evalkit("report", "t.csv", "--out", "report")

    assert code == 3
    assert err == (
        "evalkit: internal error: RuntimeError: first second (a bug: run the same command with "
        "EVALKIT_DEBUG=1 and report the traceback)\n"
    )


def test_the_traceback_is_there_when_asked_for(evalkit, monkeypatch):
    monkeypatch.setenv("EVALKIT_DEBUG", "1")
    monkeypatch.setattr("evalkit.report.tables.check_folder", lambda _: 1 / 0)

    code, _, err = evalkit("report", "t.csv", "--out", "report")

    assert code == 3
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("evalkit: internal error: ZeroDivisionError")


def test_what_led_to_bad_input_is_there_when_asked_for(evalkit, monkeypatch):
    monkeypatch.setenv("EVALKIT_DEBUG", "1")

    code, _, err = evalkit("report", "missing.csv", "--out", "report")

    assert code == 2
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("evalkit: ")
    assert "missing.csv" in err.splitlines()[-1]


def test_interruption_is_one_line(evalkit, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("evalkit.report.tables.check_folder", interrupt)

    code, _, err = evalkit("report", "t.csv", "--out", "report")

    assert (code, err.strip()) == (130, "evalkit: interrupted")


def test_a_closed_pipe_is_no_error_message(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "evalkit", "report", "t.csv", "--out", "report"]

    done = subprocess.run(
        command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False, text=True
    )
    os.close(write)

    assert done.returncode != 0
    assert done.stderr == ""
    assert (tmp_path / "report" / "summary.json").exists()


def test_report_draws_plots_and_shows_images_when_asked(evalkit, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label,prediction,confidence\na.png,cat,dog,0.5\n")

    code, _, err = evalkit("report", "t.csv", "--out", "report", "--images", ".", "--plots")

    assert (code, err) == (0, "")
    assert len(list((tmp_path / "report").glob("plot_*"))) == 6
    page = (tmp_path / "report" / "report.html").read_text()
    assert "data:image/webp;base64," in page
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["command"] == "evalkit report t.csv --out report --images . --plots"


def test_report_never_mixes_two_evaluations(evalkit, tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    folder = tmp_path / "report"
    evalkit("report", "t.csv", "--out", "report")
    (folder / "reliability.csv").write_text("of another run")
    (folder / "notes.txt").write_text("mine")

    code, _, _ = evalkit("report", "t.csv", "--out", "report")

    assert code == 0
    assert not (folder / "reliability.csv").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_report_keeps_another_evaluations_predictions(evalkit, tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "predictions.parquet").write_text("of another run")

    code, out, err = evalkit("report", "t.csv", "--out", "report")

    assert (code, out) == (2, "")
    assert err == (
        "evalkit: out must not hold another evaluation's predictions, got report with "
        "predictions.parquet: choose another folder\n"
    )
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["predictions.parquet"]


def test_an_empty_name_is_not_the_current_folder(evalkit, tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)

    code, out, err = evalkit("report", "t.csv", "--out", "")

    assert (code, out) == (2, "")
    assert err == (
        "evalkit: Invalid value for '--out': it is empty; for the current folder write '.'. "
        "See 'evalkit report --help'.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_somebody_elses_results_are_not_replaced(evalkit, tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "summary.json").write_text('{"mine": 1}')

    code, out, err = evalkit("report", "t.csv", "--out", ".")

    assert (code, out) == (2, "")
    assert err == (
        "evalkit: out must not hold files of somebody else's that would be replaced, got . with "
        "summary.json and no results of evalkit: choose another folder, or move them away\n"
    )
    assert (tmp_path / "summary.json").read_text() == '{"mine": 1}'
