"""The ``gpudiag`` command: the only module of gpudiag that prints or exits.

Exit codes: 0 nothing at or above ``--fail-on``, 1 findings at or above it, 2 usage error or
unreadable input, 3 gpudiag itself failed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpudiag.command_line import run
from gpudiag.errors import InputError
from gpudiag.version import __version__

if TYPE_CHECKING:
    from gpudiag.finding import Rule, Severity
    from gpudiag.snapshot import Snapshot

EXIT_FINDINGS = 1
FILE = click.Path(path_type=Path)

no_torch = click.option("--no-torch", is_flag=True, help="Do not import torch: faster, knows less.")
no_redact = click.option(
    "--no-redact", is_flag=True, help="Keep user names, home paths, addresses and whole UUIDs."
)
timeout = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Limit for the whole; what has not answered by then is reported as such.",
)
output = click.option("--output", type=FILE, metavar="FILE", help="Write to a file (mode 0600).")
snapshot_file = click.option(
    "--snapshot",
    "snapshot_file",
    type=FILE,
    metavar="FILE",
    help="Use a saved snapshot and do not look at this machine.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, message="gpudiag %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Say what is wrong with a GPU machine and its PyTorch, why, and what cures it.

    Start with: gpudiag diagnose
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


@cli.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@output
@snapshot_file
@click.option("--select", multiple=True, metavar="ID,…", help="Only these rules; GD2 means GD2xx.")
@click.option("--ignore", multiple=True, metavar="ID,…", help="Not these rules.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="error",
    show_default=True,
    help="The severity from which the exit code is 1.",
)
@no_torch
@timeout
@no_redact
@click.option("-v", "--verbose", is_flag=True, help="List passed and skipped rules, too.")
def diagnose(
    *,
    form: str,
    output: Path | None,
    snapshot_file: Path | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str,
    no_torch: bool,
    timeout_s: float,
    no_redact: bool,
    verbose: bool,
) -> int:
    """Find what is wrong with this machine's GPUs and PyTorch, with cause and cure.

    \b
    Example:  gpudiag diagnose
              gpudiag diagnose --format json --fail-on warning
    """
    from gpudiag.diagnose import diagnose as ask_rules
    from gpudiag.finding import Severity

    if select or ignore:
        chosen_rules(select=_ids(select), ignore=_ids(ignore))  # a wrong id is told at once
    seen = _snapshot(snapshot_file, torch=not no_torch, timeout_s=timeout_s, redacted=not no_redact)
    report = ask_rules(seen, chosen_rules(select=_ids(select), ignore=_ids(ignore)))
    if form == "json":
        from gpudiag.render.as_json import as_json

        text = as_json(report)
    else:
        from gpudiag.render.as_text import as_text

        text = as_text(report, colour=output is None and _wants_colour(), verbose=verbose)
    _deliver(text, output)
    threshold: Severity | None = None if fail_on == "never" else Severity(fail_on)
    return EXIT_FINDINGS if report.fails(threshold) else 0


@cli.command()
@output
@no_torch
@timeout
@no_redact
def snapshot(*, output: Path | None, no_torch: bool, timeout_s: float, no_redact: bool) -> None:
    """Write the facts about this machine as JSON, safe to paste into a bug report.

    \b
    Example:  gpudiag snapshot --output machine.json
              gpudiag diagnose --snapshot machine.json
    """
    seen = _snapshot(None, torch=not no_torch, timeout_s=timeout_s, redacted=not no_redact)
    _deliver(seen.to_json(), output)


def _table_command(name: str, *, help_text: str, empty: str, torch: bool) -> None:
    @cli.command(name=name, help=help_text)
    @click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text")
    @snapshot_file
    @timeout
    def command(*, form: str, snapshot_file: Path | None, timeout_s: float) -> None:
        from gpudiag.render import as_table
        from gpudiag.snapshot import Missing
        from gpudiag.tables import TABLES

        seen = _snapshot(snapshot_file, torch=torch, timeout_s=timeout_s, redacted=False)
        rows = TABLES[name](seen)
        gpus = seen.nvml.gpus
        reason = f"{empty}: {gpus.missing}" if isinstance(gpus, Missing) else empty
        write: dict[str, Callable[[], str]] = {
            "text": lambda: as_table.as_text(rows, empty=reason),
            "csv": lambda: as_table.as_csv(rows),
            "json": lambda: as_table.as_json(rows),
        }
        click.echo(write[form]())


_table_command(
    "versions",
    help_text="Show the versions of the driver, CUDA, torch and what belongs to them.",
    empty="no versions",
    torch=True,
)
_table_command(
    "devices",
    help_text="Show every GPU: name, address, memory, temperature, power, modes.",
    empty="no GPUs",
    torch=False,
)
_table_command(
    "memory",
    help_text="Show for each GPU how much memory is used, by processes seen and by nobody.",
    empty="no GPUs",
    torch=False,
)
_table_command(
    "processes",
    help_text="Show the processes that hold GPU memory.",
    empty="no processes on a GPU",
    torch=False,
)


@cli.command()
@click.argument("document", type=click.Choice(["snapshot", "report"]), default="snapshot")
def schema(*, document: str) -> None:
    """Print the JSON Schema of a snapshot or of a report (diagnose --format json)."""
    import json

    from gpudiag.schema import json_schema

    click.echo(json.dumps(json_schema(document), indent=2))


@cli.command()
@click.argument("rule_id", metavar="ID")
def explain(*, rule_id: str) -> None:
    """Explain a rule: what it looks for, why it matters, where it is documented.

    \b
    Example:  gpudiag explain GD202
    """
    from gpudiag.rules import RULES

    rule = next((rule for rule in RULES if rule.id == rule_id.upper()), None)
    if rule is None:
        raise InputError(_unknown_ids([rule_id], [rule.id for rule in RULES]))
    click.echo(f"{rule.id}  {rule.title}  ({rule.severity})")
    for text in (rule.explanation, "\n".join(rule.links)):
        if text:
            click.echo(f"\n{text}")


@cli.command()
def rules() -> None:
    """List every rule with its severity."""
    from gpudiag.rules import RULES

    for rule in RULES:
        click.echo(f"{rule.id}  {rule.severity:<7}  {rule.title}")


def chosen_rules(*, select: list[str], ignore: list[str]) -> tuple[Rule, ...]:
    """The rules whose id begins with one of *select* (all if empty) and with none of *ignore*.

    Raises:
        InputError: An id or prefix matches no rule.
    """
    from gpudiag.rules import RULES

    ids = [rule.id for rule in RULES]
    unknown = [
        wanted for wanted in (*select, *ignore) if not any(i.startswith(wanted) for i in ids)
    ]
    if unknown:
        raise InputError(_unknown_ids(unknown, ids))
    return tuple(
        rule
        for rule in RULES
        if (not select or rule.id.startswith(tuple(select)))
        and not rule.id.startswith(tuple(ignore))
    )


def _unknown_ids(unknown: list[str], ids: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(unknown[0].upper(), ids, n=3)
    near = f", close ones are {', '.join(close)}" if close else ""
    return f"expected the id of a rule, got {', '.join(unknown)}{near}; 'gpudiag rules' lists them"


def _ids(options: tuple[str, ...]) -> list[str]:
    return [part.strip().upper() for text in options for part in text.split(",") if part.strip()]


def _snapshot(file: Path | None, **how: Any) -> Snapshot:
    from gpudiag.snapshot import Snapshot

    if file is None:
        return _take_snapshot(**how)
    try:
        return Snapshot.from_json(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"expected a snapshot file, got {file}: {error.strerror}; "
            "record one with 'gpudiag snapshot --output FILE'"
        ) from error


def _take_snapshot(*, torch: bool, timeout_s: float, redacted: bool) -> Snapshot:
    from gpudiag.probes import take_snapshot

    seen = take_snapshot(torch=torch, timeout_s=timeout_s, meanwhile=_import_the_rest)
    if not redacted:
        return seen
    from gpudiag.redact import Identity, redact

    identity = Identity(
        user=os.environ.get("USER") or os.environ.get("LOGNAME"),
        home=os.environ.get("HOME"),
        host_name=os.uname().nodename,
    )
    return redact(seen, identity)


def _import_the_rest() -> None:
    """What follows the snapshot is imported while the probes wait: 40 ms of a short run."""
    import gpudiag.redact
    import gpudiag.render.as_text
    import gpudiag.rules  # noqa: F401 - only the import's time is wanted here


def _deliver(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text)
    else:
        from gpudiag.output import write_private

        write_private(output, text + "\n")


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(cli, name="gpudiag", bad_input=InputError))
