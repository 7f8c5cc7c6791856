"""Which lines of the kernel log are about the GPUs of this process, and what became of those."""

from __future__ import annotations

import re

from gpudiag.rules.machine import NVML_LIBRARY_NOT_FOUND, in_container, on_this_machine
from gpudiag.snapshot import KernelEvent, NotObserved, Snapshot, known, known_or

PCI_ADDRESS = re.compile(
    r"(?<![0-9a-fA-F])([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?![0-9a-fA-F])"
)
SWITCH = "SXid"  # events of NVSwitches, through which all GPUs of a node talk
OF_OTHER_GPUS = "the events are on GPUs that this process does not see: another job's, or lost"
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

    An event stays where it may be about one of them: NVML does not answer, which is what such an
    event leads to; a GPU does not tell its address; or it is about the switches between them.

    Raises:
        NotObserved: There are events, all of them about GPUs that this process was not given.
    """
    if not events:
        return events
    if not in_container(snapshot) and known_or(snapshot.system.scheduler, None) is None:
        return events
    nvml = snapshot.nvml
    if known_or(nvml.init_code, None) == NVML_LIBRARY_NOT_FOUND:
        known(nvml.gpus)  # nothing of NVIDIA's is in here
    gpus = known_or(nvml.gpus, None)
    if gpus is None:
        return events
    slots = [pci_slot(known_or(gpu.pci_address, "")) for gpu in gpus]
    own = [
        event for event in events if None in slots or _slot(event) in slots or SWITCH in event.text
    ]
    if not own:
        raise NotObserved(OF_OTHER_GPUS)
    return own


def refusals(snapshot: Snapshot, pattern: re.Pattern[str]) -> list[KernelEvent]:
    """The lines in which the driver refuses a GPU, but for those of a GPU that it lists now.

    Raises:
        NotObserved: There are such lines, and the GPUs may be those of other containers or jobs.
    """
    found = [event for event in known(snapshot.kernel_log.events) if pattern.search(event.text)]
    if not found:
        return found
    on_this_machine(snapshot)
    gpus = known_or(snapshot.nvml.gpus, ())
    if gpus and known_or(snapshot.system.scheduler, None) is not None:
        raise NotObserved(HIDDEN_BY_A_BATCH_SYSTEM)
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
