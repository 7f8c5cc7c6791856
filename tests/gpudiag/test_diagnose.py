import json

import pandas as pd
import pytest
from builders import gpu, snapshot

from gpudiag.diagnose import diagnose
from gpudiag.finding import Finding, Severity, gpu_rule, rule
from gpudiag.render.as_json import as_json
from gpudiag.rules import RULES
from gpudiag.snapshot import known


def found(text):
    return Finding(evidence=(text,), cause="because", fix="mend it")


@rule("XX1", Severity.WARNING, "https://example.org")
def always(_snapshot):
    """It always finds something.

    This is how.
    """
    return found("something")


@rule("XX2", Severity.ERROR)
def worse(_snapshot):
    """Worse."""
    return found("worse")


@rule("XX3", Severity.NOTE)
def needs_a_fact(snapshot):
    """It needs a fact."""
    return known(snapshot.torch.version) and None


@rule("XX4", Severity.NOTE)
def broken(_snapshot):
    """It is broken."""
    return 1 // 0


@gpu_rule("XX5", Severity.ERROR)
def hot(one):
    """Hot."""
    return found("hot") if known(one.temperature_celsius) > 90 else None


def test_a_rule_is_stamped_on_its_findings():
    finding = diagnose(snapshot(), [always]).findings[0]

    assert (finding.id, finding.severity, finding.title) == (
        "XX1",
        Severity.WARNING,
        "It always finds something",
    )
    assert finding.links == ("https://example.org",)
    assert always.explanation == "This is how."


def test_the_worst_comes_first():
    report = diagnose(snapshot(), [always, worse])

    assert [finding.id for finding in report.findings] == ["XX2", "XX1"]


def test_a_missing_fact_skips_and_a_crash_is_an_entry_and_the_others_run_on():
    report = diagnose(snapshot(), [needs_a_fact, broken, always])

    assert report.skipped == {"XX3": "not part of this test"}
    assert report.crashed == {"XX4": "ZeroDivisionError: integer division or modulo by zero"}
    assert [finding.id for finding in report.findings] == ["XX1"]
    assert report.passed == ()


def test_a_rule_passes_only_if_every_gpu_answered():
    cool, unknown = gpu(0, temperature_celsius=40), gpu(1)

    assert diagnose(snapshot(gpus=[cool]), [hot]).passed == ("XX5",)
    assert diagnose(snapshot(gpus=[cool, unknown]), [hot]).skipped == {
        "XX5": "GPU 1: not part of this test"
    }


def test_a_finding_is_kept_beside_a_gap():
    report = diagnose(snapshot(gpus=[gpu(0, temperature_celsius=91), gpu(1)]), [hot])

    assert [finding.subject for finding in report.findings] == ["gpu:GPU-00000000"]


@pytest.mark.parametrize(
    ("rules", "fail_on", "fails"),
    [
        ([always], Severity.ERROR, False),
        ([always], Severity.WARNING, True),
        ([worse], Severity.WARNING, True),
        ([worse], None, False),
        ([], Severity.NOTE, False),
    ],
)
def test_the_threshold_decides_whether_a_report_fails(rules, fail_on, fails):
    assert diagnose(snapshot(), rules).fails(fail_on) is fails


def test_findings_become_a_frame():
    frame = diagnose(snapshot(), [always, worse]).to_frame()

    assert isinstance(frame, pd.DataFrame)
    assert frame["id"].tolist() == ["XX2", "XX1"]
    assert frame["severity"].tolist() == ["error", "warning"]
    assert diagnose(snapshot(), []).to_frame().empty


def test_json_holds_everything_that_was_decided():
    document = json.loads(as_json(diagnose(snapshot(), [always, needs_a_fact, broken])))

    assert list(document) == [
        "schema_version",
        "gpudiag_version",
        "findings",
        "passed",
        "skipped",
        "crashed",
        "snapshot",
    ]
    assert list(document["findings"][0]) == [
        "evidence",
        "cause",
        "fix",
        "subject",
        "id",
        "severity",
        "title",
        "links",
        "explained_by",
    ]


def test_rule_ids_are_unique_sorted_and_of_one_form():
    ids = [rule.id for rule in RULES]

    assert ids == sorted(set(ids))
    assert all(len(i) == 5 and i.startswith("GD") and i[2:].isdigit() for i in ids)


def test_every_rule_has_a_title_and_an_explanation():
    without = [rule.id for rule in RULES if not rule.title]

    assert without == []


def test_a_snapshot_that_holds_nothing_passes_no_rule():
    report = diagnose(snapshot(), RULES)

    assert report.findings == ()
    assert report.passed == ()
    assert report.crashed == {}
    assert len(report.skipped) == len(RULES)
