"""Measure: the CPU path for real, ranks under torchrun for real, GPUs as what a child would say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from builders import gpu, snapshot

import gpudiag
from gpudiag.host import Host
from gpudiag.measure import COLUMNS, as_text, rows
from gpudiag.measure import measure as measure_now
from gpudiag.measure.parts import PARTS, part_of
from gpudiag.measure.result import Around
from gpudiag.measure.result import result as put_together
from gpudiag.measured import (
    Device,
    Fault,
    Figure,
    Meanwhile,
    Measurement,
    with_measurement,
)
from gpudiag.record.samples import COLUMNS as SAMPLED
from gpudiag.rules.measured import MEASURED_RULES
from gpudiag.snapshot import GpuPair, NotObserved, Nvml, Snapshot

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


@pytest.fixture(scope="module")
def of_the_cpu(tmp_path_factory):
    """What the command wrote of a real measurement."""
    file = tmp_path_factory.mktemp("measured") / "m.json"
    left_over = {"RANK": "3", "WORLD_SIZE": "8"}  # by a scheduler, without torchrun
    done = run(*("measure", "--quick", "--format", "json", "--output", str(file)), env=left_over)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    return file.read_text()


@on_the_cpu
def test_without_a_gpu_the_cpu_is_measured(of_the_cpu):
    found = json.loads(of_the_cpu)
    figures = {(one["test"], one["precision"]): one for one in found["figures"]}
    assert set(figures) >= {
        ("matmul", "fp32"),
        ("matmul", "bf16"),
        ("copy", None),
        ("launch", None),
        ("convolution", None),
        ("memory", None),
    }
    assert 0 < figures["matmul", "fp32"]["value"] < 100
    assert figures["matmul", "fp32"]["ratio_to_data_sheet"] is None
    assert (found["faults"], found["failure"]) == ([], None)


@on_the_cpu
def test_the_report_takes_the_measurement_in():
    done = run("diagnose", "--measure", "--no-torch", "--format", "json", "--fail-on", "never")

    report = json.loads(done.stdout)
    assert {"GD801", "GD802", "GD803", "GD804", "GD805", "GD806"} <= set(report["passed"])
    assert report["snapshot"]["measured"]["figures"]
    assert report["crashed"] == {}


# What Python runs before everything else: the products of the second rank differ each time.
FAULTY_RANK = """
import os, sys
if os.environ.get("RANK") == "1" and any("children/measure.py" in one for one in sys.orig_argv):
    import torch
    product, count = torch.Tensor.__matmul__, []
    def different_each_time(a, b):
        count.append(1)
        return product(a, b) + len(count)
    torch.Tensor.__matmul__ = different_each_time
"""


@on_the_cpu
def test_ranks_under_torchrun_are_compared_and_the_first_speaks_for_all(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FAULTY_RANK)

    done = run(
        *("--nproc-per-node", "2", "--standalone", "-m", "gpudiag"),
        *("measure", "--quick", "--format", "json", "--output", str(tmp_path / "m.json")),
        program=("-m", "torch.distributed.run"),
        env={"PYTHONPATH": str(tmp_path)},
    )

    assert (done.stdout, done.returncode) == ("", 1), done.stderr
    found = json.loads((tmp_path / "m.json").read_text())
    ratios = {
        (one["test"], one["precision"], one["device"]): one["ratio_to_peers"]
        for one in found["figures"]
    }
    for test in (("all-reduce", None), ("all-gather", None), ("matmul", "fp32")):
        ours, theirs = (ratios[*test, f"rank {rank} cpu"] for rank in (0, 1))
        assert ours * theirs == pytest.approx(1)
    faults = {(one["test"], one["device"], one["reason"].split(",")[0]) for one in found["faults"]}
    assert faults == {
        (f"repeatable {precision}", device, reason)
        for precision in ("fp32", "bf16")
        for device, reason in (
            ("rank 1 cpu", "the same product gave different bits the second time"),
            *(
                (
                    f"rank {rank} cpu",
                    "2 devices of its kind do not agree on the bits of the same product",
                )
                for rank in (0, 1)
            ),
        )
    }
    assert found["failure"] is None


def measuring(parent=None):
    """The processes that measure, of one parent or at all."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            its_parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"children/measure.py" in command and parent in {None, its_parent}:
            found.add(folder.name)
    return found


