"""Probes that read files, on trees of files that stand in for a machine."""

import os
import struct

import pytest

from gpudiag.host import Host
from gpudiag.probes import topology
from gpudiag.probes.driver import driver
from gpudiag.probes.environment import environment, meant_by
from gpudiag.probes.kernel_log import kernel_log
from gpudiag.probes.packages import in_folder, requirements, torch_in_working_folder
from gpudiag.probes.system import system
from gpudiag.snapshot import Missing, Package, PciDevice, Requirement, known, known_or

NO_PROGRAMS = {"PATH": "/nonexistent"}


def write(root, files):
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())


def pci(root, address, *, vendor="0x10de", kind="0x030200", bound=None):
    folder = f"/sys/bus/pci/devices/{address}"
    write(
        root,
        {f"{folder}/vendor": vendor + "\n", f"{folder}/class": kind, f"{folder}/device": "0x2330"},
    )
    if bound:
        (root / folder.lstrip("/") / "driver").symlink_to(f"../../../bus/pci/drivers/{bound}")


def test_only_nvidias_display_controllers_are_gpus(tmp_path):
    pci(tmp_path, "0000:1b:00.0", bound="nvidia")
    pci(tmp_path, "0000:1b:00.1", kind="0x040300")  # its audio part
    pci(tmp_path, "0000:07:00.0", kind="0x068000")  # an NVSwitch
    pci(tmp_path, "0000:00:02.0", vendor="0x8086")
    pci(tmp_path, "0000:43:00.0")

    found = driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5).pci_devices

    assert found == (
        PciDevice(address="0000:1b:00.0", device_id="0x2330", kernel_driver="nvidia"),
        PciDevice(address="0000:43:00.0", device_id="0x2330", kernel_driver=None),
    )


PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    "GCC version:  gcc version 11.4.0\n"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.07  Release Build\n"
    "GCC version:  gcc version 12.2.0\n"
)


@pytest.mark.parametrize(
    ("banner", "version", "kind"),
    [(PROPRIETARY, "550.54.15", "proprietary"), (OPEN, "570.133.07", "open")],
)
def test_the_loaded_module_tells_its_version_and_kind(tmp_path, banner, version, kind):
    write(tmp_path, {"/proc/driver/nvidia/version": banner})

    facts = driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert facts.module_loaded is True
    assert (facts.module_version, facts.module_kind) == (version, kind)


def test_libraries_device_files_and_secure_boot_are_found(tmp_path):
    write(
        tmp_path,
        {
            "/sys/module/nvidia/version": "550.54.15\n",
            "/usr/lib/x86_64-linux-gnu/libcuda.so.550.144.03": "",
            "/usr/lib/x86_64-linux-gnu/libcuda.so.1": "",
            "/usr/lib64/libnvidia-ml.so.550.54.15": "",
            "/dev/nvidia0": "",
            "/dev/nvidiactl": "",
            "/dev/nvidia-caps": "",
            "/dev/null": "",
            "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": (
                b"\x06\x00\x00\x00\x01"
            ),
        },
    )

    facts = driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert facts.library_versions == ("550.144.03", "550.54.15")
    assert [node.path for node in facts.device_nodes] == ["/dev/nvidia0", "/dev/nvidiactl"]
    assert facts.secure_boot is True
    assert facts.module_loaded is True


def test_an_empty_machine_gives_reasons(tmp_path):
    facts = driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert facts.pci_devices == Missing("/sys/bus/pci/devices: No such file or directory")
    assert facts.module_version == Missing("the nvidia kernel module is not loaded")
    assert facts.module_on_disk_version == Missing("modinfo not found on PATH")
    assert facts.module_loaded == Missing("/sys/module: No such file or directory")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("echo 550.54.15", "550.54.15"),
        (
            "echo 'modinfo: ERROR: Module nvidia not found.' >&2; exit 1",
            Missing("modinfo nvidia: modinfo: ERROR: Module nvidia not found."),
        ),
        ("sleep 60", Missing("modinfo nvidia: no answer within 0.3 s")),
    ],
)
def test_modinfo_is_believed_but_not_waited_for(tmp_path, body, expected):
    write(tmp_path, {"/bin/modinfo": f"#!/bin/sh\n{body}\n"})
    (tmp_path / "bin/modinfo").chmod(0o755)
    path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    assert driver(Host(root=tmp_path, environment=path), 3).module_on_disk_version == expected


