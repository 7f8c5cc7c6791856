"""What the probes saw, as plain frozen data: a fact is a value or the reason why there is none.

Every name carries its unit (``_bytes``, ``_celsius``, ``_s``, ``_fraction`` in [0, 1]). `None`
means "nothing" (a CPU build has no CUDA version), never "unknown": unknown is a `Missing`.
"""

from __future__ import annotations

from typing import Any, Self, TypeAlias, TypeVar

import msgspec
from msgspec import Struct, field

from gpudiag.errors import InputError

SCHEMA_VERSION = 1

T = TypeVar("T")


class NotObserved(Exception):  # noqa: N818 - an answer, not an error
    """A rule asked for a fact that no probe could establish; the message is the reason."""


class Missing(Struct, frozen=True):
    """Why a fact has no value."""

    missing: str


Fact: TypeAlias = T | Missing


def known(fact: T | Missing) -> T:
    """The value of a fact.

    Raises:
        NotObserved: The fact has no value; the message is the probe's reason.

    Example:
        >>> known(Missing("NVML function not found in driver 418.87"))
        Traceback (most recent call last):
        gpudiag.snapshot.NotObserved: NVML function not found in driver 418.87
    """
    if isinstance(fact, Missing):
        raise NotObserved(fact.missing)
    return fact


def known_or(fact: T | Missing, default: T) -> T:
    """The value of a fact, or *default* where there is none (for display, not for rules)."""
    return default if isinstance(fact, Missing) else fact


def not_recorded() -> Any:
    """The default of every fact: an older gpudiag did not ask for it."""
    return field(default=Missing("not recorded in this snapshot"))


class Section(Struct, frozen=True, kw_only=True):
    """A group of facts that one probe establishes."""

    @classmethod
    def missing(cls, reason: str, **facts: Any) -> Self:
        """The section in which every fact that is not given is missing for *reason*."""
        return cls(**dict.fromkeys(cls.__struct_fields__, Missing(reason)) | facts)


class GpuProcess(Section, frozen=True, kw_only=True):
    """A process that NVML names as a holder of GPU memory."""

    pid: int
    kind: str  # "compute", "graphics" or "mps" (a compute client of MPS)
    used_bytes: Fact[int] = not_recorded()
    name: Fact[str] = not_recorded()
    user: Fact[str] = not_recorded()
    visible: Fact[bool] = not_recorded()  # /proc of this PID namespace lists it
    gpu_instance_id: Fact[int | None] = not_recorded()  # None: not in a MIG instance
    compute_instance_id: Fact[int | None] = not_recorded()


class MigInstance(Section, frozen=True, kw_only=True):
    """A part of a partitioned GPU, which CUDA takes for a device of its own."""

    uuid: Fact[str] = not_recorded()
    profile: Fact[str] = not_recorded()  # "3g.40gb": slices of compute, memory
    gpu_instance_id: Fact[int] = not_recorded()
    compute_instance_id: Fact[int] = not_recorded()
    memory_total_bytes: Fact[int] = not_recorded()
    memory_used_bytes: Fact[int] = not_recorded()
    memory_free_bytes: Fact[int] = not_recorded()
    memory_reserved_bytes: Fact[int] = not_recorded()


class NvLinkError(Section, frozen=True, kw_only=True):
    """A counter of an NVLink that is above zero, or that could not be read."""

    link: int
    kind: str  # replay, recovery, crc_flit, …; "state": whether it is up could not be read
    count: Fact[int] = not_recorded()


