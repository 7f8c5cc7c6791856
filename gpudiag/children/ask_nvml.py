"""Ask NVML everything: one line for the driver, then one line per GPU.

Usage: python -I -S ask_nvml.py FOLDER_OF_PYNVML
"""

from __future__ import annotations

import ctypes
import json
import sys

TYPE_CHECKING = False  # typing itself costs a fifth of this script's time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


sys.path.append(sys.argv[1])
import pynvml as n

NOT_A_FAULT = {
    n.NVML_ERROR_NOT_SUPPORTED,
    n.NVML_ERROR_FUNCTION_NOT_FOUND,
    n.NVML_ERROR_NO_PERMISSION,
    n.NVML_ERROR_NOT_FOUND,
    n.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
}
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
NO_BYTES = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE


def say(facts: dict[str, Any]) -> None:
    """Tell the parent; what has been said is kept even if the next question is fatal."""
    print(json.dumps(facts), flush=True)


def ask(call: Callable[..., Any], *arguments: Any, codes: set[int] | None = None) -> Any:
    """The call's value, or why there is none; unusual return codes are added to *codes*."""
    try:
        return call(*arguments)
    except n.NVMLError as error:
        code = error.value
        if codes is not None and code not in NOT_A_FAULT:
            codes.add(code)
        return {"missing": f"{call.__name__.lstrip('_')}: {error} (NVML {code})"}
    except Exception as error:
        return {"missing": f"{call.__name__.lstrip('_')}: {type(error).__name__}: {error}"}


def is_missing(value: object) -> bool:
    """Whether *value* is the reason for a missing one."""
    return isinstance(value, dict)


def memory(handle: Any, codes: set[int]) -> dict[str, Any]:
    """Bytes in use without the driver's reserve, whichever way this driver counts."""
    info = ask(lambda h: n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2), handle)
    if is_missing(info):
        info = ask(n.nvmlDeviceGetMemoryInfo, handle, codes=codes)
        if is_missing(info):
            names = ("total", "used", "free", "reserved")
            return {f"memory_{name}_bytes": info for name in names}
        used, reserved = info.used, {"missing": "this driver counts its reserve as used"}
    else:
        reserved = info.reserved
        counts_reserve = info.used + info.free + info.reserved > info.total + 2**20
        used = info.used - reserved if counts_reserve else info.used
    return {
        "memory_total_bytes": info.total,
        "memory_used_bytes": used,
        "memory_free_bytes": info.free,
        "memory_reserved_bytes": reserved,
    }


def remapped_rows(handle: Any, codes: set[int]) -> dict[str, Any]:
    """Memory rows that were replaced by spare ones, from the A100 on."""
    rows = ask(n.nvmlDeviceGetRemappedRows, handle, codes=codes)
    if is_missing(rows):
        return dict.fromkeys(
            ("rows_remapped_uncorrectable", "row_remap_pending", "row_remap_failed"), rows
        )
    _, uncorrectable, pending, failed = rows
    return {
        "rows_remapped_uncorrectable": uncorrectable,
        "row_remap_pending": bool(pending),
        "row_remap_failed": bool(failed),
    }


