"""Who could hold GPU memory: a process with its parents' fate, and every open /dev/nvidia* handle.

Asked by the commands about memory and processes alone; a snapshot does not hold it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from gpudiag.host import Host
from gpudiag.snapshot import Fact, Missing, Section, known_or, not_recorded

STATES = {
    "R": "running",
    "S": "sleeping",
    "I": "idle",
    "D": "uninterruptible",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
}
# Processes that adopt the children of the dead. Any other parent that a process was handed to is
# found by its session.
REAPERS = {"systemd", "init", "tini", "dumb-init", "docker-init", "catatonit", "conmon", "runit"}
# How a worker that only makes sense with its trainer shows itself.
WORKERS = {
    "a DataLoader worker": re.compile(r"\bpt_data_worker\b"),
    "a multiprocessing worker": re.compile(r"from multiprocessing\.(spawn|forkserver) import"),
}
RANK = re.compile(r"(?:^|\0)TORCHELASTIC_RUN_ID=")
SIGHUP_BIT = 1
CONTAINERS = re.compile(
    r"(?P<kind>docker|libpod|crio|cri-containerd|containerd|kubepods|lxc)"
    r"[-/.:a-z0-9_]*?(?P<id>[0-9a-f]{12})[0-9a-f]*",
)
NODE = re.compile(r"nvidia\d+")  # a GPU itself; nvidiactl and nvidia-uvm are open with it


class Holder(Section, frozen=True, kw_only=True):
    """A process that holds, or could hold, GPU memory."""

    pid: int
    start_ticks: int  # with the pid it names this process and no later one of the same number
    parent_pid: int
    uid: Fact[int] = not_recorded()
    user: Fact[str] = not_recorded()
    command: Fact[str] = not_recorded()
    state: str = "unknown"
    age_s: Fact[float] = not_recorded()
    container: Fact[str | None] = not_recorded()  # None: none that its cgroup tells
    orphaned: str | None = None  # why it is taken for left behind


class Handles(Section, frozen=True, kw_only=True):
    """Which processes have which GPUs open, by the names of the device nodes."""

    nodes: dict[int, tuple[str, ...]]  # pid -> ("nvidia0", …)
    unreadable: int  # processes of which the open files may not be listed


class Stat(Section, frozen=True, kw_only=True):
    """What /proc/PID/stat says."""

    name: str
    state: str
    parent_pid: int
    group: int
    session: int
    start_ticks: int


class Seen(Section, frozen=True, kw_only=True):
    """What this machine tells of the holders of GPU memory beyond NVML."""

    holders: dict[int, Holder]  # those that NVML names and those with a GPU open
    handles: Handles | Missing


def look(host: Host, pids: Iterable[int]) -> Seen:
    """The processes among *pids*, and every other one that has a GPU open."""
    opened = handles(host)
    more = () if isinstance(opened, Missing) else opened.nodes
    return Seen(holders=holders(host, (*pids, *more)), handles=opened)


def holders(host: Host, pids: Iterable[int]) -> dict[int, Holder]:
    """The processes among *pids* that this PID namespace lists."""
    found = ((pid, holder(host, pid)) for pid in dict.fromkeys(pids))
    return {pid: seen for pid, seen in found if isinstance(seen, Holder)}


def holder(host: Host, pid: int) -> Holder | Missing:
    """One process, each fact read for itself."""
    folder = f"/proc/{pid}"
    stat = _stat(host, pid)
    if isinstance(stat, Missing):
        return stat
    return Holder(
        pid=pid,
        start_ticks=stat.start_ticks,
        parent_pid=stat.parent_pid,
        uid=host.owner_id(folder),
        user=host.owner(folder),
        command=_command(host, pid, stat.name),
        state=STATES.get(stat.state, stat.state),
        age_s=_age_s(host, stat.start_ticks),
        container=_container(host, pid),
        orphaned=_orphaned(host, pid, stat),
    )


def handles(host: Host) -> Handles | Missing:
    """Who has a GPU's device node open, of all processes whose open files may be listed."""
    pids = host.names("/proc")
    if isinstance(pids, Missing):
        return pids
    nodes: dict[int, tuple[str, ...]] = {}
    unreadable = 0
    for pid in filter(str.isdigit, pids):
        files = host.names(f"/proc/{pid}/fd")
        if isinstance(files, Missing):
            unreadable += host.exists(f"/proc/{pid}")
            continue
        targets = {host.link_target_name(f"/proc/{pid}/fd/{file}") or "" for file in files}
        if gpus := sorted(filter(NODE.fullmatch, targets)):
            nodes[int(pid)] = tuple(gpus)
    return Handles(nodes=nodes, unreadable=unreadable)