@pytest.mark.parametrize(
    ("number", "said", "code"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "ended by SIGTERM", 143)],
)
def test_a_signal_leaves_no_process_behind(number, said, code):
    with subprocess.Popen(
        [sys.executable, "-m", "gpudiag", "measure", "--minutes", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        limit = time.monotonic() + 20
        while not (started := measuring(running.pid)):
            assert time.monotonic() < limit
            time.sleep(0.05)
        running.send_signal(number)
        out, err = running.communicate(timeout=20)

    assert (out, err.strip(), running.returncode) == ("", f"gpudiag: {said}", code)
    while started & measuring():
        assert time.monotonic() < limit
        time.sleep(0.05)


@on_the_cpu
def test_a_gpu_that_is_not_there_is_one_line():
    done = run("measure", "--quick", "-i", "3")

    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr == (
        "gpudiag: expected the index of a GPU that torch sees, got 3: it sees no GPU\n"
    )


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path):
    started = time.monotonic()
    done = run("measure", "--minutes", "60", "--output", str(tmp_path / "missing" / "m.json"))

    assert done.returncode == 2
    assert done.stderr == (
        f"gpudiag: expected a folder that can be written for {tmp_path}/missing/m.json, got: No "
        "such file or directory\n"
    )
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("minutes", ["nan", "inf"])
def test_minutes_that_are_none_are_one_line(minutes):
    done = run("measure", "--minutes", minutes)

    assert done.returncode == 2
    assert done.stderr == f"gpudiag: expected 0.1 to 1440 minutes, got {minutes}\n"


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


def result(*objects, failure=None, around=None):
    return put_together(list(objects), failure, around or Around(nvml=Nvml()))


def test_figures_are_compared_with_the_data_sheet_and_with_the_peers():
    found = result(
        *(h200(index) for index in range(3)),
        *(
            said("matmul", f"cuda:{index}", value, precision="bf16")
            for index, value in enumerate([791.2, 800.0, 600.0])
        ),
        said("copy", "cuda:0", 4320.0, "GB/s", detail="device"),
        said("matmul", "cuda:0", 33.5, precision="fp32"),
        said("matmul", "cuda:0", 395.2, precision="tf32"),
        said("matmul", "cuda:0", 1385.3, precision="fp8"),
        said("launch", "cuda:0", 5.0, "µs"),
        said("convolution", "cuda:0", 5.0, precision="fp32"),
        FINISHED,
    )

    figures = found.figures
    assert [one.ratio_to_data_sheet for one in figures[:4]] == pytest.approx(
        [0.8, 0.8089, 0.6067, 0.9], rel=1e-3
    )
    assert [one.ratio_to_data_sheet for one in figures[4:7]] == pytest.approx([0.5, 0.8, 0.7])
    assert [one.ratio_to_data_sheet for one in figures[7:]] == [None, None]
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


def sample(time_s, gpu=0, **facts):
    common = {"gpu": gpu, "uuid": f"GPU-{gpu}", "time_s": time_s, "clock_event_reasons": 0}
    return dict.fromkeys(SAMPLED) | common | facts


def begins(time_s):
    return {"testing": {"test": "matmul bf16", "device": "cuda:0"}, "time_s": time_s}


def test_the_gpus_are_shown_as_they_were_under_load():
    samples = (
        sample(0.0, temperature_celsius=40, clock_sm_mhz=345, pcie_generation=1),
        sample(1.0, temperature_celsius=66, clock_sm_mhz=1980, clock_event_reasons=0x4),
        sample(2.0, clock_sm_mhz=1755, clock_event_reasons=0x20, pcie_generation=5),
        sample(2.0, gpu=1, temperature_celsius=90),  # which was not measured
    )

    text = as_text(result(h200(0), FINISHED, around=Around(nvml=Nvml(), rows=samples)))

    assert text.splitlines()[2] == (
        "GPU 0 under load: at most °C 66, median SM MHz 1755, clock event reasons 0x24, "
        "PCIe generation 5"
    )


def test_beside_a_figure_stands_how_its_gpu_was_meanwhile():
    """The child's clock began at 100 s, with the first sample."""
    samples = (
        sample(0.9, temperature_celsius=40, clock_sm_mhz=345),
        sample(1.0, temperature_celsius=50, power_watts=300.0, clock_sm_mhz=1980),
        sample(2.5, temperature_celsius=61, power_watts=640.5, clock_sm_mhz=1700),
        sample(2.5, gpu=1, temperature_celsius=90, clock_event_reasons=0x40),
        sample(3.0, temperature_celsius=60, clock_sm_mhz=1755, clock_event_reasons=0x4),
        sample(3.2, temperature_celsius=99),
    )

    found = result(
        h200(0),
        begins(101.0),
        said("matmul", "cuda:0", 700.0, precision="bf16") | {"time_s": 103.0},
        FINISHED,
        around=Around(nvml=Nvml(), rows=samples, first_s=100.0, interval_s=0.1),
    )

    (row,) = rows(found)
    beside = ("temperature_celsius", "power_watts", "clock_sm_mhz", "clock_event_reasons")
    assert [row[name] for name in beside] == [61, 640.5, 1755, 0x4]
    assert "0x4" in as_text(found).splitlines()[3]


def copy_ratios(*figures, name="NVIDIA H200", nvml=Nvml(), samples=None):  # noqa: B008 - frozen
    link = {"pcie_generation": 5, "pcie_width_lanes": 16}
    both = (sample(0, 0, pcie_generation=1), sample(1, 0, **link), sample(1, 1, **link))
    around = Around(nvml=nvml, rows=both if samples is None else samples)
    devices = [{"device": h200(index)["device"] | {"name": name}} for index in range(2)]
    found = result(*devices, *figures, FINISHED, around=around)
    return [one.ratio_to_link and round(one.ratio_to_link, 2) for one in found.figures]


HOST_COPY = said("copy", "cuda:0", 55.4, "GB/s", detail="pinned to device")
PEER_COPY = said("peer copy", "cuda:0", 360.0, "GB/s", detail="to cuda:1, direct")


def test_copies_are_compared_with_the_pcie_link_as_it_is_under_load():
    slower = (sample(0, pcie_generation=4, pcie_width_lanes=8),)

    assert copy_ratios(HOST_COPY) == [0.88]
    assert copy_ratios(HOST_COPY, samples=slower) == [3.52]
    assert copy_ratios(HOST_COPY, samples=()) == [None]
    assert copy_ratios(HOST_COPY, name="NVIDIA GH200 480GB") == [None]
    assert copy_ratios(said("copy", "cuda:0", 4320.0, "GB/s", detail="device")) == [None]


def linked(count, **facts):
    gpus = tuple(
        gpu(index, **{"uuid": f"GPU-{index}", "nvlink_active": tuple(range(18))} | facts)
        for index in range(count)
    )
    pairs = tuple(
        GpuPair(first=one, second=other, p2p_nvlink="ok")
        for one in range(count)
        for other in range(one + 1, count)
    )
    return Nvml(gpus=gpus, pairs=pairs)


@pytest.mark.parametrize(
    ("nvml", "ratio"),
    [
        (linked(2, nvlink_version="4.0", fabric_state="not_supported"), 0.8),
        (linked(8, nvlink_version="4.0", fabric_state="completed"), 0.8),
        (linked(8, nvlink_version="5.0", fabric_state="completed"), 0.4),
        (linked(4, nvlink_version="4.0", fabric_state="not_supported"), None),
        (linked(2, nvlink_version="9.0", fabric_state="not_supported"), None),
        (linked(2, nvlink_active=(), fabric_state="not_supported"), 5.71),
        (Nvml(), 5.71),
    ],
)
def test_copies_between_gpus_are_compared_with_nvlink_or_with_pcie(nvml, ratio):
    assert copy_ratios(PEER_COPY, nvml=nvml) == [ratio]


def test_a_copy_by_way_of_the_host_has_no_link_of_its_own():
    around_the_host = said(
        "peer copy", "cuda:0", 20.0, "GB/s", detail="to cuda:1, by way of the host"
    )

    assert copy_ratios(around_the_host) == [None]


def test_copies_to_different_gpus_are_peers_of_each_other():
    there, back = (
        said("peer copy", f"cuda:{one}", value, "GB/s", detail=f"to cuda:{1 - one}, direct")
        for one, value in ((0, 50.0), (1, 25.0))
    )

    found = result(h200(0), h200(1), there, back, FINISHED)

    assert [one.ratio_to_peers for one in found.figures] == [2.0, 0.5]


def bits(device, sha256, kind="NVIDIA H200"):
    test = "repeatable bf16"
    return {"digest": {"test": test, "device": device, "kind": kind, "sha256": sha256}}


def test_the_gpu_with_other_bits_than_most_is_named():
    found = result(
        *(bits(f"cuda:{index}", "same") for index in (0, 2, 3)),
        bits("cuda:1", "other"),
        bits("cuda:4", "another", kind="NVIDIA L40S"),
        FINISHED,
    )

    assert found.faults == (
        Fault(
            test="repeatable bf16",
            device="cuda:1",
            reason="the product's bits differ from those of most of the 4 devices of its kind",
        ),
    )


def test_of_two_gpus_that_differ_neither_is_believed():
    found = result(bits("cuda:0", "one"), bits("cuda:1", "other"), FINISHED)

    assert [one.device for one in found.faults] == ["cuda:0", "cuda:1"]
    assert "it is open which is right" in found.faults[0].reason


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_figure_that_cannot_be_is_a_fault(value):
    found = result(h200(0), said("matmul", "cuda:0", value, precision="bf16"), FINISHED)

    assert [one.test for one in found.faults] == ["matmul bf16"]


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
        ("NVIDIA A10G", 23, 70),
        ("NVIDIA A10", 23, 125),
        ("NVIDIA L4", 23, 121),
        ("NVIDIA L40", 45, None),
        ("Tesla V100S-PCIE-32GB", 32, 130),
        ("Tesla V100-PCIE-16GB", 16, 112),
        ("NVIDIA GeForce RTX 5090", 32, 209.5),
        ("NVIDIA GeForce RTX 5090 D", 32, None),
        ("NVIDIA B300 SXM6 AC", 270, 2250),
        ("NVIDIA GB200", 186, 2500),
        ("NVIDIA GB300", 279, None),
        ("NVIDIA GeForce RTX 4090 D", 24, None),
        ("A card of next year", 999, None),
        (None, None, None),
    ],
)
def test_only_a_part_that_is_known_exactly_has_a_data_sheet(name, memory_gib, half_tflops):
    part = part_of(name, memory_gib and memory_gib * GIB)

    assert (part and part.tflops["fp16"]) == half_tflops


