import pytest
from builders import ABSENT, only, silent, snapshot

from gpudiag.finding import Severity
from gpudiag.rules import driver
from gpudiag.rules.machine import NVIDIA_REPOSITORY
from gpudiag.snapshot import Missing, NotObserved, PciDevice

BARE = {"container": None, "os_name": "Ubuntu 22.04.4 LTS", "kernel": "6.8.0-45-generic"}


def h100(kernel_driver=None):
    return PciDevice(address="0000:1b:00.0", device_id="0x2330", kernel_driver=kernel_driver)


def unloaded(**facts):
    facts = {
        "pci_devices": (h100(),),
        "module_loaded": False,
        "library_versions": (),
        "module_on_disk_version": Missing("modinfo: Module nvidia not found"),
    } | facts
    return snapshot(
        driver=facts, system=BARE, nvml={"init_code": 12, "init_message": "Library Not Found"}
    )


def test_a_gpu_without_any_part_of_the_driver_needs_the_driver():
    finding = only(driver.driver_not_installed, unloaded())

    assert (finding.id, finding.severity) == ("GD101", Severity.ERROR)
    assert finding.evidence[0] == "1 NVIDIA GPU(s) on the PCI bus: 0000:1b:00.0"
    assert finding.fix == "sudo apt install nvidia-driver-580-server && sudo reboot"


@pytest.mark.parametrize(
    ("os_name", "command"),
    [
        ("Debian GNU/Linux 12 (bookworm)", f"{NVIDIA_REPOSITORY} sudo apt install nvidia-open &&"),
        ("Fedora Linux 42 (Workstation)", f"{NVIDIA_REPOSITORY} sudo dnf install nvidia-open &&"),
        ("AlmaLinux 10.0 (Purple Lion)", f"{NVIDIA_REPOSITORY} sudo dnf install nvidia-open &&"),
        ("Oracle Linux Server 9.4", "sudo dnf module install nvidia-driver:580"),
        ("Amazon Linux 2023.6.20241010", "sudo dnf module install nvidia-driver:580"),
        ("Rocky Linux 9.4 (Blue Onyx)", "sudo dnf module install nvidia-driver:580"),
        ("NixOS 24.05", "install driver 580 or newer from nvidia.com/drivers"),
    ],
)
def test_the_driver_is_installed_by_the_package_manager_of_the_system(os_name, command):
    seen = unloaded()
    system = {"container": None, "os_name": os_name}
    seen = snapshot(driver=_facts(seen.driver), system=system, nvml={"init_code": 12})

    assert only(driver.driver_not_installed, seen).fix.startswith(command)


def test_a_driver_that_is_on_disk_is_not_reported_as_absent():
    assert silent(driver.driver_not_installed, unloaded(library_versions=("550.54.15",)))
    assert silent(driver.driver_not_installed, unloaded(pci_devices=()))
    assert silent(driver.driver_not_installed, unloaded(module_loaded=True))


def test_without_the_pci_bus_nobody_knows_whether_a_driver_is_needed():
    with pytest.raises(NotObserved, match=ABSENT):
        driver.driver_not_installed(unloaded(pci_devices=Missing(ABSENT)))


def test_a_driver_on_disk_that_is_not_loaded_is_to_be_loaded():
    finding = only(driver.driver_not_loaded, unloaded(library_versions=("550.54.15",)))

    assert finding.id == "GD102"
    assert finding.evidence == (
        "the nvidia kernel module is not loaded",
        "driver files on disk: kernel module none found, libraries 550.54.15",
    )
    assert "linux-headers-6.8.0-45-generic" in finding.fix


def test_secure_boot_is_named_where_it_is_on():
    seen = unloaded(library_versions=("550.54.15",), secure_boot=True)

    finding = only(driver.driver_not_loaded, seen)

    assert finding.evidence[-1].startswith("Secure Boot is on")
    assert "mokutil" in finding.fix


def test_nvml_says_itself_that_the_driver_is_not_loaded():
    seen = snapshot(
        nvml={"init_code": 9, "init_message": "Driver Not Loaded"},
        driver={"pci_devices": (h100(),)},
        system=BARE,
    )

    assert only(driver.driver_not_loaded, seen).evidence[0] == "NVML: Driver Not Loaded"


def test_a_loaded_driver_is_loaded():
    assert silent(driver.driver_not_loaded, unloaded(module_loaded=True))


def test_a_machine_without_a_gpu_needs_no_loaded_driver():
    assert silent(driver.driver_not_loaded, unloaded(pci_devices=(), library_versions=("550.1",)))


