"""Report -> JUnit's XML: one test case per rule, which a CI shows without knowing gpudiag."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from gpudiag.diagnose import Report
from gpudiag.finding import Finding, Severity
from gpudiag.render.as_table import printable
from gpudiag.render.summary import summary
from gpudiag.rules import RULES

HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
NEVER = "1970-01-01T00:00:00"  # the schema of Ant wants a time, in UTC and without saying so
NO_TIME = "0"  # asking a rule takes microseconds


def as_junit(report: Report) -> str:
    """Errors and warnings are failures; a note is a case that passed, told in ``system-out``.

    The document is valid against the schema of Jenkins (junit-10.xsd) as against that of Ant.
    """
    findings: dict[str, list[Finding]] = {}
    for finding in report.findings:
        findings.setdefault(finding.id, []).append(finding)
    titles = {rule.id: rule.title for rule in RULES} | {f.id: f.title for f in report.findings}
    ids = sorted({*report.passed, *report.skipped, *report.crashed, *findings})
    cases = [_case(i, titles.get(i, ""), report, findings.get(i, [])) for i in ids]
    suite = ET.Element("testsuite", _attributes(report, cases))
    properties = ET.SubElement(suite, "properties")
    for name, value in summary(report.snapshot):
        ET.SubElement(properties, "property", name=name, value=printable(value))
    suite.extend(cases)
    notes = [finding for finding in report.findings if finding.severity is Severity.NOTE]
    ET.SubElement(suite, "system-out").text = "\n\n".join(_lines(note) for note in notes)
    ET.SubElement(suite, "system-err")
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return HEADER + ET.tostring(suites, encoding="unicode")


def _attributes(report: Report, cases: list[ET.Element]) -> dict[str, str]:
    taken_at = report.snapshot.taken_at
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": len(report.crashed),
        "skipped": len(report.skipped),
    }
    return (
        {
            "name": "gpudiag",
            "package": "gpudiag",
            "id": "0",
            "hostname": "localhost",  # a report names no machine
            "timestamp": NEVER if taken_at == "unknown" else printable(taken_at)[: len(NEVER)],
            "time": NO_TIME,
        }
        | {name: str(count) for name, count in counts.items()}
    )


def _case(rule_id: str, title: str, report: Report, findings: list[Finding]) -> ET.Element:
    case = ET.Element(
        "testcase",
        name=printable(f"{rule_id} {title}".rstrip()),
        classname=f"gpudiag.{rule_id[:3]}",
        time=NO_TIME,
    )
    if findings and findings[0].severity is not Severity.NOTE:
        _fail(case, findings)
    elif rule_id in report.crashed:
        message = printable(report.crashed[rule_id])
        ET.SubElement(case, "error", message=message, type="crashed").text = message
    elif rule_id in report.skipped:
        ET.SubElement(case, "skipped", message=printable(report.skipped[rule_id]))
    return case


def _fail(case: ET.Element, findings: list[Finding]) -> None:
    first = findings[0]
    message = printable(first.evidence[0] if first.evidence else first.title)
    failure = ET.SubElement(case, "failure", message=message, type=str(first.severity))
    failure.text = "\n\n".join(_lines(finding) for finding in findings)


def _lines(finding: Finding) -> str:
    lines = [printable(f"{finding.id} {finding.title}")]
    lines += [f"seen:  {printable(line)}" for line in finding.evidence]
    lines += [f"cause: {printable(finding.cause)}", f"fix:   {printable(finding.fix)}"]
    lines += [f"follows from {finding.explained_by}"] if finding.explained_by else []
    return "\n".join(lines + [f"see:   {link}" for link in finding.links])
