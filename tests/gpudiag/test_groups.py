"""Equal findings of several GPUs are one block; a narrow terminal is filled, not overrun."""

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from builders import GIB, gpu, snapshot

from gpudiag.diagnose import diagnose
from gpudiag.finding import Finding, Severity
from gpudiag.render import render
from gpudiag.render.gpu_table import gpu_table
from gpudiag.render.group import grouped
from gpudiag.rules import RULES
from gpudiag.snapshot import GpuProcess

BY_ID = {rule.id: rule for rule in RULES}
EIGHT = range(8)


def capped(index, **facts):
    """An H100 that runs against a power limit which was lowered."""
    process = GpuProcess(pid=100 + index, kind="compute", used_bytes=70 * GIB)
    usual = {
        "name": "NVIDIA H100 80GB HBM3",
        "error_codes": (),
        "memory_total_bytes": 80 * GIB,
        "memory_used_bytes": 71 * GIB,
        "utilization_fraction": 0.97,
        "temperature_celsius": 60 + index,
        "power_watts": 400.0,
        "power_limit_watts": 400.0,
        "power_limit_default_watts": 700.0,
        "clock_event_reasons": 0x4,
        "clock_sm_mhz": 1200 + index,
        "clock_sm_max_mhz": 1980,
        "processes": (process,),
    }
    return gpu(index, **usual | facts)


def report_of(gpus, ids=("GD408",)):
    return diagnose(snapshot(gpus=gpus), [BY_ID[one] for one in ids])


def test_eight_equal_findings_are_one_block_of_the_text():
    text = render(report_of(map(capped, EIGHT)), "text")

    assert text.count("GD408  ") == 1
    assert "A GPU runs against a power limit that was set below its default (8 GPUs)\n" in text
    for index in EIGHT:
        assert (
            f"GPU {index}: held at its power limit of 400 W, the default is 700 W; "
            f"SM clock {1200 + index} MHz of 1980" in text
        )
    assert text.count("cause  ") == 1
    assert "\n  fix    sudo nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 700\n" in text
    assert "8 warnings" in text


def test_the_cure_of_a_block_is_for_its_gpus_alone():
    gpus = [capped(0), capped(1, power_limit_watts=700.0), capped(2)]

    assert "nvidia-smi -i 0,2 -pl 700\n" in render(report_of(gpus), "text")


def test_another_cure_is_another_block():
    gpus = [capped(0), capped(1, power_limit_default_watts=500.0)]

    text = render(report_of(gpus), "text")

    assert text.count("GD408  ") == 2
    assert "-i 0 -pl 700\n" in text
    assert "-i 1 -pl 500\n" in text
    assert "(2 GPUs)" not in text


def test_what_all_of_them_show_is_told_once():
    gpus = [gpu(index, name="RTX", compute_capability=(12, 0)) for index in EIGHT]
    torch = {"cuda_version": "12.4", "arch_list": ("sm_80", "sm_90"), "version": "2.5.0"}
    seen = snapshot(gpus=gpus, torch=torch)

    text = render(diagnose(seen, [BY_ID["GD203"]]), "text")

    assert text.count("torch 2.5.0 has code for sm_80, sm_90") == 1
    assert "seen   GPU 0, 1, 2, 3, 4, 5, 6, 7 RTX has compute capability 12.0\n" in text


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_a_block_names_the_subjects_of_its_evidence(form):
    text = render(report_of(map(capped, EIGHT)), form)

    assert text.count("(8 GPUs)") == 1
    for index in EIGHT:
        assert text.count(f"gpu:GPU-{index:08x}") == 1
    assert text.count("computes slower than the part could") == 1


def test_json_and_csv_keep_one_entry_per_finding():
    report = report_of(map(capped, EIGHT))

    findings = json.loads(render(report, "json"))["findings"]
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))

    assert [one["subject"] for one in findings] == [f"gpu:GPU-{index:08x}" for index in EIGHT]
    assert len(rows) == 8
    assert findings[3]["fix"] == "sudo nvidia-smi -i 3 -pl 700"