class Gpu(Section, frozen=True, kw_only=True):
    """One GPU as NVML sees it. Memory in use does not count the driver's own reserve.

    Codes and masks are NVML's own; names are NVML's in lower case, and a number where NVML has
    one that this version of gpudiag does not know. ECC errors are volatile since the driver was
    loaded, aggregate over the life of the part.
    """

    index: int
    uuid: Fact[str] = not_recorded()
    pci_address: Fact[str] = not_recorded()
    name: Fact[str] = not_recorded()
    brand: Fact[str] = not_recorded()  # geforce, tesla, nvidia_rtx, …
    architecture: Fact[str] = not_recorded()  # pascal, …, hopper, blackwell
    compute_capability: Fact[tuple[int, int]] = not_recorded()
    minor_number: Fact[int] = not_recorded()  # of its device node, /dev/nvidia<minor>
    vbios_version: Fact[str] = not_recorded()
    error_codes: Fact[tuple[int, ...]] = not_recorded()  # NVML codes other than "not supported"
    memory_total_bytes: Fact[int] = not_recorded()
    memory_used_bytes: Fact[int] = not_recorded()
    memory_free_bytes: Fact[int] = not_recorded()
    memory_reserved_bytes: Fact[int] = not_recorded()
    bar1_total_bytes: Fact[int] = not_recorded()  # the window through which others reach it
    bar1_used_bytes: Fact[int] = not_recorded()
    utilization_fraction: Fact[float] = not_recorded()  # of the time, with a kernel running
    utilization_memory_fraction: Fact[float] = not_recorded()  # of the time, memory busy
    utilization_encoder_fraction: Fact[float] = not_recorded()
    utilization_decoder_fraction: Fact[float] = not_recorded()
    temperature_celsius: Fact[int] = not_recorded()
    temperature_memory_celsius: Fact[int] = not_recorded()
    temperature_margin_celsius: Fact[int] = not_recorded()  # to the nearest slowdown
    temperature_shutdown_celsius: Fact[int] = not_recorded()
    temperature_slowdown_celsius: Fact[int] = not_recorded()
    temperature_memory_max_celsius: Fact[int] = not_recorded()
    temperature_gpu_max_celsius: Fact[int] = not_recorded()
    power_watts: Fact[float] = not_recorded()
    power_limit_watts: Fact[float] = not_recorded()  # the one in force
    power_limit_default_watts: Fact[float] = not_recorded()
    power_limit_min_watts: Fact[float] = not_recorded()
    power_limit_max_watts: Fact[float] = not_recorded()
    energy_joules: Fact[float] = not_recorded()  # since the driver was loaded
    clock_graphics_mhz: Fact[int] = not_recorded()
    clock_sm_mhz: Fact[int] = not_recorded()
    clock_memory_mhz: Fact[int] = not_recorded()
    clock_video_mhz: Fact[int] = not_recorded()
    clock_graphics_max_mhz: Fact[int] = not_recorded()
    clock_sm_max_mhz: Fact[int] = not_recorded()
    clock_memory_max_mhz: Fact[int] = not_recorded()
    clock_video_max_mhz: Fact[int] = not_recorded()
    clock_event_reasons: Fact[int] = not_recorded()  # bit mask, see rules/hardware.py
    violation_power_s: Fact[float] = not_recorded()  # clocks held down so far, and by what
    violation_thermal_s: Fact[float] = not_recorded()
    violation_sync_boost_s: Fact[float] = not_recorded()
    violation_board_limit_s: Fact[float] = not_recorded()
    violation_low_utilization_s: Fact[float] = not_recorded()
    violation_reliability_s: Fact[float] = not_recorded()
    violation_application_clocks_s: Fact[float] = not_recorded()
    violation_base_clocks_s: Fact[float] = not_recorded()
    performance_state: Fact[int] = not_recorded()
    ecc_enabled: Fact[bool] = not_recorded()
    ecc_enabled_pending: Fact[bool] = not_recorded()  # after the next reset
    ecc_corrected_volatile: Fact[int] = not_recorded()
    ecc_corrected_aggregate: Fact[int] = not_recorded()
    ecc_uncorrected_volatile: Fact[int] = not_recorded()
    ecc_uncorrected_aggregate: Fact[int] = not_recorded()
    ecc_uncorrected_volatile_dram: Fact[int] = not_recorded()
    ecc_uncorrected_volatile_sram: Fact[int] = not_recorded()
    ecc_uncorrected_aggregate_dram: Fact[int] = not_recorded()
    ecc_uncorrected_aggregate_sram: Fact[int] = not_recorded()
    pages_retired_single_bit: Fact[int] = not_recorded()  # before the A100
    pages_retired_double_bit: Fact[int] = not_recorded()
    page_retirement_pending: Fact[bool] = not_recorded()
    rows_remapped_correctable: Fact[int] = not_recorded()  # from the A100 on
    rows_remapped_uncorrectable: Fact[int] = not_recorded()
    row_remap_pending: Fact[bool] = not_recorded()
    row_remap_failed: Fact[bool] = not_recorded()
    recovery_action: Fact[str] = not_recorded()  # none, gpu_reset, node_reboot, drain_p2p, …
    inforom_valid: Fact[bool] = not_recorded()
    pcie_generation: Fact[int] = not_recorded()  # lower while idle
    pcie_generation_max: Fact[int] = not_recorded()  # of GPU and slot together
    pcie_generation_gpu_max: Fact[int] = not_recorded()
    pcie_width_lanes: Fact[int] = not_recorded()
    pcie_width_max_lanes: Fact[int] = not_recorded()
    pcie_replays: Fact[int] = not_recorded()
    mig_enabled: Fact[bool] = not_recorded()
    mig_enabled_pending: Fact[bool] = not_recorded()  # after the next reset
    mig_uuids: Fact[tuple[str, ...]] = not_recorded()
    mig_instances: Fact[tuple[MigInstance, ...]] = not_recorded()
    nvlink_active: Fact[tuple[int, ...]] = not_recorded()  # numbers of the links that are up
    nvlink_inactive: Fact[tuple[int, ...]] = not_recorded()
    nvlink_version: Fact[str] = not_recorded()  # "4.0" is the H100's
    nvlink_errors: Fact[tuple[NvLinkError, ...]] = not_recorded()  # empty: nothing was counted
    fabric_state: Fact[str] = not_recorded()  # not_supported, not_started, in_progress, completed
    fabric_status_code: Fact[int] = not_recorded()  # NVML code with which registration ended
    fabric_health_mask: Fact[int] = not_recorded()
    fabric_health: Fact[str] = not_recorded()  # healthy, unhealthy, limited_capacity
    compute_mode: Fact[str] = not_recorded()  # default, exclusive_process, prohibited, …
    persistence_enabled: Fact[bool] = not_recorded()
    display_active: Fact[bool] = not_recorded()
    display_connected: Fact[bool] = not_recorded()
    gsp_firmware_enabled: Fact[bool] = not_recorded()
    gsp_firmware_default: Fact[bool] = not_recorded()  # whether it is, unless it is turned off
    gsp_firmware_version: Fact[str] = not_recorded()
    processes: Fact[tuple[GpuProcess, ...]] = not_recorded()


