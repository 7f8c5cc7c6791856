"""``gpudiag release``: ends what was left behind with GPU memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from gpudiag.commands import options, running
from gpudiag.errors import InputError

if TYPE_CHECKING:
    from gpudiag.snapshot import Snapshot


@click.command()
@click.option("--pid", "pids", type=int, multiple=True, help="This one, orphaned or not.")
@click.option("--dry-run", is_flag=True, help="Show who would be ended, and end nobody.")
@click.option("--yes", is_flag=True, help="Do not ask, neither before SIGTERM nor before SIGKILL.")
def release(*, pids: tuple[int, ...], dry_run: bool, yes: bool) -> int:
    """End processes of yours that were left behind with GPU memory.

    Shows them, asks, sends SIGTERM, waits 10 seconds, and asks again before SIGKILL. Never ends
    a process of another user, itself, or what started it.

    Exit codes: 0 nothing is left; 1 a process is left (also with --dry-run, or if the answer is
    no) or was refused, or a GPU did not tell who uses it; 2 nobody was there to answer.

    \b
    Example:  gpudiag release --dry-run
              gpudiag release --pid 4711
    """
    import signal

    from gpudiag.host import Host
    from gpudiag.memory import release as releasing
    from gpudiag.probes.nvml import nvml
    from gpudiag.render import as_table

    host = Host()
    seen = running.snapshot(None, torch=False, timeout_s=options.TIMEOUT_S, redacted=False)
    plan = releasing.plan(host, seen, running.look(seen), pids=pids)
    untold = list(_untold(seen))
    empty = f"no process of yours is {'seen' if untold else 'left behind'} on a GPU"
    click.echo(as_table.as_text(plan.rows(), empty=empty, width=running.terminal_width()))
    for line in untold:
        click.echo(f"gpudiag: {line}", err=True)
    for pid, reason in plan.refused.items():
        click.echo(f"not {pid}: {reason}")
    left = plan.refused if pids else untold
    if not plan.victims:
        return running.EXIT_FINDINGS if left else 0
    if dry_run or not _agreed("Send SIGTERM to them?", yes=yes, so_far="nothing was done"):
        click.echo("nothing was ended")
        return running.EXIT_FINDINGS
    stubborn = releasing.end(plan.victims, signal.SIGTERM, wait_s=releasing.GRACE_S)
    if stubborn:
        click.echo("\n".join(f"{pid}: {reason}" for pid, reason in stubborn.items()))
        if _agreed("Send SIGKILL to what is left?", yes=yes, so_far="SIGTERM was sent"):
            again = [victim for victim in plan.victims if victim.holder.pid in stubborn]
            stubborn = releasing.end(again, signal.SIGKILL, wait_s=releasing.AFTER_KILL_S)
            for pid, reason in stubborn.items():
                click.echo(
                    f"{pid}: {reason}; if it is stuck in the driver, reset the GPU or reboot"
                )
    click.echo(f"{len(plan.victims) - len(stubborn)} of {len(plan.victims)} ended")
    touched = [gpu for victim in plan.victims for gpu in victim.gpus]
    for line in releasing.came_back(seen.nvml, nvml(host, options.TIMEOUT_S), gpus=touched):
        click.echo(line)
    return running.EXIT_FINDINGS if left or stubborn else 0


def _untold(snapshot: Snapshot) -> Iterator[str]:
    """Where somebody may be left behind without being seen, and why."""
    from gpudiag.render.as_table import printable
    from gpudiag.rules.machine import NVML_LIBRARY_NOT_FOUND, has_nvidia_gpu
    from gpudiag.snapshot import Missing, NotObserved

    nvml = snapshot.nvml
    if isinstance(nvml.gpus, Missing):
        with suppress(NotObserved):
            if nvml.init_code == NVML_LIBRARY_NOT_FOUND and not has_nvidia_gpu(snapshot):
                return  # no driver and no GPU: nobody can be on one
        yield f"who is on a GPU is not known: {printable(nvml.gpus.missing)}"
        return
    yield from running.by_reason(
        (gpu.index, gpu.processes) for gpu in nvml.gpus if isinstance(gpu.processes, Missing)
    )


def _agreed(question: str, *, yes: bool, so_far: str) -> bool:
    if yes:
        return True
    try:
        return click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise InputError(
            f"expected an answer, got the end of the input: {so_far}; --yes goes without"
        ) from None