def ancestors(host: Host, pid: int) -> Iterator[int]:
    """A process's parent, its parent, and so on."""
    while not isinstance(stat := _stat(host, pid), Missing) and stat.parent_pid:
        pid = stat.parent_pid
        yield pid


def _stat(host: Host, pid: int) -> Stat | Missing:
    text = host.read(f"/proc/{pid}/stat")
    if isinstance(text, Missing):
        return text
    before, _, after = text.rpartition(")")  # a name may hold brackets and spaces itself
    fields = after.split()
    if len(fields) < 20:  # noqa: PLR2004 - up to the start time
        return Missing(f"/proc/{pid}/stat: cut short")
    return Stat(
        name=before.partition("(")[2],
        state=fields[0],
        parent_pid=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
    )


def _command(host: Host, pid: int, name: str) -> str | Missing:
    text = host.read(f"/proc/{pid}/cmdline")
    if isinstance(text, Missing):
        return text
    return text.replace("\0", " ").strip() or f"[{name}]"  # a zombie has none


def _age_s(host: Host, start_ticks: int) -> float | Missing:
    uptime = host.read("/proc/uptime")
    if isinstance(uptime, Missing):
        return uptime
    return max(0.0, float(uptime.split()[0]) - start_ticks / os.sysconf("SC_CLK_TCK"))


def _container(host: Host, pid: int) -> str | Missing | None:
    text = host.read(f"/proc/{pid}/cgroup")
    if isinstance(text, Missing):
        return text
    found = CONTAINERS.search(text)
    return f"{found['kind']} {found['id']}" if found else None


def _orphaned(host: Host, pid: int, stat: Stat) -> str | None:
    """Why the process is taken for left behind, None where nothing says so."""
    if stat.state == "Z":
        return f"it is dead and waits for its parent {stat.parent_pid} to notice"
    if stat.state == "T":
        return "it is stopped (Ctrl-Z, or SIGSTOP)"
    parent = _stat(host, stat.parent_pid)
    if isinstance(parent, Missing):
        return None  # the parent lies outside of this PID namespace
    if parent.state in {"Z", "X"}:
        return f"its parent {stat.parent_pid} ({parent.name}) is a zombie"
    if not _adopted(host, pid, stat, parent):
        return None
    if worker := _worker(host, pid, stat):
        return f"{worker} whose parent is gone"
    return None if _on_purpose(host, pid, stat) else "its parent is gone"


def _adopted(host: Host, pid: int, stat: Stat, parent: Stat) -> bool:
    """Whether the parent is not the one that started it.

    A process is born into its parent's session. Where the two differ, and it has not opened one
    of its own, its parent died and another process adopted it.
    """
    if stat.session not in {pid, parent.session}:
        return True
    if parent.name in REAPERS:
        return True
    leader_is_gone = stat.group != pid and not host.exists(f"/proc/{stat.group}")
    return stat.parent_pid == 1 and leader_is_gone


def _worker(host: Host, pid: int, stat: Stat) -> str | None:
    command = known_or(_command(host, pid, stat.name), "")
    for kind, sign in WORKERS.items():
        if sign.search(command) or sign.search(stat.name):
            return kind
    if RANK.search(known_or(host.read(f"/proc/{pid}/environ"), "")):
        return "a torchrun worker"
    return None


def _on_purpose(host: Host, pid: int, stat: Stat) -> bool:
    """Whether it was meant to outlive its parent: nohup, setsid, a job of its own, a service."""
    ignored = re.search(
        r"^SigIgn:\s*([0-9a-f]+)", known_or(host.read(f"/proc/{pid}/status"), ""), re.MULTILINE
    )
    return stat.group == pid or (ignored is not None and bool(int(ignored[1], 16) & SIGHUP_BIT))
