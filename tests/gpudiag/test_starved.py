"""gpudiag under limits of its own: what it cannot ask is a gap, never a fault of the driver."""

import json
import os
import subprocess
import sys
import threading

import pytest
from builders import snapshot

from gpudiag import children
from gpudiag.host import Host
from gpudiag.probes import Probe, take_snapshot
from gpudiag.probes.nvml import nvml as ask_nvml
from gpudiag.rules import cuda_start, driver
from gpudiag.snapshot import DeviceNode, Driver, Missing, NotObserved, Nvml, System


def limited(limit, *options, **variables):
    """The report of a run under a limit that the shell sets."""
    done = subprocess.run(
        [
            *("sh", "-c", f'ulimit {limit}; exec "$0" "$@"', sys.executable, "-m", "gpudiag"),
            *("diagnose", "--no-torch", "--format", "json", "--no-config", *options),
        ],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode in {0, 1}
    return json.loads(done.stdout)


@pytest.mark.parametrize("files", [7, 8, 9, 10, 12, 16])
def test_too_few_open_files_are_no_fault_of_the_driver(nvml, files):
    document = limited(f"-n {files}", **nvml("healthy_8"))

    found = {one["id"] for one in document["findings"]}
    assert {rule_id for rule_id in found if rule_id.startswith("GD1")} == set()
    assert document["crashed"] == {}


def test_a_program_that_cannot_be_started_leaves_a_gap(monkeypatch):
    monkeypatch.setattr(children, "BARE", ("/nonexistent/python",))

    facts = ask_nvml(Host(), 15)

    reason = Missing("NVML could not be asked: /nonexistent/python not found on PATH")
    assert (facts.failure, facts.init_code) == (reason, reason)
    with pytest.raises(NotObserved, match="could not be asked"):
        driver.nvml_hangs_or_crashes(snapshot(nvml={"failure": facts.failure}))


def test_a_script_of_ours_that_fails_is_no_crash_of_the_library(monkeypatch, tmp_path):
    script = tmp_path / "ask_nvml.py"
    script.write_text("raise MemoryError")
    monkeypatch.setattr(children, "HERE", tmp_path)

    facts = ask_nvml(Host(), 15)

    assert facts.failure == Missing("NVML could not be asked: exit code 1: MemoryError")


def test_a_library_that_cannot_be_opened_for_want_of_files_is_not_missing():
    nodes = (DeviceNode(path="/dev/nvidia0", usable=True),)
    seen = snapshot(
        driver={
            "libcuda_path": Missing(
                "libcuda.so.1 cannot be loaded: libcuda.so.1: cannot open shared object file: "
                "Too many open files"
            ),
            "module_loaded": True,
            "device_nodes": nodes,
        }
    )

    with pytest.raises(NotObserved, match="Too many open files"):
        cuda_start.cuda_library_missing(seen)


def test_where_no_thread_can_be_started_the_probes_are_asked_in_turn():
    probes = (
        Probe(section="nvml", kind=Nvml, ask=_answers, limit_s=5),
        Probe(section="system", kind=System, ask=_fails, limit_s=5),
        Probe(section="driver", kind=Driver, ask=_names_its_thread, limit_s=5),
    )

    before = threading.stack_size(2**47)  # more than a process has addresses
    try:
        seen = take_snapshot(Host(), probes=probes)
    finally:
        threading.stack_size(before)

    assert seen.nvml.driver_version == "550.54.15"
    assert seen.system.kernel == Missing("the system probe failed: OSError: no such machine")
    assert seen.driver.module_version == threading.main_thread().name
    assert set(seen.probe_times_s) == {"nvml", "system", "driver"}


def _answers(_host, _limit_s):
    return Nvml(driver_version="550.54.15")


def _fails(_host, _limit_s):
    raise OSError("no such machine")


def _names_its_thread(_host, _limit_s):
    return Driver(module_version=threading.current_thread().name)
