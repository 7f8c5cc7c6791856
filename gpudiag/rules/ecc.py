"""GD4xx: memory errors, and what the driver asks to have done about them."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, gpu_rule, rule
from gpudiag.rules.hardware import PAGE_RETIREMENT, ROW_REMAPPING, XID_CATALOGUE
from gpudiag.rules.kernel_events import is_over, xid_events
from gpudiag.snapshot import Gpu, KernelEvent, Snapshot, known

CONTAINED, UNCONTAINED = 94, 95
# Faults of the program that ran: an illegal address, a page fault, a reset or ended channel.
PROGRAM_XIDS = {
    13: "illegal instruction or address in a kernel",
    31: "access to an address that is not mapped",
    43: "a program's channel was reset after a fault of its own",
    45: "a program's channels were removed when it ended",
}
SRAM_ERRORS_FOR_REPLACEMENT = 4  # NVIDIA replaces a part with more of them over its life
ROWS_THAT_EXHAUST_SPARES = 512  # as DCGM judges: so many replaced rows leave no spares
RETIRED_PAGES_FULL = 64  # a GPU before the A100 has room for the addresses of 64 retired pages
DEBUGGING = (
    "https://github.com/stas00/ml-engineering/blob/master/compute/accelerator/nvidia/debug.md"
)
ACTIONS = {
    "gpu_reset": "sudo nvidia-smi --gpu-reset -i {index} when no program is on it",
    "node_reboot": "sudo reboot",
    "system_reboot": "sudo reboot",
    "drain_p2p": "end the programs that use peer access, then sudo nvidia-smi --gpu-reset",
    "drain_and_reset": "let no new program on it, then sudo nvidia-smi --gpu-reset -i {index}",
}


@rule("GD412", Severity.NOTE, XID_CATALOGUE)
def program_faults_in_kernel_log(snapshot: Snapshot) -> Finding | None:
    """A program did something illegal on a GPU.

    Xid 13, 31, 43 and 45 in the kernel log are faults of the program that ran, not of the GPU.

    Ignore it when you know the crash, or ended the program yourself.
    """
    events = xid_events(snapshot, *PROGRAM_XIDS)
    if not events:
        return None
    last = events[-1]
    return Finding(
        evidence=(
            f"Xid {last.xid} ({PROGRAM_XIDS[last.xid or 0]}), {len(events)} such event(s)",
            last.text,
        ),
        cause="a kernel read or wrote where it must not: the program ends, the GPU is fine",
        fix="run the program again with CUDA_LAUNCH_BLOCKING=1; or under compute-sanitizer, which "
        "names the kernel",
    )


@rule("GD413", Severity.WARNING, XID_CATALOGUE, DEBUGGING)
def contained_memory_error(snapshot: Snapshot) -> Finding | None:
    """A memory error ended a program, and the GPU contained it.

    Xid 94: an error that ECC could not correct hit the memory of one program. Others went on.

    Cure: start the program again; when the GPU is free: sudo nvidia-smi --gpu-reset -i with the PCI
    address that the report names.
    """
    events = xid_events(snapshot, CONTAINED)
    if not events:
        return None
    return Finding(
        evidence=(events[-1].text, f"{len(events)} such event(s) since boot"),
        cause="the program that used that memory was ended",
        fix=f"start the program again; when the GPU is free: {gpu_reset(events)}",
    )


@rule("GD414", Severity.ERROR, XID_CATALOGUE, DEBUGGING, explains=("GD402", "GD410"))
def uncontained_memory_error(snapshot: Snapshot) -> Finding | None:
    """A memory error was not contained.

    Xid 95: an error that ECC could not correct may have spoilt the memory of every program on the
    GPU. From branch 565 on, the driver says when the GPU is well again.

    Ignore it when the GPU has been reset since: the kernel log keeps the line until the next boot.
    """
    events = [e for e in xid_events(snapshot, UNCONTAINED) if not is_over(snapshot, e)]
    if not events:
        return None
    return Finding(
        evidence=(events[-1].text, f"{len(events)} such event(s) since boot"),
        cause="all programs on this GPU were hit; what they computed since cannot be trusted",
        fix=f"end the programs on it, then {gpu_reset(events)}; or sudo reboot",
    )


@gpu_rule("GD415", Severity.ERROR, DEBUGGING, explains=("GD410",))
def sram_worn_out(gpu: Gpu) -> Finding | None:
    """A GPU's on-chip memory has had too many errors over its life.

    Caches and registers (SRAM) have no spare rows. NVIDIA replaces a part with more than four
    errors there that ECC could not correct.
    """
    count = known(gpu.ecc_uncorrected_aggregate_sram)
    if count <= SRAM_ERRORS_FOR_REPLACEMENT:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: {count} uncorrected SRAM errors over the life of the part, "
            f"{SRAM_ERRORS_FOR_REPLACEMENT} are tolerated",
        ),
        cause="programs on it are ended again and again",
        fix="take the GPU out of use and ask the vendor for a replacement",
    )


@gpu_rule("GD416", Severity.ERROR, ROW_REMAPPING, "https://github.com/NVIDIA/DCGM")
def spare_rows_used_up(gpu: Gpu) -> Finding | None:
    """A GPU has replaced so many memory rows that hardly a spare is left.

    Counted are the rows that were replaced after an error that ECC could not correct.
    """
    rows = known(gpu.rows_remapped_uncorrectable)
    if rows < ROWS_THAT_EXHAUST_SPARES:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: {rows} rows replaced, {ROWS_THAT_EXHAUST_SPARES} are the limit",
        ),
        cause="the next faulty row may not be replaceable: programs will crash",
        fix="take the GPU out of use and ask the vendor for a replacement",
    )


@gpu_rule("GD417", Severity.ERROR, PAGE_RETIREMENT, explains=("GD405", "GD410"))
def retired_pages_full(gpu: Gpu) -> Finding | None:
    """A GPU cannot retire any more memory pages.

    GPUs before the A100 take faulty pages out of use and keep a list of their addresses, which is
    full.
    """
    pages = known(gpu.pages_retired_single_bit) + known(gpu.pages_retired_double_bit)
    if pages < RETIRED_PAGES_FULL:
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: {pages} pages retired, there is room for {RETIRED_PAGES_FULL}",
        ),
        cause="faulty pages stay in use: programs will crash",
        fix="take the GPU out of use and ask the vendor for a replacement",
    )


@gpu_rule(
    "GD422",
    Severity.WARNING,
    "https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html",
)
def inforom_corrupt(gpu: Gpu) -> Finding | None:
    """A GPU's infoROM is corrupted.

    The infoROM is a small flash memory on the board with its serial number, its power limits and
    the list of its faulty memory. NVML compares its checksum.
    """
    if known(gpu.inforom_valid):
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: the checksum of the infoROM is wrong",),
        cause="power limits, ECC counts and the list of faulty memory may be wrong or lost",
        fix="ask the vendor for a tool that writes it anew, or for a replacement",
    )


@gpu_rule("GD425", Severity.WARNING, XID_CATALOGUE)
def recovery_action_wanted(gpu: Gpu) -> Finding | None:
    """The driver asks for an action to recover a GPU.

    From branch 565 on, the driver says itself what a GPU needs after an error: a reset of the GPU,
    a reboot of the machine, or that it be drained first.
    """
    action = known(gpu.recovery_action)
    if action == "none":
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: recovery action {action}",),
        cause="the GPU has had an error and does not work as it should until this is done",
        fix=ACTIONS.get(action, "sudo reboot").format(index=gpu.index),
    )


def gpu_reset(events: list[KernelEvent]) -> str:
    """The command that resets the GPUs of these events, and no others where they name theirs.

    Example:
        >>> gpu_reset([KernelEvent(text="Xid 94", xid=94, pci_address="0000:1b:00")])
        'sudo nvidia-smi --gpu-reset -i 0000:1b:00.0'
    """
    addresses = dict.fromkeys(event.pci_address for event in events)
    if None in addresses:
        return "sudo nvidia-smi --gpu-reset -i <its index>"
    devices = ",".join(a if "." in a else f"{a}.0" for a in addresses if a)
    return f"sudo nvidia-smi --gpu-reset -i {devices}"
