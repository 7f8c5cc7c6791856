"""The active tests on GPUs that are the CPU: every line for GPUs runs, and every fault is seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpudiag.measure.result import Around, result
from gpudiag.measure.table import as_text
from gpudiag.snapshot import Nvml

pytest.importorskip("torch")
PROGRAM = Path(__file__).parents[1] / "fake_gpus.py"
SOUND = {
    *(f"matmul {precision}" for precision in ("fp32", "fp16", "tf32", "bf16", "fp8")),
    *(f"copy {way}" for way in ("device", "pinned to device", "pinned to host")),
    *("copy pageable to device", "copy pageable to host"),
    *("context", "allocation", "launch", "convolution 3x3", "memory"),
}


@pytest.fixture(scope="module")
def said():
    """By case: the lines that the tests said."""
    done = subprocess.run(
        [sys.executable, PROGRAM], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.stderr, done.returncode) == ("", 0)
    cases = {}
    for line in map(json.loads, done.stdout.splitlines()):
        if "case" in line:
            lines = cases.setdefault(line["case"], [])
        else:
            lines.append(line)
    return cases


def put_together(lines):
    return result(lines, None, Around(nvml=Nvml()))


def test_sound_gpus_have_every_figure_and_no_fault(said):
    found = put_together(said["sound"])

    assert (found.faults, found.failure) == ((), None)
    for device, other in (("cpu:0", "cpu:1"), ("cpu:1", "cpu:0")):
        assert {one.what for one in found.figures if one.device == device} >= SOUND | {
            f"peer copy to {other}, direct"
        }
    assert [one.uuid for one in found.devices] == [
        "GPU-6018366c-f658-47a7-aed3-4fe53a096533",
        "GPU-0b3510b0-b46e-41da-a170-17a6205738d1",
    ]
    assert {one.test for one in found.figures} >= {"CUDA initialisation"}
    assert "NVIDIA H200" in as_text(found)


def test_every_product_is_compared_with_the_other_gpu(said):
    digests = [line["digest"] for line in said["sound"] if "digest" in line]

    assert len(digests) == 10
    assert all(one["kind"] == "NVIDIA H200, 132 multiprocessors" for one in digests)


def test_only_the_chosen_gpu_is_measured(said):
    found = put_together(said["one of them"])

    assert [one.device for one in found.devices] == ["cpu:1"]
    assert {one.test for one in found.figures} & {"peer copy"} == set()


def test_a_gpu_that_is_not_there_is_said_before_anything_is_measured(said):
    assert said["not there"][-1] == {"no_such_device": [2], "device_count": 2}


@pytest.mark.parametrize(
    ("case", "reasons"),
    [
        ("bits that change", ["the same product gave different bits the second time"]),
        ("not a number", ["the result holds NaN or infinity"]),
        ("zeros", ["the result is all zeros"]),
        (
            "an error of the device",
            ["it failed: RuntimeError: CUDA error: uncorrectable ECC error"],
        ),
        ("a convolution that is not a number", ["the result holds NaN or infinity"] * 2),
        ("copies within", ["bytes arrived changed within the device"]),
        (
            "copies by way of the host",
            [f"bytes came back changed through {kind} memory" for kind in ("pinned", "pageable")],
        ),
        (
            "copies to the other GPU",
            [f"bytes arrived changed on cpu:{index}" for index in (1, 0)],
        ),
        (
            "memory that keeps its bits",
            [f"4 words did not keep the pattern 0x{byte}" for byte in ("00", "FF", "55", "AA")],
        ),
        ("addresses that collide", ["4 words lie at the address of another one"]),
    ],
)
def test_a_fault_is_seen(said, case, reasons):
    assert [one.reason for one in put_together(said[case]).faults] == reasons


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("not offered", "RuntimeError: CUBLAS_STATUS_NOT_SUPPORTED"),
        ("no memory left", "OutOfMemoryError: CUDA out of memory"),
        ("too little memory", "Unavailable: 0 MiB are free, less than the 1 of a part"),
    ],
)
def test_what_cannot_be_run_is_skipped_and_no_fault(said, case, reason):
    found = put_together(said[case])

    assert found.faults == ()
    assert [one.reason for one in found.skipped] == [reason]


def test_figures_samples_and_links_of_a_gpu_find_each_other(nvml):
    """The whole line: the tests on the stand-ins, while NVML tells of GPUs with their UUIDs."""
    program = (
        "import sys, gpudiag.children\n"
        "from gpudiag.measure import as_json, measure\n"
        f"gpudiag.children.measure = lambda **_: (sys.executable, {str(PROGRAM)!r}, 'sound')\n"
        "print(as_json(measure(quick=True)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | nvml("healthy_8", changes={"gpu.1.temperature_celsius": "83"}),
    )

    found = json.loads(done.stdout)
    figures = {(one["device"], one["test"], one["detail"]): one for one in found["figures"]}
    for index, temperature in ((0, None), (1, 83)):
        product = next(
            one
            for one in found["figures"]
            if (one["device"], one["precision"]) == (f"cpu:{index}", "bf16")
        )
        assert product["meanwhile"]["clock_sm_mhz"] > 0
        assert temperature in {None, product["meanwhile"]["temperature_celsius"]}
    assert figures["cpu:0", "copy", "pinned to host"]["link"] == "PCIe 5 x16"
    peer = figures["cpu:0", "peer copy", "to cpu:1, direct"]
    assert peer["link"] == "NVLink 4.0"
    assert peer["ratio_to_link"] == pytest.approx(peer["value"] / 450)
    assert [one["gpu"] for one in found["conditions"]] == [0, 1]
    assert (found["faults"], found["failure"]) == ([], None)
