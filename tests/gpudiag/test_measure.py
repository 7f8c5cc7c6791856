"""Measure: the CPU path for real, ranks under torchrun for real, GPUs as what a child would say."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import snapshot

import gpudiag
from gpudiag.host import Host
from gpudiag.measure import COLUMNS, _result, as_text
from gpudiag.measure import measure as measure_now
from gpudiag.measure.parts import PARTS, part_of
from gpudiag.measured import Fault, Figure, Measurement, with_measurement
from gpudiag.rules.measured import MEASURED_RULES
from gpudiag.samples import COLUMNS as SAMPLED
from gpudiag.snapshot import NotObserved, Snapshot

torch = pytest.importorskip("torch")
GIB = 2**30
on_the_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="measures the CPU path")


def run(*arguments, program=("-m", "gpudiag"), env=None):
    return subprocess.run(
        [sys.executable, *program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
    )


@on_the_cpu
def test_without_a_gpu_the_cpu_is_measured(tmp_path):
    done = run("measure", "--quick", "--format", "json", "--output", str(tmp_path / "m.json"))

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    found = json.loads((tmp_path / "m.json").read_text())
    figures = {(one["test"], one["precision"]): one for one in found["figures"]}
    assert set(figures) >= {
        ("matmul", "fp32"),
        ("matmul", "bf16"),
        ("copy", None),
        ("launch", None),
        ("convolution", "fp32"),
        ("repeatable", None),
        ("memory", None),
    }
    assert 0 < figures["matmul", "fp32"]["value"] < 100
    assert figures["matmul", "fp32"]["ratio_to_data_sheet"] is None
    assert (found["faults"], found["failure"]) == ([], None)


@on_the_cpu
def test_the_report_takes_the_measurement_in():
    done = run("diagnose", "--measure", "--no-torch", "--format", "json", "--fail-on", "never")

    report = json.loads(done.stdout)
    assert {"GD801", "GD802", "GD803", "GD804", "GD805"} <= set(report["passed"])
    assert report["snapshot"]["measured"]["figures"]
    assert report["crashed"] == {}


@on_the_cpu
def test_ranks_under_torchrun_are_compared_and_one_of_them_speaks():
    done = run(
        *("--nproc-per-node", "2", "--standalone", "-m", "gpudiag"),
        *("measure", "--quick", "--format", "csv"),
        program=("-m", "torch.distributed.run"),
    )

    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    ranks = {(row["test"], row["device"]) for row in rows if "bus" in row["test"]}
    assert done.returncode == 0, done.stderr
    assert ranks == {
        (f"{test} bus, 2 ranks", f"rank {rank}")
        for test in ("all-reduce", "all-gather")
        for rank in (0, 1)
    }
    assert all(float(row["ratio_to_peers"]) > 0 for row in rows if "bus" in row["test"])


def measuring():
    """The processes that measure."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"children/measure.py" in (folder / "cmdline").read_bytes():
                found.add(folder.name)
        except OSError:
            continue
    return found