def test_the_systems_limits_are_read(tmp_path):
    write(
        tmp_path,
        {
            "/etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
            "/proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\n",
            "/proc/version": "Linux version 5.15.0-microsoft-standard-WSL2",
            "/sys/fs/cgroup/cpu.max": "150000 100000\n",
            "/sys/fs/cgroup/memory.max": "1073741824\n",
            "/dev/shm/x": "",
            "/.dockerenv": "",
        },
    )

    facts = system(Host(root=tmp_path, environment={"SLURM_JOB_ID": "1"}), 5)

    assert facts.os_name == "Ubuntu 22.04.4 LTS"
    assert facts.memory_total_bytes == 16 * 2**20
    assert facts.wsl is True
    assert facts.cpu_quota == 1.5
    assert facts.memory_limit_bytes == 2**30
    assert known(facts.shm_total_bytes) > 0
    assert (facts.container, facts.scheduler) == ("docker", "slurm")


def test_cgroup_v1_and_no_limit_are_understood(tmp_path):
    write(
        tmp_path,
        {
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "/proc/1/cgroup": "0::/\n",
        },
    )

    facts = system(Host(root=tmp_path, environment={}), 5)

    assert facts.cpu_quota is None
    assert facts.memory_limit_bytes is None
    assert (facts.container, facts.scheduler) == (None, None)


@pytest.mark.parametrize(
    ("files", "variables", "kind"),
    [
        ({"/run/.containerenv": ""}, {}, "podman"),
        ({"/.dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({}, {"APPTAINER_CONTAINER": "/x.sif"}, "apptainer"),
        ({"/proc/1/cgroup": "0::/lxc.payload.x\n"}, {}, "lxc"),
        ({}, {"container": "systemd-nspawn"}, "systemd-nspawn"),
    ],
)
def test_each_kind_of_container_is_recognised(tmp_path, files, variables, kind):
    write(tmp_path, files)

    assert system(Host(root=tmp_path, environment=variables), 5).container == kind


def metadata(name, version, *requires):
    lines = "".join(f"Requires-Dist: {need}\n" for need in requires)
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}\nRequires-Dist: no\n"


def test_packages_are_known_by_their_metadata_without_an_import(tmp_path):
    write(
        tmp_path,
        {
            "/lib/torch-2.9.0+cu128.dist-info/METADATA": metadata(
                "torch",
                "2.9.0+cu128",
                'nvidia-nccl-cu12 == 2.27.5 ; platform_system == "Linux"',
                'nvidia-cudnn-cu12 (==9.10.2.21) ; extra == "all"',
                "sympy>=1.13",
            ),
            "/lib/torch/version.py": "__version__ = '2.9.0+cu128'\ncuda: Optional[str] = '12.8'\n",
            "/lib/torchvision-0.24.0.dist-info/METADATA": metadata(
                "torchvision", "0.24.0", "numpy", "torch (==2.8.0)"
            ),
            "/lib/nvidia_nccl_cu12-2.27.3.dist-info/METADATA": "",
            "/lib/requests-2.0.dist-info/METADATA": "",
        },
    )
    host = Host(root=tmp_path, environment={})

    installed = tuple(in_folder(host, "/lib"))

    assert installed == (
        Package(name="nvidia-nccl-cu12", version="2.27.3", folder="/lib"),
        Package(name="torch", version="2.9.0+cu128", folder="/lib", build="2.9.0+cu128"),
        Package(name="torchvision", version="0.24.0", folder="/lib"),
    )
    assert requirements(host, installed) == (
        Requirement(
            package="torch",
            requires="nvidia-nccl-cu12",
            specifier="==2.27.5",
            marker='platform_system == "Linux"',
            installed="2.27.3",
        ),
        Requirement(
            package="torchvision",
            requires="torch",
            specifier="==2.8.0",
            marker="",
            installed="2.9.0+cu128",
        ),
    )


def test_a_folder_that_is_not_there_holds_no_packages(tmp_path):
    assert in_folder(Host(root=tmp_path, environment={}), "/nowhere") == []


def test_only_variables_of_the_allow_list_are_recorded():
    seen = environment(
        Host(
            environment={
                "CUDA_VISIBLE_DEVICES": "0",
                "NCCL_DEBUG": "INFO",
                "NVIDIA_API_KEY": "nvapi-secret",
                "PYTORCH_TOKEN": "secret",
                "HOME": "/home/ada",
                "AWS_SECRET_ACCESS_KEY": "secret",
            }
        ),
        5,
    )

    assert [variable.name for variable in known(seen.variables)] == [
        "CUDA_VISIBLE_DEVICES",
        "NCCL_DEBUG",
    ]
    assert seen.misspelt == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CUDA_VIDIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
        ("CUDA_VISIBLE_DEVICE", "CUDA_VISIBLE_DEVICES"),
        ("CUDA_VISBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
        ("Cuda_Visible_Devices", "CUDA_VISIBLE_DEVICES"),
        ("PYTORCH_CUDA_ALLOC_CONFIG", "PYTORCH_CUDA_ALLOC_CONF"),
        ("CUDA_LAUNCH_BLOCKIN", "CUDA_LAUNCH_BLOCKING"),
        ("NCLC_DEBUG", "NCCL_DEBUG"),
        ("NCCL_P2P_DISABLED", "NCCL_P2P_DISABLE"),
        ("pytorch_cuda_alloc_config", "PYTORCH_CUDA_ALLOC_CONF"),
        ("NCCL_DEBUG", None),
        ("CUDA_PATH", None),
        ("CUDA_CACHE_DISABLE", None),
        ("HIP_VISIBLE_DEVICES", None),
        ("NCCL_IB_TIMEOUT", None),
        ("PATH", None),
    ],
)
def test_a_slip_of_the_pen_is_told_from_another_variable(name, meant):
    assert meant_by(name) == meant