class GpuPair(Section, frozen=True, kw_only=True):
    """How two GPUs, by their index, reach each other."""

    first: int
    second: int
    topology: Fact[str] = not_recorded()  # internal, single, multiple, hostbridge, node, system
    p2p_read: Fact[str] = not_recorded()  # ok, gpu_not_supported, topology_not_supported, …
    p2p_write: Fact[str] = not_recorded()
    p2p_nvlink: Fact[str] = not_recorded()


class Nvml(Section, frozen=True, kw_only=True):
    """What NVML says; return codes as in NVIDIA's documentation of nvmlReturn_t."""

    init_code: Fact[int] = not_recorded()
    init_message: Fact[str] = not_recorded()
    failure: Fact[str | None] = not_recorded()  # how asking it ended, None: it answered
    driver_version: Fact[str] = not_recorded()
    library_version: Fact[str] = not_recorded()
    cuda_version: Fact[str] = not_recorded()  # newest CUDA the driver knows, "12.4"
    gpus: Fact[tuple[Gpu, ...]] = not_recorded()
    pairs: Fact[tuple[GpuPair, ...]] = not_recorded()  # each two once, the lower index first


class Variable(Struct, frozen=True, kw_only=True):
    """A name with its value: of the environment (allow-list only) or of a kernel module."""

    name: str
    value: str


class PciDevice(Struct, frozen=True, kw_only=True):
    """A display controller of vendor 10de and the kernel driver bound to it."""

    address: str
    device_id: str
    kernel_driver: str | None


class DeviceNode(Section, frozen=True, kw_only=True):
    """A file such as /dev/nvidia0; `usable` is read and write access for this user."""

    path: str
    usable: bool
    mode: Fact[str] = not_recorded()  # "crw-rw-rw-"
    group: Fact[str] = not_recorded()


class Service(Struct, frozen=True, kw_only=True):
    """A daemon that belongs to the driver, and whether one of its processes is seen."""

    name: str
    running: bool


class Driver(Section, frozen=True, kw_only=True):
    """The driver's pieces: the loaded module, the files on disk, what cuInit answers."""

    pci_devices: Fact[tuple[PciDevice, ...]] = not_recorded()
    module_loaded: Fact[bool] = not_recorded()
    module_version: Fact[str] = not_recorded()
    module_kind: Fact[str] = not_recorded()  # open or proprietary
    module_on_disk_version: Fact[str] = not_recorded()
    library_versions: Fact[tuple[str, ...]] = not_recorded()  # of libcuda/libnvidia-ml on disk
    device_nodes: Fact[tuple[DeviceNode, ...]] = not_recorded()
    services: Fact[tuple[Service, ...]] = not_recorded()
    stuck_processes: Fact[tuple[str, ...]] = not_recorded()  # asleep inside the driver
    fabric_manager_version: Fact[str] = not_recorded()
    nvswitch_count: Fact[int] = not_recorded()
    parameters: Fact[tuple[Variable, ...]] = not_recorded()  # of the kernel module
    secure_boot: Fact[bool] = not_recorded()
    cuda_init_code: Fact[int] = not_recorded()
    cuda_driver_version: Fact[str] = not_recorded()
    cuda_device_count: Fact[int] = not_recorded()
    libcuda_path: Fact[str] = not_recorded()


