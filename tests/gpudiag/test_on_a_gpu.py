"""Promises that only a real NVIDIA GPU can prove: pytest -m gpu. Nothing here resets one."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

import gpudiag

pytestmark = pytest.mark.gpu
GIB = 2**30
HOLDER = (
    "import sys, time, torch; kept = torch.ones(2**30, dtype=torch.uint8, device='cuda'); "
    "torch.cuda.synchronize(); print('ready', flush=True); time.sleep(120)"
)
TRAINER = (
    "import subprocess, sys, time; "
    f"worker = subprocess.Popen([sys.executable, '-c', {HOLDER!r}], stdout=subprocess.PIPE); "
    "worker.stdout.readline(); print(worker.pid, flush=True); time.sleep(120)"
)


def python(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*arguments, say=None):
    return subprocess.run(
        [sys.executable, "-m", "gpudiag", *arguments],
        input=say,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    file = tmp_path_factory.mktemp("measured") / "m.json"
    done = command("measure", "--quick", "--format", "json", "--output", str(file))
    assert (done.stderr, done.returncode) == ("", 0)
    return json.loads(file.read_text())


def test_a_healthy_gpu_is_measured_without_a_fault(measured):
    tests = {(one["test"], one["precision"]) for one in measured["figures"]}

    assert (measured["faults"], measured["failure"]) == ([], None)
    assert tests >= {("matmul", "fp16"), ("copy", None), ("launch", None), ("allocation", None)}
    assert tests >= {("convolution", None), ("memory", None), ("CUDA initialisation", None)}


def test_a_part_that_is_known_is_within_its_data_sheet(measured):
    ratios = [
        one["ratio_to_data_sheet"]
        for one in measured["figures"]
        if one["ratio_to_data_sheet"] is not None
    ]
    if not ratios:
        pytest.skip(f"{measured['devices'][0]['name']} is not in the table")

    assert all(0.3 < ratio <= 1.05 for ratio in ratios), ratios


def test_copies_through_pinned_memory_are_compared_with_the_link_under_load(measured):
    ratios = [
        one["ratio_to_link"]
        for one in measured["figures"]
        if one["test"] == "copy" and one["detail"].startswith("pinned")
    ]

    assert all(ratio is not None and 0.3 < ratio <= 1.0 for ratio in ratios), ratios


def test_each_pair_of_gpus_is_copied_between_and_gpus_are_compared(measured):
    count = len(measured["devices"])
    if count == 1:
        pytest.skip("needs two GPUs")

    pairs = [one for one in measured["figures"] if one["test"] == "peer copy"]
    assert len(pairs) == count * (count - 1)
    assert all(one["ratio_to_link"] is None or one["ratio_to_link"] <= 1.0 for one in pairs)
    products = [one for one in measured["figures"] if one["test"] == "matmul"]
    assert all(one["ratio_to_peers"] for one in products)


def test_collectives_over_nccl_are_right(measured, tmp_path):
    count = len(measured["devices"])
    if count == 1:
        pytest.skip("needs two GPUs")

    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(count), "-m", "gpudiag", "measure", "--quick"),
            *("--format", "json", "--output", str(tmp_path / "m.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "m.json").read_text())
    assert (found["faults"], found["failure"]) == ([], None)
    for test in ("all-reduce", "all-gather"):
        assert len([one for one in found["figures"] if one["test"] == test]) == count


def test_temperature_power_and_clocks_stand_beside_the_figures(measured):
    beside = [one["meanwhile"] for one in measured["figures"] if one["test"] == "matmul"]

    assert all(seen and seen["temperature_celsius"] > 0 for seen in beside)
    assert any(seen["power_watts"] for seen in beside)
    assert all(seen["clock_sm_mhz"] > 0 for seen in beside)


def test_what_the_report_finds_names_gpus_by_their_uuid():
    report = json.loads(
        command("diagnose", "--measure", "--format", "json", "--fail-on", "never").stdout
    )

    uuids = {gpu["uuid"] for gpu in report["snapshot"]["nvml"]["gpus"]}
    assert {one["uuid"] for one in report["snapshot"]["measured"]["devices"]} <= uuids
    subjects = {one["subject"] for one in report["findings"] if one["id"].startswith("GD8")}
    assert subjects <= {f"gpu:{uuid}" for uuid in uuids}


def test_clear_cache_gives_memory_back_to_others():
    said = python(
        "import torch, gpudiag; kept = torch.ones(2**28, dtype=torch.uint8, device='cuda'); "
        "freed = torch.ones(2**30, dtype=torch.uint8, device='cuda'); del freed; "
        "print(gpudiag.clear_cache().to_json(orient='records'))"
    )

    (row,) = json.loads(said)
    assert row["allocated_after_bytes"] == row["allocated_before_bytes"] == 2**28
    assert row["reserved_before_bytes"] - row["reserved_after_bytes"] >= GIB
    assert row["free_after_bytes"] - row["free_before_bytes"] >= GIB


def test_clear_cache_starts_no_context_where_torch_has_none():
    assert (
        python(
            "import torch, gpudiag; print(len(gpudiag.clear_cache())); "
            "print(torch.cuda.is_initialized())"
        )
        == "0\nFalse\n"
    )


@pytest.fixture
def orphan():
    """A process with a GiB of GPU memory whose trainer was killed."""
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    pid = int(trainer.stdout.readline())
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_an_orphan_is_listed_with_its_memory_and_its_memory_comes_back(orphan):
    table = gpudiag.processes()
    mine = table[table["pid"] == orphan]
    if mine.empty:
        pytest.skip("NVML tells the process numbers of another PID namespace")
    assert mine["orphaned"].notna().all()
    assert mine["used_bytes"].fillna(GIB).ge(GIB).all()

    done = command("release", "--yes", "--pid", str(orphan))

    assert "1 of 1 ended" in done.stdout
    assert "GiB free" in done.stdout


def test_memory_adds_up():
    table = gpudiag.memory()

    known = table.dropna(subset=["used_bytes", "processes_bytes", "unaccounted_bytes"])
    assert (known["used_bytes"] == known["processes_bytes"] + known["unaccounted_bytes"]).all()


def test_a_program_that_computes_is_recorded(tmp_path):
    program = (
        "import time, torch; a = torch.randn(4096, 4096, device='cuda'); end = time.time() + 6\n"
        "while time.time() < end: a @ a; torch.cuda.synchronize()"
    )

    done = command("record", "--output", str(tmp_path / "out"), "--", sys.executable, "-c", program)

    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "out" / "record.csv")
    assert len(rows["gpu"].unique()) == 1
    assert rows["utilization_fraction"].max() > 0.5
    assert rows["power_watts"].max() > 0
    assert "GPU " in done.stderr


def test_a_reset_is_explained_and_nothing_is_run():
    found = gpudiag.reset(0, dry_run=True)

    assert not found.done
    assert any("--gpu-reset" in line for line in found.commands)
