"""The NVIDIA driver's lines in the kernel log, from what is readable without root."""

from __future__ import annotations

import re
from collections.abc import Callable

from gpudiag.host import Host
from gpudiag.programs import Completed
from gpudiag.snapshot import KernelEvent, KernelLog, Missing

# Besides the driver's own lines: modules that Secure Boot rejects, processes that the kernel
# killed for want of memory, and crashes inside the libraries of CUDA and torch.
OF_INTEREST = re.compile(
    r"NVRM|nvidia|nouveau|[Ll]oading of .* is rejected|unsigned module loading"
    r"|Killed process \d+|segfault at .* in lib(?:nccl|cuda|cudnn|cublas|torch|c10)",
    re.IGNORECASE,
)
WORDS = ("nv", "nouveau", "is reject", "unsigned", "killed process", "segfault")  # one is in each
XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d{1,6})")
MICROSECONDS = re.compile(r"[0-9]{1,18}")  # since boot
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:")
# The driver writes records of several lines. What continues one is indented where it is printed.
CONTINUED = re.compile(r"\n[ \t]+(?:NVRM:[ \t]*)?(?=\S)")
NEWLINE_IN_KMSG = "\\x0a"
LONGEST_LINE = 1000  # characters; the kernel's own records end at 1024
MOST_RECORDS = "50000"  # asked of the journal, newest: as much as is read of a program's output
NEWEST = 200  # lines kept: a GPU that falls off the bus writes thousands


def kernel_log(host: Host, limit_s: float) -> KernelLog:
    """Xid events and the other lines that bear on GPUs and training, oldest first."""
    reasons = []
    sources: dict[str, Callable[[], list[tuple[str | None, str]] | Missing]] = {
        "/dev/kmsg": lambda: _kmsg(host),
        "journalctl -k": lambda: _journal(host, limit_s),
        "dmesg": lambda: _dmesg(host, limit_s),
    }
    for source, read in sources.items():
        lines = read()
        if isinstance(lines, Missing):
            reasons.append(lines.missing)
            continue
        events = tuple(_event(time, text) for time, text in lines if _of_interest(text))
        return KernelLog(source=source, events=events[-NEWEST:])
    return KernelLog.missing("no kernel log is readable: " + "; ".join(reasons))


def _may_matter(text: str) -> bool:
    lower = text.lower()  # most lines hold none of the words, and a search costs five times as much
    return any(word in lower for word in WORDS)


def _of_interest(text: str) -> bool:
    return _may_matter(text) and bool(OF_INTEREST.search(text))


def _kmsg(host: Host) -> list[tuple[str | None, str]] | Missing:
    records = host.read_log("/dev/kmsg")
    if isinstance(records, Missing):
        return records
    lines: list[tuple[str | None, str]] = []
    for record in filter(_may_matter, records):
        header, separator, text = record.partition(";")
        fields = header.split(",")
        if separator and len(fields) > 2 and MICROSECONDS.fullmatch(fields[2]):  # noqa: PLR2004
            whole = _one_line(text.replace(NEWLINE_IN_KMSG, "\n "))
            lines.append((f"{int(fields[2]) / 1e6:.0f} s after boot", whole))
    return lines


def _journal(host: Host, limit_s: float) -> list[tuple[str | None, str]] | Missing:
    outcome = host.run(
        *("journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-iso", "-n", MOST_RECORDS),
        timeout_s=limit_s,
    )
    if not isinstance(outcome, Completed):
        return outcome
    if outcome.failure is not None or not outcome.stdout.strip():
        return Missing(f"journalctl -k: {outcome.failure or 'no lines that this user may read'}")
    lines: list[tuple[str | None, str]] = []
    for line in _one_line(outcome.stdout).splitlines():
        time, is_record, text = line.partition(" kernel: ")
        if is_record:
            lines.append((time.split(" ")[0], text))
    return lines or Missing("journalctl -k: what it printed is no journal")


def _dmesg(host: Host, limit_s: float) -> list[tuple[str | None, str]] | Missing:
    outcome = host.run("dmesg", "--time-format", "iso", timeout_s=limit_s)
    if not isinstance(outcome, Completed):
        return outcome
    if outcome.failure is not None:
        said = outcome.stderr.strip().splitlines()
        return Missing(f"dmesg: {said[-1][:LONGEST_LINE] if said else outcome.failure}")
    lines: list[tuple[str | None, str]] = []
    for line in _one_line(outcome.stdout).splitlines():
        time, _, text = line.partition(" ")
        if ISO_TIME.match(time):
            lines.append((time, text))
    return lines or Missing("dmesg: what it printed is no kernel log")


def _one_line(text: str) -> str:
    """A text in which a record of several lines is one line."""
    return CONTINUED.sub(" ", text)


def _event(time: str | None, text: str) -> KernelEvent:
    found = XID.search(text)
    return KernelEvent(
        text=text.strip()[:LONGEST_LINE],
        time=time,
        xid=int(found[2]) if found else None,
        pci_address=found[1] if found else None,
    )