def test_gpus_of_which_the_same_is_said_share_a_line():
    gpus = [capped(index, row_remap_pending=True, rows_remapped_uncorrectable=1) for index in EIGHT]
    gpus[5] = capped(5, row_remap_pending=True, rows_remapped_uncorrectable=2)

    (group,) = grouped(report_of(gpus, ("GD403",)).findings)

    assert group.evidence == (
        (
            "GPU 0, 1, 2, 3, 4, 6, 7: row remap pending; uncorrectable rows so far: 1",
            ", ".join(f"gpu:GPU-{index:08x}" for index in (0, 1, 2, 3, 4, 6, 7)),
        ),
        ("GPU 5: row remap pending; uncorrectable rows so far: 2", "gpu:GPU-00000005"),
    )


def test_findings_on_the_machine_are_never_put_together():
    one = Finding(id="GD101", evidence=("a",), cause="why", fix="how", severity=Severity.ERROR)

    assert len(grouped([one, one])) == 2


def test_the_consequences_of_every_gpu_of_a_block_are_folded_under_it():
    gpus = [capped(index, row_remap_pending=True, ecc_uncorrected_volatile=3) for index in EIGHT]

    text = render(report_of(gpus, ("GD403", "GD410")), "text")

    assert text.count("explains: GD410") == 1
    assert "8 of these explained by another" in text


@pytest.mark.parametrize("width", [60, 72, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width):
    ids = ("GD403", "GD406", "GD408", "GD410", "GD411")
    hot = {"clock_event_reasons": 0x4 | 0x20, "temperature_slowdown_celsius": 92}
    gpus = [
        capped(index, **hot, row_remap_pending=True, ecc_uncorrected_volatile=7) for index in EIGHT
    ]

    text = render(report_of(gpus, ids), "text", verbose=True, width=width)

    widest = min(width, 100)
    assert [line for line in text.splitlines() if len(line) > widest and " " in line.strip()] == []
    assert max(map(len, text.splitlines())) > widest - 12  # it is filled, too


def test_a_terminal_narrower_than_sixty_columns_is_taken_for_sixty():
    report = report_of(map(capped, EIGHT))

    assert render(report, "text", width=20) == render(report, "text", width=60)


def test_colour_does_not_count_as_width():
    report = report_of(map(capped, EIGHT))

    plain = render(report, "text", width=60)
    painted = render(report, "text", width=60, colour=True)

    assert painted != plain
    assert painted.replace("\x1b[33;1m", "").replace("\x1b[1m", "").replace("\x1b[0m", "") == plain


def test_a_narrow_table_keeps_what_says_which_gpu_is_ill():
    report = report_of([capped(0), capped(1, power_limit_watts=700.0)])

    assert gpu_table(report, width=60) == (
        "GPU  name           memory GiB  util %  °C          W  state\n"
        "  0  NVIDIA H100…  71.0 / 80.0      97  60  400 / 400  GD408\n"
        "  1  NVIDIA H100…  71.0 / 80.0      97  61  400 / 700  ok"
    )


def shown_in_a_terminal(path, columns):
    """What `gpudiag diagnose` writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "gpudiag", "diagnose", "--no-config", "--snapshot", str(path)]
    process = subprocess.Popen(command, stdout=theirs, env=variables | {"NO_COLOR": "1"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    process.wait()
    return shown.decode().split("\r\n")


@pytest.mark.parametrize("columns", [64, 80, 132])
def test_the_command_fills_the_terminal_it_is_run_in(tmp_path, columns):
    path = tmp_path / "machine.json"
    path.write_text(snapshot(gpus=list(map(capped, EIGHT))).to_json())

    lines = shown_in_a_terminal(path, columns)

    widest = min(columns, 100)
    assert any("GD408" in line for line in lines)
    assert widest - 15 < max(map(len, lines)) <= widest