def test_no_name_stands_for_two_parts():
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"):
        assert sum(part_of(name, None) is part for part in PARTS) == 1


def findings(measurement):
    seen = with_measurement(snapshot(), measurement)
    return [finding for rule in MEASURED_RULES for finding in rule(seen).findings]


def matmul(precision="bf16", **ratios):
    return Figure(
        test="matmul", device="cuda:0", value=400.0, unit="TFLOP/s", precision=precision, **ratios
    )


def copied(detail="pinned to host", **ratios):
    return Figure(test="copy", device="cuda:0", value=4.0, unit="GB/s", detail=detail, **ratios)


def sent(link):
    return Figure(
        test="peer copy",
        device="cuda:0",
        value=9.0,
        unit="GB/s",
        detail="to cuda:1, direct",
        ratio_to_link=0.3,
        link=link,
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
        (matmul("fp8", ratio_to_data_sheet=0.3), []),
        (copied("device", ratio_to_data_sheet=0.3), ["GD803"]),
        (copied(ratio_to_peers=0.5), []),
        (copied("device", ratio_to_peers=0.5), ["GD805"]),
        (copied(ratio_to_link=0.50, link="PCIe 5 x16"), []),
        (copied(ratio_to_link=0.49, link="PCIe 5 x16"), ["GD806"]),
        (copied("pageable to host", ratio_to_link=0.2, link="PCIe 5 x16"), []),
        (sent("NVLink 4.0"), ["GD806"]),
        (sent("PCIe 4 x16"), []),
    ],
)
def test_thresholds_on_both_sides(figure, ids):
    assert [finding.id for finding in findings(Measurement(figures=(figure,)))] == ids