class MappedLibrary(Struct, frozen=True, kw_only=True):
    """A shared library that a process with torch really mapped."""

    name: str  # "libcudnn.so.9"
    path: str
    from_wheel: bool  # whether it lies in the site-packages that torch lies in


class AllocatorState(Struct, frozen=True, kw_only=True):
    """What the calling process's torch holds of one device, where torch is loaded in it."""

    device: str
    allocated_bytes: int
    reserved_bytes: int
    inactive_split_bytes: int  # reserved, in pieces too small to hand out: fragmentation


class TorchDevice(Struct, frozen=True, kw_only=True):
    """A device as torch lists it; its index is torch's, not nvidia-smi's."""

    index: int
    name: str
    uuid: Fact[str]
    compute_capability: tuple[int, int]
    memory_total_bytes: int


class TorchBuild(Section, frozen=True, kw_only=True):
    """What `import torch` gives in a fresh process of the same interpreter."""

    python: Fact[str] = not_recorded()
    import_error: Fact[str | None] = not_recorded()  # None: the import worked
    version: Fact[str] = not_recorded()
    cuda_version: Fact[str | None] = not_recorded()  # None: not a CUDA build
    hip_version: Fact[str | None] = not_recorded()
    cudnn_version: Fact[str | None] = not_recorded()
    nccl_version: Fact[str | None] = not_recorded()
    arch_list: Fact[tuple[str, ...]] = not_recorded()
    cuda_available: Fact[bool] = not_recorded()
    cuda_error: Fact[str | None] = not_recorded()
    devices: Fact[tuple[TorchDevice, ...]] = not_recorded()
    allocator_backend: Fact[str] = not_recorded()
    allocator_settings: Fact[str | None] = not_recorded()
    import_warnings: Fact[tuple[str, ...]] = not_recorded()
    accelerator: Fact[str | None] = not_recorded()  # cuda, xpu, mps, …
    accelerator_devices: Fact[tuple[str, ...]] = not_recorded()  # names, whatever the kind
    libraries: Fact[tuple[MappedLibrary, ...]] = not_recorded()
    float32_matmul_precision: Fact[str] = not_recorded()  # highest, high, medium
    cudnn_allows_tf32: Fact[bool] = not_recorded()
    allocator: Fact[tuple[AllocatorState, ...]] = not_recorded()  # of the calling process


class Package(Struct, frozen=True, kw_only=True):
    """An installed distribution that matters to torch on a GPU."""

    name: str
    version: str
    folder: str
    build: str | None = None  # __version__ in its version.py: "2.9.0+cu128"
    installer: str | None = None  # pip, uv, conda, poetry, …


class Requirement(Struct, frozen=True, kw_only=True):
    """What one installed distribution requires of another."""

    package: str
    requires: str
    specifier: str  # as in its metadata: "==2.9.0", ">=2.14.0", or empty
    marker: str
    installed: str | None


class Packages(Section, frozen=True, kw_only=True):
    """Distributions of the environment, read from their metadata without importing them."""

    installed: Fact[tuple[Package, ...]] = not_recorded()
    requirements: Fact[tuple[Requirement, ...]] = not_recorded()
    environment_kind: Fact[str] = not_recorded()  # venv, conda, system
    environment_tool: Fact[str | None] = not_recorded()  # uv, virtualenv, … that made a venv
    prefix: Fact[str] = not_recorded()


class Disk(Struct, frozen=True, kw_only=True):
    """A file system that caches or temporary files go to."""

    use: str  # home, temporary, torch cache, CUDA cache
    total_bytes: int
    free_bytes: int


