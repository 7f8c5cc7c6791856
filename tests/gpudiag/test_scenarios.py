"""Whole runs on simulated machines: each fault gives its finding, and nothing else does."""

import json
import os
import subprocess
import sys

import pytest

# What these rules read is the machine that runs the tests: its limits, disks and kernel log.
KERNEL_LOG = {
    "GD109",
    "GD111",
    "GD112",
    "GD113",
    "GD114",
    "GD130",
    "GD411",
    "GD412",
    "GD413",
    "GD414",
}


def of_this_host(rule_id):
    return rule_id.startswith("GD6") or rule_id in KERNEL_LOG


@pytest.fixture
def findings(nvml, tmp_path):
    def diagnose(scenario, **how):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "gpudiag", "diagnose", "--no-torch", "--format", "json"),
                *("--timeout", "4" if scenario.startswith("hangs") else "20"),
            ],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | nvml(scenario, **how),
            cwd=tmp_path,
        )
        assert done.stderr == ""
        document = json.loads(done.stdout)
        assert document["crashed"] == {}
        assert done.returncode == any(f["severity"] == "error" for f in document["findings"])
        return document["findings"]

    return diagnose


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("healthy_8", []),
        ("gtx_1080_ti", []),
        ("rtx_5090", []),
        ("mig", []),
        ("old_driver", []),
        ("driver_library_mismatch", ["GD103"]),
        ("lost_gpu", ["GD401"]),
        ("pending_remap", ["GD403"]),
        ("thermal_throttle", ["GD406"]),
        ("power_brake", ["GD407"]),
        ("hidden_memory", ["GD501"]),
        ("exclusive_mode", ["GD309"]),
        ("hangs_halfway", ["GD107"]),
        ("crashes", ["GD107"]),
        ("implausible", ["GD409"]),
        ("mixed_gpus", ["GD701", "GD707"]),  # the second is a note
    ],
)
def test_each_scenario_gives_its_findings_and_no_false_alarm(findings, scenario, expected):
    found = {f["id"] for f in findings(scenario) if f["explained_by"] is None}

    assert {rule_id for rule_id in found if not of_this_host(rule_id)} == set(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gpu.3.compute_mode": "2"}, ["GD308"]),
        ({"gpu.3.remapped_rows_failure": "1"}, ["GD404"]),
        ({"gpu.3.temperature_celsius": "error:15"}, ["GD401"]),
        ({"gpu.3.handle": "error:16"}, ["GD402"]),
        ({"gpu.3.clocks_event_reasons": "0x4"}, []),
        (
            {"gpu.3.clocks_event_reasons": "0x4", "gpu.3.power_enforced_limit_milliwatt": "400000"},
            ["GD408"],
        ),
        ({"gpu.3.memory_used_bytes": "error:3"}, []),
        ({"gpu.3.pcie_width_lanes": "8"}, ["GD419"]),
        ({"gpu.3.pcie_generation": "1"}, ["GD420"]),  # all of them are busy
        ({"gpu.3.pcie_max_generation": "4", "gpu.3.pcie_generation": "4"}, ["GD421"]),
        ({"gpu.3.inforom_valid": "0"}, ["GD422"]),
        ({"gpu.3.remapped_rows_uncorrectable": "512"}, ["GD416"]),
        ({"gpu.3.clocks_event_reasons": "0x0", "gpu.3.clock_sm_mhz": "345"}, ["GD427"]),
        ({"gpu.3.fabric_state": "2"}, ["GD126"]),
    ],
)
def test_a_single_changed_value_gives_its_finding(findings, changes, expected):
    found = [f for f in findings("healthy_8", changes=changes) if f["explained_by"] is None]

    found = [finding for finding in found if not of_this_host(finding["id"])]
    assert [finding["id"] for finding in found] == expected
    assert all(f["subject"].startswith("gpu:GPU-") or f["subject"] == "gpu:3" for f in found)
