"""Class names that would steer a terminal, run in a browser or a spreadsheet, or fill a screen."""

import csv
import html
import json
import os
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402 - with torch, from the extra

from evalkit import save_checkpoint  # noqa: E402
from evalkit.report.tables import unescape_cell  # noqa: E402

HOSTILE = {
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "old colour": "\x9b31mred",  # the same in one character
    "backspace": "cat\b\b\bdog",
    "return": "cat\rdog",
    "lines": "cat\n\n# accuracy 1.0",
    "tab": "\tcat",
    "reversed": "\u202egnp.tac\u202c",
    "marks": "\u200fcat\u200e\ufeff\u200b",
    "separators": "cat\u2028dog\u2029",
    "script": "<script>alert(1)</script>",
    "closes a script": "</script><script>alert(2)</script>",
    "comment": "<!--<script>",
    "image": "<img src=x onerror=alert(3)>",
    "attribute": "\" onmouseover=\"alert(4)' x='",
    "entity": "&lt;b&gt;&amp;",
    "formula": '=HYPERLINK("http://x","y")',
    "command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "plus": "+1+1",
    "minus": "-2+3",
    "table": "a|b|c\\",
    "link": "[a](javascript:alert(5))",
    "quotes": "'`\"``` ",
    "template": "{{ 7 * 7 }} {% raw %} ${7*7}",
    "path": "../../etc/passwd",
    "number": "007",
    "gap": "NA",
    "text tag": "[bold]cat[/bold]",
    "combining": "e\u0301\u0301" * 40,
    "wide": "鳥" * 60,
    "long": "n" * 10_240,
}
NAMES = list(HOSTILE.values())
PLAIN = [f"class {number}" for number in range(len(NAMES))]
WIDTH = 80
LONGEST_LINE = 140  # sentences are not broken; a name takes a quarter of the terminal
FILES = ("per_class.csv", "confusion_matrix.csv")


def evalkit(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "evalkit", *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        check=False,
        env=os.environ | {"COLUMNS": str(WIDTH), "PYTHONUTF8": "1"},
        timeout=120,
    )


def table(names, shift):
    """Eight samples per class, of which two are taken for the class that many places further."""
    labels = [name for name in names for _ in range(8)]
    predictions = [
        names[(number + shift) % len(names)] if sample < 2 else name
        for number, name in enumerate(names)
        for sample in range(8)
    ]
    paths = [f"{number}.png" for number in range(len(labels))]
    return pd.DataFrame({"path": paths, "label": labels, "prediction": predictions})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Reports of the hostile names and of plain ones, and a comparison of two hostile tables."""
    folder = tmp_path_factory.mktemp("names")
    said = {}
    tables = {"hostile": table(NAMES, 1), "plain": table(PLAIN, 1), "other": table(NAMES, 2)}
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\r\n")
    for name in ("hostile", "plain"):
        done = evalkit("report", f"{name}.csv", "--out", name, cwd=folder)
        assert done.returncode == 0, done.stderr
        said[name] = done
    said["compare"] = evalkit(
        "compare", "hostile.csv", "other.csv", "--key", "path", "--out", "compared", cwd=folder
    )
    assert said["compare"].returncode == 0, said["compare"].stderr
    return folder, said


def shown(done):
    return (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("which", ["hostile", "compare"])
def test_nothing_steers_the_terminal_and_no_name_fills_it(place, which):
    text = shown(place[1][which])

    assert {character for character in text if not character.isprintable()} <= {"\n"}
    assert max(map(len, text.splitlines())) <= LONGEST_LINE


@pytest.mark.parametrize("file", FILES)
def test_the_tables_keep_every_name_and_hold_no_formula(place, file):
    with (place[0] / "hostile" / file).open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)

    written = [row[0] for row in rows]
    assert sorted(map(unescape_cell, written)) == sorted(NAMES)
    assert not [cell for cell in written if cell.startswith(tuple("=@\t\r+"))]
    if file == "confusion_matrix.csv":
        assert header[1:] == written
        assert sum(int(cell) for row in rows for cell in row[1:]) == 8 * len(NAMES)


class Elements(HTMLParser):
    """Every element of a page with its attributes' names."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, *sorted(name for name, _ in attributes)))


@pytest.mark.parametrize("page", ["hostile/report.html", "compared/comparison.html"])
def test_a_page_has_no_element_that_a_name_brought(place, page):
    text = (place[0] / page).read_text(encoding="utf-8")

    elements = Elements(text).found
    assert not [one for one in elements if any(name.startswith("on") for name in one[1:])]
    if page == "hostile/report.html":
        plain = Elements((place[0] / "plain/report.html").read_text(encoding="utf-8")).found
        assert {one[0] for one in elements} == {one[0] for one in plain}
        scripts, plain_scripts = (
            [one for one in of if one[0] == "script"] for of in (elements, plain)
        )
        assert scripts == plain_scripts
    assert {c for c in html.unescape(text) if ord(c) < ord(" ")} <= set("\n\t\r\x1b\x07\b")


def test_the_summary_is_json_and_its_markdown_brings_no_element(place):
    folder, _ = place

    assert json.loads((folder / "hostile/summary.json").read_text())["samples"] == 8 * len(NAMES)
    markdown = (folder / "hostile/summary.md").read_text()
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "](javascript:" not in markdown
    assert {c for c in markdown if not c.isprintable()} <= {"\n"}


def test_folders_and_checkpoints_of_such_names_are_evaluated(tmp_path):
    names = sorted(name for name in NAMES if "/" not in name and len(name.encode()) < 255)
    for number, name in enumerate(names):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (7 * number, 0, 0)).save(tmp_path / "data" / name / "0.png")
    torch.manual_seed(0)
    layers = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, len(names))
    save_checkpoint(tmp_path / "c.pth", torch.nn.Sequential(*layers), classes=names)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes)\n"
        "    )\n"
    )

    done = evalkit(
        *("evaluate", "--checkpoint", "c.pth", "--model", "net.py:net", "--data", "data"),
        *("--device", "cpu", "--out", "out"),
        cwd=tmp_path,
    )
    inspected = evalkit("inspect", "c.pth", cwd=tmp_path)

    for one in (done, inspected):
        assert one.returncode == 0, one.stderr
        assert {c for c in shown(one) if not c.isprintable()} <= {"\n"}
    with (tmp_path / "out/per_class.csv").open(newline="", encoding="utf-8") as stream:
        written = [unescape_cell(row[0]) for row in csv.reader(stream)][1:]
    assert written == names
