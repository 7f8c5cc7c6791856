import io
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

from evalkit import predictions as predictions_module
from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.predictions import arrange, read_batches, read_classes, write_parquet


def read(path, **columns):
    return pd.concat(read_batches(path, **columns), ignore_index=True)


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fault_of(function, *arguments, **keywords):
    with pytest.raises(InputError) as caught:
        list(function(*arguments, **keywords))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_in_csv_classes_are_text_as_it_stands(tmp_path):
    table = write(tmp_path / "t.csv", "label,prediction\nNA,None\n007,nan\n")

    assert read(table).to_numpy().tolist() == [["NA", "None"], ["007", "nan"]]


def test_in_csv_an_empty_cell_is_missing(tmp_path):
    table = write(tmp_path / "t.csv", "label,prediction\n,a\nb\n")

    assert read(table).isna().to_numpy().tolist() == [[True, False], [False, True]]


def test_columns_get_their_usual_names(tmp_path):
    text = "score,site,truth,guess,label_probability\n0.5,north,a,b,0.1\n"
    table = write(tmp_path / "t.csv", text)

    frame = read(table, label_column="truth", prediction_column="guess", confidence_column="score")

    assert set(frame.columns) == {"label", "prediction", "confidence", "label_probability"}
    assert frame.loc[0, "confidence"] == "0.5"


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet"])
def test_every_kind_of_file_is_read_in_batches(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(predictions_module, "BATCH_ROWS", 4)
    frame = pd.DataFrame({"label": list("abcabcabca"), "prediction": list("abcccccbba")})
    table = tmp_path / f"t.{kind}"
    if kind == "parquet":
        frame.to_parquet(table)
    else:
        frame.to_csv(table, index=False, sep="\t" if kind == "tsv" else ",")

    batches = list(read_batches(table))

    assert [len(batch) for batch in batches] == [4, 4, 2]
    pd.testing.assert_frame_equal(pd.concat(batches, ignore_index=True), frame)


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path):
    table = write(tmp_path / "t.csv", "\ufefflabel,prediction\na,b\n")

    assert read(table)["label"].tolist() == ["a"]


def test_the_first_bytes_decide_what_a_file_is(tmp_path):
    frame = pd.DataFrame({"label": ["a"], "prediction": ["b"]})
    frame.to_parquet(tmp_path / "t.csv")

    assert read(tmp_path / "t.csv")["prediction"].tolist() == ["b"]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("t.csv", "", "must have a header and at least one row, got {} with nothing in it"),
        (
            "t.parquet",
            "label,prediction\n",
            "must begin with b'PAR1', got {} beginning with b'labe': if it is a CSV file, name it",
        ),
        ("t.parquet", b"PAR1 and then nothing", "must be a whole Parquet file, got {}: "),
        (
            "t.csv",
            b"label,prediction\n\xff,a\n",
            "{}, line 2: expected text in UTF-8, got the byte 0xff",
        ),
        ("t.csv.gz", b"\x1f\x8b\x08\x00damaged", "must be a CSV file in UTF-8, got {}: "),
        (
            "t.csv",
            "label,prediction\na,b,c\n",
            "{}, line 2: expected 2 fields as in its header, got 3",
        ),
        ("t.csv", "label,prediction\na,b\n\na,b,c\n", "{}, line 4: expected 2 fields as in its "),
        (
            "t.csv",
            'label,prediction\na,b\n"a,b\n',
            "{}, from line 3: expected a quotation mark at the end",
        ),
        ("t.tsv", "label\tprediction\na\tb\tc\n", "{}, line 2: expected 2 fields as in its header"),
        (
            "t.csv",
            "label;prediction;score\na;b;0,5\n",
            "table {}, line 1: expected names between commas, got semicolons: save it with commas",
        ),
        (
            "t.csv",
            "label, prediction\na,b\n",
            "{}, line 1: expected names without blanks around them, got ' prediction': remove the",
        ),
        (
            "t.csv",
            "Label,pred\na,b\n",
            (
                "{} must have each of the columns 'label', 'prediction' once, got no 'label' (did "
                "you mean label_column='Label'?) and no 'prediction' (did you mean "
                "prediction_column='pred'?) among 'Label', 'pred'"
            ),
        ),
        (
            "t.csv",
            "label,prediction,label\na,b,c\n",
            (
                "{} must have each of the columns 'label', 'prediction' once, got 'label' 2 times "
                "among 'label', 'prediction', 'label'"
            ),
        ),
    ],
)
def test_unreadable_tables_are_refused(tmp_path, name, content, fault):
    table = write(tmp_path / name, content)

    assert fault.format(table) in fault_of(read_batches, table)


