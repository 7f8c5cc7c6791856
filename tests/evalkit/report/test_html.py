import base64
import hashlib
import json
import re
import sys

import pandas as pd
import pytest
from PIL import Image

from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.report import html
from evalkit.report.headline import Figure, scale_from
from evalkit.report.html import as_html
from evalkit.report.origin import origins


def evaluation(run=None, images=None):
    frame = pd.DataFrame(
        {"path": ["a.png"] * 2, "label": ["cat"] * 2, "prediction": ["cat", "dog"]}
    )
    return Evaluation.from_predictions(frame, classes=["cat", "dog"], run=run, images=images)


def data_of(page):
    return json.loads(re.search(r'type="application/json">(.*?)</script>', page)[1])


def test_the_title_is_the_checkpoint():
    assert "<title>best.pth" in as_html(evaluation({"checkpoint": {"path": "x/best.pth"}}))
    assert "<title>Predictions" in as_html(evaluation())


def test_the_policy_allows_this_script_and_no_other():
    page = as_html(evaluation())

    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.replace("&#39;", "'")
    assert "unsafe-inline" not in page


def test_nothing_is_loaded_from_elsewhere():
    page = as_html(evaluation())

    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_images_are_shown_where_there_are_any(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    result = evaluation(images=tmp_path)

    result.save(tmp_path / "with")
    result.save(tmp_path / "without", thumbnails=False)

    shown = data_of((tmp_path / "with" / "report.html").read_text())["samples"]["thumbnail"]
    assert shown["0"].startswith("data:image/webp;base64,")
    assert data_of((tmp_path / "without" / "report.html").read_text())["samples"]["thumbnail"] == {}


def test_of_very_many_unreadable_files_the_first_are_listed(monkeypatch):
    monkeypatch.setattr(html, "LISTED_FILES", 2)
    unreadable = [{"path": f"{number}.png", "reason": "cut off"} for number in range(5)]

    page = as_html(evaluation({"unreadable": unreadable}))

    assert "5 files could not be read and do not count above. Not listed here: 3." in page
    assert page.count("cut off") == 2


def test_without_jinja_there_is_one_line_to_run(monkeypatch):
    html._template.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(
        InputError, match=r"writing report.html needs jinja2: pip install 'gpudiag\[report\]'"
    ):
        as_html(evaluation())


def test_a_long_group_inside_a_group_stands_by_itself():
    versions = {f"package {number}": "1" for number in range(9)}

    groups = dict(origins({"environment": {"python": "3.11", "versions": versions}}))

    assert groups["Environment"] == [("python", "3.11")]
    assert len(groups["Versions"]) == 9


def test_bars_of_scores_do_not_begin_at_the_calibration_error():
    accuracy = Figure(name="accuracy", value=0.95, low=0.93, high=0.97)
    error = Figure(name="ECE", value=0.02, low=0.01, high=0.03)

    assert scale_from([accuracy, error]) == 0.9
    assert (accuracy.has_bar, error.has_bar) == (True, False)