def test_ctrl_c_leaves_no_process_behind():
    before = measuring()
    with subprocess.Popen(
        [sys.executable, "-m", "gpudiag", "measure", "--minutes", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        limit = time.monotonic() + 20
        while not (started := measuring() - before):
            assert time.monotonic() < limit
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)

    assert (out, err.strip(), running.returncode) == ("", "gpudiag: interrupted", 130)
    while started & measuring():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_quick_and_minutes_exclude_each_other():
    done = run("measure", "--quick", "--minutes", "3")

    assert done.returncode == 2
    assert done.stderr == (
        "gpudiag: expected --quick or --minutes, got both: leave one of them out\n"
    )


def test_a_saved_snapshot_cannot_be_measured(tmp_path):
    (tmp_path / "machine.json").write_text(Snapshot().to_json())

    done = run("diagnose", "--measure", "--snapshot", str(tmp_path / "machine.json"))

    assert done.returncode == 2
    assert done.stderr.startswith("gpudiag: expected --measure on the machine itself")


def test_torch_that_is_missing_is_told(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")

    found = measure_now(
        quick=True, host=Host(environment=os.environ | {"PYTHONPATH": str(tmp_path)})
    )

    assert found.failure == "exit code 1: ImportError: no torch here"
    assert found.figures == ()


def h200(index):
    return {
        "device": {
            "device": f"cuda:{index}",
            "name": "NVIDIA H200",
            "uuid": f"GPU-{index}",
            "memory_total_bytes": 140 * GIB,
        }
    }


def said(test, device, value, unit="TFLOP/s", **more):
    figure = {"test": test, "device": device, "value": value, "unit": unit}
    return {"figure": figure | more}


FINISHED = {"finished": True}


def result(*objects, failure=None, samples=()):
    return _result(list(objects), failure, list(samples), rank=0)


def test_figures_are_compared_with_the_data_sheet_and_with_the_peers():
    found = result(
        *(h200(index) for index in range(3)),
        *(
            said("matmul", f"cuda:{index}", value, precision="bf16")
            for index, value in enumerate([791.2, 800.0, 600.0])
        ),
        said("copy", "cuda:0", 4320.0, "GB/s", detail="device"),
        said("matmul", "cuda:0", 50.0, precision="fp32"),
        said("launch", "cuda:0", 5.0, "µs"),
        FINISHED,
    )

    figures = found.figures
    assert [one.ratio_to_data_sheet for one in figures[:4]] == pytest.approx(
        [0.8, 0.8089, 0.6067, 0.9], rel=1e-3
    )
    assert [one.ratio_to_data_sheet for one in figures[4:]] == [None, None]
    assert figures[2].ratio_to_peers == pytest.approx(600 / 795.6)
    assert figures[4].ratio_to_peers is None


def test_gpus_of_another_kind_are_no_peers():
    other = {"device": h200(1)["device"] | {"name": "NVIDIA L40S"}}

    found = result(
        h200(0),
        other,
        said("matmul", "cuda:0", 800.0, precision="bf16"),
        said("matmul", "cuda:1", 300.0, precision="bf16"),
        FINISHED,
    )

    assert [one.ratio_to_peers for one in found.figures] == [None, None]


def test_where_it_broke_off_is_told():
    found = result(
        h200(0),
        {"testing": {"test": "matmul bf16", "device": "cuda:0"}},
        failure="no answer within 90 s",
    )

    assert found.failure == "no answer within 90 s during matmul bf16 on cuda:0"


def test_the_gpus_are_shown_as_they_were_under_load():
    row = dict.fromkeys(SAMPLED) | {"gpu": 0, "clock_event_reasons": 0x4}
    samples = [
        row | {"temperature_celsius": 40, "clock_sm_mhz": 345, "pcie_generation": 1},
        row | {"temperature_celsius": 66, "clock_sm_mhz": 1980, "pcie_generation": 5},
        row | {"temperature_celsius": 61, "clock_sm_mhz": 1755, "clock_event_reasons": 0x20},
    ]

    text = as_text(result(h200(0), FINISHED, samples=samples))

    assert text.splitlines()[-1] == (
        "GPU 0 under load: at most °C 66, median SM MHz 1755, clock event reasons 0x24, "
        "PCIe generation 5"
    )


@pytest.mark.parametrize(
    ("name", "memory_gib", "half_tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 80, 989),
        ("NVIDIA H100 PCIe", 80, 756),
        ("NVIDIA H200", 141, 989),
        ("NVIDIA A100-SXM4-80GB", 80, 312),
        ("NVIDIA A100 80GB PCIe", 80, 312),
        ("Tesla T4", 15, 65),
        ("NVIDIA GH200 480GB", 96, 989),
        ("NVIDIA GH200 480GB", 141, None),
        ("NVIDIA H100 NVL", 94, None),
        ("NVIDIA A10G", 23, None),
        ("NVIDIA GeForce RTX 4090 D", 24, None),
        ("A card of next year", 999, None),
        (None, None, None),
    ],
)
def test_only_a_part_that_is_known_exactly_has_a_data_sheet(name, memory_gib, half_tflops):
    part = part_of(name, memory_gib and memory_gib * GIB)

    assert (part and part.half_tflops) == half_tflops


def test_no_name_stands_for_two_parts():
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"):
        assert sum(part_of(name, None) is part for part in PARTS) == 1


def findings(measurement):
    seen = with_measurement(snapshot(), measurement)
    return [finding for rule in MEASURED_RULES for finding in rule(seen).findings]


def matmul(**ratios):
    return Figure(
        test="matmul", device="cuda:0", value=400.0, unit="TFLOP/s", precision="bf16", **ratios
    )


@pytest.mark.parametrize(
    ("figure", "ids"),
    [
        (matmul(), []),
        (matmul(ratio_to_data_sheet=0.60), []),
        (matmul(ratio_to_data_sheet=0.59), ["GD804"]),
        (matmul(ratio_to_data_sheet=0.45), ["GD804"]),
        (matmul(ratio_to_data_sheet=0.44), ["GD803"]),
        (matmul(ratio_to_peers=0.90), []),
        (matmul(ratio_to_peers=0.89), ["GD805"]),
    ],
)
def test_thresholds_on_both_sides(figure, ids):
    assert [finding.id for finding in findings(Measurement(figures=(figure,)))] == ids


def test_the_evidence_quotes_the_figures():
    slow = matmul(ratio_to_data_sheet=0.4044, ratio_to_peers=0.5)

    far_below, slower = findings(Measurement(figures=(slow,)))

    assert far_below.evidence == ("cuda:0, matmul bf16: 400 TFLOP/s, 40% of the data sheet",)
    assert slower.evidence == ("cuda:0, matmul bf16: 400 TFLOP/s, 50% of the others' median",)


def test_a_wrong_result_and_a_hang_are_errors():
    fault = Fault(test="memory", device="cuda:3", reason="2 bytes did not keep the pattern 0x55")

    wrong, broken = findings(Measurement(faults=(fault,), failure="no answer within 90 s"))

    assert (wrong.id, wrong.severity, broken.id) == ("GD801", "error", "GD802")
    assert wrong.evidence == ("cuda:3, memory: 2 bytes did not keep the pattern 0x55",)


@pytest.mark.parametrize("rule", MEASURED_RULES, ids=lambda rule: rule.id)
def test_without_a_measurement_nothing_is_said(rule):
    with pytest.raises(NotObserved, match="nothing was measured"):
        rule(snapshot())


def test_a_measurement_in_a_report_names_no_machine():
    found = result(h200(0), FINISHED)

    assert found.devices[0].uuid == "GPU-0"
    assert with_measurement(snapshot(), found).measured.devices[0].uuid is None


@on_the_cpu
def test_from_python_it_is_a_frame():
    frame = gpudiag.measure(quick=True)

    assert frame.columns.tolist() == list(COLUMNS)
    assert (frame["value"] > 0).all()
    assert frame.attrs["faults"] == []
    assert frame.attrs["failure"] is None
