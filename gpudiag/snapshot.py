"""What the probes saw, as plain frozen data: the sections, and the whole with its JSON.

The vocabulary lies in `gpudiag.fact`, the GPUs in `gpudiag.gpu`; whoever reads a snapshot imports
all of it from here.
"""

import msgspec
from msgspec import Struct, field

from gpudiag.errors import InputError
from gpudiag.fact import (
    NOT_RECORDED,
    Fact,
    Missing,
    NotObserved,
    Section,
    known,
    known_or,
    not_recorded,
)
from gpudiag.gpu import Gpu, GpuPair, GpuProcess, MigInstance, NvLinkError, Nvml
from gpudiag.plausible import is_memory, is_temperature
from gpudiag.version import __version__

__all__ = [
    "SCHEMA_VERSION",
    "AllocatorState",
    "DeviceNode",
    "Disk",
    "Driver",
    "Environment",
    "Fact",
    "Gpu",
    "GpuPair",
    "GpuProcess",
    "KernelEvent",
    "KernelLog",
    "MappedLibrary",
    "MigInstance",
    "Missing",
    "Misspelling",
    "NotObserved",
    "NvLinkError",
    "Nvml",
    "Package",
    "Packages",
    "PciDevice",
    "Requirement",
    "Section",
    "Service",
    "Snapshot",
    "System",
    "TorchBuild",
    "TorchDevice",
    "Variable",
    "is_memory",
    "is_temperature",
    "known",
    "known_or",
    "not_recorded",
]

SCHEMA_VERSION = 1
UNKNOWN = "unknown"


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

    device: str  # torch's name, "cuda:0"
    uuid: str | None  # None: torch before 2.5 does not tell it
    allocated_bytes: int
    reserved_bytes: int
    fragmented_bytes: int  # reserved, in pieces that are too small to hand out


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
    hip_version: Fact[str | None] = not_recorded()  # of ROCm, AMD
    xpu_version: Fact[str | None] = not_recorded()  # of oneAPI, Intel
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
    fp16_reduced_precision: Fact[bool] = not_recorded()  # sums of a product may be of less
    bf16_reduced_precision: Fact[bool] = not_recorded()
    deterministic_algorithms: Fact[bool] = not_recorded()
    cudnn_benchmark: Fact[bool] = not_recorded()  # tries algorithms, so that runs differ
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
    torch_in_working_folder: Fact[str | None] = not_recorded()  # its path, where it is another one


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
    infiniband_library: Fact[bool] = not_recorded()  # libibverbs, which NCCL loads for them
    network_interfaces: Fact[tuple[str, ...]] = not_recorded()
    nccl_segments: Fact[int] = not_recorded()  # files that NCCL left or uses in /dev/shm
    disks: Fact[tuple[Disk, ...]] = not_recorded()
    compiler: Fact[str | None] = not_recorded()  # the C compiler that torch.compile would find
    python_headers: Fact[bool] = not_recorded()  # Python.h, which torch.compile needs, too
    cuda_toolkit_version: Fact[str | None] = not_recorded()  # of CUDA_HOME or /usr/local/cuda
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
    dangling: Fact[tuple[Variable, ...]] = not_recorded()  # name a file or folder that is not there

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
    gpudiag_version: str = UNKNOWN
    taken_at: str = UNKNOWN  # ISO 8601, UTC
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

    def _repr_html_(self) -> str:
        """How a notebook shows a snapshot."""
        from gpudiag.render.as_html import snapshot_fragment

        return snapshot_fragment(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Snapshot":
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
            return _told_by_its_version(msgspec.convert(document, cls))
        except msgspec.ValidationError as error:
            raise InputError(f"expected a snapshot, got one with a wrong field: {error}") from None


def _told_by_its_version(snapshot: Snapshot) -> Snapshot:
    """What an older gpudiag did not ask for, said in its name."""
    if snapshot.gpudiag_version in {__version__, UNKNOWN}:
        return snapshot
    text = msgspec.json.encode(snapshot)
    unnamed = msgspec.json.encode(Missing(NOT_RECORDED))
    if unnamed not in text:
        return snapshot
    named = Missing(f"not recorded by gpudiag {snapshot.gpudiag_version}")
    return msgspec.json.decode(text.replace(unnamed, msgspec.json.encode(named)), type=Snapshot)
