"""Healthy machines that were composed, not recorded: `python tests/compose_healthy.py` writes them.

Each is as full as a real snapshot, so that every rule has its facts. The GPUs' own facts come from
data sheets and from what NVML answers on such parts.
"""

from pathlib import Path

from gpudiag.snapshot import (
    DeviceNode,
    Disk,
    Driver,
    Environment,
    Gpu,
    GpuPair,
    GpuProcess,
    KernelLog,
    Missing,
    Nvml,
    Package,
    Packages,
    PciDevice,
    Requirement,
    Service,
    Snapshot,
    System,
    TorchBuild,
    TorchDevice,
    Variable,
)

RECORDED = Path(__file__).parent / "recorded"
GIB = 2**30
NOT_SUPPORTED = Missing("NVML: Not Supported (NVML 3)")
DRIVER_VERSION = "580.65.06"


def gpu(index, **facts):
    usual = {
        "index": index,
        "uuid": f"GPU-{index:08x}",
        "error_codes": (),
        "utilization_fraction": 0.0,
        "temperature_celsius": 34,
        "clock_event_reasons": 0x1,
        "performance_state": 0,
        "memory_used_bytes": 0,
        "memory_reserved_bytes": GIB // 2,
        "bar1_used_bytes": 4 * 2**20,
        "row_remap_pending": False,
        "row_remap_failed": False,
        "rows_remapped_uncorrectable": 0,
        "rows_remapped_correctable": 0,
        "ecc_uncorrected_volatile": 0,
        "ecc_uncorrected_aggregate_sram": 0,
        "recovery_action": "none",
        "mig_enabled": False,
        "mig_uuids": (),
        "inforom_valid": True,
        "compute_mode": "default",
        "persistence_enabled": True,
        "display_active": False,
        "pcie_replays": 0,
        "pcie_width_lanes": 16,
        "pcie_width_max_lanes": 16,
        "processes": (),
    }
    return Gpu.missing(NOT_SUPPORTED.missing, **usual | facts)


GEFORCE = dict.fromkeys(
    (
        "row_remap_pending",
        "row_remap_failed",
        "rows_remapped_uncorrectable",
        "ecc_uncorrected_volatile",
        "ecc_uncorrected_aggregate_sram",
        "mig_enabled",
        "mig_uuids",
        "inforom_valid",
    ),
    NOT_SUPPORTED,
)


def process(**facts):
    return GpuProcess.missing(NOT_SUPPORTED.missing, **facts)


def h100(index, address):
    return gpu(
        index,
        name="NVIDIA H100 80GB HBM3",
        architecture="hopper",
        pci_address=f"0000:{address}:00.0",
        compute_capability=(9, 0),
        memory_total_bytes=85_520_809_984,
        memory_used_bytes=79 * GIB,
        bar1_total_bytes=128 * GIB,
        utilization_fraction=0.97,
        temperature_celsius=58 + index,
        temperature_slowdown_celsius=92,
        temperature_memory_celsius=70,
        temperature_memory_max_celsius=95,
        power_watts=640.0,
        power_limit_watts=700.0,
        power_limit_default_watts=700.0,
        clock_sm_mhz=1665 + 15 * index,  # silicon differs by some per cent
        clock_sm_max_mhz=1980,
        clock_event_reasons=0x4,  # the power cap: what full load looks like
        ecc_enabled=True,
        pcie_generation=5,
        pcie_generation_max=5,
        pcie_generation_gpu_max=5,
        nvlink_active=tuple(range(18)),
        nvlink_inactive=(),
        nvlink_errors=(),
        fabric_state="completed",
        fabric_status_code=0,
        fabric_health="healthy",
        fabric_health_mask=0x2,
        processes=(
            process(
                pid=4000 + index,
                kind="compute",
                used_bytes=79 * GIB - 200 * 2**20,
                name="python",
                user="user",
                visible=True,
            ),
        ),
    )