@pytest.mark.parametrize(
    "name",
    [
        *("NCCL_PXN_DISABLE", "NCCL_IBEXT_DISABLE", "NCCL_NVB_DISABLE", "CUDA_MODULE_DATA_LOADING"),
        *("RCCL_DEBUG", "CCL_DEBUG", "UCC_SOCKET_IFNAME", "KMP_NUM_THREADS", "OLD_LIBRARY_PATH"),
        *("PYTORCH_HIP_ALLOC_CONF", "PYTORCH_NO_HIP_MEMORY_CACHING", "CUDA11_HOME", "CUDA_HOME2"),
        *("LD_LIBRARY_PATH_OLD", "LT_LD_LIBRARY_PATH", "LD_LIBRARY_PATH_64", "_LD_LIBRARY_PATH"),
        *("LIBRARY_PATH", "GPU_VISIBLE_DEVICES", "TPU_VISIBLE_DEVICES", "TORCH_XPU_ARCH_LIST"),
    ],
)
def test_a_variable_of_another_program_or_another_purpose_is_no_slip(name):
    assert meant_by(name) is None


def test_a_misspelt_variable_keeps_its_value():
    seen = environment(Host(environment={"CUDA_VIDIBLE_DEVICES": "0,1"}), 5)

    assert [(m.name, m.meant, m.value) for m in known(seen.misspelt)] == [
        ("CUDA_VIDIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "0,1")
    ]


XID = "NVRM: Xid (PCI:0000:1b:00): 79, pid=1234, GPU has fallen off the bus."


def test_xid_events_are_read_from_kmsg(tmp_path):
    write(
        tmp_path,
        {"/dev/kmsg": f"6,1,0,-;Linux version 6.8\n3,2,61000000,-;{XID}\n SUBSYSTEM=pci\n"},
    )

    seen = kernel_log(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert seen.source == "/dev/kmsg"
    assert [(e.xid, e.pci_address, e.time) for e in known(seen.events)] == [
        (79, "0000:1b:00", "61 s after boot")
    ]


def test_the_journal_is_asked_where_kmsg_is_closed(tmp_path):
    write(
        tmp_path,
        {"/bin/journalctl": f"#!/bin/sh\necho '2026-01-02T03:04:05+0000 node kernel: {XID}'\n"},
    )
    (tmp_path / "bin/journalctl").chmod(0o755)

    seen = kernel_log(Host(root=tmp_path, environment={"PATH": f"{tmp_path}/bin:/bin"}), 5)

    assert seen.source == "journalctl -k"
    assert [(e.xid, e.time) for e in known(seen.events)] == [(79, "2026-01-02T03:04:05+0000")]


# What the driver prints in one record, as each source gives it.
REFUSAL = (
    "NVRM: The NVIDIA GPU 0000:3c:00.0 (PCI ID: 10de:2d04)",
    "NVRM: installed in this system is not supported by the",
    "NVRM: NVIDIA 550.163.01 driver release.",
)
NEXT = "nvidia 0000:3c:00.0: probe with driver nvidia failed with error -1"
INDENTED = "\n                                  ".join(REFUSAL)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/dev/kmsg", "4,1,8,-;" + r"\x0a".join(REFUSAL) + f"\n SUBSYSTEM=pci\n4,2,9,-;{NEXT}\n"),
        (
            "/bin/journalctl",
            "#!/bin/sh\ncat <<'END'\n"
            f"2026-01-02T03:04:05+0000 node kernel: {INDENTED}\n"
            f"2026-01-02T03:04:05+0000 node kernel: {NEXT}\nEND\n",
        ),
        (
            "/bin/dmesg",
            "#!/bin/sh\ncat <<'END'\n"
            f"2026-01-02T03:04:05,000000+00:00 {INDENTED}\n"
            f"2026-01-02T03:04:05,000000+00:00 {NEXT}\nEND\n",
        ),
    ],
)
def test_a_record_of_several_lines_is_read_whole(tmp_path, path, text):
    write(tmp_path, {path: text})
    (tmp_path / path.lstrip("/")).chmod(0o755)

    seen = kernel_log(Host(root=tmp_path, environment={"PATH": f"{tmp_path}/bin:/bin"}), 5)

    assert [event.text for event in known(seen.events)] == [
        "NVRM: The NVIDIA GPU 0000:3c:00.0 (PCI ID: 10de:2d04) installed in this system is not "
        "supported by the NVIDIA 550.163.01 driver release.",
        NEXT,
    ]