def test_the_evidence_quotes_the_figures():
    slow = matmul(ratio_to_data_sheet=0.4044, ratio_to_peers=0.5)

    far_below, slower = findings(Measurement(figures=(slow,)))

    assert far_below.evidence == ("cuda:0, matmul bf16: 400 TFLOP/s, 40% of the data sheet",)
    assert slower.evidence == ("cuda:0, matmul bf16: 400 TFLOP/s, 50% of the others' median",)


def test_the_evidence_of_a_slow_link_names_the_link():
    (finding,) = findings(Measurement(figures=(sent("NVLink 4.0"),)))

    assert finding.evidence == ("cuda:0, peer copy to cuda:1, direct: 9 GB/s, 30% of NVLink 4.0",)


def test_the_evidence_tells_how_the_gpu_was_meanwhile():
    hot = Meanwhile(temperature_celsius=88, power_watts=640.5, clock_event_reasons=0x40)

    (finding,) = findings(Measurement(figures=(matmul(ratio_to_peers=0.5, meanwhile=hot),)))

    assert finding.evidence[0].endswith("(88 °C, 640.5 W, clock event reasons 0x40)")


def test_each_gpu_is_a_subject_of_its_own():
    devices = tuple(Device(device=f"cuda:{index}", uuid=f"GPU-{index}") for index in range(2))
    faults = tuple(
        Fault(test=test, device=device, reason="wrong")
        for device, test in (("cuda:1", "copy"), ("cuda:0", "copy"), ("cuda:1", "memory"))
    )

    first, second = findings(Measurement(devices=devices, faults=faults))

    assert (first.subject, len(first.evidence)) == ("gpu:GPU-1", 2)
    assert (second.subject, len(second.evidence)) == ("gpu:GPU-0", 1)


