"""What is asked of one GPU, and of a pair of them: a line per question.

The names on the left are those of `gpudiag.snapshot`. Serial numbers are never asked for.
"""

from __future__ import annotations

import pynvml as n
from nvml_calls import (  # type: ignore[import-not-found]  # beside this script
    Gap,
    answers,
    ask,
    faults,
    field_value,
    flags,
    gap,
    name_in,
    newest,
    per,
    read,
)
from nvml_names import (  # type: ignore[import-not-found]
    ARCHITECTURES,
    BRANDS,
    COMPUTE_MODES,
    P2P,
    RECOVERY_ACTIONS,
    TOPOLOGY,
)
from nvml_parts import (  # type: ignore[import-not-found]
    MEMORY,
    fabric,
    inforom_valid,
    memory,
    mig,
    nvlinks,
    processes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_GPUS_IN_PAIRS = 16  # 120 pairs; 64 GPUs would be 2016, which no one reads

# Numbers of NVML that older pynvml have no names for.
FIELD_MEMORY_TEMPERATURE = 82
FIELD_RECOVERY_ACTION = 230  # from driver 565 on
ECC_KINDS = {"corrected": 0, "uncorrected": 1}
ECC_LIVES = {"volatile": n.NVML_VOLATILE_ECC, "aggregate": n.NVML_AGGREGATE_ECC}
ECC_PLACES = {"dram": 2, "sram": 7}
VIOLATIONS = {
    "power": n.NVML_PERF_POLICY_POWER,
    "thermal": n.NVML_PERF_POLICY_THERMAL,
    "sync_boost": n.NVML_PERF_POLICY_SYNC_BOOST,
    "board_limit": n.NVML_PERF_POLICY_BOARD_LIMIT,
    "low_utilization": n.NVML_PERF_POLICY_LOW_UTILIZATION,
    "reliability": n.NVML_PERF_POLICY_RELIABILITY,
    "application_clocks": n.NVML_PERF_POLICY_TOTAL_APP_CLOCKS,
    "base_clocks": n.NVML_PERF_POLICY_TOTAL_BASE_CLOCKS,
}


def linux_address(info: Any) -> str:
    """The PCI address as Linux writes it."""
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


def text(value: Any) -> str:
    """Text that pynvml gives as bytes (its GSP version) or as it should."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def row_facts(rows: Any) -> tuple[int, int, bool, bool]:
    """Rows replaced by spare ones, two counts and two switches."""
    correctable, uncorrectable, pending, failed = rows
    return correctable, uncorrectable, bool(pending), bool(failed)


def violation_s(status: Any) -> Any:
    """Seconds for which a policy has held the clocks down."""
    return status.violationTime / 1e9


FIELDS = {
    "uuid": read("nvmlDeviceGetUUID"),
    "pci_address": read("nvmlDeviceGetPciInfo", convert=linux_address),
    "name": read("nvmlDeviceGetName"),
    "brand": read("nvmlDeviceGetBrand", convert=name_in(BRANDS)),
    "architecture": read("nvmlDeviceGetArchitecture", convert=name_in(ARCHITECTURES)),
    "compute_capability": read("nvmlDeviceGetCudaComputeCapability"),
    "minor_number": read("nvmlDeviceGetMinorNumber"),
    "vbios_version": read("nvmlDeviceGetVbiosVersion"),
    MEMORY: memory,
    "bar1_total_bytes bar1_used_bytes": read(
        "nvmlDeviceGetBAR1MemoryInfo", convert=lambda info: (info.bar1Total, info.bar1Used)
    ),
    "utilization_fraction utilization_memory_fraction": read(
        "nvmlDeviceGetUtilizationRates", convert=lambda rates: (rates.gpu / 100, rates.memory / 100)
    ),
    "utilization_encoder_fraction": read(
        "nvmlDeviceGetEncoderUtilization", convert=lambda sample: sample[0] / 100
    ),
    "utilization_decoder_fraction": read(
        "nvmlDeviceGetDecoderUtilization", convert=lambda sample: sample[0] / 100
    ),
    "temperature_celsius": newest(
        read("nvmlDeviceGetTemperatureV", n.NVML_TEMPERATURE_GPU),
        read("nvmlDeviceGetTemperature", n.NVML_TEMPERATURE_GPU),
    ),
    "temperature_memory_celsius": field_value(FIELD_MEMORY_TEMPERATURE, convert=int),
    "temperature_margin_celsius": read("nvmlDeviceGetMarginTemperature"),
    "temperature_shutdown_celsius": read(
        "nvmlDeviceGetTemperatureThreshold", n.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN
    ),
    "temperature_slowdown_celsius": read(
        "nvmlDeviceGetTemperatureThreshold", n.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    ),
    "temperature_memory_max_celsius": read(
        "nvmlDeviceGetTemperatureThreshold", n.NVML_TEMPERATURE_THRESHOLD_MEM_MAX
    ),
    "temperature_gpu_max_celsius": read(
        "nvmlDeviceGetTemperatureThreshold", n.NVML_TEMPERATURE_THRESHOLD_GPU_MAX
    ),
    "power_watts": read("nvmlDeviceGetPowerUsage", convert=per(1e3)),
    "power_limit_watts": read("nvmlDeviceGetEnforcedPowerLimit", convert=per(1e3)),
    "power_limit_default_watts": read("nvmlDeviceGetPowerManagementDefaultLimit", convert=per(1e3)),
    "power_limit_min_watts power_limit_max_watts": read(
        "nvmlDeviceGetPowerManagementLimitConstraints",
        convert=lambda limits: [limit / 1e3 for limit in limits],
    ),
    "energy_joules": read("nvmlDeviceGetTotalEnergyConsumption", convert=per(1e3)),
    "clock_graphics_mhz": read("nvmlDeviceGetClockInfo", n.NVML_CLOCK_GRAPHICS),
    "clock_sm_mhz": read("nvmlDeviceGetClockInfo", n.NVML_CLOCK_SM),
    "clock_memory_mhz": read("nvmlDeviceGetClockInfo", n.NVML_CLOCK_MEM),
    "clock_video_mhz": read("nvmlDeviceGetClockInfo", n.NVML_CLOCK_VIDEO),
    "clock_graphics_max_mhz": read("nvmlDeviceGetMaxClockInfo", n.NVML_CLOCK_GRAPHICS),
    "clock_sm_max_mhz": read("nvmlDeviceGetMaxClockInfo", n.NVML_CLOCK_SM),
    "clock_memory_max_mhz": read("nvmlDeviceGetMaxClockInfo", n.NVML_CLOCK_MEM),
    "clock_video_max_mhz": read("nvmlDeviceGetMaxClockInfo", n.NVML_CLOCK_VIDEO),
    "clock_event_reasons": newest(
        read("nvmlDeviceGetCurrentClocksEventReasons"),
        read("nvmlDeviceGetCurrentClocksThrottleReasons"),  # its name before 535
    ),
    **{
        f"violation_{name}_s": read("nvmlDeviceGetViolationStatus", policy, convert=violation_s)
        for name, policy in VIOLATIONS.items()
    },
    "performance_state": read("nvmlDeviceGetPerformanceState"),
    "ecc_enabled ecc_enabled_pending": read("nvmlDeviceGetEccMode", convert=flags),
    **{
        f"ecc_{kind}_{life}": read("nvmlDeviceGetTotalEccErrors", kind_number, life_number)
        for kind, kind_number in ECC_KINDS.items()
        for life, life_number in ECC_LIVES.items()
    },
    **{
        f"ecc_{kind}_{life}_{place}": read(
            "nvmlDeviceGetMemoryErrorCounter", kind_number, life_number, place_number
        )
        for kind, kind_number in ECC_KINDS.items()
        for life, life_number in ECC_LIVES.items()
        for place, place_number in ECC_PLACES.items()
    },
    "pages_retired_single_bit": read("nvmlDeviceGetRetiredPages", 0, convert=len),
    "pages_retired_double_bit": read("nvmlDeviceGetRetiredPages", 1, convert=len),
    "page_retirement_pending": read("nvmlDeviceGetRetiredPagesPendingStatus", convert=bool),
    "rows_remapped_correctable rows_remapped_uncorrectable row_remap_pending row_remap_failed": (
        read("nvmlDeviceGetRemappedRows", convert=row_facts)
    ),
    "recovery_action": field_value(FIELD_RECOVERY_ACTION, convert=name_in(RECOVERY_ACTIONS)),
    "pcie_generation": read("nvmlDeviceGetCurrPcieLinkGeneration"),
    "pcie_generation_max": read("nvmlDeviceGetMaxPcieLinkGeneration"),
    "pcie_generation_gpu_max": read("nvmlDeviceGetGpuMaxPcieLinkGeneration"),
    "pcie_width_lanes": read("nvmlDeviceGetCurrPcieLinkWidth"),
    "pcie_width_max_lanes": read("nvmlDeviceGetMaxPcieLinkWidth"),
    "pcie_replays": read("nvmlDeviceGetPcieReplayCounter"),
    "mig_enabled mig_enabled_pending mig_uuids mig_instances": mig,
    "nvlink_active nvlink_inactive nvlink_version nvlink_errors": nvlinks,
    "fabric_state fabric_status_code fabric_health_mask fabric_health": fabric,
    "compute_mode": read("nvmlDeviceGetComputeMode", convert=name_in(COMPUTE_MODES)),
    "persistence_enabled": read("nvmlDeviceGetPersistenceMode", convert=bool),
    "display_active": read("nvmlDeviceGetDisplayActive", convert=bool),
    "display_connected": read("nvmlDeviceGetDisplayMode", convert=bool),
    "gsp_firmware_enabled gsp_firmware_default": read(
        "nvmlDeviceGetGspFirmwareMode", convert=flags
    ),
    "gsp_firmware_version": read("nvmlDeviceGetGspFirmwareVersion", convert=text),
    "processes": processes,
    "inforom_valid": inforom_valid,  # last: it reads the part's flash memory
}
PAIR_FIELDS = {
    "topology": read("nvmlDeviceGetTopologyCommonAncestor", convert=name_in(TOPOLOGY)),
    "p2p_read": read("nvmlDeviceGetP2PStatus", 0, convert=name_in(P2P)),
    "p2p_write": read("nvmlDeviceGetP2PStatus", 1, convert=name_in(P2P)),
    "p2p_nvlink": read("nvmlDeviceGetP2PStatus", 2, convert=name_in(P2P)),
}


def gpu(index: int) -> dict[str, Any]:
    """Every fact about one GPU."""
    try:
        handle = n.nvmlDeviceGetHandleByIndex(index)
    except n.NVMLError as error:
        reason = gap("nvmlDeviceGetHandleByIndex", error)["missing"]
        return {"index": index, "unreachable": reason, "error_codes": [error.value]}
    faults.clear()
    return {"index": index, **answers(FIELDS, handle), "error_codes": sorted(faults)}


def pairs(count: int) -> Any:
    """How every two GPUs reach each other."""
    if count > MOST_GPUS_IN_PAIRS:
        return Gap(f"pairs are asked for up to {MOST_GPUS_IN_PAIRS} GPUs, here are {count}")
    handles = [ask(n.nvmlDeviceGetHandleByIndex, index) for index in range(count)]
    return [
        {"first": first, "second": second, **pair(handles[first], handles[second])}
        for first in range(count)
        for second in range(first + 1, count)
    ]


def pair(first: Any, second: Any) -> dict[str, Any]:
    """How two GPUs reach each other; of a lost one nothing is known."""
    for handle in (first, second):
        if isinstance(handle, Gap):
            return dict.fromkeys(PAIR_FIELDS, handle)
    facts: dict[str, Any] = answers(PAIR_FIELDS, first, second)
    return facts