def nodes(*numbers):
    names = [*(f"nvidia{n}" for n in numbers), "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"]
    return tuple(
        DeviceNode(path=f"/dev/{name}", usable=True, mode="crw-rw-rw-", group="root")
        for name in names
    )


def services(*running):
    names = ("nvidia-fabricmanager", "nvidia-persistenced", "nvidia-cuda-mps-control")
    return tuple(Service(name=name, running=name in running) for name in names)


def driver(*addresses, **facts):
    usual = {
        "pci_devices": tuple(
            PciDevice(address=f"0000:{a}:00.0", device_id="0x2330", kernel_driver="nvidia")
            for a in addresses
        ),
        "module_loaded": True,
        "module_version": DRIVER_VERSION,
        "module_on_disk_version": DRIVER_VERSION,
        "module_kind": "open",
        "library_versions": (DRIVER_VERSION,),
        "device_nodes": nodes(*range(len(addresses))),
        "services": services("nvidia-persistenced"),
        "stuck_processes": (),
        "nvswitch_count": 0,
        "parameters": (),
        "cuda_init_code": 0,
        "cuda_driver_version": "13.0",
        "cuda_device_count": len(addresses),
        "libcuda_path": "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    }
    return Driver.missing("not there on such a machine", **usual | facts)


def torch(*gpus, **facts):
    usual = {
        "python": "/venv/bin/python",
        "import_error": None,
        "version": "2.9.1+cu130",
        "cuda_version": "13.0",
        "hip_version": None,
        "cudnn_version": "9.13.0",
        "nccl_version": "2.27.7",
        "arch_list": ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"),
        "cuda_available": True,
        "cuda_error": None,
        "devices": tuple(
            TorchDevice(
                index=one.index,
                name=one.name,
                uuid=one.uuid,
                compute_capability=one.compute_capability,
                memory_total_bytes=one.memory_total_bytes,
            )
            for one in gpus
        ),
        "libraries": (),
        "import_warnings": (),
        "float32_matmul_precision": "highest",
        "cudnn_allows_tf32": True,
    }
    return TorchBuild.missing("torch is not loaded in this process", **usual | facts)


def packages(**facts):
    folder = "/venv/lib/python3.11/site-packages"
    versions = {
        "torch": "2.9.1+cu130",
        "torchvision": "0.24.1+cu130",
        "numpy": "2.2.6",
        "nvidia-ml-py": "13.580.65",
        "nvidia-cudnn-cu13": "9.13.0.50",
        "triton": "3.5.1",
    }
    usual = {
        "installed": tuple(
            Package(name=name, version=version, folder=folder, installer="pip")
            for name, version in versions.items()
        ),
        "requirements": (
            need("torchvision", "torch", "==2.9.1", "2.9.1+cu130"),
            need("torch", "nvidia-cudnn-cu13", "==9.13.0.50", "9.13.0.50"),
            need("torch", "triton", "==3.5.1", "3.5.1"),
        ),
        "environment_kind": "venv",
        "torch_in_working_folder": None,
        "environment_tool": None,
        "prefix": "/venv",
    }
    return Packages.missing("not there on such a machine", **usual | facts)


def need(package, requires, specifier, installed):
    return Requirement(
        package=package,
        requires=requires,
        specifier=specifier,
        marker='platform_system == "Linux"',
        installed=installed,
    )


def system(**facts):
    usual = {
        "os_name": "Ubuntu 24.04.3 LTS",
        "kernel": "6.8.0-79-generic",
        "architecture": "x86_64",
        "python_version": "3.11.9",
        "cpu_count": 32,
        "cpu_affinity_count": 32,
        "cpu_quota": None,
        "memory_total_bytes": 128 * GIB,
        "memory_limit_bytes": None,
        "shm_total_bytes": 64 * GIB,
        "shm_used_bytes": 0,
        "open_files_limit": 1024,
        "locked_memory_limit_bytes": None,
        "uptime_s": 90_000.0,
        "container": None,
        "virtual_machine": None,
        "wsl": False,
        "iommu_groups": 0,
        "kernel_parameters": (),
        "acs_redirects": (),
        "infiniband_devices": (),
        "infiniband_library": False,
        "network_interfaces": ("lo", "eth0"),
        "nccl_segments": 0,
        "disks": (Disk(use="home", total_bytes=900 * GIB, free_bytes=300 * GIB),),
        "compiler": "gcc",
        "python_headers": True,
        "cuda_toolkit_version": None,
        "scheduler": None,
        "is_root": False,
    }
    return System.missing("not there on such a machine", **usual | facts)


def environment(**values):
    return Environment(
        variables=tuple(Variable(name=name, value=value) for name, value in values.items()),
        misspelt=(),
        dangling=(),
    )


def machine(*gpus, pairs=(), **sections):
    nvml = Nvml(
        init_code=0,
        init_message="Success",
        failure=None,
        driver_version=DRIVER_VERSION,
        library_version=f"13.{DRIVER_VERSION}",
        cuda_version="13.0",
        gpus=gpus,
        pairs=pairs,
    )
    usual = {
        "gpudiag_version": "composed",
        "taken_at": "composed, not recorded",
        "nvml": nvml,
        "torch": torch(*gpus),
        "packages": packages(),
        "system": system(),
        "environment": environment(),
        "kernel_log": KernelLog(source="/dev/kmsg", events=()),
    }
    return Snapshot(**usual | sections)


def h100_node():
    """Eight H100 with NVSwitches under full load, InfiniBand, bare metal."""
    addresses = ("1b", "43", "52", "61", "9d", "c3", "d1", "df")
    gpus = tuple(h100(index, address) for index, address in enumerate(addresses))
    pairs = tuple(
        GpuPair(
            first=a, second=b, topology="system", p2p_read="ok", p2p_write="ok", p2p_nvlink="ok"
        )
        for a in range(8)
        for b in range(a + 1, 8)
    )
    return machine(
        *gpus,
        pairs=pairs,
        driver=driver(
            *addresses,
            services=services("nvidia-fabricmanager", "nvidia-persistenced"),
            nvswitch_count=4,
            fabric_manager_version=DRIVER_VERSION,
        ),
        system=system(
            cpu_count=192,
            cpu_affinity_count=192,
            memory_total_bytes=2048 * GIB,
            shm_total_bytes=1024 * GIB,
            open_files_limit=1_048_576,
            infiniband_devices=tuple(f"mlx5_{n}" for n in range(8)),
            infiniband_library=True,
            iommu_groups=120,
            kernel_parameters=("iommu=pt",),
            nccl_segments=9,  # a job is running
        ),
    )


def rtx_4090_workstation():
    """An idle card: link at generation 1, fans off, persistence off, a display on it."""
    card = gpu(
        0,
        **GEFORCE
        | {
            "name": "NVIDIA GeForce RTX 4090",
            "pci_address": "0000:01:00.0",
            "compute_capability": (8, 9),
            "memory_total_bytes": 24 * GIB,
            "memory_used_bytes": 400 * 2**20,
            "bar1_total_bytes": 32 * GIB,
            "temperature_slowdown_celsius": 90,
            "power_watts": 21.0,
            "power_limit_watts": 450.0,
            "power_limit_default_watts": 450.0,
            "clock_sm_mhz": 210,
            "clock_sm_max_mhz": 3120,
            "performance_state": 8,
            "ecc_enabled": False,
            "pcie_generation": 1,
            "pcie_generation_max": 4,
            "pcie_generation_gpu_max": 4,
            "persistence_enabled": False,
            "display_active": True,
            "processes": (
                process(
                    pid=1500, kind="graphics", used_bytes=200 * 2**20, name="Xorg", visible=True
                ),
            ),
        },
    )
    return machine(card, driver=driver("01"), system=system(iommu_groups=30))


def a10g_pod():
    """One A10G passed into a Kubernetes pod of a cloud's virtual machine, with a CPU limit."""
    card = gpu(
        0,
        name="NVIDIA A10G",
        pci_address="0000:00:1e.0",
        compute_capability=(8, 6),
        memory_total_bytes=24 * GIB,
        bar1_total_bytes=32 * GIB,
        mig_enabled=NOT_SUPPORTED,
        mig_uuids=NOT_SUPPORTED,
        temperature_slowdown_celsius=98,
        power_watts=24.0,
        power_limit_watts=300.0,
        power_limit_default_watts=300.0,
        clock_sm_mhz=210,
        clock_sm_max_mhz=1710,
        performance_state=8,
        ecc_enabled=True,
        pcie_generation=1,
        pcie_generation_max=4,
        pcie_generation_gpu_max=4,
        pcie_width_lanes=8,
        pcie_width_max_lanes=8,
    )
    return machine(
        card,
        driver=driver(
            "00",
            module_on_disk_version=Missing("modinfo not found on PATH"),
            services=services(),
        ),
        system=system(
            container="kubernetes",
            virtual_machine="Amazon EC2",
            cpu_count=16,
            cpu_affinity_count=16,
            cpu_quota=4.0,
            memory_limit_bytes=16 * GIB,
            shm_total_bytes=8 * GIB,
            acs_redirects=Missing("config: only root may read access control"),
            compiler=None,
            python_headers=False,
            is_root=True,
        ),
        environment=environment(NVIDIA_VISIBLE_DEVICES="void", OMP_NUM_THREADS="4"),
        kernel_log=KernelLog.missing("no kernel log is readable: /dev/kmsg: Permission denied"),
    )


def wsl_laptop():
    """A laptop's GPU in WSL 2: Windows' driver, no PCI bus, no kernel module, two minutes up."""
    card = gpu(
        0,
        **GEFORCE
        | {
            "name": "NVIDIA GeForce RTX 4070 Laptop GPU",
            "pci_address": "0000:01:00.0",
            "compute_capability": (8, 9),
            "memory_total_bytes": 8 * GIB,
            "memory_used_bytes": NOT_SUPPORTED,
            "bar1_total_bytes": 8 * GIB,
            "power_watts": 8.0,
            "power_limit_watts": NOT_SUPPORTED,
            "power_limit_default_watts": NOT_SUPPORTED,
            "clock_sm_mhz": 210,
            "clock_sm_max_mhz": 3105,
            "performance_state": 8,
            "pcie_generation": 1,
            "pcie_generation_max": 4,
            "pcie_generation_gpu_max": 4,
            "pcie_width_lanes": 8,
            "pcie_width_max_lanes": 8,
            "display_active": True,
        },
    )
    nothing = Missing("modinfo not found on PATH")
    return machine(
        card,
        driver=driver(
            pci_devices=(),
            module_loaded=False,
            module_version=Missing("the nvidia kernel module is not loaded"),
            module_on_disk_version=nothing,
            library_versions=(),
            device_nodes=(
                DeviceNode(path="/dev/dxg", usable=True, mode="crw-rw-rw-", group="root"),
            ),
            services=services(),
            cuda_device_count=1,
            libcuda_path="/usr/lib/wsl/lib/libcuda.so.1",
        ),
        system=system(
            wsl=True,
            virtual_machine="Hyper-V",
            kernel="6.6.87.2-microsoft-standard-WSL2",
            cpu_count=16,
            cpu_affinity_count=16,
            memory_total_bytes=16 * GIB,
            shm_total_bytes=8 * GIB,
            locked_memory_limit_bytes=64 * 2**20,
            uptime_s=120.0,
        ),
    )


MACHINES = {
    "h100_node": h100_node,
    "rtx_4090_workstation": rtx_4090_workstation,
    "a10g_pod": a10g_pod,
    "wsl_laptop": wsl_laptop,
}

if __name__ == "__main__":
    for name, compose in MACHINES.items():
        path = RECORDED / f"composed_healthy_{name}.json"
        path.write_text(compose().to_json() + "\n")
