"""Errors and warnings that the documents quote are those of the programs, word by word."""

import ast
import json
import re
from pathlib import Path

import pytest

from gpudiag.rules import CATALOGUE

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOURCES = [path for package in ("gpudiag", "evalkit") for path in (ROOT / package).rglob("*.py")]
QUOTED = re.compile(
    r"^(?:gpudiag|evalkit): (?P<error>\S.*)|^! (?!warning GD)(?P<warning>\S.*)", re.MULTILINE
)
FINDING = re.compile(r"^\S (error|warning|note) (GD\d+)  (\S.*?)(?:  .*)?$", re.MULTILINE)
LEAST_LETTERS = 12  # of a text's fixed part: less would fit anything
FORM = "what was expected, what was got, what to do"  # how all of them are built, not one of them
CONTINUED = re.compile(r"\n {2}(?=\S)")  # a warning is broken to the width of the terminal


def quotes(text):
    """What the programs are said to have said in a page, without the programs' names.

    Example:
        >>> quotes("```console\\n$ evalkit x\\nevalkit: no\\n! take\\n  care\\n```\\n`gpudiag: ah`")
        ['no', 'take care', 'ah']
    """
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = [
        " ".join(span.split()) for span in re.findall(r"`((?:gpudiag|evalkit): [^`]+)`", prose)
    ]
    lines = [CONTINUED.sub(" ", block) for block in blocks] + spans
    found = [
        match["error"] or match["warning"] for part in lines for match in QUOTED.finditer(part)
    ]
    return [quote for quote in found if quote != FORM]


def pattern_of(node):
    """A text of a program as a regular expression: what it fills in may be anything."""
    if isinstance(node, ast.Constant):
        return re.escape(node.value) if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = [re.escape(one.value) if isinstance(one, ast.Constant) else ".+" for one in node.values]
    return "".join(parts)


def patterns():
    """All texts in the sources that are long enough to tell anything, the name of program cut."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            pattern = pattern_of(node)
            if pattern is not None and len(re.sub(r"\.\+|\W", "", pattern)) >= LEAST_LETTERS:
                found.add(re.sub(r"^(?:gpudiag|evalkit):\\ ", "", pattern))
    return [re.compile(pattern) for pattern in sorted(found)]


PATTERNS = patterns()


def is_said(quote):
    """Whether a program has such a text; one that ends in "…" was cut there."""
    if quote.endswith("…"):
        beginning = re.escape(quote.removesuffix("…").rstrip())
        return any(pattern.pattern.startswith(beginning) for pattern in PATTERNS)
    return any(pattern.fullmatch(quote) for pattern in PATTERNS)


def text_of(notebook):
    """What the cells of a notebook printed, as a block of a page."""
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join(f"```\n{''.join(output.get('text', ()))}\n```\n" for output in outputs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_quotes_is_what_the_programs_say(page):
    assert [quote for quote in quotes(page.read_text()) if not is_said(quote)] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_what_a_notebook_shows_is_what_the_programs_say(notebook):
    assert [quote for quote in quotes(text_of(notebook)) if not is_said(quote)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_findings_that_a_page_shows_have_the_severity_and_the_title_of_their_rule(page):
    known = {(rule.id, rule.severity.name.lower(), rule.title) for rule in CATALOGUE}

    shown = [match.groups() for match in FINDING.finditer(page.read_text())]

    assert [(of, how, title) for how, of, title in shown if (of, how, title) not in known] == []


def test_there_are_quotes_to_look_at():
    assert [quote for page in PAGES for quote in quotes(page.read_text())]


@pytest.mark.parametrize(
    ("quote", "expected"),
    [
        ("manifest must have at least one row, got a.csv with none", True),
        ("manifest must have at least two rows, got a.csv with none", False),
        ("manifest must have at least one row, got a.csv with none: mend it", False),
        ("manifest must have at least one …", True),
        ("manifest must have at most one …", False),
        ("no such line was ever printed", False),
    ],
)
def test_only_whole_texts_of_the_sources_count(quote, expected):
    assert is_said(quote) is expected
