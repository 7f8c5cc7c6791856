"""Roots lead and fold what follows from them; cures fit the machine."""

import json

import pytest
from builders import gpu, only, snapshot
from rule_cases import CASES, GPU_NODES, H100, build, changed, device, package

from gpudiag.cure import fitted
from gpudiag.diagnose import diagnose
from gpudiag.finding import Finding, Severity, gpu_rule, rule
from gpudiag.render.as_json import as_json
from gpudiag.render.as_text import as_text
from gpudiag.rules import RULES, driver, hardware, machine, torch_runtime
from gpudiag.snapshot import KernelEvent, known

BY_ID = {rule.id: rule for rule in RULES}


def found(text="seen"):
    return Finding(evidence=(text,), cause="because", fix="mend it")


@rule("XX1", Severity.WARNING, explains=("XX2",))
def root(_snapshot):
    """The root."""
    return found()


@rule("XX2", Severity.ERROR, explains=("XX3",))
def middle(_snapshot):
    """The middle."""
    return found()


@rule("XX3", Severity.ERROR)
def last(_snapshot):
    """The last."""
    return found()


@rule("XX4", Severity.WARNING)
def unrelated(_snapshot):
    """Unrelated."""
    return found()


@gpu_rule("XX5", Severity.ERROR, explains=("XX6", "XX3"))
def lost(one):
    """Lost."""
    return found() if 15 in known(one.error_codes) else None


@gpu_rule("XX6", Severity.WARNING)
def hot(one):
    """Hot."""
    return found() if known(one.temperature_celsius) > 90 else None


def explained(report):
    return [(finding.id, finding.explained_by) for finding in report.findings]


def test_a_chain_is_folded_under_its_root_which_leads_as_its_worst_consequence_would():
    report = diagnose(snapshot(), [unrelated, last, middle, root])

    assert explained(report) == [("XX1", None), ("XX2", "XX1"), ("XX3", "XX1"), ("XX4", None)]


def test_without_the_root_its_consequences_stand_for_themselves():
    assert explained(diagnose(snapshot(), [last])) == [("XX3", None)]


def test_a_gpu_explains_itself_and_the_machine_and_no_other_gpu():
    gpus = [
        gpu(0, error_codes=(15,), temperature_celsius=95),
        gpu(1, error_codes=(), temperature_celsius=95),
    ]

    report = diagnose(snapshot(gpus=gpus), [lost, hot, last])

    assert [(f.id, f.subject, f.explained_by) for f in report.findings] == [
        ("XX5", "gpu:GPU-00000000", None),
        ("XX3", None, "XX5"),
        ("XX6", "gpu:GPU-00000000", "XX5"),
        ("XX6", "gpu:GPU-00000001", None),
    ]


def test_consequences_count_for_the_exit_code_and_in_json():
    report = diagnose(snapshot(), [root, middle])

    assert report.fails(Severity.ERROR)
    findings = json.loads(as_json(report))["findings"]
    assert [finding["explained_by"] for finding in findings] == [None, "XX1"]


def test_the_text_lists_a_consequence_in_one_line_under_its_root():
    text = as_text(diagnose(snapshot(), [root, middle, last]))

    assert (
        "! warning XX1  The root\n"
        "  seen   seen\n"
        "  cause  because\n"
        "  fix    mend it\n"
        "         explains: XX2 The middle\n"
        "         explains: XX3 The last\n"
    ) in text
    assert "2 errors · 1 warning" in text


def test_only_rules_that_exist_are_explained_and_none_explains_itself_in_a_circle():
    def reached(rule_id, seen=()):
        assert rule_id not in seen, (*seen, rule_id)
        for consequence in BY_ID[rule_id].explains:
            reached(consequence, (*seen, rule_id))

    for rule_id in BY_ID:
        reached(rule_id)


def test_a_machine_without_a_driver_is_told_one_thing():
    """No driver, so torch finds no GPU: the driver is what to mend."""
    facts = CASES["GD101"].fires
    torch = {"cuda_version": "12.8", "cuda_available": False, "cuda_error": None}

    report = diagnose(build(facts | {"torch": torch}), RULES)

    assert [f.id for f in report.findings if f.explained_by is None] == ["GD101"]
    assert ("GD221", "GD101") in explained(report)


