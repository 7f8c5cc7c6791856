"""One machine per rule on which it fires, and what to change so that it has nothing to say.

`fires` are the arguments of `builders.snapshot` (a GPU is a dictionary of its facts); each entry
of `quiet` is laid over it. A threshold is met exactly on one side and missed by one on the other.
"""

from dataclasses import dataclass
from typing import Any

from builders import GIB, gpu, snapshot

from gpudiag.snapshot import (
    AllocatorState,
    DeviceNode,
    Disk,
    GpuPair,
    GpuProcess,
    KernelEvent,
    MappedLibrary,
    Missing,
    Misspelling,
    NvLinkError,
    Package,
    PciDevice,
    Requirement,
    Service,
    Snapshot,
    TorchDevice,
    Variable,
)

MIB = 2**20


@dataclass(frozen=True)
class Case:
    fires: dict[str, Any]
    quiet: tuple[dict[str, Any], ...]


def build(facts: dict[str, Any]) -> Snapshot:
    facts = dict(facts)
    if "gpus" in facts:
        facts["gpus"] = [gpu(index, **one) for index, one in enumerate(facts["gpus"])]
    return snapshot(**facts)


def changed(facts: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Facts with those of *change* laid over; one changed GPU is laid over every GPU."""
    result = dict(facts)
    for name, value in change.items():
        if name == "gpus" and isinstance(value, dict):
            result[name] = [one | value for one in facts["gpus"]]
        elif isinstance(value, dict) and name != "env":
            result[name] = facts.get(name, {}) | value
        else:
            result[name] = value
    return result


def case(fires: dict[str, Any], *quiet: dict[str, Any]) -> Case:
    return Case(fires, quiet)


def per_gpu(faulty: dict[str, Any], *healthy: dict[str, Any]) -> Case:
    """A rule on one GPU: a faulty one, and what would be healthy."""
    return Case({"gpus": [faulty]}, tuple({"gpus": one} for one in healthy))


def environment(name: str, bad: str, *good: str | None, **more: Any) -> Case:
    """A rule on one variable: a bad value, and good ones (None: not set)."""
    quiet = tuple({"env": {} if value is None else {name: value}} for value in good)
    return Case({"env": {name: bad}} | more, quiet)


def device(address: str = "0000:1b:00.0", driver: str | None = "nvidia", number: str = "0x2330"):
    return PciDevice(address=address, device_id=number, kernel_driver=driver)


def node(path: str, *, usable: bool = True) -> DeviceNode:
    return DeviceNode(path=path, usable=usable)


def line(
    text: str, xid: int | None = None, address: str | None = "0000:1b:00"
) -> tuple[KernelEvent, ...]:
    return (KernelEvent(text=text, xid=xid, pci_address=address, time="12 s after boot"),)


def xid(number: int) -> tuple[KernelEvent, ...]:
    return line(f"NVRM: Xid (PCI:0000:1b:00): {number}, pid=77, name=python", number)


def package(name: str, version: str, folder: str = "/venv/lib", **more: Any) -> Package:
    return Package(name=name, version=version, folder=folder, **more)


def need(package: str, requires: str, specifier: str, installed: str | None, marker: str = ""):
    return Requirement(
        package=package, requires=requires, specifier=specifier, marker=marker, installed=installed
    )


def process(pid: int = 77, **facts: Any) -> GpuProcess:
    return GpuProcess(pid=pid, kind="compute", **{"used_bytes": GIB, "visible": True} | facts)


def pair(**facts: Any) -> tuple[GpuPair, ...]:
    return (GpuPair(first=0, second=1, **facts),)


NO_CONTAINER = {"container": None}
BARE = NO_CONTAINER | {"virtual_machine": None}
GPU_NODES = (node("/dev/nvidia0"), node("/dev/nvidiactl"), node("/dev/nvidia-uvm"))
NO_LIBCUDA = Missing("libcuda.so.1 cannot be loaded: cannot open shared object file")
NO_MODULE = Missing("modinfo nvidia: modinfo: ERROR: Module nvidia not found.")
H100 = {"name": "NVIDIA H100 80GB HBM3", "compute_capability": (9, 0)}
CUDA_128 = {"version": "2.9.0+cu128", "cuda_version": "12.8"}
LINUX = {"architecture": "x86_64", "python_version": "3.11.9"}
UNUSED = {"pci_devices": (device(),), "module_loaded": False}
ABSENT_FACT = Missing("torch was not asked")
NO_NUMPY = "Failed to initialize NumPy: No module named 'numpy' (Triggered internally at …)"
OPEN_REFUSAL = (
    "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85) installed in this system requires use "
    "of the NVIDIA open kernel modules."
)
REFUSAL = (
    "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1180) installed in this system is not "
    "supported by the NVIDIA 580.65.06 driver release."
)
INIT_FAILURE = "NVRM: GPU 0000:98:00.0: RmInitAdapter failed! (0x62:0x65:1792)"
WELL = {"pci_address": "00000000:1B:00.0", "recovery_action": "none", "error_codes": ()}
TORCH_DEVICES = tuple(
    TorchDevice(
        index=i,
        name="NVIDIA H100",
        uuid=f"GPU-{i:08x}",
        compute_capability=(9, 0),
        memory_total_bytes=80 * GIB,
    )
    for i in range(2)
)
TWO = [H100, H100]

DRIVER = {
    "GD101": case(
        {
            "driver": UNUSED
            | {
                "pci_devices": (device(driver=None),),
                "library_versions": (),
                "module_on_disk_version": NO_MODULE,
            },
            "system": NO_CONTAINER,
        },
        {"driver": {"module_loaded": True}},
        {"driver": {"library_versions": ("550.54.15",)}},
        {"system": {"container": "docker"}},
    ),
    "GD102": case(
        {"driver": UNUSED | {"library_versions": ("550.54.15",)}, "system": NO_CONTAINER},
        {"driver": {"module_loaded": True}},
        {"driver": {"cuda_device_count": 1}},
        {"driver": {"pci_devices": (device(driver="nouveau"),)}},
    ),
    "GD103": case(
        {
            "nvml": {"init_code": 18, "init_message": "Driver/library version mismatch"},
            "driver": {"module_version": "550.54.15", "library_versions": ("550.144.03",)},
        },
        {"nvml": {"init_code": 0}, "driver": {"library_versions": ("550.54.15",)}},
    ),
    "GD104": case(
        {"driver": {"pci_devices": (device(driver="nouveau"),)}},
        {"driver": {"pci_devices": (device(),)}},
    ),
    "GD105": case({"driver": {"cuda_init_code": 999}}, {"driver": {"cuda_init_code": 0}}),
    "GD106": case(
        {"driver": {"pci_devices": (), "module_loaded": False, "device_nodes": ()}},
        {"driver": {"pci_devices": (device(),)}},
        {"driver": {"cuda_device_count": 1}},  # a Jetson before JetPack 6
        {"torch": {"cuda_available": True, "cuda_version": "11.4"}},
    ),
    "GD107": case({"nvml": {"failure": "no answer within 15 s"}}, {"nvml": {"failure": None}}),
    "GD108": case(
        {
            "driver": {
                "module_loaded": False,
                "library_versions": ("550.54.15",),
                "module_on_disk_version": NO_MODULE,
            },
            "system": NO_CONTAINER,
        },
        {"driver": {"module_on_disk_version": "550.54.15"}},
        {"driver": {"module_loaded": True}},
        {"driver": {"library_versions": ()}},
    ),
    "GD109": case(
        {
            "driver": UNUSED | {"library_versions": ("550.54.15",), "secure_boot": True},
            "system": NO_CONTAINER,
            "events": line("Loading of module with unavailable key is rejected"),
        },
        {"events": ()},
        {"driver": {"module_loaded": True}},
        {"driver": {"library_versions": (), "module_on_disk_version": NO_MODULE}},
        {"driver": {"pci_devices": ()}},  # VirtualBox and ZFS are rejected, too
    ),
    "GD110": case(
        {"driver": {"module_on_disk_version": "580.65.06", "module_version": "550.54.15"}},
        {"driver": {"module_on_disk_version": "550.54.15"}},
    ),
    "GD111": case(
        {
            "events": line(OPEN_REFUSAL, address=None),
            "driver": {"module_kind": "proprietary"},
            "system": NO_CONTAINER,
        },
        {"events": ()},
        {"gpus": [{"pci_address": "00000000:01:00.0"}]},
    ),
    "GD112": case(
        {
            "events": line(REFUSAL, address=None),
            "driver": {"module_version": "580.65.06"},
            "system": NO_CONTAINER,
        },
        {"events": line(OPEN_REFUSAL, address=None)},
        {"gpus": [{"pci_address": "00000000:01:00.0"}]},
        {"gpus": [{"pci_address": "00000000:1b:00.0"}]},  # an old one beside one that works
    ),
    "GD113": case(
        {"events": line(INIT_FAILURE, address=None), "system": NO_CONTAINER},
        {"events": xid(79)},
        {"gpus": [{"pci_address": "00000000:98:00.0"}]},
    ),
    "GD114": case(
        {
            "events": line(
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid: BAR1 is 0M "
                "@ 0x0 (PCI:0000:98:00.0)",
                address=None,
            ),
            "system": NO_CONTAINER,
        },
        {"events": ()},
        {"gpus": [{"pci_address": "00000000:98:00.0"}]},
    ),
    "GD115": case(
        {"driver": {"pci_devices": (device(driver="vfio-pci"),)}},
        {"driver": {"pci_devices": (device(),)}},
    ),
    "GD116": case(
        {
            "driver": {
                "libcuda_path": NO_LIBCUDA,
                "module_loaded": True,
                "device_nodes": GPU_NODES,
            },
            "system": NO_CONTAINER,
        },
        {"driver": {"libcuda_path": "/usr/lib/libcuda.so.1"}},
        {"driver": {"device_nodes": ()}},
        {"driver": {"module_loaded": False}},
    ),
    "GD117": case(
        {
            "driver": {"device_nodes": GPU_NODES[:2], "cuda_init_code": 999},
            "system": NO_CONTAINER,
        },
        {"driver": {"device_nodes": GPU_NODES}},
        {"driver": {"cuda_init_code": 0}},
        {"driver": {"device_nodes": ()}},
    ),
    "GD118": case(
        {"nvml": {"init_code": 0}, "driver": {"cuda_init_code": 999, "device_nodes": GPU_NODES}},
        {"driver": {"cuda_init_code": 100}},
        {"nvml": {"init_code": 999}},
        {"driver": {"device_nodes": GPU_NODES[:2]}},
    ),
    "GD119": case(
        {"driver": {"library_versions": ("535.1", "550.54.15")}, "system": NO_CONTAINER},
        {"driver": {"library_versions": ("550.54.15",)}},
    ),
    "GD120": case(
        {"driver": {"libcuda_path": "/usr/local/cuda/compat/libcuda.so.1", "cuda_init_code": 804}},
        {"driver": {"cuda_init_code": 0}},
        {"driver": {"libcuda_path": "/usr/lib/x86_64-linux-gnu/libcuda.so.1"}},
    ),
    "GD121": case(
        {"driver": {"libcuda_path": "/usr/local/cuda/lib64/stubs/libcuda.so"}},
        {"driver": {"libcuda_path": "/usr/lib/x86_64-linux-gnu/libcuda.so.1"}},
    ),
    "GD122": case(
        {"driver": {"stuck_processes": ("77 (python) in nv_wait",)}, "system": NO_CONTAINER},
        {"driver": {"stuck_processes": ()}},
    ),
    "GD123": per_gpu(
        H100 | {"persistence_enabled": False, "processes": ()},
        {"persistence_enabled": True},
        {"processes": (process(),)},
        {"name": "NVIDIA GeForce RTX 4090"},
    ),
    "GD124": case(
        {
            "driver": {
                "nvswitch_count": 4,
                "services": (Service(name="nvidia-fabricmanager", running=False),),
            },
            "system": NO_CONTAINER | {"uptime_s": 300},
        },
        {"driver": {"services": (Service(name="nvidia-fabricmanager", running=True),)}},
        {"driver": {"nvswitch_count": 0}},
        {"system": {"uptime_s": 299}},
    ),
    "GD125": case(
        {
            "driver": {"fabric_manager_version": "550.144.03", "nvswitch_count": 4},
            "nvml": {"driver_version": "550.54.15"},
        },
        {"driver": {"fabric_manager_version": "550.54.15"}},
        {"driver": {"nvswitch_count": 0}},
    ),
    "GD126": case(
        {"gpus": [{"fabric_state": "in_progress"}], "system": {"uptime_s": 300}},
        {"gpus": {"fabric_state": "completed"}},
        {"gpus": {"fabric_state": "not_supported"}},
        {"system": {"uptime_s": 299}},
    ),
    "GD127": case(
        {"system": {"wsl": True}, "driver": {"library_versions": ("550.54.15",)}},
        {"system": {"wsl": False}},
        {"driver": {"library_versions": ()}},
    ),
    "GD128": case(
        {"system": {"wsl": True} | NO_CONTAINER, "driver": {"device_nodes": ()}},
        {"driver": {"device_nodes": (node("/dev/dxg"),)}},
        {"system": {"wsl": False}},
        {"system": {"container": "docker"}},
    ),
    "GD129": case(
        {
            "system": {"wsl": True},
            "driver": {"device_nodes": (node("/dev/dxg"),), "libcuda_path": NO_LIBCUDA},
        },
        {"driver": {"libcuda_path": "/usr/lib/wsl/lib/libcuda.so.1"}},
        {"driver": {"device_nodes": ()}},
        {"system": {"wsl": False}},
    ),
    "GD130": case(
        {"events": xid(119), "system": NO_CONTAINER}, {"events": xid(79)}, {"gpus": [WELL]}
    ),
    "GD131": case(
        {"system": {"wsl": True, "container": "docker"}, "driver": {"device_nodes": ()}},
        {"driver": {"device_nodes": (node("/dev/dxg"),)}},
        {"system": {"wsl": False}},
        {"system": NO_CONTAINER},
    ),
}

TORCH = {
    "GD201": case(
        {
            "gpus": [H100],
            "torch": {"version": "2.9.0+cpu", "cuda_version": None, "hip_version": None},
        },
        {"torch": CUDA_128},
        {"torch": {"hip_version": "6.4"}},
    ),
    "GD202": case(
        {
            "gpus": [H100],
            "nvml": {"driver_version": "524.99"},
            "driver": {"cuda_driver_version": "11.8"},
            "torch": CUDA_128,
        },
        {"nvml": {"driver_version": "525.60.13"}},
        {"driver": {"cuda_driver_version": "12.2"}},
    ),
    "GD203": case(
        {"gpus": [H100], "torch": CUDA_128 | {"arch_list": ("sm_80",)}},
        {"torch": {"arch_list": ("sm_80", "sm_90")}},
        {"torch": {"arch_list": ("sm_80", "compute_80")}},
    ),
    "GD204": case(
        {
            "packages": {
                "installed": (package("torch", "2.9.0"), package("torchvision", "0.23.0")),
                "requirements": (need("torchvision", "torch", "==2.8.0", "2.9.0"),),
            }
        },
        {"packages": {"requirements": (need("torchvision", "torch", "==2.9.0", "2.9.0"),)}},
    ),
    "GD205": case(
        {"torch": {"import_error": "OSError: libtorch_cpu.so: file too short"}, "env": {}},
        {"torch": {"import_error": None}},
    ),
    "GD206": case(
        {"torch": {"version": Missing("torch is not installed for /usr/bin/python3")}},
        {"torch": CUDA_128},
    ),
    "GD207": case(
        {"packages": {"installed": (package("torch", "2.2.2"), package("numpy", "2.0.0"))}},
        {"packages": {"installed": (package("torch", "2.3.0"), package("numpy", "2.0.0"))}},
    ),
    "GD208": case(
        {"gpus": [H100], "torch": CUDA_128 | {"arch_list": ("sm_80", "compute_80")}},
        {"torch": {"arch_list": ("sm_90",)}},
        {"torch": {"cuda_version": None}},
    ),
    "GD209": case(
        {
            "torch": {
                "libraries": (
                    MappedLibrary(
                        name="libcudnn.so.9", path="/usr/lib/libcudnn.so.9", from_wheel=False
                    ),
                )
            },
            "packages": {"installed": (package("nvidia-cudnn-cu12", "9.10.2.21"),)},
            "env": {"LD_LIBRARY_PATH": "/usr/lib"},
        },
        {
            "torch": {
                "libraries": (
                    MappedLibrary(
                        name="libcudnn.so.9", path="/venv/libcudnn.so.9", from_wheel=True
                    ),
                    MappedLibrary(name="libcuda.so.1", path="/usr/libcuda.so.1", from_wheel=False),
                )
            }
        },
        {"packages": {"installed": (package("torch", "2.9.0"),)}},
    ),
    "GD210": case(
        {
            "torch": {"cudnn_version": "9.1.0"},
            "packages": {"installed": (package("nvidia-cudnn-cu12", "9.10.2.21"),)},
        },
        {"torch": {"cudnn_version": "9.10.1"}},
        {"torch": {"cudnn_version": None}},
        {"packages": {"installed": ()}},
    ),
    "GD211": case(
        {
            "packages": {
                "requirements": (
                    need(
                        "torch",
                        "nvidia-nccl-cu12",
                        "==2.27.5",
                        "2.29.2",
                        'platform_system == "Linux" and platform_machine == "x86_64"',
                    ),
                )
            },
            "system": LINUX,
        },
        {"packages": {"requirements": (need("torch", "nvidia-nccl-cu12", "==2.27.5", "2.27.5"),)}},
        {"system": {"architecture": "aarch64"}},
    ),
    "GD212": case(
        {
            "packages": {
                "requirements": (
                    need(
                        "torch", "nvidia-nccl-cu12", "==2.27.5", None, 'platform_system == "Linux"'
                    ),
                )
            },
            "torch": {"import_error": "OSError: libnccl.so.2: cannot open shared object file"},
            "system": LINUX,
        },
        {"torch": {"import_error": None}},
        {"packages": {"requirements": (need("torch", "nvidia-nccl-cu12", "==2.27.5", "2.27.5"),)}},
    ),
    "GD213": case(
        {
            "packages": {
                "installed": (
                    package("nvidia-cudnn-cu12", "9.10.2.21"),
                    package("nvidia-cudnn-cu13", "9.13.0.50"),
                )
            }
        },
        {
            "packages": {
                "installed": (
                    package("nvidia-cudnn-cu12", "9.10.2.21"),
                    package("nvidia-nccl-cu13", "2.27.5"),
                )
            }
        },
    ),
    "GD214": case(
        {
            "packages": {
                "installed": (package("pynvml", "11.5.3"), package("nvidia-ml-py", "12.575.51"))
            }
        },
        {
            "packages": {
                "installed": (package("pynvml", "12.0.0"), package("nvidia-ml-py", "12.575.51"))
            }
        },
        {"packages": {"installed": (package("nvidia-ml-py", "12.575.51"),)}},
        {"packages": {"installed": (package("nvidia-ml-py3", "7.352.0"),)}},
    ),
    "GD215": case(
        {
            "packages": {
                "installed": (package("torch", "2.9.0"), package("torch", "2.8.0", "/other"))
            }
        },
        {
            "packages": {
                "installed": (package("torch", "2.9.0"), package("torch", "2.9.0", "/other"))
            }
        },
        {
            "packages": {
                "installed": (package("numpy", "2.0.0"), package("numpy", "1.26.4", "/other"))
            }
        },
    ),
    "GD216": case(
        {
            "packages": {"requirements": (need("torch", "triton", "==3.5.0", "3.2.0"),)},
            "system": LINUX,
        },
        {"packages": {"requirements": (need("torch", "triton", "==3.5.0", "3.5.0"),)}},
    ),
    "GD217": case(
        {"packages": {"requirements": (need("xformers", "torch", "==2.8.0", "2.9.0"),)}},
        {"packages": {"requirements": (need("xformers", "torch", "==2.9.0", "2.9.0"),)}},
        {"packages": {"requirements": (need("torchvision", "torch", "==2.8.0", "2.9.0"),)}},
    ),
    "GD218": case(
        {"torch": CUDA_128, "system": {"compiler": None}},
        {"system": {"compiler": "gcc"}},
        {"torch": {"cuda_version": None}},
    ),
    "GD219": case(
        {"torch": CUDA_128, "system": {"python_headers": False}},
        {"system": {"python_headers": True}},
        {"torch": {"cuda_version": None}},
    ),
    "GD220": case(
        {"torch": CUDA_128, "system": {"cuda_toolkit_version": "11.8"}},
        {"system": {"cuda_toolkit_version": "12.4"}},
        {"system": {"cuda_toolkit_version": None}},
    ),
    "GD221": case(
        {"torch": CUDA_128 | {"cuda_available": False, "cuda_error": "no device"}, "gpus": [H100]},
        {"torch": {"cuda_available": True}},
        {"torch": {"cuda_version": None}},
    ),
    "GD222": case(
        {"torch": {"hip_version": "6.4", "version": "2.9.0+rocm6.4"}, "gpus": [H100]},
        {"torch": {"hip_version": None}},
        {"gpus": []},
    ),
    "GD223": case(
        {"packages": {"installed": (package("torch", "2.5.1"),)}},
        {"packages": {"installed": (package("torch", "2.6.0"),)}},
    ),
    "GD224": case(
        {
            "packages": {
                "environment_kind": "conda",
                "installed": (package("torch", "2.1.0", "~/.local/lib/python3.11/site-packages"),),
            }
        },
        {"packages": {"environment_kind": "venv"}},
        {"packages": {"installed": (package("torch", "2.1.0", "/conda/lib"),)}},
    ),
    "GD225": case(
        {
            "torch": {"cuda_version": "11.8"},
            "gpus": [H100],
            "nvml": {"driver_version": "550.54.15"},
        },
        {"torch": {"cuda_version": "12.1"}},
        {"nvml": {"driver_version": "470.1"}},
    ),
    "GD226": case(
        {
            "torch": {"import_warnings": (NO_NUMPY,)},
            "packages": {"installed": (package("torch", "2.9.0"),)},
        },
        {"torch": {"import_warnings": ()}},
        {"packages": {"installed": ()}},
        {
            "torch": {"import_warnings": ABSENT_FACT},
            "packages": {"installed": (package("torch", "2.9.0"), package("numpy", "2.0.0"))},
        },
    ),
    "GD227": case(
        {"torch": {"import_error": Missing("import torch gave no answer within 20 s")}},
        {"torch": {"import_error": None}},
        {"torch": {"import_error": "ImportError: no kernel image"}},
    ),
    "GD228": case(
        {"packages": {"torch_in_working_folder": "/home/ada/project/torch.py"}},
        {"packages": {"torch_in_working_folder": None}},
    ),
}

VISIBILITY = {
    "GD301": environment("CUDA_VISIBLE_DEVICES", "", "0", None, gpus=[H100]),
    "GD302": environment("CUDA_VISIBLE_DEVICES", "0-1", "0,1", None, gpus=TWO),
    "GD303": environment("CUDA_VISIBLE_DEVICES", "0,0", "0,1", None, gpus=TWO),
    "GD304": environment("CUDA_VISIBLE_DEVICES", "0,2", "0,1", None, gpus=TWO),
    "GD305": case(
        {
            "misspelt": [
                Misspelling(name="CUDA_VISIBLE_DEVICE", meant="CUDA_VISIBLE_DEVICES", value="0")
            ]
        },
        {"misspelt": []},
    ),
    "GD306": case(
        {
            "system": {"container": "docker"},
            "driver": {"pci_devices": (device(),), "device_nodes": ()},
            "env": {},
        },
        {"driver": {"device_nodes": GPU_NODES}},
        {"system": {"container": None}},
    ),
    "GD307": case(
        {"driver": {"device_nodes": (node("/dev/nvidia0", usable=False),)}},
        {"driver": {"device_nodes": GPU_NODES}},
    ),
    "GD308": per_gpu({"compute_mode": "prohibited"}, {"compute_mode": "default"}),
    "GD309": per_gpu(
        {"compute_mode": "exclusive_process", "processes": (process(),)},
        {"processes": ()},
        {"compute_mode": "default"},
    ),
    "GD310": environment("CUDA_VISIBLE_DEVICES", "GPU-1a2b3c4d", "0", "MIG-1a2b3c4d", None),
    "GD311": environment("CUDA_VISIBLE_DEVICES", "MIG-1a,MIG-2b", "MIG-1a", "0,1", None),
    "GD312": case(
        {"gpus": [{"mig_enabled": True, "mig_uuids": ()}], "system": NO_CONTAINER},
        {"gpus": {"mig_uuids": ("MIG-1a2b3c4d",)}},
        {"gpus": {"mig_enabled": False}},
    ),
    "GD313": case(
        {
            "env": {"NVIDIA_VISIBLE_DEVICES": "void"},
            "system": {"container": "docker"},
            "driver": {"device_nodes": ()},
        },
        {"env": {"NVIDIA_VISIBLE_DEVICES": "all"}},
        {"driver": {"device_nodes": GPU_NODES}},
        {"system": {"container": None}},
    ),
    "GD314": case(
        {
            "env": {"NVIDIA_DRIVER_CAPABILITIES": "utility"},
            "system": {"container": "docker"},
            "driver": {"device_nodes": GPU_NODES},
        },
        {"env": {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}},
        {"env": {"NVIDIA_DRIVER_CAPABILITIES": "all"}},
        {"driver": {"device_nodes": ()}},
    ),
    "GD315": case(
        {
            "env": {"NVIDIA_DRIVER_CAPABILITIES": "compute"},
            "system": {"container": "docker"},
            "driver": {"device_nodes": GPU_NODES},
        },
        {"env": {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}},
        {"env": {}},
    ),
    "GD316": case(
        {
            "system": {"container": "docker"},
            "nvml": {"init_code": 999},
            "driver": {"device_nodes": GPU_NODES},
        },
        {"nvml": {"init_code": 0}},
        {"system": {"container": None}},
        {"driver": {"device_nodes": ()}},
    ),
    "GD317": case(
        {
            "system": NO_CONTAINER,
            "driver": {"module_loaded": True, "device_nodes": (), "pci_devices": (device(),)},
        },
        {"driver": {"device_nodes": GPU_NODES}},
        {"driver": {"module_loaded": False}},
    ),
    "GD318": case(
        {"system": {"scheduler": "slurm"}, "env": {}, "gpus": [H100]},
        {"env": {"SLURM_JOB_GPUS": "0"}},
        {"env": {"CUDA_VISIBLE_DEVICES": "0"}},
        {"system": {"scheduler": None}},
        {"gpus": []},
    ),
    "GD319": case(
        {"driver": {"cuda_device_count": 1}, "gpus": [{"mig_enabled": False}] * 2, "env": {}},
        {"driver": {"cuda_device_count": 2}},
        {"env": {"CUDA_VISIBLE_DEVICES": "1"}},
    ),
    "GD320": case(
        {"env": {"LOCAL_RANK": "2"}, "torch": {"devices": TORCH_DEVICES}},
        {"env": {"LOCAL_RANK": "1"}},
        {"env": {}},
    ),
    "GD321": case(
        {"env": {"RANK": "4", "WORLD_SIZE": "4"}},
        {"env": {"RANK": "3", "WORLD_SIZE": "4"}},
        {"env": {}},
    ),
    "GD322": environment("CUDA_DEVICE_ORDER", "PCI", "PCI_BUS_ID", "FASTEST_FIRST", None),
}

HARDWARE = {
    "GD401": per_gpu({"error_codes": (15,)}, {"error_codes": ()}, {"error_codes": (16,)}),
    "GD402": per_gpu({"error_codes": (16,)}, {"error_codes": (15,)}),
    "GD403": per_gpu({"row_remap_pending": True}, {"row_remap_pending": False}),
    "GD404": per_gpu({"row_remap_failed": True}, {"row_remap_failed": False}),
    "GD405": per_gpu({"page_retirement_pending": True}, {"page_retirement_pending": False}),
    "GD406": per_gpu({"clock_event_reasons": 0x20}, {"clock_event_reasons": 0x4}),
    "GD407": per_gpu({"clock_event_reasons": 0x80}, {"clock_event_reasons": 0x1}),
    "GD408": per_gpu(
        {
            "clock_event_reasons": 0x4,
            "power_limit_watts": 698.9,
            "power_limit_default_watts": 700.0,
        },
        {"power_limit_watts": 699.0},
        {"clock_event_reasons": 0},
    ),
    "GD409": per_gpu(
        {"temperature_celsius": 0, "memory_total_bytes": GIB, "memory_used_bytes": 0},
        {"temperature_celsius": 1},
    ),
    "GD410": per_gpu({"ecc_uncorrected_volatile": 1}, {"ecc_uncorrected_volatile": 0}),
    "GD411": case({"events": xid(79), "system": NO_CONTAINER}, {"events": xid(13)}, {"events": ()}),
    "GD412": case({"events": xid(31), "system": NO_CONTAINER}, {"events": xid(79)}),
    "GD413": case({"events": xid(94), "system": NO_CONTAINER}, {"events": xid(95)}),
    "GD414": case(
        {"events": xid(95), "system": NO_CONTAINER}, {"events": xid(94)}, {"gpus": [WELL]}
    ),
    "GD415": per_gpu({"ecc_uncorrected_aggregate_sram": 5}, {"ecc_uncorrected_aggregate_sram": 4}),
    "GD416": per_gpu({"rows_remapped_uncorrectable": 512}, {"rows_remapped_uncorrectable": 511}),
    "GD417": per_gpu(
        {"pages_retired_single_bit": 60, "pages_retired_double_bit": 4},
        {"pages_retired_double_bit": 3},
    ),
    "GD418": case(
        {
            "system": NO_CONTAINER | {"scheduler": None},
            "driver": {
                "module_loaded": True,
                "pci_devices": (device(), device("0000:43:00.0")),
            },
            "gpus": [{"pci_address": "0000:1b:00.0"}],
        },
        {"driver": {"pci_devices": (device(),)}},
        {"driver": {"pci_devices": (device(), device("0000:43:00.0", "vfio-pci"))}},
        {
            "driver": {
                "pci_devices": (device(), device("0000:43:00.0", None, "0x128b")),
                "module_version": "580.65.06",
            }
        },
        {"driver": {"module_loaded": False}},
    ),
    "GD419": per_gpu({"pcie_width_lanes": 8, "pcie_width_max_lanes": 16}, {"pcie_width_lanes": 16}),
    "GD420": per_gpu(
        {
            "pcie_generation": 1,
            "pcie_generation_max": 4,
            "utilization_fraction": 0.5,
            "performance_state": 2,
        },
        {"utilization_fraction": 0.49},
        {"performance_state": 3},
        {"pcie_generation": 4},
    ),
    "GD421": per_gpu(
        {"pcie_generation_max": 3, "pcie_generation_gpu_max": 4}, {"pcie_generation_max": 4}
    ),
    "GD422": per_gpu({"inforom_valid": False}, {"inforom_valid": True}),
    "GD423": per_gpu({"error_codes": (8,)}, {"error_codes": (11,)}),
    "GD424": per_gpu({"error_codes": (11,)}, {"error_codes": (8,)}),
    "GD425": per_gpu({"recovery_action": "gpu_reset"}, {"recovery_action": "none"}),
    "GD426": per_gpu(
        {"clock_event_reasons": 0x2, "clock_sm_mhz": 1095, "clock_sm_max_mhz": 1410},
        {"clock_sm_mhz": 1410},
        {"clock_event_reasons": 0x4},
    ),
    "GD427": per_gpu(
        {
            "utilization_fraction": 0.9,
            "clock_sm_mhz": 989,
            "clock_sm_max_mhz": 1980,
            "clock_event_reasons": 0,
        },
        {"clock_sm_mhz": 990},
        {"utilization_fraction": 0.89},
        {"clock_event_reasons": 0x4},
    ),
    "GD428": per_gpu(
        {"temperature_memory_celsius": 95, "temperature_memory_max_celsius": 95},
        {"temperature_memory_celsius": 94},
    ),
    "GD429": case(
        {"gpus": [H100 | {"power_limit_watts": 700.0}, H100 | {"power_limit_watts": 698.9}]},
        {"gpus": [H100 | {"power_limit_watts": 700.0}, H100 | {"power_limit_watts": 699.0}]},
        {
            "gpus": [
                H100 | {"power_limit_watts": 700.0},
                {"name": "NVIDIA A100", "power_limit_watts": 400.0},
            ]
        },
    ),
}

MEMORY = {
    "GD501": per_gpu(
        {
            "processes": (),
            "memory_used_bytes": 1537 * MIB,
            "memory_total_bytes": 80 * GIB,
            "memory_reserved_bytes": 0,
        },
        {"memory_used_bytes": 512 * MIB},
    ),
    "GD502": case(
        {"gpus": [{"processes": (process(visible=False),)}], "system": NO_CONTAINER},
        {"gpus": {"processes": (process(),)}},
    ),
    "GD503": case(
        {
            "torch": {
                "allocator": (
                    AllocatorState(
                        device="cuda:0",
                        uuid=None,
                        allocated_bytes=4 * GIB,
                        reserved_bytes=5 * GIB,
                        fragmented_bytes=GIB,
                    ),
                )
            }
        },
        {
            "torch": {
                "allocator": (
                    AllocatorState(
                        device="cuda:0",
                        uuid=None,
                        allocated_bytes=4 * GIB,
                        reserved_bytes=5 * GIB + 5,
                        fragmented_bytes=GIB,
                    ),
                    AllocatorState(
                        device="cuda:1",
                        uuid=None,
                        allocated_bytes=GIB,
                        reserved_bytes=2 * GIB,
                        fragmented_bytes=GIB - 1,
                    ),
                )
            }
        },
    ),
    "GD504": per_gpu(
        {"bar1_used_bytes": 95 * MIB, "bar1_total_bytes": 100 * MIB},
        {"bar1_used_bytes": 95 * MIB - 1},
    ),
}

SYSTEM = {
    "GD601": case(
        {
            "system": {
                "shm_total_bytes": 1023 * MIB,
                "shm_used_bytes": 0,
                "container": "docker",
            }
        },
        {"system": {"shm_total_bytes": 1024 * MIB}},
    ),
    "GD602": case({"system": {"open_files_limit": 1024}}, {"system": {"open_files_limit": 1025}}),
    "GD603": case(
        {
            "system": {
                "locked_memory_limit_bytes": 64 * MIB,
                "infiniband_devices": ("mlx5_0",),
                "container": "docker",
            }
        },
        {"system": {"locked_memory_limit_bytes": 64 * MIB + 1}},
        {"system": {"locked_memory_limit_bytes": None}},
        {"system": {"infiniband_devices": ()}},
    ),
    "GD604": case(
        {"system": {"cpu_quota": 7.5, "cpu_affinity_count": 8}, "env": {}},
        {"system": {"cpu_quota": 8.0}},
        {"system": {"cpu_quota": None}},
        {"env": {"OMP_NUM_THREADS": "7"}},
    ),
    "GD605": case(
        {"system": {"cpu_affinity_count": 3, "cpu_quota": None}, "gpus": [H100, H100]},
        {"system": {"cpu_affinity_count": 4}},
        {"gpus": []},
    ),
    "GD606": case(
        {"system": {"disks": (Disk(use="home", total_bytes=9 * GIB, free_bytes=GIB - 1),)}},
        {"system": {"disks": (Disk(use="home", total_bytes=9 * GIB, free_bytes=GIB),)}},
        {"system": {"disks": (Disk(use="home", total_bytes=GIB, free_bytes=GIB // 2),)}},
    ),
    "GD607": case(
        {"system": {"memory_limit_bytes": 4 * GIB - 1, "container": "kubernetes"}},
        {"system": {"memory_limit_bytes": 4 * GIB}},
        {"system": {"memory_limit_bytes": None}},
    ),
    "GD608": case(
        {
            "system": {
                "shm_total_bytes": 10 * GIB,
                "shm_used_bytes": 9 * GIB,
                "container": "docker",
            }
        },
        {"system": {"shm_used_bytes": 9 * GIB - 1}},
    ),
    "GD609": case(
        {
            "system": {"nccl_segments": 1} | NO_CONTAINER,
            "gpus": [
                {
                    "processes": (),
                    "memory_used_bytes": 300 * MIB - 1,
                    "utilization_fraction": 0.0,
                }
            ],
        },
        {"system": {"nccl_segments": 0}},
        {"gpus": {"processes": (process(),)}},
        {"gpus": {"memory_used_bytes": 300 * MIB}},
        {"gpus": {"utilization_fraction": 0.01}},
    ),
    "GD610": case(
        {
            "events": line("Out of memory: Killed process 77 (python3) total-vm:14119556kB"),
            "system": NO_CONTAINER,
        },
        {"events": line("Out of memory: Killed process 77 (firefox) total-vm:14119556kB")},
    ),
    "GD611": case(
        {
            "events": line("python[77]: segfault at 0 ip 0 sp 0 error 4 in libnccl.so.2[7f00]"),
            "system": NO_CONTAINER,
        },
        {"events": line("python[77]: segfault at 0 ip 0 sp 0 error 4 in libc.so.6[7f00]")},
    ),
    "GD612": case(
        {
            "env": {"OMP_NUM_THREADS": "5"},
            "system": {"cpu_affinity_count": 8, "cpu_quota": 4.0},
        },
        {"env": {"OMP_NUM_THREADS": "4"}},
        {"env": {}},
    ),
    "GD613": environment("CUDA_LAUNCH_BLOCKING", "1", "0", None),
    "GD614": environment("TORCH_USE_CUDA_DSA", "1", "0", None),
    "GD615": environment("PYTORCH_NO_CUDA_MEMORY_CACHING", "0", None),
    "GD616": case(
        {"env": {"NVIDIA_TF32_OVERRIDE": "0"}, "gpus": [{"compute_capability": (8, 0)}]},
        {"gpus": {"compute_capability": (7, 5)}},
        {"env": {}},
    ),
    "GD617": case(
        {
            "torch": {"float32_matmul_precision": "highest", "cuda_available": True},
            "gpus": [{"compute_capability": (8, 0)}],
        },
        {"torch": {"cuda_available": False}},  # a build for the CPU, or no GPU for this process
        {"torch": {"float32_matmul_precision": "high"}},
        {"gpus": {"compute_capability": (7, 5)}},
    ),
    "GD618": environment(
        "PYTORCH_CUDA_ALLOC_CONF",
        "max_split_size_mb:19",
        "max_split_size_mb:20",
        "expandable_segments:True,roundup_power2_divisions:[256:1,512:2,>:4]",
        None,
    ),
    "GD619": environment(
        "PYTORCH_CUDA_ALLOC_CONF", "expandable_segment:True", "expandable_segments:True", None
    ),
    "GD620": case(
        {
            "env": {
                "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
                "PYTORCH_ALLOC_CONF": "expandable_segments:False",
            }
        },
        {
            "env": {
                "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
                "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            }
        },
        {"env": {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}},
    ),
    "GD621": environment(
        "LD_LIBRARY_PATH", "/usr/local/cuda/lib64/stubs", "/usr/local/cuda/lib64", None
    ),
    "GD622": environment("LD_PRELOAD", "/opt/libnccl.so.2", "/usr/lib/libjemalloc.so.2", None),
    "GD623": environment("CUDA_MODULE_LOADING", "EAGER", "LAZY", None),
    "GD624": environment("CUDA_CACHE_DISABLE", "1", "0", None),
    "GD625": case(
        {
            "env": {"TORCH_CUDA_ARCH_LIST": "8.0;8.6"},
            "gpus": [{"compute_capability": (9, 0)}],
        },
        {"env": {"TORCH_CUDA_ARCH_LIST": "8.0;9.0"}},
        {"env": {"TORCH_CUDA_ARCH_LIST": "8.0+PTX"}},
        {"gpus": {"compute_capability": (8, 9)}},
        {"env": {}},
    ),
    "GD626": case(
        {"dangling": [Variable(name="NCCL_TOPO_FILE", value="/opt/topo.xml")]}, {"dangling": []}
    ),
    "GD627": environment(
        "PYTHONPATH", "/opt/conda/lib/python3.11/site-packages", "/work/src", None
    ),
    "GD628": case(
        {"env": {"VIRTUAL_ENV": "/work/venv"}, "packages": {"prefix": "/opt/tools"}},
        {"packages": {"prefix": "/work/venv"}},
        {"env": {}},
    ),
}

MULTI_GPU = {
    "GD701": case(
        {"gpus": [H100, {"name": "NVIDIA L4"}], "env": {}},
        {"gpus": TWO},
        {"env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}},
    ),
    "GD702": case(
        {"system": {"virtual_machine": None, "acs_redirects": ("0000:00:01.0",)}, "gpus": TWO},
        {"system": {"acs_redirects": ()}},
        {"system": {"virtual_machine": "KVM"}},
        {"gpus": [H100]},
    ),
    "GD703": case(
        {
            "system": BARE | {"iommu_groups": 80, "kernel_parameters": ()},
            "nvml": {"pairs": pair(p2p_read="ok", p2p_nvlink="not_supported")},
        },
        {"system": {"iommu_groups": 0}},
        {"system": {"kernel_parameters": ("iommu=pt",)}},
        {"nvml": {"pairs": pair(p2p_read="ok", p2p_nvlink="ok")}},
        {"system": {"virtual_machine": "KVM"}},
    ),
    "GD704": case(
        {
            "system": {"virtual_machine": None},
            "gpus": [{"nvlink_active": (0, 1), "nvlink_inactive": (2,)}],
        },
        {"gpus": {"nvlink_inactive": ()}},
        {"gpus": {"nvlink_active": ()}},
    ),
    "GD705": case(
        {
            "system": {"virtual_machine": None},
            "gpus": [H100 | {"nvlink_active": (0, 1)}, H100 | {"nvlink_active": (0,)}],
        },
        {"gpus": {"nvlink_active": (0, 1)}},
    ),
    "GD706": per_gpu(
        {"nvlink_errors": (NvLinkError(link=3, kind="recovery", count=1),)},
        {"nvlink_errors": ()},
        {"nvlink_errors": (NvLinkError(link=3, kind="replay", count=9),)},
    ),
    "GD707": case(
        {"nvml": {"pairs": pair(p2p_read="gpu_not_supported", p2p_write="gpu_not_supported")}},
        {"nvml": {"pairs": pair(p2p_read="ok", p2p_write="ok")}},
        {"nvml": {"pairs": ()}},
    ),
    "GD708": environment("NCCL_P2P_DISABLE", "1", "0", None, nvml={"pairs": pair(p2p_read="ok")}),
    "GD709": environment(
        "NCCL_IB_DISABLE", "1", "0", None, system={"infiniband_devices": ("mlx5_0",)}
    ),
    "GD710": environment("NCCL_SHM_DISABLE", "1", "0", None, gpus=TWO),
    "GD711": environment(
        "NCCL_SOCKET_IFNAME",
        "ib0",
        "eth",
        "=eth0",
        "^docker",
        None,
        system={"network_interfaces": ("lo", "eth0")},
    ),
    "GD712": environment(
        "NCCL_IB_HCA", "mlx4", "mlx5", "mlx5_0:1", None, system={"infiniband_devices": ("mlx5_0",)}
    ),
    "GD713": case(
        {"env": {"NCCL_SOCKET_IFNAME": "lo", "SLURM_NNODES": "2"}},
        {"env": {"NCCL_SOCKET_IFNAME": "lo", "SLURM_NNODES": "1"}},
        {"env": {"NCCL_SOCKET_IFNAME": "eth0", "SLURM_NNODES": "2"}},
        {"env": {"NCCL_SOCKET_IFNAME": "^lo", "SLURM_NNODES": "2"}},
    ),
    "GD714": case(
        {"system": {"infiniband_devices": ("mlx5_0",), "infiniband_library": False}},
        {"system": {"infiniband_library": True}},
        {"system": {"infiniband_devices": ()}},
    ),
    "GD715": environment("NCCL_DEBUG", "INFO", "WARN", None),
    "GD716": case(
        {
            "gpus": [
                H100 | {"ecc_enabled": True, "compute_mode": "default"},
                H100 | {"ecc_enabled": False, "compute_mode": "default"},
            ]
        },
        {"gpus": {"ecc_enabled": True}},
    ),
    "GD718": per_gpu(
        {"fabric_state": "completed", "fabric_health": "unhealthy"},
        {"fabric_health": "healthy"},
        {"fabric_state": "not_supported"},
    ),
}

CASES: dict[str, Case] = DRIVER | TORCH | VISIBILITY | HARDWARE | MEMORY | SYSTEM | MULTI_GPU