def test_a_device_without_a_uuid_is_no_subject():
    (finding,) = findings(
        Measurement(
            devices=(Device(device="cpu"),),
            faults=(Fault(test="copy", device="cpu", reason="wrong"),),
        )
    )

    assert finding.subject is None


def test_a_wrong_result_and_a_hang_are_errors():
    fault = Fault(test="memory", device="cuda:3", reason="2 bytes did not keep the pattern 0x55")

    wrong, broken = findings(Measurement(faults=(fault,), failure="no answer within 90 s"))

    assert (wrong.id, wrong.severity, broken.id) == ("GD801", "error", "GD802")
    assert wrong.evidence == ("cuda:3, memory: 2 bytes did not keep the pattern 0x55",)


@pytest.mark.parametrize("rule", MEASURED_RULES, ids=lambda rule: rule.id)
def test_without_a_measurement_nothing_is_said(rule):
    with pytest.raises(NotObserved, match="nothing was measured"):
        rule(snapshot())


def test_a_measurement_in_a_report_names_a_gpu_as_the_snapshot_does():
    full = "GPU-6018366c-f658-47a7-aed3-4fe53a096533"
    found = result({"device": h200(0)["device"] | {"uuid": full}}, FINISHED)

    def uuid(**listed):
        return with_measurement(snapshot(**listed), found).measured.uuid_of("cuda:0")

    assert found.uuid_of("cuda:0") == full
    assert uuid(gpus=[gpu(uuid=full)]) == full
    assert uuid(gpus=[gpu(uuid="GPU-6018366c")]) == "GPU-6018366c"
    assert uuid() == "GPU-6018366c"


@on_the_cpu
def test_from_python_it_is_a_frame(of_the_cpu, monkeypatch):
    found = msgspec.json.decode(of_the_cpu, type=Measurement)
    monkeypatch.setattr(sys.modules["gpudiag.measure"], "measure", lambda **_: found)

    frame = gpudiag.measure(quick=True)

    assert frame.columns.tolist() == list(COLUMNS)
    assert (frame["value"] > 0).all()
    assert frame.attrs["faults"] == []
    assert frame.attrs["failure"] is None