def test_no_readable_log_is_no_clean_log(tmp_path):
    seen = kernel_log(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert seen.events == Missing(
        "no kernel log is readable: /dev/kmsg: No such file or directory; "
        "journalctl not found on PATH; dmesg not found on PATH"
    )


def test_the_drivers_daemons_and_stuck_processes_are_found(tmp_path):
    write(
        tmp_path,
        {
            "/proc/1/stat": "1 (systemd) S 0 1",
            "/proc/20/stat": "20 (nv-fabricmanage) S 1 20",
            "/proc/30/stat": "30 (python (x) y) D 1 30",
            "/proc/30/wchan": "nvidia_ioctl",
            "/proc/31/stat": "31 (dd) D 1 31",
            "/proc/31/wchan": "io_schedule",
            "/proc/32/comm": "ended",
            "/proc/self/stat": "99 (x) R",
        },
    )

    facts = driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert {s.name: s.running for s in known(facts.services)} == {
        "nvidia-fabricmanager": True,
        "nvidia-persistenced": False,
        "nvidia-cuda-mps-control": False,
        "nv-hostengine (DCGM)": False,
    }
    assert facts.stuck_processes == ("30 (python (x) y) in nvidia_ioctl",)


MOUNTED = "proc /proc proc rw,relatime,gid=27,hidepid={} 0 0\n"


@pytest.mark.parametrize("option", ["1", "2", "4", "noaccess", "invisible", "ptraceable"])
def test_daemons_are_not_known_where_proc_hides_the_processes_of_others(tmp_path, option):
    mine = {"/proc/77/stat": "77 (python) S 1 77", "/proc/self/mounts": MOUNTED.format(option)}
    write(tmp_path, mine)

    facts = driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    hidden = Missing("/proc hides the processes of other users from this one (hidepid)")
    assert (facts.services, facts.stuck_processes) == (hidden, hidden)


def test_ones_own_stuck_process_is_seen_where_those_of_others_are_hidden(tmp_path):
    write(
        tmp_path,
        {
            "/proc/77/stat": "77 (python) D 1 77",
            "/proc/77/wchan": "nvidia_close_callback",
            "/proc/self/mounts": MOUNTED.format(2),
        },
    )

    facts = driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert facts.stuck_processes == ("77 (python) in nvidia_close_callback",)
    assert isinstance(facts.services, Missing)


@pytest.mark.parametrize(
    "files",
    [
        {"/proc/self/mounts": MOUNTED.format(0)},
        {"/proc/self/mounts": MOUNTED.format("off")},
        {"/proc/self/mounts": MOUNTED.format(2), "/proc/1/stat": "1 (systemd) S 0 1"},  # as root
    ],
)
def test_daemons_are_known_where_the_processes_of_others_are_shown(tmp_path, files):
    write(tmp_path, files)

    services = known(driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5).services)

    assert {service.running for service in services} == {False}


