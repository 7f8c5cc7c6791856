"""What NVML tells of the GPUs: one struct a GPU, one for each pair, one for the driver's answer."""

from gpudiag.fact import Fact, Section, not_recorded


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
    ecc_corrected_volatile_dram: Fact[int] = not_recorded()
    ecc_corrected_volatile_sram: Fact[int] = not_recorded()
    ecc_corrected_aggregate_dram: Fact[int] = not_recorded()
    ecc_corrected_aggregate_sram: Fact[int] = not_recorded()
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
