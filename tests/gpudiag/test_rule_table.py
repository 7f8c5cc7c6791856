"""Every rule on both sides of its threshold, and with each of its facts taken away."""

from collections.abc import Iterator

import pytest
from builders import ABSENT
from rule_cases import CASES, build, changed

from gpudiag.redact import Identity, redact
from gpudiag.rules import RULES
from gpudiag.snapshot import Missing, NotObserved

BY_ID = {rule.id: rule for rule in RULES}
REASON = "taken away by a test"
SECTIONS = ("nvml", "driver", "torch", "packages", "system")


def test_every_rule_has_a_case_and_every_case_a_rule():
    assert list(CASES) == list(BY_ID)


@pytest.mark.parametrize("rule_id", CASES)
def test_every_rule_is_tried_on_both_sides_and_without_a_fact(rule_id):
    """The tests below would be silent about a rule whose case lacks a side."""
    case = CASES[rule_id]

    assert case.quiet
    assert list(without_one_fact(case.fires))
    assert all(changed(case.fires, quiet) != case.fires for quiet in case.quiet)


@pytest.mark.parametrize("rule_id", CASES)
def test_the_rule_fires_on_its_machine(rule_id):
    answer = BY_ID[rule_id](build(CASES[rule_id].fires))

    assert [finding.id for finding in answer.findings] == [rule_id]
    assert all(text.strip() for finding in answer.findings for text in finding.evidence)


@pytest.mark.parametrize("rule_id", CASES)
def test_what_redaction_hides_hides_no_fault(rule_id):
    """The command diagnoses what it would show: the redacted snapshot."""
    identity = Identity(users=("ada", "root"), home="/home/ada", host_name="node07.example.org")
    case = CASES[rule_id]

    seen = redact(build(case.fires), identity)
    healthy = [redact(build(changed(case.fires, quiet)), identity) for quiet in case.quiet]

    assert [finding.id for finding in BY_ID[rule_id](seen).findings] == [rule_id]
    assert redact(seen, identity) == seen  # once is enough
    assert [finding for one in healthy for finding in BY_ID[rule_id](one).findings] == []


@pytest.mark.parametrize(
    ("rule_id", "number"),
    [(rule_id, number) for rule_id, case in CASES.items() for number in range(len(case.quiet))],
)
def test_the_rule_is_silent_on_the_other_side(rule_id, number):
    case = CASES[rule_id]

    answer = BY_ID[rule_id](build(changed(case.fires, case.quiet[number])))

    assert (answer.findings, answer.gaps) == ((), ())


def without_one_fact(facts) -> Iterator[tuple[str, dict]]:
    """The machine again and again, each time with another of its facts missing."""
    missing = Missing(REASON)
    for section in SECTIONS:
        for name in facts.get(section, {}):
            yield f"{section}.{name}", changed(facts, {section: {name: missing}})
    for index, one in enumerate(facts.get("gpus", ())):
        for name in one:
            gpus = list(facts["gpus"])
            gpus[index] = one | {name: missing}
            yield f"gpu {index}.{name}", facts | {"gpus": gpus}
    for name in ("gpus", "env", "events", "misspelt", "dangling"):
        if name in facts:
            yield name, {key: value for key, value in facts.items() if key != name}


@pytest.mark.parametrize("rule_id", CASES)
def test_a_missing_fact_is_never_a_pass(rule_id):
    """It is told as a gap, or the finding stands on the facts that are left."""
    passed = []
    for name, facts in without_one_fact(CASES[rule_id].fires):
        try:
            answer = BY_ID[rule_id](build(facts))
        except NotObserved:
            continue
        if not answer.findings and not answer.gaps:
            passed.append(name)

    assert passed == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_machine_of_which_nothing_is_known_gives_the_reason(rule):
    with pytest.raises(NotObserved, match=ABSENT):
        rule(build({}))