def test_the_fabric_managers_version_and_the_modules_parameters_are_read(tmp_path):
    write(
        tmp_path,
        {
            "/bin/nv-fabricmanager": "#!/bin/sh\necho 'Fabric Manager version is : 550.54.15'\n",
            "/proc/driver/nvidia/params": "EnableGpuFirmware: 18\nModifyDeviceFiles: 1\n",
        },
    )
    (tmp_path / "bin/nv-fabricmanager").chmod(0o755)
    pci(tmp_path, "0000:07:00.0", kind="0x068000")
    path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    facts = driver(Host(root=tmp_path, environment=path), 5)

    assert facts.fabric_manager_version == "550.54.15"
    assert facts.nvswitch_count == 1
    assert [(p.name, p.value) for p in known(facts.parameters)] == [
        ("EnableGpuFirmware", "18"),
        ("ModifyDeviceFiles", "1"),
    ]


def test_device_files_tell_their_mode_and_group(tmp_path):
    write(tmp_path, {"/dev/nvidia0": ""})
    (tmp_path / "dev/nvidia0").chmod(0o640)

    node = known(driver(Host(root=tmp_path, environment=NO_PROGRAMS), 5).device_nodes)[0]

    assert node.mode == "-rw-r-----"
    assert node.group == (tmp_path / "dev/nvidia0").group()


@pytest.mark.parametrize(
    ("files", "hypervisor"),
    [
        ({"sys_vendor": "QEMU", "product_name": "Standard PC"}, "QEMU"),
        ({"sys_vendor": "VMware, Inc.", "product_name": "VMware7,1"}, "VMware"),
        ({"sys_vendor": "Amazon EC2", "product_name": "p5.48xlarge"}, "Amazon EC2"),
        ({"sys_vendor": "Amazon EC2", "product_name": "g4dn.metal"}, None),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}, "Hyper-V"),
        ({"sys_vendor": "NVIDIA", "product_name": "DGXH100"}, None),
    ],
)
def test_the_hypervisor_is_known_by_what_it_calls_itself(tmp_path, files, hypervisor):
    write(tmp_path, {f"/sys/class/dmi/id/{name}": text for name, text in files.items()})
    write(tmp_path, {"/proc/cpuinfo": "flags\t\t: fpu vme\n"})

    assert topology.virtual_machine(Host(root=tmp_path, environment={})) == hypervisor


def test_a_hypervisor_without_a_name_is_known_by_the_processors_flag(tmp_path):
    write(tmp_path, {"/proc/cpuinfo": "flags\t\t: fpu hypervisor vme\n"})

    assert topology.virtual_machine(Host(root=tmp_path, environment={})) == "unknown hypervisor"


def configuration_space(control, *, circle=False):
    """4096 bytes with an AER capability, then one for access control."""
    space = bytearray(4096)
    struct.pack_into("<I", space, 0x100, 0x0001 | 2 << 16 | 0x140 << 20)
    struct.pack_into("<I", space, 0x140, 0x000D | 1 << 16)
    struct.pack_into("<H", space, 0x146, control)
    if circle:
        struct.pack_into("<I", space, 0x140, 0x0003 | 1 << 16 | 0x100 << 20)
    return bytes(space)


@pytest.mark.parametrize(("control", "redirects"), [(0x1D, True), (0x04, True), (0x11, False)])
def test_bridges_that_reroute_peer_traffic_are_found(tmp_path, control, redirects):
    pci(tmp_path, "0000:00:01.0", vendor="0x8086", kind="0x060400")
    folder = "/sys/bus/pci/devices/0000:00:01.0"
    write(tmp_path, {f"{folder}/config": configuration_space(control)})

    found = topology.acs_redirects(Host(root=tmp_path, environment={}))

    assert found == (("0000:00:01.0",) if redirects else ())