def test_a_table_must_be_a_file(tmp_path):
    advice = "; name the file with the predictions, such as predictions.parquet"

    assert fault_of(read_batches, tmp_path) == (
        f"table must be a CSV or Parquet file, got {tmp_path}: Is a directory{advice}"
    )
    assert fault_of(read_batches, tmp_path / "no.csv") == (
        f"table must be a CSV or Parquet file, got {tmp_path}/no.csv: No such file or directory"
        f"{advice}"
    )


def test_label_and_prediction_are_two_columns(tmp_path):
    assert fault_of(read_batches, tmp_path, label_column="a", prediction_column="a") == (
        "label and prediction must be two columns, got 'a' for both"
    )


def test_without_pyarrow_csv_works_and_parquet_says_what_to_install(tmp_path, monkeypatch):
    frame = pd.DataFrame({"label": ["a"], "prediction": ["b"]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    assert read(tmp_path / "t.csv").equals(frame)
    assert fault_of(read_batches, tmp_path / "t.parquet") == (
        f"reading {tmp_path}/t.parquet needs pyarrow: pip install 'gpudiag[report]'"
    )
    with pytest.raises(InputError, match=r"writing predictions\.parquet needs pyarrow"):
        write_parquet(frame, io.BytesIO())


def test_parquet_has_the_columns_in_order():
    frame = pd.DataFrame({"site": ["n"], "top5": [["b", "a"]], "prediction": ["b"], "label": ["a"]})
    stream = io.BytesIO()

    write_parquet(frame, stream)

    back = pq.read_table(stream)
    assert back.column_names == ["label", "prediction", "top5", "site"]
    assert back["top5"].to_pylist() == [["b", "a"]]
    assert list(arrange(frame).columns) == back.column_names


def test_a_column_of_mixed_types_cannot_be_parquet():
    frame = pd.DataFrame({"label": ["a", "b"], "prediction": ["a", "b"], "site": [1, "north"]})

    with pytest.raises(InputError, match=r"columns of one type each .*, got .*column site"):
        write_parquet(frame, io.BytesIO())


def test_classes_are_one_name_per_line(tmp_path):
    file = write(tmp_path / "c.txt", "\ufeffbig dog\r\n cat \r\n\r\n")

    assert read_classes(file) == ["big dog", "cat"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "with nothing in it"),
        ("\n\n", "with nothing in it"),
        ("a\n\nb\n", "with an empty line"),
        ("a\nb\na\n", "with 'a' more than once"),
        (b"a\n\xff\n", "must be a text file in UTF-8, got {}: invalid start byte at byte 2"),
    ],
)
def test_unusable_class_files_are_refused(tmp_path, content, fault):
    file = write(tmp_path / "c.txt", content)

    assert fault.format(file) in fault_of(read_classes, file)


def test_a_class_file_must_exist(tmp_path):
    assert fault_of(read_classes, tmp_path / "no.txt") == (
        f"classes must be a text file with one name per line, got {tmp_path}/no.txt: "
        "No such file or directory"
    )


def test_classes_that_blanks_alone_tell_apart_are_refused(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("label,prediction\ncat,cat \ndog,dog\n")

    with pytest.raises(InputError) as error:
        Evaluation.from_table(table)

    assert str(error.value) == (
        "table must have classes that more than blanks tell apart, got 'cat' and 'cat ' in "
        f"{table}: remove the blanks"
    )


def test_blanks_around_names_that_no_class_has_are_said(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("label,prediction\ncat,cat \ndog,dog\n")

    with pytest.raises(
        InputError, match=r"\('cat '\) in 0 labels and 1 prediction: remove the bla"
    ):
        Evaluation.from_table(table, classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("name", "begins", "what"),
    [
        ("p.npy", b"\x93NUMPY\x01\x00", "arrays of NumPy"),
        ("p.npz", b"PK\x03\x04", "arrays of NumPy"),
        ("p.xlsx", b"PK\x03\x04", "a spreadsheet"),
    ],
)
def test_tables_of_other_programs_are_named(tmp_path, name, begins, what):
    (tmp_path / name).write_bytes(begins)

    with pytest.raises(InputError) as error:
        Evaluation.from_table(tmp_path / name)

    assert str(error.value) == (
        f"table must be a CSV or Parquet file, got {tmp_path / name}, {what}: write it as CSV with "
        "the columns label and prediction, one row per sample"
    )
