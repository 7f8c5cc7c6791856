"""docs/rules.md and the pages of the rules, which come from the rules' own code."""

import re
from pathlib import Path

import pytest

from gpudiag.rules import CATALOGUE, RULES
from gpudiag.rules.catalogue import NOT_DETECTABLE, as_markdown, as_text, document, page_of

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "rules.md"
LINK = re.compile(r"https://[a-z0-9.-]+/\S*")
BY_ID = {rule.id: rule for rule in RULES}


def test_the_document_is_up_to_date():
    assert DOCUMENT.read_text() == document(), "docs/rules.md is stale: run 'make docs'"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_page_says_how_it_is_seen_why_and_what_to_do(rule):
    page = page_of(rule)

    assert page.seen
    assert page.causes
    assert page.cures
    assert all(LINK.fullmatch(link) for link in rule.links)


# Rules that stand on no source but gpudiag itself.
WITHOUT_LINKS = {"GD802": "it is about gpudiag's own measurement"}


@pytest.mark.parametrize("rule", CATALOGUE, ids=lambda rule: rule.id)
def test_every_rule_names_a_source(rule):
    assert bool(rule.links) is not (rule.id in WITHOUT_LINKS)


def test_there_are_at_least_eighty_rules_in_seven_families():
    assert len(RULES) >= 80
    assert {rule.id[:3] for rule in RULES} == {f"GD{number}" for number in range(1, 8)}


def test_a_page_holds_seen_cause_cure_when_to_ignore_it_and_the_links():
    assert as_text(BY_ID["GD408"]) == (
        "GD408  A GPU runs against a power limit that was set below its default  (warning)\n"
        "\n"
        "Seen. Reaching the default limit under load is normal; reaching a lowered one costs speed "
        "that the\n"
        "part could give.\n"
        "\n"
        "Cause. It computes slower than the part could\n"
        "\n"
        "Cure. sudo nvidia-smi -i <index> -pl <default>\n"
        "\n"
        "Ignore it when the limit was lowered on purpose, to save power or heat.\n"
        "\n"
        "Explains. GD429\n"
        "\n"
        "https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html"
    )


def test_markdown_shows_angle_brackets_and_stars_as_they_are():
    section = as_markdown(BY_ID["GD307"])

    assert section.startswith("### GD307 This user may not open the GPU's device files\n\n*error*")
    assert r"/dev/nvidia\* shows the group: sudo usermod -aG &lt;group>" in section


def test_every_cure_with_alternatives_is_a_list():
    assert "\n- sudo reboot\n- without a reboot:" in as_text(BY_ID["GD103"])


def test_what_no_rule_can_find_is_named_with_the_reason():
    text = document()

    assert len(NOT_DETECTABLE) >= 10
    assert all(f"| {fault} | {reason} |" in text for fault, reason in NOT_DETECTABLE)