def test_a_space_that_is_cut_short_needs_root(tmp_path):
    pci(tmp_path, "0000:00:01.0", vendor="0x8086", kind="0x060400")
    write(tmp_path, {"/sys/bus/pci/devices/0000:00:01.0/config": bytes(64)})

    found = topology.acs_redirects(Host(root=tmp_path, environment={}))

    assert found == Missing(
        "/sys/bus/pci/devices/0000:00:01.0/config: only root may read access control"
    )


def test_a_circle_of_capabilities_ends():
    assert topology.acs_control(configuration_space(0x04, circle=True)) == 0
    assert topology.acs_control(bytes(64)) == 0


def test_parameters_groups_and_adapters_of_the_host_are_read(tmp_path):
    write(
        tmp_path,
        {
            "/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 intel_iommu=on iommu=pt pci=noacs",
            "/sys/kernel/iommu_groups/0/type": "",
            "/sys/kernel/iommu_groups/1/type": "",
            "/sys/class/infiniband/mlx5_0/x": "",
            "/proc/uptime": "3600.5 7000.1\n",
        },
    )

    facts = system(Host(root=tmp_path, environment={"PATH": "/nonexistent"}), 5)

    assert facts.kernel_parameters == ("intel_iommu=on", "iommu=pt", "pci=noacs")
    assert facts.iommu_groups == 2
    assert facts.infiniband_devices == ("mlx5_0",)
    assert facts.uptime_s == 3600.5
    assert known_or(facts.compiler, "unknown") is None


def test_no_infiniband_is_an_answer(tmp_path):
    assert topology.infiniband_devices(Host(root=tmp_path, environment={})) == ()


def test_the_space_of_caches_is_told_without_their_names():
    facts = system(Host(environment={"HOME": "/home/ada/nowhere", "PATH": "/bin"}), 5)

    disks = known(facts.disks)
    assert [disk.use for disk in disks] == ["home", "temporary", "torch cache", "CUDA cache"]
    assert all(0 <= disk.free_bytes <= disk.total_bytes for disk in disks)
    assert "ada" not in str(disks)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"echo '2026-01-02T03:04:05,000000+00:00 {XID}'", "dmesg"),
        (
            "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1",
            "no kernel log is readable: /dev/kmsg: No such file or directory; journalctl not found "
            "on PATH; dmesg: dmesg: read kernel buffer failed: Operation not permitted",
        ),
    ],
)
def test_dmesg_is_the_last_resort(tmp_path, body, expected):
    write(tmp_path, {"/bin/dmesg": f"#!/bin/sh\n{body}\n"})
    (tmp_path / "bin/dmesg").chmod(0o755)

    seen = kernel_log(Host(root=tmp_path, environment={"PATH": f"{tmp_path}/bin"}), 5)

    assert seen.source == expected or seen.source == Missing(expected)


@pytest.mark.parametrize("path", ["torch.py", "torch/__init__.py"])
def test_a_torch_in_the_working_folder_is_told_and_never_imported(tmp_path, monkeypatch, path):
    installed, project = tmp_path / "site-packages", tmp_path / "project"
    for file in (installed / "torch" / "__init__.py", project / path):
        file.parent.mkdir(parents=True)
        file.write_text("raise SystemExit('imported')\n")
    (tmp_path / "link").symlink_to(installed)
    host, folders = Host(environment={}), [str(tmp_path / "link")]

    monkeypatch.chdir(project)
    assert torch_in_working_folder(host, [str(project), *folders]) == str(project / path)
    assert torch_in_working_folder(host, [str(project)]) is None  # there is no other one
    safe = Host(environment={"PYTHONSAFEPATH": "1"})  # Python does not look there
    assert torch_in_working_folder(safe, folders) is None
    monkeypatch.chdir(installed)
    assert torch_in_working_folder(host, folders) is None  # it is the installed one
    monkeypatch.chdir(tmp_path)
    assert torch_in_working_folder(host, folders) is None


def test_a_working_folder_that_was_removed_is_a_gap(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert isinstance(torch_in_working_folder(Host(), ["/lib"]), Missing)
