"""Every form of the verdict: its shape, and that nothing from outside is taken for markup."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from builders import GIB, gpu, snapshot

from gpudiag.diagnose import Report, diagnose
from gpudiag.finding import Finding, Severity
from gpudiag.render import FORMS, render
from gpudiag.render.as_table import as_csv as table_csv
from gpudiag.render.as_table import as_text as table_text
from gpudiag.rules import RULES
from gpudiag.snapshot import GpuProcess, Missing, Snapshot
from gpudiag.tables import TABLES

HOSTILE = (
    '=cmd()|\'calc\'!A1 <script>alert("x")</script> \x1b[2J\x07\nnext\r\tline ]]> \\ \\" `tick` '
    '@ada #12 **b** [a](javascript:x) ![i](x) a="1"} 1\n# TYPE x counter \u202e\x9b &amp;</style>'
)


def found(rule_id="GD401", severity=Severity.ERROR, **changes):
    return Finding(
        **{
            "id": rule_id,
            "severity": severity,
            "title": "A GPU is lost",
            "subject": "gpu:GPU-00000000",
            "evidence": ("GPU 0 does not answer: NVML 15 (GPU is lost)", "second line"),
            "cause": "programs on this GPU are dead",
            "fix": "sudo dmesg | grep -i xid; or replace it",
            "links": ("https://example.org/xid",),
        }
        | changes
    )


def report(*findings, seen=None, passed=("GD101",), skipped=None, crashed=None):
    return Report(
        findings=findings,
        passed=passed,
        skipped={"GD102": "no NVML", "GD103": "no NVML"} if skipped is None else skipped,
        crashed={"GD104": "KeyError: 'x'"} if crashed is None else crashed,
        snapshot=seen or machine(),
    )


def machine(name="NVIDIA H100 80GB HBM3", **changes):
    return snapshot(
        gpus=[
            gpu(
                name=name,
                error_codes=(),
                memory_total_bytes=80 * GIB,
                memory_used_bytes=GIB,
                utilization_fraction=0.5,
                temperature_celsius=58,
                power_watts=612.4,
                clock_sm_mhz=1980,
                processes=(),
            )
        ],
        nvml={"driver_version": "550.54.15", "cuda_version": "12.4"},
        torch={"version": "2.9.0+cu128", "cuda_version": "12.8", "hip_version": None},
        system={"os_name": "Ubuntu 22.04", "cpu_count": 96, "container": None},
        **changes,
    )


def hostile():
    """Strings from outside, in every place that a renderer shows."""
    holder = GpuProcess(pid=1, kind="compute", used_bytes=GIB, name=HOSTILE, user=HOSTILE)
    seen = snapshot(
        gpus=[
            gpu(0, name=HOSTILE, uuid=HOSTILE, processes=(holder,), memory_total_bytes=GIB),
            gpu(1, name=Missing(HOSTILE)),
        ],
        nvml={"driver_version": HOSTILE, "cuda_version": HOSTILE},
        torch={"version": HOSTILE, "import_error": HOSTILE},
        env={"CUDA_VISIBLE_DEVICES": HOSTILE, "LD_PRELOAD": HOSTILE},
        system={"os_name": HOSTILE, "container": HOSTILE},
    )
    shown = found(
        subject=HOSTILE,
        evidence=(HOSTILE, HOSTILE),
        cause=HOSTILE,
        fix=HOSTILE,
        links=(),
    )
    return report(
        shown,
        found("GD106", Severity.NOTE, evidence=(HOSTILE,)),
        seen=seen,
        skipped={"GD102": HOSTILE},
        crashed={"GD104": HOSTILE},
    )


NOTHING = report(seen=Snapshot(), passed=(), skipped={}, crashed={})
CASES = [
    pytest.param(report(found()), id="a finding"),
    pytest.param(NOTHING, id="nothing"),
    pytest.param(hostile(), id="hostile"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("of", CASES)
def test_no_form_can_steer_a_terminal(form, of):
    controls = {c for c in render(of, form) if not c.isprintable()}

    # JSON keeps what is beyond ASCII as it is, so that another program reads the same text.
    assert {c for c in controls if form != "json" or c.isascii()} <= {"\n"}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_takes_a_real_report_with_hostile_facts(form):
    assert render(diagnose(hostile().snapshot, RULES), form)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r"expected one of text, markdown, .*, got 'poem'"):
        render(NOTHING, "poem")


# --- Markdown


def test_markdown_is_what_one_pastes_into_an_issue():
    assert render(report(found()), "markdown") == (
        "**gpudiag: 1 error** (1 rules passed, 2 could not be asked, 1 crashed)\n"
        "\n"
        "|  |  |\n"
        "| --- | --- |\n"
        "| Machine | Ubuntu 22.04 · CPUs: 96 |\n"
        "| GPUs | 1 x NVIDIA H100 80GB HBM3 |\n"
        "| Driver | 550.54.15 · CUDA up to 12.4 |\n"
        "| torch | 2.9.0+cu128 · CUDA 12.8 |\n"
        "| Python | not known: not part of this test |\n"
        "| Taken | unknown by gpudiag unknown |\n"
        "\n"
        "### ❌ GD401 A GPU is lost `gpu:GPU-00000000`\n"
        "\n"
        "* seen: `GPU 0 does not answer: NVML 15 (GPU is lost)`\n"
        "* seen: `second line`\n"
        "* cause: programs on this GPU are dead\n"
        "* fix: sudo dmesg | grep -i xid; or replace it\n"
        "* see: <https://example.org/xid>\n"
        "\n"
        "<details><summary>GPUs (1)</summary>\n"
        "\n"
        "| GPU | name | memory GiB | util % | °C | W | processes | state |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| 0 | NVIDIA H100 80GB HBM3 | 1.0 / 80.0 | 50 | 58 | 612 / ? | 0 | GD401 |\n"
        "\n"
        "</details>\n"
        "\n"
        "<details><summary>Rules that could not be asked (2)</summary>\n"
        "\n"
        "| rules | why |\n"
        "| --- | --- |\n"
        "| GD102 GD103 | no NVML |\n"
        "\n"
        "</details>\n"
        "\n"
        "<details><summary>Rules that crashed (1)</summary>\n"
        "\n"
        "| rules | why |\n"
        "| --- | --- |\n"
        "| GD104 | KeyError: 'x' |\n"
        "\n"
        "</details>"
    )


def test_markdown_keeps_its_tables_and_headings_whole():
    text = render(hostile(), "markdown")

    without_code = re.sub(r"(`+) .*? \1(?!`)", "", text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} <= {3, 9}
    assert not re.search(r"(?<!\\)<(?!/?details>|/?summary>|https:)", without_code)
    assert not re.search(r"(?<![\w\\])@\w", without_code)
    assert text.count("\n### ") == 2


@pytest.mark.parametrize("text", ["`", "``", "a `` b ` c", "`a"])
def test_a_code_span_holds_any_backticks(text):
    from gpudiag.render.as_markdown import code

    shown = code(text)
    fence = re.match("`*", shown)[0]
    inside = shown.removeprefix(fence).removesuffix(fence)

    assert inside.strip() == text
    assert fence not in re.findall("`+", inside)


# --- CSV


def test_csv_has_one_row_per_finding():
    rows = list(csv.reader(io.StringIO(render(report(found(), found("GD402")), "csv"))))

    assert rows[0] == [
        *("id", "severity", "title", "subject", "evidence", "cause", "fix"),
        *("explained_by", "links"),
    ]
    assert rows[1] == [
        "GD401",
        "error",
        "A GPU is lost",
        "gpu:GPU-00000000",
        "GPU 0 does not answer: NVML 15 (GPU is lost); second line",
        "programs on this GPU are dead",
        "sudo dmesg | grep -i xid; or replace it",
        "",
        "https://example.org/xid",
    ]
    assert len(rows) == 3
    assert render(NOTHING, "csv") == ",".join(rows[0])


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_holds_no_formula(start):
    rows = list(csv.reader(io.StringIO(render(report(found(cause=f"{start}cmd()")), "csv"))))

    assert rows[1][5] == f"'{start}cmd()"


def test_tables_in_csv_hold_no_formula_and_keep_their_numbers():
    rows = TABLES["devices"](hostile().snapshot)
    read = list(csv.DictReader(io.StringIO(table_csv(rows, columns=list(rows[0])))))

    assert read[0]["name"].startswith("'=cmd()")
    assert read[0]["memory_total_bytes"] == str(GIB)
    assert read[1]["name"] == ""
    assert len(read) == 2


# --- JUnit


def junit(of):
    return ET.fromstring(render(of, "junit"))


def test_junit_has_one_case_per_rule_and_outcome():
    suite = junit(report(found(), found("GD106", Severity.NOTE))).find("testsuite")
    outcomes = {
        case.get("name")[:5]: [child.tag for child in case] for case in suite.iter("testcase")
    }

    assert outcomes == {
        "GD101": [],
        "GD102": ["skipped"],
        "GD103": ["skipped"],
        "GD104": ["error"],
        "GD106": [],
        "GD401": ["failure"],
    }
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "1", "errors": "1", "skipped": "2"}
    failure = suite.find(".//failure")
    assert failure.attrib == {
        "message": "GPU 0 does not answer: NVML 15 (GPU is lost)",
        "type": "error",
    }
    assert failure.text == (
        "GD401 A GPU is lost\n"
        "seen:  GPU 0 does not answer: NVML 15 (GPU is lost)\n"
        "seen:  second line\n"
        "cause: programs on this GPU are dead\n"
        "fix:   sudo dmesg | grep -i xid; or replace it\n"
        "see:   https://example.org/xid"
    )
    assert suite.findtext("system-out").startswith("GD106 A GPU is lost\nseen:  GPU 0")


def test_junit_tells_findings_of_one_rule_in_one_case():
    twice = report(found(), found(subject="gpu:GPU-00000001", evidence=("GPU 1 is silent",)))

    failures = junit(twice).findall(".//failure")

    assert len(failures) == 1
    assert failures[0].text.count("seen:") == 3


@pytest.mark.parametrize("of", CASES)
def test_junit_has_the_elements_and_attributes_of_the_common_schemas(of):
    root = junit(of)
    suite = root[0]

    assert (root.tag, root.attrib, len(root)) == ("testsuites", {}, 1)
    assert set(suite.attrib) == {
        *("name", "package", "id", "hostname", "timestamp", "time"),
        *("tests", "failures", "errors", "skipped"),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    tags = [child.tag for child in suite]
    cases = tags[1:-2]
    assert (tags[0], tags[-2:]) == ("properties", ["system-out", "system-err"])
    assert set(cases) <= {"testcase"}
    for case in suite.iter("testcase"):
        assert set(case.attrib) == {"name", "classname", "time"}
        assert len(case) <= 1


# --- HTML


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("of", CASES)
def test_html_is_one_whole_page_without_scripts_or_addresses_to_load(of):
    page = Tags(render(of, "html"))

    assert page.open == []
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert names <= {"lang", "charset", "http-equiv", "content", "name", "class", "href", "rel"}
    assert not re.search(r"url\(|@import|src=", render(of, "html"))


def test_html_shows_hostile_text_as_text():
    page = Tags(render(hostile(), "html"))

    assert '<script>alert("x")</script>' in "".join(page.text)
    assert page.tags.count("style") == 2


def test_html_says_what_was_found():
    text = " ".join("".join(Tags(render(report(found()), "html")).text).split())

    assert "gpudiag: 1 error" in text
    assert "error GD401 A GPU is lost gpu:GPU-00000000" in text
    assert "fix sudo dmesg" in text.replace("fixsudo", "fix sudo")
    assert "Rules that could not be asked (2)" in text


def test_a_notebook_shows_a_report_without_a_page():
    shown = report(found())._repr_html_()

    assert "<html" not in shown
    assert shown in render(report(found()), "html")


def test_a_notebook_shows_what_a_snapshot_is_about():
    text = " ".join(Tags(hostile().snapshot._repr_html_()).text)

    assert "Snapshot: 1 x =cmd()" in text
    assert "<script>alert" in text
    assert "CUDA up to" in machine()._repr_html_()


# --- Prometheus

LINE = re.compile(
    r'(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (?P<value>\S+)'
)


def samples(of):
    lines = [line for line in render(of, "prometheus").splitlines() if line[0] != "#"]
    found_lines = [LINE.fullmatch(line) for line in lines]
    assert all(found_lines), lines
    series = [(one["name"], one["labels"] or "") for one in found_lines]
    assert len(series) == len(set(series))
    return {
        name + labels: float(one["value"])
        for (name, labels), one in zip(series, found_lines, strict=True)
    }


@pytest.mark.parametrize("of", CASES)
def test_prometheus_holds_samples_with_help_and_type(of):
    text = render(of, "prometheus")
    names = {line.split("{")[0].split()[0] for line in text.splitlines() if line[0] != "#"}

    assert samples(of)
    for kind in ("HELP", "TYPE"):
        told = [line.split()[2] for line in text.splitlines() if line.startswith(f"# {kind} ")]
        assert sorted(told) == sorted(names)


def test_prometheus_uses_base_units():
    gauges = samples(report(found()))
    one = 'index="0",uuid="GPU-00000000",name="NVIDIA H100 80GB HBM3"'

    assert gauges[f"gpudiag_gpu_memory_total_bytes{one}"] == 80 * GIB
    assert gauges[f"gpudiag_gpu_utilization_ratio{one}"] == 0.5
    assert gauges[f"gpudiag_gpu_clock_sm_hertz{one}"] == 1.98e9
    assert gauges[f"gpudiag_gpu_power_watts{one}"] == 612.4
    assert f"gpudiag_gpu_power_limit_watts{one}" not in gauges
    assert gauges['gpudiag_findingid="GD401",severity="error",subject="gpu:GPU-00000000"'] == 1
    assert gauges['gpudiag_findingsseverity="warning"'] == 0
    assert gauges['gpudiag_rulesoutcome="skipped"'] == 2


def test_prometheus_tells_a_series_once():
    assert samples(report(found(), found(evidence=("again",))))['gpudiag_findingsseverity="error"']


def test_prometheus_says_when():
    from msgspec.structs import replace

    at = replace(machine(), taken_at="2026-11-23T13:00:00+00:00")

    assert samples(report(seen=at))["gpudiag_snapshot_timestamp_seconds"] == 1795438800.0
    assert "gpudiag_snapshot_timestamp_seconds" not in samples(report())


# --- consequences


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("markdown", "#### ↳ ❌ GD402 A GPU is lost `gpu:GPU-00000000`\n"),
        ("markdown", "* follows from GD401\n"),
        ("csv", "or replace it,GD401,https"),
        ("junit", "follows from GD401\nsee:   https"),
        ("html", '<article class="error consequence">'),
        ("html", "<dt>root</dt><dd>follows from GD401</dd>"),
    ],
)
def test_a_consequence_names_its_root(form, told):
    shown = render(report(found(), found("GD402", explained_by="GD401")), form)

    assert shown.count(told) == 1


# --- the command line


@pytest.mark.parametrize("form", FORMS)
def test_the_command_prints_every_form(form, tmp_path):
    (tmp_path / "machine.json").write_text(machine().to_json())
    command = [sys.executable, "-m", "gpudiag", "diagnose", "--snapshot", "machine.json"]

    done = subprocess.run(
        [*command, "--format", form],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
        cwd=tmp_path,
    )

    assert done.stdout == render(diagnose(machine(), RULES), form) + "\n"
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_json_of_hostile_facts_is_json():
    assert json.loads(render(hostile(), "json").encode())


def test_a_table_fits_a_narrow_terminal():
    rows = [
        {
            "index": 0,
            "unaccounted_bytes": 3 * GIB,
            "age_s": 7261.0,
            "orphaned": "its parent is gone",
            "command": "python train.py --data /data/imagenet --epochs 90 --batch-size 256",
        }
    ]

    assert table_text(rows, empty="", width=60) == (
        "index  unaccounted  age   orphaned          command\n"
        "       GiB          s\n"
        "-----  -----------  ----  ----------------  ----------------\n"
        "0      3.00         7261  its parent is g…  python train.py…"
    )
    assert table_text(rows, empty="", width=200) == table_text(rows, empty="")
