"""The documents against the program: commands, options, examples, links."""

import re
from pathlib import Path

import click
import pytest

from evalkit.cli import cli as evalkit_cli
from gpudiag.cli import cli as gpudiag_cli
from gpudiag.rules import CATALOGUE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
COMMANDS = [
    (program, name)
    for program, group in (("gpudiag", gpudiag_cli), ("evalkit", evalkit_cli))
    for name in group.list_commands(click.Context(group))
]


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_the_readme_names_every_command(program, command):
    named = re.findall(rf"`(?:{program} )?([a-z]+)(?: [^`]*)?`", README)
    named += re.findall(rf"\$ {program} ([a-z]+)", README)

    assert command in named


@pytest.mark.parametrize("number", range(README.count("```python")))
def test_the_python_of_the_readme_runs(number, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[number]

    names = {}
    exec(block, names)

    assert names.keys() - {"__builtins__"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]

    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_rule_that_a_page_names_exists(page):
    named = set(re.findall(r"\bGD[1-9]\d\d\b", page.read_text()))

    assert named - {rule.id for rule in CATALOGUE} == set()


def test_every_page_is_reached_from_the_readme():
    pages = set((ROOT / "docs").glob("*.md"))
    named = {ROOT / target for target in re.findall(r"\]\((docs/[^)#]+\.md)", README)}

    assert pages - named == set()
