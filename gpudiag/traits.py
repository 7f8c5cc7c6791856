"""Snapshot -> named facts that can be compared between machines, as short readable text.

The name is where the snapshot holds it (``torch.version``, ``env.CUDA_VISIBLE_DEVICES``). What
differs between any two machines or any two moments is left out: temperatures, free memory, pids,
times, UUIDs, addresses. The GPUs of a machine are one fact each way: ``700 W``, or
``700 W (GPU 0, 2), 400 W (GPU 1)`` where they differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from gpudiag.snapshot import Fact, Missing, Section, Snapshot, TorchBuild, known_or

Value: TypeAlias = str | None  # None: nothing, as in "the variable is not set"
Traits: TypeAlias = dict[str, Fact[Value]]

GIB = 2**30
MIB = 2**20

# Fields of a section that can decide whether a program runs, in the order in which they are told.
MATTERS: dict[str, tuple[str, ...]] = {
    "nvml": ("driver_version", "cuda_version", "init_code", "failure"),
    "driver": (
        *("module_loaded", "module_version", "module_kind", "module_on_disk_version"),
        *("library_versions", "libcuda_path", "cuda_init_code", "cuda_driver_version"),
        *("cuda_device_count", "fabric_manager_version", "nvswitch_count"),
    ),
    "gpu": (
        *("name", "compute_capability", "memory_total_bytes", "error_codes", "compute_mode"),
        *("mig_enabled", "mig_instances", "ecc_enabled", "power_limit_watts", "clock_sm_max_mhz"),
        *("clock_memory_max_mhz", "pcie_generation_max", "pcie_width_lanes"),
        *("pcie_width_max_lanes", "nvlink_active", "fabric_state", "fabric_health"),
        *("gsp_firmware_enabled", "row_remap_pending", "row_remap_failed"),
        *("page_retirement_pending", "recovery_action", "inforom_valid", "ecc_enabled_pending"),
        "mig_enabled_pending",
    ),
    "torch": (
        *("version", "cuda_version", "hip_version", "xpu_version", "cudnn_version"),
        *("nccl_version", "arch_list", "deterministic_algorithms", "cudnn_benchmark"),
        *("import_error", "cuda_available", "cuda_error", "devices", "accelerator", "libraries"),
        *("allocator_backend", "allocator_settings", "float32_matmul_precision"),
        *("cudnn_allows_tf32", "fp16_reduced_precision", "bf16_reduced_precision"),
    ),
    "system": (
        *("python_version", "architecture", "container", "virtual_machine", "wsl"),
        *("cpu_affinity_count", "cpu_quota", "memory_limit_bytes", "shm_total_bytes"),
        *("open_files_limit", "locked_memory_limit_bytes", "kernel_parameters", "acs_redirects"),
        *("infiniband_devices", "infiniband_library", "network_interfaces", "compiler"),
        *("python_headers", "cuda_toolkit_version"),
    ),
}
# Fields that are told, too, and rarely decide anything.
CONTEXT: dict[str, tuple[str, ...]] = {
    "nvml": ("library_version", "init_message"),
    "driver": ("secure_boot",),
    "gpu": (
        *("brand", "architecture", "vbios_version", "persistence_enabled", "display_active"),
        *("display_connected", "power_limit_default_watts", "power_limit_max_watts"),
        *("power_limit_min_watts", "bar1_total_bytes", "pcie_generation_gpu_max"),
        *("nvlink_version", "gsp_firmware_version", "gsp_firmware_default"),
    ),
    "torch": ("import_warnings",),
    "packages": ("environment_kind", "environment_tool", "torch_in_working_folder"),
    "system": (
        *("os_name", "kernel", "cpu_count", "memory_total_bytes", "iommu_groups", "scheduler"),
        "is_root",
    ),
}
# Traits that are not one field; the family before the dot stands for all of its members.
MADE_MATTER = ("gpu.count", "gpu.p2p", "driver.device_nodes", "driver.pci_devices")
FAMILIES_MATTER = ("library", "package", "env", "service")
FAMILIES = (*FAMILIES_MATTER, "parameter")
# Variables that name a process, a job or a folder.
PERSONAL_VARIABLES = frozenset(
    {
        *("RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_GPUS"),
        *("SLURM_STEP_GPUS", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"),
    }
)
NOTHING = {"env": "not set", "package": "not installed", "library": "not loaded"}
# How the reasons begin: in this snapshot or by an older gpudiag; with --no-torch.
UNASKED = ("not recorded ", "torch was not asked ")
ORDER = ("nvml", "driver", "gpu", "torch", "library", "package", "system", "env", "service")


def traits_of(snapshot: Snapshot) -> Traits:
    """Every fact of a machine that can be compared with another machine's.

    Example:
        >>> from gpudiag.snapshot import Environment, Variable
        >>> variables = (Variable(name="NCCL_DEBUG", value="INFO"),)
        >>> traits_of(Snapshot(environment=Environment(variables=variables)))["env.NCCL_DEBUG"]
        'INFO'
    """
    found: Traits = {}
    for name in ("nvml", "driver", "torch", "system", "packages"):
        section: Section = getattr(snapshot, name)
        for field in (*MATTERS.get(name, ()), *CONTEXT.get(name, ())):
            if (name, field) not in SPECIAL:
                found[f"{name}.{field}"] = shown(field, getattr(section, field))
    found["driver.device_nodes"] = _device_nodes(snapshot)
    found["driver.pci_devices"] = _pci_devices(snapshot)
    found["torch.devices"] = _torch_devices(snapshot.torch)
    found |= _gpus(snapshot)
    for family in FAMILIES:
        members = _members(family, snapshot)
        if isinstance(members, Missing):
            found[family] = members
        else:
            found |= {f"{family}.{name}": value for name, value in members}
    return found


def names(machines: Iterable[Traits]) -> list[str]:
    """The names of all facts of some machines, what can matter first."""
    found = {name for machine in machines for name in machine if name not in FAMILIES}
    return sorted(found, key=place)


def look_up(facts: Traits, name: str) -> Fact[Value] | None:
    """A fact by name: None where it does not apply, a reason where its family is not known."""
    if name in facts:
        return facts[name]
    family = name.partition(".")[0]
    if family in FAMILIES:
        return facts.get(family)
    return None


def applies(facts: Traits, name: str) -> bool:
    """Whether a machine has such a fact at all: one without GPUs has no power limit."""
    return name in facts or name.partition(".")[0] in FAMILIES


def was_asked(value: Fact[Value]) -> bool:
    """Whether the gpudiag that took the snapshot asked for the fact; if not, it says nothing.

    Example:
        >>> was_asked(Missing("not recorded by gpudiag 0.1.0")), was_asked(None)
        (False, True)
    """
    return not isinstance(value, Missing) or not value.missing.startswith(UNASKED)


def can_matter(name: str) -> bool:
    """Whether a difference in a fact can decide if a program runs.

    Example:
        >>> can_matter("torch.version"), can_matter("system.kernel")
        (True, False)
    """
    family, _, field = name.partition(".")
    if family == "env":
        return field not in PERSONAL_VARIABLES
    return family in FAMILIES_MATTER or name in MADE_MATTER or field in MATTERS.get(family, ())


def told(name: str, value: Fact[Value]) -> str:
    """A value in words, also where there is none or where it is not known.

    Example:
        >>> told("env.NCCL_DEBUG", None), told("torch.version", Missing("import torch fails"))
        ('not set', 'not known: import torch fails')
    """
    if isinstance(value, Missing):
        return f"not known: {value.missing}"
    return NOTHING.get(name.partition(".")[0], "none") if value is None else value


def place(name: str) -> tuple[bool, int, int, str]:
    """Sorts facts: what can matter first, then driver, GPU, torch, libraries, limits, variables."""
    family, _, field = name.partition(".")
    fields = (*MATTERS.get(family, ()), *CONTEXT.get(family, ()))
    return (
        not can_matter(name),
        ORDER.index(family) if family in ORDER else len(ORDER),
        fields.index(field) if field in fields else -1,
        name,
    )


def shown(field: str, value: Any) -> Fact[Value]:
    """The value of a field as text; small differences in sizes are rounded away.

    Example:
        >>> shown("memory_total_bytes", 85520809984), shown("arch_list", ("sm_80", "sm_90"))
        ('79.6 GiB', 'sm_80, sm_90')
        >>> shown("compute_capability", (9, 0)), shown("wsl", False)
        ('9.0', 'no')
    """
    if value is None or value == () or isinstance(value, Missing | str):
        return value or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        separator = "." if field == "compute_capability" else ", "
        return separator.join(str(one) for one in value)
    if field.endswith("_bytes"):
        return f"{value / GIB:.1f} GiB" if value >= GIB else f"{value / MIB:.0f} MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _gpus(snapshot: Snapshot) -> Traits:
    gpus = snapshot.nvml.gpus
    if isinstance(gpus, Missing):
        return {"gpu.count": gpus, "gpu.name": gpus}
    found: Traits = {"gpu.count": str(len(gpus))}
    if gpus:
        for field in (*MATTERS["gpu"], *CONTEXT["gpu"]):
            read = GPU_SPECIAL.get(field, shown)
            found[f"gpu.{field}"] = together([read(field, getattr(gpu, field)) for gpu in gpus])
    if len(gpus) > 1:
        found["gpu.p2p"] = _p2p(snapshot)
    return found


def together(values: Sequence[Fact[Value]]) -> Fact[Value]:
    """One value for all GPUs where they agree, else every value with the GPUs that have it.

    Example:
        >>> together(["700", "700"]), together(["700", "400", "700"])
        ('700', '700 (GPU 0, 2), 400 (GPU 1)')
    """
    if all(value == values[0] for value in values):
        return values[0]
    holders: dict[str, list[str]] = {}
    for index, value in enumerate(values):
        text = "not known" if isinstance(value, Missing) else str(value or "none")
        holders.setdefault(text, []).append(str(index))
    return ", ".join(f"{text} (GPU {', '.join(gpus)})" for text, gpus in holders.items())


def _count(_field: str, value: Any) -> Fact[Value]:
    return value if isinstance(value, Missing) else str(len(value))


def _profiles(_field: str, value: Any) -> Fact[Value]:
    if isinstance(value, Missing):
        return value
    return _tally(known_or(instance.profile, "not known") for instance in value) or None


def _p2p(snapshot: Snapshot) -> Fact[Value]:
    pairs = snapshot.nvml.pairs
    if isinstance(pairs, Missing):
        return pairs
    return _tally(
        f"{known_or(pair.topology, 'not known')}: {known_or(pair.p2p_read, 'not known')}"
        for pair in pairs
    )


def _device_nodes(snapshot: Snapshot) -> Fact[Value]:
    nodes = snapshot.driver.device_nodes
    if isinstance(nodes, Missing):
        return nodes
    return _tally("usable" if node.usable else "not usable" for node in nodes) or None


def _pci_devices(snapshot: Snapshot) -> Fact[Value]:
    devices = snapshot.driver.pci_devices
    if isinstance(devices, Missing):
        return devices
    return _tally(f"driven by {device.kernel_driver or 'nothing'}" for device in devices) or None


def _torch_devices(torch: TorchBuild) -> Fact[Value]:
    devices = torch.devices
    if isinstance(devices, Missing):
        return devices
    return _tally(device.name for device in devices) or None


def _members(family: str, snapshot: Snapshot) -> list[tuple[str, str]] | Missing:
    """The named members of a family, or why none is known."""
    source = {
        "library": snapshot.torch.libraries,
        "package": snapshot.packages.installed,
        "env": snapshot.environment.variables,
        "service": snapshot.driver.services,
        "parameter": snapshot.driver.parameters,
    }[family]
    if isinstance(source, Missing):
        return source
    pairs: dict[str, list[str]] = {}
    for member in source:
        name, value = MEMBER[family](member)
        pairs.setdefault(name, []).append(value)
    if family == "env":
        for slip in known_or(snapshot.environment.misspelt, ()):
            pairs[slip.name] = [f"{slip.value} (a slip for {slip.meant})"]
    return [(name, ", ".join(dict.fromkeys(values))) for name, values in pairs.items()]


def _tally(texts: Iterable[str]) -> str:
    """Equal texts counted, in the order in which they come first."""
    return ", ".join(f"{count} x {text}" for text, count in Counter(texts).items())


def _library(library: Any) -> tuple[str, str]:
    """Without the version in the name, so that libcudart.so.12 is compared with libcudart.so.13."""
    where = "in the wheel" if library.from_wheel else library.path
    return library.name.partition(".so")[0], f"{library.name} ({where})"


MEMBER: dict[str, Callable[[Any], tuple[str, str]]] = {
    "library": _library,
    "package": lambda package: (package.name, package.build or package.version),
    "env": lambda variable: (variable.name, variable.value),
    "service": lambda service: (service.name, "running" if service.running else "not running"),
    "parameter": lambda variable: (variable.name, variable.value),
}
SPECIAL = {("torch", "devices"), ("torch", "libraries")}
GPU_SPECIAL = {"nvlink_active": _count, "mig_instances": _profiles}
