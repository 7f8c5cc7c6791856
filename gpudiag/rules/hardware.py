"""GD4xx: the GPU itself: lost, damaged, too hot, held back."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, gpu_rule, rule
from gpudiag.rules.kernel_events import is_over, of_own_gpus
from gpudiag.snapshot import (
    Gpu,
    KernelEvent,
    Snapshot,
    is_memory,
    is_temperature,
    known,
    known_or,
)

NVML_GPU_IS_LOST = 15
NVML_RESET_REQUIRED = 16
NVML_UNKNOWN = 999

# Bits of nvmlClocksEventReasons.
SW_POWER_CAP = 0x4
HW_SLOWDOWN = 0x8
SW_THERMAL = 0x20
HW_THERMAL = 0x40
POWER_BRAKE = 0x80
EVENT_REASONS = "https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html"
XID_CATALOGUE = "https://docs.nvidia.com/deploy/xid-errors/"
ROW_REMAPPING = "https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/"
PAGE_RETIREMENT = "https://docs.nvidia.com/deploy/dynamic-page-retirement/visibility.html"

POWER_LIMIT_TOLERANCE_WATTS = 1.0  # limits are set in whole watts

# Xid events that mean the GPU or its memory, not the program that ran on it.
GRAVE_XIDS = {
    48: "double-bit ECC error",
    62: "a micro-controller of the GPU halted",
    63: "a memory row was marked for remapping",
    64: "a memory row could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "many single-bit ECC errors",
    140: "ECC error that was not recovered from",
    143: "the GPU could not be initialized",
    158: "the GPU did not answer in time",
}
FATAL = re.compile(r"\bFatal\b")  # of an NVLink 5 event; others of it are "Nonfatal"
NVLINK_5_XIDS = range(144, 151)
RECOVERY_ACTION_CHANGED = 154
NEW_ACTION = re.compile(r" to 0x[0-9a-fA-F]+ \((?!None\))([\w ]+)\)")
# What the NVSwitch driver writes of its own errors: nvidia-nvswitch3: SXid (PCI:…): 23001, Fatal, …
FATAL_SXID = re.compile(r"SXid \(PCI:([0-9a-fA-F:.]+)\): (\d{1,6}), Fatal\b")


@gpu_rule(
    "GD401",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/507",
    explains=("GD105", "GD107", "GD221", "GD319", "GD411", "GD704", "GD705"),
)
def gpu_lost(gpu: Gpu) -> Finding | None:
    """A GPU is lost.

    The driver knows the GPU and cannot reach it any more: it has "fallen off the bus". Power,
    heat, a riser cable or the slot are the usual reasons, the GPU itself the next.
    """
    codes = known(gpu.error_codes)
    lost = {NVML_GPU_IS_LOST, NVML_UNKNOWN}.intersection(codes)
    if not lost:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index} does not answer: NVML {', '.join(map(str, sorted(lost)))} "
            f"({'GPU is lost' if NVML_GPU_IS_LOST in lost else 'unknown error'})",
        ),
        cause="programs on this GPU are dead, and on many machines no new CUDA program starts",
        fix="sudo dmesg | grep -i xid, then power the machine off and on; if it comes back, check "
        "power cables, cooling and the slot, and ask for a replacement",
    )


@gpu_rule("GD402", Severity.ERROR, XID_CATALOGUE, explains=("GD319", "GD411", "GD425"))
def reset_required(gpu: Gpu) -> Finding | None:
    """A GPU must be reset before it can be used.

    NVML answers with code 16 since an error that only a reset clears.
    """
    if NVML_RESET_REQUIRED not in known(gpu.error_codes):
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: NVML {NVML_RESET_REQUIRED} (reset required)",),
        cause="every CUDA call on this GPU fails until it is reset",
        fix=f"end the programs on it, then sudo nvidia-smi --gpu-reset -i {gpu.index}, or reboot",
    )


@gpu_rule("GD403", Severity.WARNING, ROW_REMAPPING, explains=("GD410", "GD425"))
def row_remap_pending(gpu: Gpu) -> Finding | None:
    """A damaged memory row waits for a reset to be replaced.

    The GPU found a faulty row and has a spare for it, which is put in place at the next reset.
    """
    if not known(gpu.row_remap_pending):
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: row remap pending",
            f"uncorrectable rows so far: {known_or(gpu.rows_remapped_uncorrectable, 0)}",
        ),
        cause="until then the damaged row may be used again and end the program that meets it",
        fix=f"when it is free: sudo nvidia-smi --gpu-reset -i {gpu.index}, or reboot",
    )


@gpu_rule("GD404", Severity.ERROR, ROW_REMAPPING, explains=("GD410", "GD416"))
def row_remap_failed(gpu: Gpu) -> Finding | None:
    """A damaged memory row could not be replaced.

    The spare rows of that memory bank are used up.
    """
    if not known(gpu.row_remap_failed):
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: row remapping failed",),
        cause="the GPU's memory is damaged beyond what it can mend: programs will crash",
        fix="take the GPU out of use and ask the vendor for a replacement",
    )


@gpu_rule("GD405", Severity.WARNING, PAGE_RETIREMENT)
def page_retirement_pending(gpu: Gpu) -> Finding | None:
    """A damaged memory page waits for a reset to be taken out of use.

    GPUs before the A100 retire pages instead of remapping rows.
    """
    if not known(gpu.page_retirement_pending):
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: page retirement pending",),
        cause="until then the damaged page may be used again",
        fix=f"when it is free: sudo nvidia-smi --gpu-reset -i {gpu.index}, or reboot",
    )


@gpu_rule("GD406", Severity.WARNING, EVENT_REASONS)
def thermal_throttling(gpu: Gpu) -> Finding | None:
    """A GPU is held back because it is too hot.

    The clocks are lowered by the driver (software) or the chip (hardware) to cool down.
    """
    reasons = known(gpu.clock_event_reasons)
    if not reasons & (SW_THERMAL | HW_THERMAL):
        return None
    kinds = [
        name for bit, name in ((SW_THERMAL, "software"), (HW_THERMAL, "hardware")) if reasons & bit
    ]
    return Finding(
        evidence=(
            f"GPU {gpu.index}: {' and '.join(kinds)} thermal slowdown active",
            _temperature(gpu),
            _clocks(gpu),
        ),
        cause="it computes at a fraction of its speed, and slows every GPU that waits for it",
        fix="check fans, filters, air flow and the room; nvidia-smi -q -d TEMPERATURE,PERFORMANCE",
    )


@gpu_rule("GD407", Severity.WARNING, EVENT_REASONS)
def power_brake(gpu: Gpu) -> Finding | None:
    """A GPU is held back by its power supply.

    The board's power-brake signal is on, or the chip halves its clocks for want of power.
    """
    reasons = known(gpu.clock_event_reasons)
    braked = reasons & POWER_BRAKE or (reasons & HW_SLOWDOWN and not reasons & HW_THERMAL)
    if not braked:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: "
            f"{'power brake' if reasons & POWER_BRAKE else 'hardware slowdown'} active",
            _clocks(gpu),
        ),
        cause="the clocks are halved or worse until the supply recovers",
        fix="check power cables and supplies, and whether the rack's power is capped",
    )


@gpu_rule("GD408", Severity.WARNING, EVENT_REASONS, explains=("GD429",))
def power_limit_lowered(gpu: Gpu) -> Finding | None:
    """A GPU runs against a power limit that was set below its default.

    Reaching the default limit under load is normal; reaching a lowered one costs speed that the
    part could give.

    Ignore it when the limit was lowered on purpose, to save power or heat.
    """
    if not known(gpu.clock_event_reasons) & SW_POWER_CAP:
        return None
    limit, default = known(gpu.power_limit_watts), known(gpu.power_limit_default_watts)
    if limit >= default - POWER_LIMIT_TOLERANCE_WATTS:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: held at its power limit of {limit:.0f} W, "
            f"the default is {default:.0f} W",
            _clocks(gpu),
        ),
        cause="it computes slower than the part could",
        fix=f"sudo nvidia-smi -i {gpu.index} -pl {default:.0f}",
    )


@gpu_rule(
    "GD409",
    Severity.ERROR,
    "https://github.com/huggingface/gpu-fryer/issues/10",
    explains=("GD406", "GD419", "GD420", "GD427", "GD501"),
)
def implausible_readings(gpu: Gpu) -> Finding | None:
    """A GPU reports values that cannot be true.

    A temperature of nothing or of a furnace, or more memory in use than there is: the driver has
    lost touch with the part and does not say so.
    """
    evidence = []
    celsius = known(gpu.temperature_celsius)
    if not is_temperature(celsius):
        evidence.append(f"GPU {gpu.index}: temperature {celsius} °C")
    total, used = known(gpu.memory_total_bytes), known(gpu.memory_used_bytes)
    if not is_memory(used, total):
        evidence.append(f"GPU {gpu.index}: {used} of {total} bytes in use")
    if not evidence:
        return None
    return Finding(
        evidence=tuple(evidence),
        cause="the driver's picture of this GPU is broken; its other values cannot be trusted",
        fix="reboot; if the values stay, take the GPU out of use",
    )


@gpu_rule("GD410", Severity.WARNING, ROW_REMAPPING)
def uncorrected_ecc_errors(gpu: Gpu) -> Finding | None:
    """A GPU's memory had errors that could not be corrected since the driver was loaded.

    Error correction (ECC) mends one flipped bit and detects two, which it cannot mend. The count
    begins anew when the driver is loaded.
    """
    count = known(gpu.ecc_uncorrected_volatile)
    if count == 0:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: {count} uncorrected ECC error(s) since the driver was loaded",
        ),
        cause="the program that met them was ended, and the next may be",
        fix=f"when it is free: sudo nvidia-smi --gpu-reset -i {gpu.index}; "
        "if they come back, ask for a replacement",
    )


@rule(
    "GD411",
    Severity.WARNING,
    XID_CATALOGUE,
    "https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html",
)
def grave_xid_in_kernel_log(snapshot: Snapshot) -> Finding | None:
    """The kernel log holds a hardware error of a GPU or an NVSwitch.

    The driver writes numbered Xid events. Most mean a fault of the program that ran (13, 31, 43,
    45); these mean the GPU, its memory or its link; those with a rule of their own are left out.
    An NVSwitch writes SXid events, of which the fatal ones count. In a container or a batch job,
    events on GPUs that it was not given are left out, as in GD130 and GD412 to GD414.
    """
    grave = [e for e in known(snapshot.kernel_log.events) if _error(e) is not None]
    events = [
        event
        for event in of_own_gpus(snapshot, grave)
        if event.xid != RECOVERY_ACTION_CHANGED or not is_over(snapshot, event)
    ]
    if not events:
        return None
    shown = [f"{_error(e)}, {e.time or 'no time'}" for e in events[-3:]]
    if len(events) > len(shown):
        shown.append(f"… and {len(events) - len(shown)} earlier")
    return Finding(
        evidence=tuple(shown),
        cause="a GPU that has done this tends to do it again, usually in the middle of a run",
        fix="look the number up in the catalogue; nvidia-bug-report.sh collects what support needs",
    )


def _error(event: KernelEvent) -> str | None:
    """What a line of the log says of the hardware, None where it says nothing grave."""
    if fatal := FATAL_SXID.search(event.text):
        return f"SXid {fatal[2]} (fatal NVSwitch error) on {fatal[1]}"
    meaning = None
    if event.xid in GRAVE_XIDS:
        meaning = GRAVE_XIDS[event.xid]
    elif event.xid in NVLINK_5_XIDS and FATAL.search(event.text):
        meaning = "fatal NVLink error"
    elif event.xid == RECOVERY_ACTION_CHANGED and (action := NEW_ACTION.search(event.text)):
        meaning = f"the driver asks for: {action[1]}"
    return meaning and f"Xid {event.xid} ({meaning}) on {event.pci_address or 'a GPU'}"


def _temperature(gpu: Gpu) -> str:
    slowdown = known_or(gpu.temperature_slowdown_celsius, None)
    limit = f", slowdown from {slowdown} °C" if slowdown is not None else ""
    celsius = known_or(gpu.temperature_celsius, None)
    return f"temperature {'unknown' if celsius is None else f'{celsius} °C'}{limit}"


def _clocks(gpu: Gpu) -> str:
    now, highest = known_or(gpu.clock_sm_mhz, None), known_or(gpu.clock_sm_max_mhz, None)
    if now is None or highest is None:
        return "clocks not readable"
    return f"SM clock {now} MHz of {highest} MHz"
