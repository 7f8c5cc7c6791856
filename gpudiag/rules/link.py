"""GD4xx: how a GPU is connected and clocked: PCI bus, power, interrupts, clocks."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, gpu_rule, rule, subject_of
from gpudiag.rules.hardware import (
    EVENT_REASONS,
    HW_SLOWDOWN,
    HW_THERMAL,
    POWER_BRAKE,
    SW_POWER_CAP,
    SW_THERMAL,
)
from gpudiag.rules.kernel_events import HIDDEN_BY_A_BATCH_SYSTEM, pci_slot
from gpudiag.rules.machine import is_abandoned, on_this_machine
from gpudiag.snapshot import Gpu, NotObserved, Snapshot, known, known_or

NVML_INSUFFICIENT_POWER, NVML_IRQ_ISSUE = 8, 11
APPLICATION_CLOCKS, SYNC_BOOST = 0x2, 0x10
REASONS_TO_SLOW_DOWN = (
    SW_POWER_CAP
    | HW_SLOWDOWN
    | SW_THERMAL
    | HW_THERMAL
    | POWER_BRAKE
    | APPLICATION_CLOCKS
    | SYNC_BOOST
)
BUSY_FRACTION = 0.5  # an idle GPU lowers its link; at half load it has long raised it again
FULLY_BUSY_FRACTION = 0.9
SLOW_CLOCK_FRACTION = 0.5  # boost varies by a fifth, a power cap by a third, never by half
NVTOP = "https://github.com/Syllo/nvtop/issues/6"
RETURN_CODES = "https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html"


@rule(
    "GD418",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/507",
    explains=("GD221",),
)
def gpu_missing_from_driver(snapshot: Snapshot) -> Finding | None:
    """A GPU is on the PCI bus and the driver does not list it.

    The bus shows more NVIDIA GPUs that belong to the nvidia driver or to none than NVML lists. A
    GPU of before Maxwell beside others is left out: no current driver lists it.
    """
    on_this_machine(snapshot)
    if known(snapshot.system.scheduler) is not None:
        raise NotObserved(HIDDEN_BY_A_BATCH_SYSTEM)
    if not known(snapshot.driver.module_loaded):
        return None
    devices = known(snapshot.driver.pci_devices)
    listed = [pci_slot(known(gpu.pci_address)) for gpu in known(snapshot.nvml.gpus)]
    on_bus = [
        device
        for device in devices
        if device.kernel_driver in {None, "nvidia"}
        and not (listed and is_abandoned(snapshot, device))
    ]
    absent = [d.address for d in on_bus if pci_slot(d.address) not in listed]
    if not absent:
        return None
    return Finding(
        evidence=(
            f"{len(on_bus)} GPU(s) on the PCI bus, {len(listed)} in the driver's list",
            f"not in the list: {', '.join(absent)}",
        ),
        cause="it has fallen off the bus, or the driver could not start it",
        fix="sudo dmesg | grep -i nvrm says why; or power the machine off and on; or check the "
        "GPU's power cables and its slot",
    )


@gpu_rule(
    "GD419",
    Severity.WARNING,
    "https://github.com/janhq/jan/issues/183",
    "https://github.com/Tiiny-AI/PowerInfer/issues/237",
)
def fewer_lanes(gpu: Gpu) -> Finding | None:
    """A GPU's PCI Express link has fewer lanes than it could.

    Compared are the lanes in use with the most that this GPU and this slot can do together.

    Ignore it when the slot shares its lanes on purpose, or an idle laptop GPU saves power.
    """
    lanes, most = known(gpu.pcie_width_lanes), known(gpu.pcie_width_max_lanes)
    if lanes == 0 or most == 0:
        raise NotObserved("the hypervisor does not show the PCI Express link")
    if lanes >= most:
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: x{lanes} of x{most} lanes",),
        cause="copies between the host and this GPU take a multiple of their time",
        fix="reseat the GPU and its riser; or use a slot that is wired for all lanes; or set the "
        "slot's bifurcation in the BIOS",
    )


@gpu_rule("GD420", Severity.WARNING, "https://github.com/janhq/jan/issues/183", NVTOP)
def slower_link_under_load(gpu: Gpu) -> Finding | None:
    """A GPU's PCI Express link runs below its speed under load.

    An idle GPU lowers the generation of its link to save power, which is normal. This one is busy
    and its link is still lowered.

    Ignore it when the load had begun only a moment before.
    """
    generation, most = known(gpu.pcie_generation), known(gpu.pcie_generation_max)
    if generation == 0:
        raise NotObserved("NVML gives PCI Express generation 0, which there is not")
    if generation >= most or known(gpu.utilization_fraction) < BUSY_FRACTION:
        return None
    if known(gpu.performance_state) > 2:  # noqa: PLR2004 - P0 to P2 are those of computing
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: PCI Express generation {generation} of {most} at "
            f"{known(gpu.utilization_fraction):.0%} utilization",
        ),
        cause="each generation less halves the speed of copies between the host and this GPU",
        fix="set the slot to its full generation in the BIOS; or replace the riser",
    )


@gpu_rule("GD421", Severity.NOTE, "https://github.com/Tiiny-AI/PowerInfer/issues/237")
def slot_of_older_generation(gpu: Gpu) -> Finding | None:
    """A GPU sits in a slot of an older PCI Express generation than its own.

    Compared are the generation of the GPU and the highest of GPU and slot together.

    Ignore it when the data fits into the GPU's memory: only copies to and from the host are slower.
    """
    slot, own = known(gpu.pcie_generation_max), known(gpu.pcie_generation_gpu_max)
    if slot >= own:
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: generation {own} in a slot of generation {slot}",),
        cause="each generation less halves the speed of copies between the host and this GPU",
        fix="use a slot of the GPU's own generation; or look whether the BIOS limits the slot",
    )


@gpu_rule("GD423", Severity.ERROR, RETURN_CODES, explains=("GD221", "GD319"))
def power_cable_missing(gpu: Gpu) -> Finding | None:
    """A GPU's power cables are not connected.

    NVML answers with code 8: the board does not see the power that it needs.
    """
    if NVML_INSUFFICIENT_POWER not in known(gpu.error_codes):
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: NVML {NVML_INSUFFICIENT_POWER} (insufficient power)",),
        cause="the GPU does not start",
        fix="power the machine off and connect every power socket of the board with a cable of its "
        "own",
    )


@gpu_rule("GD424", Severity.ERROR, RETURN_CODES, explains=("GD221", "GD319"))
def interrupts_missing(gpu: Gpu) -> Finding | None:
    """The kernel does not deliver a GPU's interrupts.

    NVML answers with code 11. The machine's firmware or the hypervisor has assigned none, or MSI
    does not work.
    """
    if NVML_IRQ_ISSUE not in known(gpu.error_codes):
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: NVML {NVML_IRQ_ISSUE} (interrupt problem)",),
        cause="the driver waits for signals that never come: calls hang or fail",
        fix="take pci=nomsi out of the kernel parameters if it is there; or update the BIOS; or "
        "pass the GPU through with MSI",
    )


@gpu_rule("GD426", Severity.NOTE, EVENT_REASONS)
def clocks_set_by_hand(gpu: Gpu) -> Finding | None:
    """A GPU's clocks are held by a setting.

    The driver names the application clocks as the reason for the present clock, and they lie
    below the highest.

    Ignore it when the setting is the board's default, or made on purpose.
    """
    if not known(gpu.clock_event_reasons) & APPLICATION_CLOCKS:
        return None
    clock, highest = known(gpu.clock_sm_mhz), known(gpu.clock_sm_max_mhz)
    if clock >= highest:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: SM clock {clock} MHz of {highest} MHz, held by application clocks",
        ),
        cause="it computes slower than the part could",
        fix=f"sudo nvidia-smi -i {gpu.index} -rac; or sudo nvidia-smi -i {gpu.index} -rgc",
    )


@gpu_rule("GD427", Severity.WARNING, "https://github.com/fangq/mcx/issues/18")
def slow_without_reason(gpu: Gpu) -> Finding | None:
    """A busy GPU runs at a low clock and names no reason.

    At 90 % utilization or more the clock is below half of the highest, and none of the reasons
    that the driver knows (power, heat, a setting) is on.
    """
    if known(gpu.utilization_fraction) < FULLY_BUSY_FRACTION:
        return None
    clock, highest = known(gpu.clock_sm_mhz), known(gpu.clock_sm_max_mhz)
    if (
        clock >= SLOW_CLOCK_FRACTION * highest
        or known(gpu.clock_event_reasons) & REASONS_TO_SLOW_DOWN
    ):
        return None
    state = known_or(gpu.performance_state, None)
    return Finding(
        evidence=(
            f"GPU {gpu.index}: SM clock {clock} MHz of {highest} MHz at "
            f"{known(gpu.utilization_fraction):.0%} utilization",
            "performance state " + ("unknown" if state is None else f"P{state}"),
        ),
        cause="it is stuck in a state for saving power and computes at a fraction of its speed",
        fix=f"sudo nvidia-smi -i {gpu.index} -rgc; or reboot, and update the driver",
    )


@gpu_rule("GD428", Severity.WARNING, EVENT_REASONS)
def memory_too_hot(gpu: Gpu) -> Finding | None:
    """A GPU's memory is at its highest temperature.

    The memory has a sensor and a limit of its own, which the core's temperature does not show.
    """
    celsius, most = known(gpu.temperature_memory_celsius), known(gpu.temperature_memory_max_celsius)
    if celsius < most:
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: memory {celsius} °C, its limit is {most} °C",),
        cause="the clocks are lowered, and memory errors become more likely",
        fix="check fans, filters, air flow and the room; or replace the memory's thermal pads",
    )


@rule("GD429", Severity.WARNING, EVENT_REASONS)
def power_limits_differ(snapshot: Snapshot) -> tuple[Finding, ...]:
    """A GPU has a lower power limit than its equals in this machine.

    GPUs of the same name are compared with one another.

    Ignore it when the limit was lowered on purpose, as for a slot with less cooling.
    """
    found = []
    by_name: dict[str, list[Gpu]] = {}
    for gpu in known(snapshot.nvml.gpus):
        by_name.setdefault(known(gpu.name), []).append(gpu)
    for gpus in by_name.values():
        highest = max(known(gpu.power_limit_watts) for gpu in gpus)
        found += [
            Finding(
                subject=subject_of(gpu),
                evidence=(
                    f"GPU {gpu.index}: power limit {known(gpu.power_limit_watts):.0f} W",
                    f"another {known(gpu.name)} here has {highest:.0f} W",
                ),
                cause="in a training over all of them every GPU waits for the slowest",
                fix=f"sudo nvidia-smi -i {gpu.index} -pl {highest:.0f}",
            )
            for gpu in gpus
            if known(gpu.power_limit_watts) < highest - 1
        ]
    return tuple(found)
