"""What takes more than one call to NVML: memory, links, fabric, instances, processes."""

from __future__ import annotations

import ctypes

import pynvml as n
from nvml_calls import (  # type: ignore[import-not-found]  # beside this script
    INVALID_ARGUMENT,
    NOT_A_FAULT,
    Gap,
    answers,
    ask,
    field_value,
    flags,
    name_in,
    newest,
    read,
)
from nvml_names import (  # type: ignore[import-not-found]
    FABRIC_HEALTH,
    FABRIC_STATES,
    NVLINK_VERSIONS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MIB = 2**20
MOST_LINKS = 36  # NVML_NVLINK_MAX_LINKS of Rubin
MEMORY_V2 = 0x02000028
FABRIC_INFO_V2, FABRIC_INFO_V3 = 0x02000024, 0x03000028
NO_BYTES = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
NO_INSTANCE = 2**32 - 1

memory_v2 = read("nvmlDeviceGetMemoryInfo", MEMORY_V2)
memory_v1 = read("nvmlDeviceGetMemoryInfo")


def memory(handle: Any) -> tuple[Any, ...]:
    """Total, used, free and reserved; used without the reserve, however this driver counts."""
    try:
        info = memory_v2(handle)
    except (n.NVMLError, TypeError):  # TypeError: an old pynvml knows no versions
        info = memory_v1(handle)
        return info.total, info.used, info.free, Gap("this driver counts its reserve as used")
    counts_reserve = info.reserved >= MIB and abs(info.used + info.free - info.total) < MIB
    used = info.used - info.reserved if counts_reserve else info.used
    return info.total, used, info.free, info.reserved


def inforom_valid(handle: Any) -> bool:
    """Whether the checksums of the GPU's flash memory are right."""
    try:
        n.nvmlDeviceValidateInforom(handle)
    except n.NVMLError as error:
        if error.value == n.NVML_ERROR_CORRUPTED_INFOROM:
            return False
        raise
    return True


inforom_valid.__name__ = "nvmlDeviceValidateInforom"


class FabricInfo(ctypes.Structure):
    """nvmlGpuFabricInfo_v3_t; version 2 ends before the summary, the first has no version."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("cluster", ctypes.c_ubyte * 16),
        ("status", ctypes.c_uint),
        ("clique", ctypes.c_uint),
        ("state", ctypes.c_uint),
        ("health_mask", ctypes.c_uint),
        ("health_summary", ctypes.c_ubyte),
    )


def fabric_v(version: int) -> Callable[..., Any]:
    """The question for a version of the structure."""
    asked = read("nvmlDeviceGetGpuFabricInfoV")

    def question(handle: Any) -> tuple[Any, ...]:
        info = FabricInfo(version=version)
        asked(handle, ctypes.byref(info))
        health = (
            name_in(FABRIC_HEALTH)(info.health_summary)
            if version == FABRIC_INFO_V3
            else Gap("this driver gives no summary of the fabric's health")
        )
        return name_in(FABRIC_STATES)(info.state), info.status, info.health_mask, health

    question.__name__ = asked.__name__
    return question


def fabric_v1(handle: Any) -> tuple[Any, ...]:
    """The same from drivers before 550."""
    info = FabricInfo()
    n.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info, FabricInfo.cluster.offset))
    unknown = Gap("this driver does not tell the fabric's health")
    return name_in(FABRIC_STATES)(info.state), info.status, unknown, unknown


fabric_v1.__name__ = "nvmlDeviceGetGpuFabricInfo"

fabric = newest(fabric_v(FABRIC_INFO_V3), fabric_v(FABRIC_INFO_V2), fabric_v1)

link_state = read("nvmlDeviceGetNvLinkState", convert=bool)
link_version = read("nvmlDeviceGetNvLinkVersion", convert=name_in(NVLINK_VERSIONS))
LINK_COUNTERS = {
    "replay": read("nvmlDeviceGetNvLinkErrorCounter", 0),
    "recovery": read("nvmlDeviceGetNvLinkErrorCounter", 1),
    "crc_flit": read("nvmlDeviceGetNvLinkErrorCounter", 2),
    "crc_data": read("nvmlDeviceGetNvLinkErrorCounter", 3),
    "ecc_data": read("nvmlDeviceGetNvLinkErrorCounter", 4),
}
# Blackwell counts other things (change log of NVML 565). Symbol errors are left out: the link
# corrects them as a matter of course.
LINK_5_COUNTERS = {
    "malformed_packet": field_value(206),
    "buffer_overrun": field_value(207),
    "receive": field_value(208),
    "link_integrity": field_value(211),
    "recovery_failed": field_value(214),
    "recovery": field_value(215),
    "effective": field_value(219),
}


def link_states(handle: Any) -> Any:
    """By link: whether it is up, or why that cannot be read; a gap where no link can be read."""
    states: dict[int, Any] = {}
    for link in range(MOST_LINKS):
        state = ask(link_state, handle, link)
        if not isinstance(state, Gap) or state.code not in NOT_A_FAULT:
            states[link] = state
        elif not states:
            return state
        elif state.code == INVALID_ARGUMENT:
            break  # there are no more
    return states[0] if all(isinstance(state, Gap) for state in states.values()) else states


def nvlinks(handle: Any) -> tuple[Any, ...]:
    """Links that are up, links that are down, the protocol, and what was counted or unreadable."""
    states = link_states(handle)
    if isinstance(states, Gap):
        return (states,) * 4
    up = [link for link, state in states.items() if state is True]
    down = [link for link, state in states.items() if state is False]
    unreadable = [
        {"link": link, "kind": "state", "count": state}
        for link, state in states.items()
        if isinstance(state, Gap)
    ]
    if not up:
        idle = Gap("no NVLink is active")
        return up, down, idle, unreadable or idle
    errors = link_errors(handle, up)
    if unreadable:
        errors = unreadable + ([] if isinstance(errors, Gap) else errors)
    return up, down, ask(link_version, handle, up[0]), errors


def link_errors(handle: Any, links: list[int]) -> Any:
    """Counters above zero; one that the first link lacks is not asked of the others."""
    lacking = Gap("NVML counts no errors of these links")
    for counters in (LINK_COUNTERS, LINK_5_COUNTERS):
        left, errors = dict(counters), []
        for link in links:
            for kind, question in tuple(left.items()):
                count = ask(question, handle, link)
                if isinstance(count, Gap) and count.code in NOT_A_FAULT:
                    del left[kind]
                    lacking = count
                elif count:
                    errors.append({"link": link, "kind": kind, "count": count})
        if left:
            return errors
    return lacking


def mig_devices(handle: Any) -> list[Any]:
    """Handles of the instances of a GPU, none where it is not partitioned."""
    if not n.nvmlDeviceGetMigMode(handle)[0]:
        return []
    slots = range(n.nvmlDeviceGetMaxMigDeviceCount(handle))
    found = [ask(n.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in slots]
    return [device for device in found if not isinstance(device, Gap)]  # NVML 6: an empty slot


mig_devices.__name__ = "nvmlDeviceGetMaxMigDeviceCount"

MEMORY = "memory_total_bytes memory_used_bytes memory_free_bytes memory_reserved_bytes"
MIG_FIELDS = {
    "uuid": read("nvmlDeviceGetUUID"),
    "profile": read("nvmlDeviceGetName", convert=lambda name: name.rpartition(" MIG ")[2]),
    "gpu_instance_id": read("nvmlDeviceGetGpuInstanceId"),
    "compute_instance_id": read("nvmlDeviceGetComputeInstanceId"),
    MEMORY: memory,
}


def mig(handle: Any) -> tuple[Any, ...]:
    """Whether the GPU is partitioned, whether it will be, and its parts."""
    now, after_reset = flags(n.nvmlDeviceGetMigMode(handle))
    devices = ask(mig_devices, handle)
    if isinstance(devices, Gap):
        return now, after_reset, devices, devices
    instances = [answers(MIG_FIELDS, device) for device in devices]
    uuids = ["unknown" if isinstance(i["uuid"], Gap) else i["uuid"] for i in instances]
    return now, after_reset, uuids, instances


mig.__name__ = "nvmlDeviceGetMigMode"


class OldProcess(ctypes.Structure):
    """nvmlProcessInfo_v1_t, which drivers before 450 fill and pynvml has forgotten."""

    _fields_ = (("pid", ctypes.c_uint), ("usedGpuMemory", ctypes.c_ulonglong))


def first_version(name: str) -> Callable[..., Any]:
    """The oldest form of a call that lists processes, without instance ids."""

    def question(handle: Any) -> Any:
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

    question.__name__ = name
    return question


def process_list(name: str) -> Callable[..., Any]:
    """The newest form of a call that lists processes."""
    question: Callable[..., Any] = newest(
        read(f"{name}_v3"), read(f"{name}_v2"), first_version(name)
    )
    return question


# A client of MPS may be listed as a compute process, too: the first kind found is kept.
PROCESS_LISTS = {
    "mps": process_list("nvmlDeviceGetMPSComputeRunningProcesses"),
    "compute": process_list("nvmlDeviceGetComputeRunningProcesses"),
    "graphics": process_list("nvmlDeviceGetGraphicsRunningProcesses"),
}


def processes(handle: Any) -> Any:
    """Every holder of memory once.

    Of a partitioned GPU NVML lists the processes only for those who may see all of them; its
    instances are asked one by one.
    """
    parts = ask(mig_devices, handle)
    lists = [
        (kind, ask(listed, device))
        for device in (handle, *(() if isinstance(parts, Gap) else parts))
        for kind, listed in PROCESS_LISTS.items()
    ]
    compute = [found for kind, found in lists if kind == "compute"]
    if all(isinstance(found, Gap) for found in compute):
        return compute[0]
    seen: dict[int, dict[str, Any]] = {}
    for kind, found in lists:
        for process in () if isinstance(found, Gap) else found:
            seen.setdefault(process.pid, described(process, kind))
    return list(seen.values())


def described(process: Any, kind: str) -> dict[str, Any]:
    """One process of a list; its owner and name are for the parent to find."""
    used = process.usedGpuMemory
    instance = getattr(process, "gpuInstanceId", NO_INSTANCE)
    part = getattr(process, "computeInstanceId", NO_INSTANCE)
    return {
        "pid": process.pid,
        "kind": kind,
        "used_bytes": Gap("NVML gives no memory for this process")
        if used is None or used == NO_BYTES
        else used,
        "gpu_instance_id": None if instance == NO_INSTANCE else instance,
        "compute_instance_id": None if part == NO_INSTANCE else part,
    }