def test_a_missing_node_explains_why_cuda_does_not_start_and_torch_finds_nothing():
    facts = CASES["GD117"].fires
    torch = {"cuda_version": "12.8", "cuda_available": False}

    report = diagnose(build(facts | {"torch": torch}), RULES)

    assert ("GD117", None) in explained(report)
    assert {f.id for f in report.findings if f.explained_by == "GD117"} == {"GD105", "GD221"}


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ({}, "sudo modprobe nvidia_uvm; or sudo apt install gcc"),
        ({"is_root": False}, "sudo modprobe nvidia_uvm; or sudo apt install gcc"),
        ({"is_root": True}, "modprobe nvidia_uvm; or apt install gcc"),
        (
            {"is_root": True, "container": "docker"},
            "on the host: sudo modprobe nvidia_uvm; or apt install gcc",
        ),
        (
            {"is_root": False, "container": "kubernetes"},
            "on the node: sudo modprobe nvidia_uvm; or sudo apt install gcc",
        ),
    ],
)
def test_a_cure_knows_root_and_containers(system, expected):
    fix = "sudo modprobe nvidia_uvm; or sudo apt install gcc"

    assert fitted(fix, snapshot(system=system)) == expected


@pytest.mark.parametrize(
    ("check", "facts", "cures"),
    [
        (
            hardware.gpu_lost,
            {"gpus": [gpu(error_codes=(15,))]},
            ["on the host: sudo dmesg | grep -i xid, then power the machine off and on"],
        ),
        (
            driver.no_nvidia_gpu,
            {
                "driver": {"pci_devices": (), "module_loaded": False, "device_nodes": ()},
                "nvml": {"init_code": 9},
            },
            ["nothing to do", "on the host: where there should be a GPU: check the machine type"],
        ),
        (
            torch_runtime.torch_finds_no_gpu,
            {
                "gpus": [gpu()],
                "torch": {"cuda_version": "12.8", "cuda_available": False},
            },
            ["start with the other findings", "on the host: where there are none: sudo dmesg"],
        ),
    ],
)
def test_in_a_container_only_what_is_the_hosts_is_sent_to_the_host(check, facts, cures):
    fix = only(check, snapshot(system={"container": "docker", "is_root": True}, **facts)).fix

    said = fix.split("; or ")
    assert len(said) == len(cures)
    assert all(one.startswith(cure) for one, cure in zip(said, cures, strict=True))


@pytest.mark.parametrize(
    ("packages", "command"),
    [
        ({}, "python -m pip install --force-reinstall torch torchvision --index-url"),
        (
            {"environment_tool": "uv"},
            "uv pip install --python python --force-reinstall torch torchvision --index-url",
        ),
        (
            {"installed": (package("torch", "2.5.1", installer="uv"),)},
            "uv pip install --python python --force-reinstall torch torchvision --index-url",
        ),
        (
            {"installed": (package("torch", "2.5.1", installer="conda"),)},
            "conda install -c conda-forge pytorch-gpu 'cuda-version=12.6'",
        ),
    ],
)
def test_torch_is_installed_by_what_installed_it(packages, command):
    seen = build(
        {
            "gpus": [H100],
            "nvml": {"driver_version": "550.54.15"},
            "torch": {"python": "python"},
            "packages": packages,
        }
    )

    assert machine.install_torch(seen).startswith(command)


