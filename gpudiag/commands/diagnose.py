"""``gpudiag diagnose`` and ``gpudiag snapshot``: what is wrong here, and the facts behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpudiag.commands import options, running
from gpudiag.errors import InputError
from gpudiag.render import FORMS, render

if TYPE_CHECKING:
    from gpudiag.config import Config
    from gpudiag.snapshot import Snapshot


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="text",
    show_default=True,
    help="For a terminal, an issue, a program, a spreadsheet, a CI server, a browser, a monitor.",
)
@options.output
@options.snapshot_file
@options.select
@options.ignore
@options.fail_on
@options.no_torch
@options.timeout
@options.no_redact
@options.no_config
@click.option("--measure", "measuring", is_flag=True, help="Run gpudiag measure --quick, too.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit code says it all.")
@click.option("-v", "--verbose", is_flag=True, help="List passed and skipped rules, too.")
@click.pass_context
def diagnose(
    context: click.Context,
    *,
    form: str,
    output: Path | None,
    snapshot_file: Path | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str | None,
    no_torch: bool,
    timeout_s: float,
    no_redact: bool,
    measuring: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Find what is wrong with this machine's GPUs and PyTorch, with cause and cure.

    What is chosen in gpudiag.toml or in the table tool.gpudiag of pyproject.toml (keys: select,
    ignore, fail-on, timeout) counts unless the command line says otherwise.

    \b
    Example:  gpudiag diagnose
              gpudiag diagnose --format json --fail-on warning
    """
    config = options.config_of(context)
    if select or ignore or config.path:  # a wrong id is told at once
        running.chosen_rules(
            select, ignore, config, measured=measuring
        )  # a wrong id is told at once
    seen = running.snapshot(
        snapshot_file, torch=not no_torch, timeout_s=timeout_s, redacted=not no_redact
    )
    from gpudiag.diagnose import diagnose as ask_rules  # the children work while this is imported

    chosen = running.chosen_rules(select, ignore, config, measured=measuring)
    if measuring:
        seen = _measured(seen, from_file=snapshot_file)
    report = ask_rules(seen, chosen)
    if not quiet or output is not None:
        colour = output is None and running.wants_colour()
        width = running.terminal_width() if output is None else None
        text = render(report, form, colour=colour, verbose=verbose, width=width)
        if verbose and form == "text":
            text += f"\n{_config_line(config)}"
        running.deliver(text, output)
    return running.EXIT_FINDINGS if report.fails(running.threshold(fail_on, config)) else 0


@click.command()
@options.output
@options.no_torch
@options.timeout
@options.no_redact
@options.no_config
def snapshot(*, output: Path | None, no_torch: bool, timeout_s: float, no_redact: bool) -> None:
    """Write the facts about this machine as JSON, safe to paste into a bug report.

    \b
    Example:  gpudiag snapshot --output machine.json
              gpudiag diagnose --snapshot machine.json
    """
    seen = running.snapshot(None, torch=not no_torch, timeout_s=timeout_s, redacted=not no_redact)
    running.deliver(seen.to_json(), output)


def _measured(seen: Snapshot, *, from_file: Path | None) -> Snapshot:
    """The snapshot with what is measured now."""
    if from_file is not None:
        raise InputError(
            "expected --measure on the machine itself, got a saved snapshot: leave one of them out"
        )
    from gpudiag.measure import measure
    from gpudiag.measured import with_measurement

    return with_measurement(seen, measure(quick=True))


def _config_line(config: Config) -> str:
    from gpudiag.render.as_table import printable

    return f"Config   {printable(os.path.relpath(config.path)) if config.path else 'none'}"
