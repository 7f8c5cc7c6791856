import base64
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.evaluation import Evaluation
from evalkit.report import payload as payload_module
from evalkit.report import shown
from evalkit.report.headline import calibration_error
from evalkit.report.payload import as_json, payload
from evalkit.scoring.sparse import of_frame

PAIRS = [("ant", "ant"), ("ant", "bee"), ("ant", "bee"), ("bee", "bee"), ("cat", "ant")]


def drawn(frame=None, classes=("ant", "bee", "cat", "dog")):
    frame = pd.DataFrame(PAIRS, columns=["label", "prediction"]) if frame is None else frame
    result = Evaluation.from_predictions(frame, classes=list(classes))
    return payload(result.cells, result.per_class, result.samples), result


def numbers(encoded):
    return np.frombuffer(base64.b64decode(encoded["data"]), dtype=f"<{encoded['kind']}").tolist()


def test_the_matrix_is_its_cells_row_by_row():
    matrix = drawn()[0]["matrix"]

    assert numbers(matrix["perRow"]) == [2, 1, 1, 0]
    assert numbers(matrix["columns"]) == [0, 1, 1, 0]
    assert numbers(matrix["counts"]) == [1, 2, 1, 1]
    assert matrix["leftOut"] == 0


def test_of_too_many_cells_the_largest_are_sent(monkeypatch):
    monkeypatch.setattr(payload_module, "MOST_CELLS", 2)

    matrix = drawn()[0]["matrix"]

    assert numbers(matrix["perRow"]) == [2, 0, 0, 0]
    assert numbers(matrix["counts"]) == [1, 2]
    assert (matrix["leftOut"], matrix["largestLeftOut"]) == (2, 1)


def test_counts_beyond_32_bits_survive():
    cells = of_frame(pd.DataFrame([[2**40, 0], [0, 1]], ["a", "b"], ["a", "b"]))
    per_class = drawn()[1].per_class.iloc[:2]

    assert numbers(payload(cells, per_class, None)["matrix"]["counts"]) == [2**40, 1]


def test_undefined_scores_are_null():
    per_class = drawn()[0]["perClass"]

    assert per_class["recall"][3] is None
    assert per_class["f1_low"][3] is None
    assert per_class["support"] == [3, 1, 1, 0]


def test_pairs_come_most_confused_first():
    assert drawn()[0]["pairs"] == [(0, 1, 2), (2, 0, 1)]


def test_samples_point_into_the_classes_and_galleries_into_the_samples():
    frame = pd.DataFrame(PAIRS, columns=["label", "prediction"]).assign(
        confidence=[0.9, 0.6, 0.99, 0.9, 0.7],
        label_probability=[0.9, 0.3, 0.001, 0.9, 0.2],
        path=[f"{number}.png" for number in range(5)],
    )

    found = drawn(frame)[0]

    worst = found["gallery"][0]
    assert found["samples"]["path"][worst] == "2.png"
    assert found["samples"]["label"][worst] == 0
    assert found["samples"]["prediction"][worst] == 1
    assert len(found["gallery"]) == 3
    assert [found["samples"]["path"][at] for at in found["suspects"]] == ["2.png", "4.png"]


def test_samples_without_a_path_have_their_number():
    assert drawn()[0]["samples"]["path"][0].startswith("sample ")


@pytest.mark.parametrize(("limit", "most"), [("MOST_SAMPLES", 2), ("MOST_TEXT", 12)])
def test_samples_are_bounded(monkeypatch, limit, most):
    monkeypatch.setattr(payload_module, limit, most)
    frame = pd.DataFrame(PAIRS, columns=["label", "prediction"]).assign(path=["123456"] * 5)
    monkeypatch.setattr(payload_module, "GALLERY", 1)

    assert len(drawn(frame)[0]["samples"]["path"]) == 2


def test_diagrams_count_every_sample():
    frame = pd.DataFrame(PAIRS, columns=["label", "prediction"])
    found = drawn(frame.assign(confidence=[0.05, 0.55, 0.95, 1.0, 0.56]))[0]

    assert sum(bin_["samples"] for bin_ in found["reliability"]) == 5
    assert sum(found["histogram"]["right"]) == 2
    assert sum(found["histogram"]["wrong"]) == 3
    assert found["reliability"][1] == {
        "from": 0.55, "to": 0.55, "samples": 1, "confidence": 0.55, "accuracy": 0.0, "low": 0.0,
        "high": pytest.approx(0.7935, abs=1e-4),
    }  # fmt: skip


def test_the_bins_of_the_diagram_hold_equally_many_samples_and_its_error_has_an_interval():
    rng = np.random.default_rng(0)
    confidence = 1 - rng.uniform(0, 1, 3_000) ** 2 / 2  # half of it above 0.87
    right = rng.random(3_000) < confidence
    frame = pd.DataFrame(
        {
            "label": "ant",
            "prediction": np.where(right, "ant", "bee"),
            "confidence": confidence,
        }
    )
    result = Evaluation.from_predictions(frame, classes=["ant", "bee"])

    found = payload(
        result.cells, result.per_class, result.samples, ece=calibration_error(result.summary)
    )

    bins = found["reliability"]
    assert len(bins) == 15
    assert all(160 <= bin_["samples"] <= 240 for bin_ in bins)
    table = result.reliability
    assert table is not None
    assert [bin_["low"] for bin_ in bins] == table["accuracy_low"].round(4).tolist()
    gap = sum(bin_["samples"] * abs(bin_["confidence"] - bin_["accuracy"]) for bin_ in bins) / 3_000
    assert found["ece"]["value"] == pytest.approx(gap, abs=1e-4)
    assert found["ece"]["low"] <= gap <= found["ece"]["high"]


def test_of_too_many_classes_the_page_holds_those_that_matter(monkeypatch):
    monkeypatch.setattr(shown, "ALL_UP_TO", 10)
    monkeypatch.setattr(shown, "SHOWN", 6)
    names = [f"c{number:02}" for number in range(20)]
    pairs = [(name, name) for name in names[2:] for _ in range(5)]
    pairs += [("c19", "c00")] * 3 + [("c01", "c01")] + [("c07", "c01")]
    frame = pd.DataFrame(pairs, columns=["label", "prediction"])

    found = drawn(frame, names)[0]

    classes = found["classes"]
    assert len(classes) == 6
    assert {"c19", "c00", "c07", "c01"} <= set(classes)
    assert classes == sorted(classes)
    assert [(classes[true], classes[given], n) for true, given, n in found["pairs"]] == [
        ("c19", "c00", 3),
        ("c07", "c01", 1),
    ]
    assert len(found["perClass"]["support"]) == 6
    assert found["perClass"]["support"][classes.index("c19")] == 8
    assert sum(numbers(found["matrix"]["perRow"])) == len(numbers(found["matrix"]["counts"]))
    samples = found["samples"]
    assert max(samples["label"] + samples["prediction"]) < 6
    assert len(found["gallery"]) == 4


def test_without_confidence_there_are_no_diagrams():
    found = drawn()[0]

    assert found["reliability"] is None
    assert found["histogram"] is None


@given(st.dictionaries(st.text(), st.lists(st.text())))
def test_json_comes_back_and_cannot_leave_its_element(values):
    text = as_json(values)

    assert json.loads(text) == values
    assert text.isascii()
    assert not set(text) & set("<>&")