class System(Section, frozen=True, kw_only=True):
    """The machine around the GPUs and the limits it sets."""

    os_name: Fact[str] = not_recorded()
    kernel: Fact[str] = not_recorded()
    architecture: Fact[str] = not_recorded()
    python_version: Fact[str] = not_recorded()
    cpu_count: Fact[int] = not_recorded()
    cpu_affinity_count: Fact[int] = not_recorded()
    cpu_quota: Fact[float | None] = not_recorded()  # CPUs granted by the cgroup, None: no limit
    memory_total_bytes: Fact[int] = not_recorded()
    memory_limit_bytes: Fact[int | None] = not_recorded()
    shm_total_bytes: Fact[int] = not_recorded()
    shm_used_bytes: Fact[int] = not_recorded()
    open_files_limit: Fact[int] = not_recorded()
    locked_memory_limit_bytes: Fact[int | None] = not_recorded()  # None: unlimited
    uptime_s: Fact[float] = not_recorded()
    container: Fact[str | None] = not_recorded()
    virtual_machine: Fact[str | None] = not_recorded()  # KVM, VMware, … None: bare metal
    wsl: Fact[bool] = not_recorded()
    iommu_groups: Fact[int] = not_recorded()
    kernel_parameters: Fact[tuple[str, ...]] = not_recorded()  # those on IOMMU, PCI, nvidia
    acs_redirects: Fact[tuple[str, ...]] = not_recorded()  # PCI bridges that reroute P2P
    infiniband_devices: Fact[tuple[str, ...]] = not_recorded()
    disks: Fact[tuple[Disk, ...]] = not_recorded()
    compiler: Fact[str | None] = not_recorded()  # the C compiler that torch.compile would find
    python_headers: Fact[bool] = not_recorded()  # Python.h, which torch.compile needs, too
    scheduler: Fact[str | None] = not_recorded()
    is_root: Fact[bool] = not_recorded()


class Misspelling(Struct, frozen=True, kw_only=True):
    """A variable that nobody reads and the one that was probably meant."""

    name: str
    meant: str
    value: str


class Environment(Section, frozen=True, kw_only=True):
    """The variables that steer CUDA, torch, NCCL and the loader."""

    variables: Fact[tuple[Variable, ...]] = not_recorded()
    misspelt: Fact[tuple[Misspelling, ...]] = not_recorded()

    def get(self, name: str) -> str | None:
        """The value of a variable, None where it is not set.

        Raises:
            NotObserved: The environment was not recorded.
        """
        return next((v.value for v in known(self.variables) if v.name == name), None)


class KernelEvent(Struct, frozen=True, kw_only=True):
    """A line of the NVIDIA driver in the kernel log."""

    text: str
    xid: int | None = None
    pci_address: str | None = None
    time: str | None = None


class KernelLog(Section, frozen=True, kw_only=True):
    """The driver's lines in the kernel log, oldest first, and where they were read."""

    source: Fact[str] = not_recorded()
    events: Fact[tuple[KernelEvent, ...]] = not_recorded()


class Snapshot(Struct, frozen=True, kw_only=True):
    """Everything that was seen on one machine at one time."""

    schema_version: int = SCHEMA_VERSION
    gpudiag_version: str = "unknown"
    taken_at: str = "unknown"  # ISO 8601, UTC
    nvml: Nvml = field(default_factory=Nvml)
    driver: Driver = field(default_factory=Driver)
    torch: TorchBuild = field(default_factory=TorchBuild)
    packages: Packages = field(default_factory=Packages)
    system: System = field(default_factory=System)
    environment: Environment = field(default_factory=Environment)
    kernel_log: KernelLog = field(default_factory=KernelLog)
    probe_times_s: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """The snapshot as indented JSON; `from_json` gives the same snapshot back.

        Example:
            >>> Snapshot.from_json(Snapshot().to_json()) == Snapshot()
            True
        """
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Snapshot:
        """Read a snapshot that any version of gpudiag of the same schema has written.

        Args:
            text: JSON as `to_json` writes it, or a whole ``diagnose --format json`` document.
                Fields of a later version are ignored, absent ones are "not recorded".

        Raises:
            InputError: The text is not JSON, not a snapshot, or of another schema version.
        """
        try:
            document = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(
                f"expected a snapshot in JSON, got text that is not: {error}"
            ) from None
        if isinstance(document, dict) and isinstance(document.get("snapshot"), dict):
            document = document["snapshot"]
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version is None:
            raise InputError(
                "expected a snapshot as 'gpudiag snapshot' writes it, got JSON without "
                "schema_version; record one with 'gpudiag snapshot --output FILE'"
            )
        if version != SCHEMA_VERSION:
            raise InputError(
                f"expected a snapshot of schema version {SCHEMA_VERSION}, got {version!r}; "
                "read it with the gpudiag version that wrote it"
            )
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise InputError(f"expected a snapshot, got one with a wrong field: {error}") from None