def mig(handle: Any, codes: set[int]) -> dict[str, Any]:
    """Whether the GPU is partitioned, and the UUIDs of its parts."""
    mode = ask(n.nvmlDeviceGetMigMode, handle, codes=codes)
    if is_missing(mode):
        return {"mig_enabled": mode, "mig_uuids": mode}
    if not mode[0]:
        return {"mig_enabled": False, "mig_uuids": []}
    count = ask(n.nvmlDeviceGetMaxMigDeviceCount, handle, codes=codes)
    if is_missing(count):
        return {"mig_enabled": True, "mig_uuids": count}
    uuids = []
    for index in range(count):
        instance = ask(n.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if not is_missing(instance):  # NVML 6: the slot is empty
            uuid = ask(n.nvmlDeviceGetUUID, instance, codes=codes)
            uuids.append("unknown" if is_missing(uuid) else uuid)
    return {"mig_enabled": True, "mig_uuids": uuids}


class OldProcess(ctypes.Structure):
    """nvmlProcessInfo_v1_t, which drivers before 450 fill and pynvml has forgotten."""

    _fields_ = (("pid", ctypes.c_uint), ("usedGpuMemory", ctypes.c_ulonglong))


def first_version(name: str) -> Callable[..., Any]:
    """The oldest form of a call that lists processes, without instance ids."""

    def asked(handle: Any) -> Any:
        function = n._nvmlGetFunctionPointer(name)  # noqa: SLF001 - its own lookup, with its errors
        count = ctypes.c_uint(0)
        code = function(handle, ctypes.byref(count), None)
        if code not in (n.NVML_SUCCESS, n.NVML_ERROR_INSUFFICIENT_SIZE):
            raise n.NVMLError(code)
        count.value = 2 * count.value + 5  # more may have come meanwhile
        listed = (OldProcess * count.value)()
        code = function(handle, ctypes.byref(count), listed)
        if code != n.NVML_SUCCESS:
            raise n.NVMLError(code)
        return listed[: count.value]

    asked.__name__ = name
    return asked


PROCESS_CALLS = {
    "compute": (
        n.nvmlDeviceGetComputeRunningProcesses_v3,
        n.nvmlDeviceGetComputeRunningProcesses_v2,
        first_version("nvmlDeviceGetComputeRunningProcesses"),
    ),
    "graphics": (
        n.nvmlDeviceGetGraphicsRunningProcesses_v3,
        n.nvmlDeviceGetGraphicsRunningProcesses_v2,
        first_version("nvmlDeviceGetGraphicsRunningProcesses"),
    ),
}


def processes(handle: Any, codes: set[int]) -> Any:
    """Every holder of memory once, with the newest call that this driver has."""
    seen: dict[int, dict[str, Any]] = {}
    for kind, calls in PROCESS_CALLS.items():
        for call in calls:
            found = ask(call, handle, codes=codes)
            if not is_missing(found):
                break
        else:
            if kind == "compute":
                return found
            continue
        for process in found:
            used = process.usedGpuMemory
            if used is None or used == NO_BYTES:
                used = {"missing": "NVML gives no memory for this process"}
            seen.setdefault(process.pid, {"pid": process.pid, "kind": kind, "used_bytes": used})
    return list(seen.values())


def scaled(call: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """The call, its value multiplied: NVML counts in milliwatts."""

    def asked(*arguments: Any) -> Any:
        return call(*arguments) * factor

    asked.__name__ = call.__name__
    return asked


def flag(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, its value as a bool."""

    def asked(*arguments: Any) -> bool:
        return bool(call(*arguments))

    asked.__name__ = call.__name__
    return asked


def event_reasons(handle: Any) -> Any:
    """Why the clocks are what they are, under the name that this driver has for it."""
    try:
        return n.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except n.NVMLError_FunctionNotFound:
        return n.nvmlDeviceGetCurrentClocksThrottleReasons(handle)  # its name before 535


def gpu_utilization(handle: Any) -> Any:
    """Fraction of the last sample period with a kernel resident."""
    return n.nvmlDeviceGetUtilizationRates(handle).gpu / 100


def pci_address(handle: Any) -> str:
    """The address as Linux writes it."""
    info = n.nvmlDeviceGetPciInfo(handle)
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


def uncorrected_ecc(handle: Any) -> Any:
    """Uncorrected memory errors since the driver was loaded."""
    return n.nvmlDeviceGetTotalEccErrors(
        handle, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_VOLATILE_ECC
    )


def ecc_enabled(handle: Any) -> bool:
    """Whether error correction is on now (not: after the next reboot)."""
    return bool(n.nvmlDeviceGetEccMode(handle)[0])


def compute_mode(handle: Any) -> str:
    """The compute mode by name."""
    mode = n.nvmlDeviceGetComputeMode(handle)
    return COMPUTE_MODES.get(mode, str(mode))


FIELDS = {
    "uuid": (n.nvmlDeviceGetUUID,),
    "pci_address": (pci_address,),
    "name": (n.nvmlDeviceGetName,),
    "compute_capability": (n.nvmlDeviceGetCudaComputeCapability,),
    "utilization_fraction": (gpu_utilization,),
    "temperature_celsius": (n.nvmlDeviceGetTemperature, n.NVML_TEMPERATURE_GPU),
    "temperature_slowdown_celsius": (
        n.nvmlDeviceGetTemperatureThreshold,
        n.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    ),
    "power_watts": (scaled(n.nvmlDeviceGetPowerUsage, 1e-3),),
    "power_limit_watts": (scaled(n.nvmlDeviceGetEnforcedPowerLimit, 1e-3),),
    "power_limit_default_watts": (scaled(n.nvmlDeviceGetPowerManagementDefaultLimit, 1e-3),),
    "clock_sm_mhz": (n.nvmlDeviceGetClockInfo, n.NVML_CLOCK_SM),
    "clock_sm_max_mhz": (n.nvmlDeviceGetMaxClockInfo, n.NVML_CLOCK_SM),
    "clock_event_reasons": (event_reasons,),
    "performance_state": (n.nvmlDeviceGetPerformanceState,),
    "ecc_enabled": (ecc_enabled,),
    "ecc_uncorrected_volatile": (uncorrected_ecc,),
    "page_retirement_pending": (flag(n.nvmlDeviceGetRetiredPagesPendingStatus),),
    "pcie_generation": (n.nvmlDeviceGetCurrPcieLinkGeneration,),
    "pcie_generation_max": (n.nvmlDeviceGetMaxPcieLinkGeneration,),
    "pcie_width_lanes": (n.nvmlDeviceGetCurrPcieLinkWidth,),
    "pcie_width_max_lanes": (n.nvmlDeviceGetMaxPcieLinkWidth,),
    "compute_mode": (compute_mode,),
    "persistence_enabled": (flag(n.nvmlDeviceGetPersistenceMode),),
    "display_active": (flag(n.nvmlDeviceGetDisplayActive),),
}


def gpu(index: int) -> dict[str, Any]:
    """Every fact about one GPU."""
    handle = ask(n.nvmlDeviceGetHandleByIndex, index)
    if is_missing(handle):
        code = int(handle["missing"].rpartition("NVML ")[2].rstrip(")"))
        return {"index": index, "unreachable": handle["missing"], "error_codes": [code]}
    codes: set[int] = set()
    facts = {
        name: ask(call, handle, *arguments, codes=codes)
        for name, (call, *arguments) in FIELDS.items()
    }
    for group in (memory, remapped_rows, mig):
        facts |= group(handle, codes)
    facts["processes"] = processes(handle, codes)
    return {"index": index, **facts, "error_codes": sorted(codes)}


def cuda_version() -> str:
    """The newest CUDA that the driver knows: 12040 is 12.4."""
    version = n.nvmlSystemGetCudaDriverVersion_v2()
    return f"{version // 1000}.{version % 1000 // 10}"


def main() -> None:
    """Ask, from what can hardly fail to what may crash."""
    try:
        n.nvmlInit()
    except n.NVMLError as error:
        say({"init_code": error.value, "init_message": str(error)})
        return
    count = ask(n.nvmlDeviceGetCount)
    say(
        {
            "init_code": 0,
            "init_message": "Success",
            "driver_version": ask(n.nvmlSystemGetDriverVersion),
            "library_version": ask(n.nvmlSystemGetNVMLVersion),
            "cuda_version": ask(cuda_version),
            "gpu_count": count,
        }
    )
    if not is_missing(count):
        for index in range(count):
            say({"gpu": gpu(index)})
    n.nvmlShutdown()


main()
