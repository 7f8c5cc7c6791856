"""Which lines of the kernel log are about the GPUs of this process, and what became of those."""

from __future__ import annotations

import re

from gpudiag.rules.machine import in_container, on_this_machine
from gpudiag.snapshot import KernelEvent, NotObserved, Snapshot, known, known_or

PCI_ADDRESS = re.compile(
    r"(?<![0-9a-fA-F])([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?![0-9a-fA-F])"
)
HIDDEN_BY_A_BATCH_SYSTEM = "a batch system may hide GPUs from this job"


def pci_slot(text: str) -> tuple[int, int, int] | None:
    """Domain, bus and device of the first PCI address in a text, None where there is none.

    NVML writes the domain with eight digits, the kernel with four, and an Xid without the function.

    Example:
        >>> pci_slot("00000008:01:00.0") == pci_slot("NVRM: Xid (PCI:0008:01:00): 79")
        True
    """
    found = PCI_ADDRESS.search(text)
    if found is None:
        return None
    domain, bus, device = (int(part, 16) for part in found.groups())
    return domain, bus, device


def xid_events(snapshot: Snapshot, *xids: int) -> list[KernelEvent]:
    """The Xid events of these numbers on GPUs that this process was given."""
    return of_own_gpus(
        snapshot, [event for event in known(snapshot.kernel_log.events) if event.xid in xids]
    )


def of_own_gpus(snapshot: Snapshot, events: list[KernelEvent]) -> list[KernelEvent]:
    """Those events that are about GPUs which this process was given.

    The log is the whole machine's, whose other GPUs belong to other containers and jobs.

    Raises:
        NotObserved: There are events, and which GPUs this process was given is not known.
    """
    if not events:
        return events
    if not in_container(snapshot) and known_or(snapshot.system.scheduler, None) is None:
        return events
    given = {pci_slot(known(gpu.pci_address)) for gpu in known(snapshot.nvml.gpus)} - {None}
    return [event for event in events if _slot(event) in given]


def refusals(snapshot: Snapshot, pattern: re.Pattern[str]) -> list[KernelEvent]:
    """The lines in which the driver refuses a GPU, but for those of a GPU that it lists now.

    Raises:
        NotObserved: There are such lines, and the GPUs may be those of other containers or jobs.
    """
    found = [event for event in known(snapshot.kernel_log.events) if pattern.search(event.text)]
    if not found:
        return found
    on_this_machine(snapshot)
    if known_or(snapshot.system.scheduler, None) is not None:
        raise NotObserved(HIDDEN_BY_A_BATCH_SYSTEM)
    gpus = known_or(snapshot.nvml.gpus, ())
    listed = {pci_slot(known_or(gpu.pci_address, "")) for gpu in gpus} - {None}
    return [event for event in found if _slot(event) not in listed]


def is_over(snapshot: Snapshot, event: KernelEvent) -> bool:
    """Whether the GPU of an event is well again; the log keeps the line after the reset.

    From branch 565 on, the driver says whether it still asks for one.
    """
    well = {
        pci_slot(known_or(gpu.pci_address, ""))
        for gpu in known_or(snapshot.nvml.gpus, ())
        if known_or(gpu.recovery_action, None) == "none" and known_or(gpu.error_codes, None) == ()
    }
    return _slot(event) in well - {None}


def _slot(event: KernelEvent) -> tuple[int, int, int] | None:
    return pci_slot(event.pci_address or event.text)