def test_nvml_18_is_a_driver_library_mismatch():
    seen = snapshot(
        nvml={"init_code": 18, "init_message": "Driver/library version mismatch"},
        driver={"module_version": "550.54.15", "library_versions": ("550.144.03",)},
    )

    finding = only(driver.driver_library_mismatch, seen)

    assert finding.id == "GD103"
    assert finding.evidence == (
        "NVML: Driver/library version mismatch",
        "loaded kernel module: 550.54.15",
        "libraries on disk: 550.144.03",
    )
    assert finding.fix.startswith("sudo reboot")


def test_a_library_of_another_driver_in_a_container_came_with_the_container():
    facts = {"module_version": "580.65.06", "library_versions": ("550.54.15",)}
    seen = snapshot(driver=facts, system={"container": "kubernetes"})

    assert only(driver.driver_library_mismatch, seen).fix == (
        "start the container anew; or take the driver's files out of the container image: the "
        "runtime brings the host's; or on the node: where nvidia-smi fails outside of it, too: "
        "sudo reboot"
    )


def test_versions_that_differ_are_a_mismatch_even_where_nvml_is_missing():
    facts = {"module_version": "550.54.15", "library_versions": ("550.144.03",)}

    assert only(driver.driver_library_mismatch, snapshot(driver=facts)).id == "GD103"


def test_equal_versions_are_no_mismatch():
    facts = {"module_version": "550.54.15", "library_versions": ("545.1", "550.54.15")}

    assert silent(driver.driver_library_mismatch, snapshot(driver=facts, nvml={"init_code": 0}))


def test_a_mismatch_is_not_ruled_out_where_nothing_was_read():
    with pytest.raises(NotObserved):
        driver.driver_library_mismatch(snapshot())


def test_nouveau_is_named_with_the_gpu_it_holds():
    seen = snapshot(driver={"pci_devices": (h100("nouveau"),)})

    finding = only(driver.nouveau_holds_the_gpu, seen)

    assert (finding.id, finding.evidence) == ("GD104", ("0000:1b:00.0 is bound to nouveau",))
    assert silent(driver.nouveau_holds_the_gpu, snapshot(driver={"pci_devices": (h100("nvidia"),)}))


def test_nouveau_needs_the_pci_bus():
    with pytest.raises(NotObserved):
        driver.nouveau_holds_the_gpu(snapshot())


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (34, "stubs"),
        (46, "gpudiag processes"),
        (802, "nvidia-fabricmanager"),
        (803, "remove the copy of libcuda.so"),
        (804, "/usr/local/cuda/compat"),
        (805, "nvidia-cuda-mps-control"),
        (999, "modprobe -r nvidia_uvm"),
        (4711, "dmesg"),
    ],
)
def test_each_refusal_of_cuinit_has_its_cure(code, fix):
    finding = only(driver.cuda_does_not_start, snapshot(driver={"cuda_init_code": code}))

    assert finding.id == "GD105"
    assert finding.evidence[0] == f"cuInit returned {code}"
    assert fix in finding.fix


@pytest.mark.parametrize("code", [0, 100])
def test_success_and_no_device_are_no_refusals(code):
    assert silent(driver.cuda_does_not_start, snapshot(driver={"cuda_init_code": code}))


def test_cuinit_that_was_not_asked_is_no_pass():
    with pytest.raises(NotObserved):
        driver.cuda_does_not_start(snapshot())


def test_a_machine_without_a_gpu_gets_a_friendly_note():
    facts = {"pci_devices": (), "module_loaded": False, "device_nodes": ()}

    finding = only(driver.no_nvidia_gpu, snapshot(driver=facts))

    assert (finding.id, finding.severity) == ("GD106", Severity.NOTE)
    assert finding.fix.startswith("nothing to do")
    assert silent(driver.no_nvidia_gpu, snapshot(driver=facts | {"pci_devices": (h100(),)}))


def test_no_gpu_is_not_concluded_from_an_unreadable_bus():
    with pytest.raises(NotObserved):
        driver.no_nvidia_gpu(snapshot(driver={"module_loaded": False}))


def test_nvml_that_hangs_is_reported_with_the_first_silent_gpu():
    from builders import gpu

    answered = gpu(0, error_codes=())
    seen = snapshot(gpus=[answered, gpu(1)], nvml={"failure": "no answer within 15 s"})

    finding = only(driver.nvml_hangs_or_crashes, seen)

    assert finding.id == "GD107"
    assert finding.evidence == ("NVML: no answer within 15 s", "first GPU without an answer: 1")
    assert silent(driver.nvml_hangs_or_crashes, snapshot(nvml={"failure": None}))
    with pytest.raises(NotObserved):
        driver.nvml_hangs_or_crashes(snapshot())


def _facts(section):
    return {name: getattr(section, name) for name in section.__struct_fields__}