@pytest.mark.parametrize(
    ("system", "number", "command"),
    [
        ({"os_name": "Ubuntu 24.04"}, "0x2330", "sudo apt install nvidia-driver-580-server &&"),
        ({"os_name": "Ubuntu 24.04"}, "0x2b85", "sudo apt install nvidia-driver-580-server-open"),
        ({"os_name": "Rocky Linux 9.4"}, "0x2901", "sudo dnf module install nvidia-driver:open"),
        ({"os_name": "Ubuntu 24.04", "wsl": True}, "0x2330", "install driver 580 or newer on Win"),
        ({"os_name": "Ubuntu 24.04", "container": "docker"}, "0x2330", "install driver 580 or new"),
    ],
)
def test_the_driver_fits_the_system_and_the_gpu(system, number, command):
    seen = snapshot(system=system, driver={"pci_devices": (device(number=number),)})

    assert machine.install_driver(seen).startswith(command)


def refused(text):
    return f"NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:{text}"


@pytest.mark.parametrize(
    ("text", "version", "fix"),
    [
        (
            refused("2d04) installed in this system is not supported by the NVIDIA 550.163.01"),
            "550.163.01",
            "sudo apt install nvidia-driver-580-server && sudo reboot; or for an old GPU install",
        ),
        (
            refused("3f00) installed in this system is not supported by the NVIDIA 580.65.06"),
            "580.65.06",
            "install the newest driver from nvidia.com/drivers; or for an old GPU install the",
        ),
        (
            refused("1180) installed in this system is not supported by the NVIDIA 580.65.06"),
            "580.65.06",
            "install the legacy branch that the kernel log or nvidia.com/drivers names for it",
        ),
        (
            "NVRM: The NVIDIA Tesla V100 GPU installed in this system is supported through the "
            "NVIDIA 580.xx Legacy drivers.",
            "590.44.01",
            "install the legacy branch that the kernel log or nvidia.com/drivers names for it",
        ),
        (
            refused(
                "1db5) installed in this system is not supported by open nvidia.ko because it does "
                "not include the required GPU System Processor (GSP)."
            ),
            "580.65.06",
            "with the proprietary kernel module: sudo apt install nvidia-driver-580-server && ",
        ),
    ],
)
def test_a_gpu_that_the_driver_refuses_gets_one_that_takes_it(text, version, fix):
    seen = snapshot(
        events=(KernelEvent(text=text),),
        driver={"module_version": version},
        system={"os_name": "Ubuntu 24.04", "container": None},
    )

    assert only(BY_ID["GD112"], seen).fix.startswith(fix)


def test_a_gt_710_for_the_display_beside_gpus_that_work_is_no_fault():
    text = "NVRM: The NVIDIA GeForce GT 710 GPU installed in this system is supported through the "
    text += "NVIDIA 470.xx Legacy drivers."
    seen = snapshot(
        gpus=[gpu(pci_address="0000:1b:00.0")],
        events=(KernelEvent(text=text),),
        driver={"module_version": "580.65.06"},
        system={"container": None},
    )

    assert BY_ID["GD112"](seen).findings == ()


def test_the_gpu_that_is_lost_is_named_by_its_domain():
    """As on a Grace machine, where all GPUs are device 01:00.0 of a domain of their own."""
    seen = build(
        changed(
            CASES["GD418"].fires,
            {
                "driver": {"pci_devices": (device("0008:01:00.0"), device("0009:01:00.0"))},
                "gpus": {"pci_address": "00000008:01:00.0"},
            },
        )
    )

    assert only(BY_ID["GD418"], seen).evidence == (
        "2 GPU(s) on the PCI bus, 1 in the driver's list",
        "not in the list: 0009:01:00.0",
    )


def test_red_hat_builds_its_boot_image_with_dracut():
    system = {"os_name": "Rocky Linux 9.4"}
    seen = build({"driver": {"pci_devices": (device(driver="nouveau"),)}, "system": system})

    assert "sudo dracut --force" in BY_ID["GD104"](seen).findings[0].fix


def test_a_container_gets_the_missing_node_and_a_host_makes_it():
    facts = {"driver": {"device_nodes": GPU_NODES[:2], "cuda_init_code": 999}}

    def fix(container):
        return BY_ID["GD117"](build(facts | {"system": {"container": container}})).findings[0].fix

    assert fix(None) == "sudo nvidia-modprobe -c 0 -u"
    assert fix("podman").startswith("pass it into the container: --device /dev/nvidia-uvm")
