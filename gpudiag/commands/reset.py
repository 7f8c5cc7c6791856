"""``gpudiag reset``: nvidia-smi --gpu-reset, made safe."""

from __future__ import annotations

import sys

import click

from gpudiag.commands import options, running
from gpudiag.errors import InputError


@click.command()
@click.option(
    "-i", "wanted", multiple=True, required=True, help="Index, UUID or PCI address; repeatable."
)
@click.option("--dry-run", is_flag=True, help="Print exactly what would be run, and run nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for the GPU's name.")
@options.timeout
def reset(*, wanted: tuple[str, ...], dry_run: bool, yes: bool, timeout_s: float) -> int:
    """Reset a GPU with nvidia-smi; first say everything for which it would be refused.

    Persistence mode is switched off for the reset and restored, also after a failure.

    Exit codes: 0 reset, and the GPU answers; 1 refused or failed; 2 no such GPU, or nobody was
    there to answer; 130 and 143 after Ctrl-C and SIGTERM, the modes restored.

    \b
    Example:  gpudiag reset -i 3 --dry-run
    """
    from gpudiag.host import Host
    from gpudiag.reset import perform, prepare
    from gpudiag.snapshot import known_or

    host = Host()
    seen = running.snapshot(None, torch=False, timeout_s=timeout_s, redacted=False)
    plan = prepare(host, seen, [one for entry in wanted for one in entry.split(",")])
    for obstacle in plan.obstacles:
        click.echo(f"{'refused' if obstacle.certain else 'maybe'}: {obstacle}")
    if dry_run:
        click.echo("would run, as root:\n" + "\n".join(f"  {line}" for line in plan.commands))
    if plan.refusals or dry_run:
        return running.EXIT_FINDINGS if plan.refusals else 0
    for gpu in plan.gpus:
        if not yes and not _typed(f"GPU {gpu.index}", known_or(gpu.name, str(gpu.index))):
            click.echo("nothing was reset")
            return running.EXIT_FINDINGS
    outcome = perform(host, plan)
    click.echo("\n".join(outcome.said))
    click.echo("reset, and it answers" if outcome.done else "the reset failed")
    return 0 if outcome.done else running.EXIT_FINDINGS


def _typed(what: str, name: str) -> bool:
    """Whether the user types the name of what is about to be changed."""
    try:
        said: str = click.prompt(f"To reset {what}, type its name ({name})", default="")
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise InputError(
            "expected the name to be typed, got the end of the input: nothing was reset; --yes "
            "goes without"
        ) from None
    return said.strip() == name
