"""What looks odd and is normal: healthy machines, recorded and composed, give no warning."""

from pathlib import Path

import pytest
from compose_healthy import MACHINES
from rule_cases import CASES, build, changed, xid

from gpudiag.diagnose import diagnose
from gpudiag.finding import Severity
from gpudiag.rules import RULES
from gpudiag.rules.kernel_events import OF_OTHER_GPUS
from gpudiag.snapshot import KernelEvent, Missing, Snapshot

RECORDED = Path(__file__).parent.parent / "recorded"
HEALTHY = sorted([*RECORDED.glob("healthy_*.json"), *RECORDED.glob("composed_healthy_*.json")])
BY_ID = {rule.id: rule for rule in RULES}


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_machine_gives_no_error_and_no_warning(path):
    report = diagnose(Snapshot.from_json(path.read_bytes()), RULES)

    assert [f for f in report.findings if f.severity is not Severity.NOTE] == []
    assert report.crashed == {}
    assert len(report.passed) > len(RULES) / 2


def test_the_composed_files_are_those_that_were_composed():
    names = {path.stem.removeprefix("composed_healthy_") for path in HEALTHY}

    assert set(MACHINES) <= names
    for name, compose in MACHINES.items():
        text = (RECORDED / f"composed_healthy_{name}.json").read_text()
        assert text == compose().to_json() + "\n", "run python tests/compose_healthy.py"


@pytest.mark.parametrize(
    ("rule_id", "healthy"),
    [
        ("GD420", {"gpus": {"utilization_fraction": 0.0, "performance_state": 8}}),  # idle link
        ("GD124", {"system": {"uptime_s": 60}}),  # services start
        ("GD126", {"system": {"uptime_s": 60}}),  # the fabric is being set up
        ("GD429", {"gpus": {"power_limit_watts": 700.0}}),
        ("GD427", {"gpus": {"utilization_fraction": 0.0, "clock_sm_mhz": 210}}),  # idle clocks
        ("GD408", {"gpus": {"power_limit_watts": 700.0}}),  # the default limit is reached
        ("GD706", {"gpus": {"nvlink_errors": ()}}),
        ("GD704", {"gpus": {"nvlink_active": ()}}),  # no bridge is fitted
        ("GD411", {"events": xid(43)}),  # a program's fault
        ("GD123", {"gpus": {"name": "NVIDIA GeForce RTX 4090"}}),  # its display keeps it up
    ],
)
def test_what_looks_odd_and_is_normal_is_no_finding(rule_id, healthy):
    answer = BY_ID[rule_id](build(changed(CASES[rule_id].fires, healthy)))

    assert answer.findings == ()


def test_a_fan_at_rest_and_a_spread_of_five_per_cent_are_looked_at_by_no_rule():
    quiet = {"clock_sm_mhz": 1881, "clock_sm_max_mhz": 1980, "utilization_fraction": 0.97}
    seen = build({"gpus": [quiet, quiet | {"clock_sm_mhz": 1980}]})

    assert diagnose(seen, RULES).findings == ()


@pytest.mark.parametrize(
    "rule_id", ["GD109", "GD111", "GD112", "GD113", "GD114", "GD609", "GD610", "GD611"]
)
def test_a_container_shares_kernel_log_and_memory_with_other_peoples_programs(rule_id):
    facts = changed(CASES[rule_id].fires, {"system": {"container": "docker"}})

    assert rule_id in diagnose(build(facts), RULES).skipped


@pytest.mark.parametrize("shared", [{"container": "kubernetes"}, {"scheduler": "slurm"}])
@pytest.mark.parametrize("rule_id", ["GD130", "GD411", "GD412", "GD413", "GD414"])
def test_events_on_gpus_that_this_job_was_not_given_are_not_told(rule_id, shared):
    facts = changed(CASES[rule_id].fires, {"system": shared})

    def report(address):
        return diagnose(build(facts | {"gpus": [{"pci_address": address}]}), [BY_ID[rule_id]])

    assert report("0000:00:1e.0").skipped == {rule_id: OF_OTHER_GPUS}
    assert [f.id for f in report("0000:1b:00.0").findings] == [rule_id]
    assert [f.id for f in report(Missing("lost")).findings] == [rule_id]  # it may be that one


@pytest.mark.parametrize("shared", [{"container": "kubernetes"}, {"scheduler": "slurm"}])
@pytest.mark.parametrize("rule_id", ["GD130", "GD411"])
def test_an_nvml_that_does_not_answer_takes_no_event_away(rule_id, shared):
    """That is what such an event leads to; where there is no NVML at all, there is no GPU."""
    facts = changed(CASES[rule_id].fires, {"system": shared})
    facts.pop("gpus", None)
    facts["nvml"] = {"gpus": Missing("no answer within 10 s")}

    hung = build(facts)
    without = build(facts | {"nvml": {"gpus": Missing("not found"), "init_code": 12}})

    assert [f.id for f in diagnose(hung, [BY_ID[rule_id]]).findings] == [rule_id]
    assert diagnose(without, [BY_ID[rule_id]]).skipped == {rule_id: "not found"}


def test_switches_belong_to_every_job_of_a_node():
    text = "nvidia-nvswitch3: SXid (PCI:0000:c4:00.0): 23001, Fatal, Link 32"
    event = KernelEvent(text=text, pci_address="0000:c4:00.0")
    seen = build(
        {
            "system": {"scheduler": "slurm", "container": None},
            "events": (event,),
            "gpus": [{"pci_address": "0000:1b:00.0"}],
        }
    )

    assert [f.id for f in diagnose(seen, [BY_ID["GD411"]]).findings] == ["GD411"]


@pytest.mark.parametrize("rule_id", ["GD122", "GD124", "GD418", "GD502", "GD312"])
def test_a_container_does_not_see_the_hosts_processes_and_devices(rule_id):
    facts = changed(CASES[rule_id].fires, {"system": {"container": "docker"}})

    assert rule_id in diagnose(build(facts), RULES).skipped


def test_links_to_gpus_that_a_virtual_machine_does_not_have_are_no_fault():
    facts = changed(CASES["GD704"].fires, {"system": {"virtual_machine": "KVM"}})

    assert "GD704" in diagnose(build(facts), RULES).skipped
