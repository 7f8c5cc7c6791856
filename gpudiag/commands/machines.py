"""``gpudiag diff`` and ``gpudiag fleet``: beyond one machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from gpudiag.commands import options, running
from gpudiag.errors import InputError


@click.command()
@click.argument("a", type=options.FILE)
@click.argument("b", type=options.FILE)
@options.table_form
@options.output
@options.select
@options.ignore
@options.no_config
@click.pass_context
def diff(
    context: click.Context,
    *,
    a: Path,
    b: Path,
    form: str,
    output: Path | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
) -> int:
    """Say what differs between the machines of two snapshots, what can matter first.

    Left out is what differs between any two moments: temperatures, free memory, pids, times.

    Exit codes: 0 no difference that can matter, 1 differences, 2 a file cannot be read.

    \b
    Example:  gpudiag diff works.json fails.json
    """
    from gpudiag.compare import compare
    from gpudiag.render import as_diff
    from gpudiag.saved import read_snapshot

    machines = (str(a), read_snapshot(a)), (str(b), read_snapshot(b))
    rules = running.chosen_rules(select, ignore, options.config_of(context))
    comparison = compare(machines[0][1], machines[1][1], rules=rules)
    write: dict[str, Callable[[], str]] = {
        "text": lambda: as_diff.as_text(comparison, machines),
        "csv": lambda: as_diff.as_csv(comparison),
        "json": lambda: as_diff.as_json(comparison, machines),
    }
    running.deliver(write[form](), output)
    return running.EXIT_FINDINGS if comparison.matters else 0


@click.command()
@click.argument("files", type=options.FILE, nargs=-1, required=True)
@options.table_form
@options.output
@options.select
@options.ignore
@options.fail_on
@options.no_config
@click.option("-v", "--verbose", is_flag=True, help="List what rarely matters, too.")
@click.pass_context
def fleet(
    context: click.Context,
    *,
    files: tuple[Path, ...],
    form: str,
    output: Path | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str | None,
    verbose: bool,
) -> int:
    """Say which of many machines is the odd one out, and how often each rule fires.

    FILES are snapshots, or folders with snapshots (*.json, also in folders within them).

    Exit codes: 0 all machines are alike in what can matter; 1 one stands out, a rule fires at or
    above --fail-on, or a file cannot be read (the others are told); 2 no file can be read.

    \b
    Example:  mkdir -p nodes
              srun --ntasks-per-node=1 sh -c 'gpudiag snapshot --output nodes/$(hostname).json'
              gpudiag fleet nodes
    """
    from gpudiag.fleet import survey
    from gpudiag.render import as_fleet
    from gpudiag.saved import read_snapshots

    config = options.config_of(context)
    rules = running.chosen_rules(select, ignore, config)
    snapshots, unreadable = read_snapshots(files)
    if not snapshots:
        file, reason = next(iter(unreadable.items()))
        raise InputError(f"expected snapshots, got none that can be read, first {file}: {reason}")
    seen = survey(snapshots, rules=rules, unreadable=unreadable)
    write: dict[str, Callable[[], str]] = {
        "text": lambda: as_fleet.as_text(seen, verbose=verbose),
        "csv": lambda: as_fleet.as_csv(seen),
        "json": lambda: as_fleet.as_json(seen),
    }
    running.deliver(write[form](), output)
    return running.EXIT_FINDINGS if seen.is_odd(running.threshold(fail_on, config)) else 0
