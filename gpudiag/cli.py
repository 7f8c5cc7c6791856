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

from gpudiag import options
from gpudiag.command_line import run
from gpudiag.errors import InputError
from gpudiag.render import FORMS, render
from gpudiag.version import __version__

if TYPE_CHECKING:
    from gpudiag.config import Config
    from gpudiag.finding import Rule, Severity
    from gpudiag.probes.holders import Seen
    from gpudiag.snapshot import Snapshot

EXIT_FINDINGS = 1


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
@click.option("--format", "form", type=click.Choice(FORMS), default="text", show_default=True)
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
    if select or ignore or config.path:
        _chosen_rules(select, ignore, config, measured=measuring)  # a wrong id is told at once
    seen = _snapshot(snapshot_file, torch=not no_torch, timeout_s=timeout_s, redacted=not no_redact)
    from gpudiag.diagnose import diagnose as ask_rules  # the children work while this is imported

    chosen = _chosen_rules(select, ignore, config, measured=measuring)
    if measuring:
        seen = _measured(seen, from_file=snapshot_file)
    report = ask_rules(seen, chosen)
    if not quiet or output is not None:
        colour = output is None and _wants_colour()
        text = render(report, form, colour=colour, verbose=verbose)
        if verbose and form == "text":
            text += f"\n{_config_line(config)}"
        _deliver(text, output)
    return EXIT_FINDINGS if report.fails(_threshold(fail_on, config)) else 0


@cli.command()
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
    seen = _snapshot(None, torch=not no_torch, timeout_s=timeout_s, redacted=not no_redact)
    _deliver(seen.to_json(), output)


def _table_command(
    name: str, *, help_text: str, empty: str, torch: bool = False, holders: bool = False
) -> None:
    @cli.command(name=name, help=help_text)
    @click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text")
    @options.snapshot_file
    @options.timeout
    @options.no_config
    def command(*, form: str, snapshot_file: Path | None, timeout_s: float) -> None:
        from gpudiag.render import as_table
        from gpudiag.snapshot import Missing
        from gpudiag.tables import TABLES, columns, in_a_terminal

        seen = _snapshot(snapshot_file, torch=torch, timeout_s=timeout_s, redacted=False)
        here = _look(seen) if holders and snapshot_file is None else None
        rows = TABLES[name](seen, here) if holders else TABLES[name](seen)
        gpus = seen.nvml.gpus
        reason = f"{empty}: {gpus.missing}" if isinstance(gpus, Missing) else empty
        write: dict[str, Callable[[], str]] = {
            "text": lambda: as_table.as_text(in_a_terminal(name, rows), empty=reason),
            "csv": lambda: as_table.as_csv(rows, columns=columns(name)),
            "json": lambda: as_table.as_json(rows),
        }
        click.echo(write[form]())
        if name == "memory" and form == "text" and here and rows:
            from gpudiag.suspects import explanation

            click.echo(f"\n{explanation(seen, here)}")


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
)
_table_command(
    "memory",
    help_text="Show for each GPU how much memory is used, by whom, and who could hold the rest.",
    empty="no GPUs",
    holders=True,
)
_table_command(
    "processes",
    help_text="Show the processes that hold GPU memory: whose, how much, how old, if orphaned.",
    empty="no processes on a GPU",
    holders=True,
)


@cli.command()
@click.option("--pid", "pids", type=int, multiple=True, help="This one, orphaned or not.")
@click.option("--dry-run", is_flag=True, help="Show who would be ended, and end nobody.")
@click.option("--yes", is_flag=True, help="Do not ask, neither before SIGTERM nor before SIGKILL.")
def release(*, pids: tuple[int, ...], dry_run: bool, yes: bool) -> int:
    """End processes of yours that were left behind with GPU memory.

    Shows them, asks, sends SIGTERM, waits 10 seconds, and asks again before SIGKILL. Never ends
    a process of another user, itself, or what started it.

    Exit codes: 0 nothing is left; 1 a process is left or was refused.

    \b
    Example:  gpudiag release --dry-run
              gpudiag release --pid 4711
    """
    import signal

    from gpudiag import release as releasing
    from gpudiag.host import Host
    from gpudiag.probes.nvml import nvml
    from gpudiag.render import as_table

    host = Host()
    seen = _snapshot(None, torch=False, timeout_s=options.TIMEOUT_S, redacted=False)
    plan = releasing.plan(host, seen, _look(seen), pids=pids)
    click.echo(as_table.as_text(plan.rows(), empty="no process of yours is left behind on a GPU"))
    for pid, reason in plan.refused.items():
        click.echo(f"not {pid}: {reason}")
    left = dict(plan.refused) if pids else {}
    if not plan.victims:
        return EXIT_FINDINGS if left else 0
    if dry_run or not _agreed("Send SIGTERM to them?", yes=yes):
        click.echo("nothing was ended")
        return 0
    stubborn = releasing.end(plan.victims, signal.SIGTERM, wait_s=releasing.GRACE_S)
    if stubborn:
        click.echo("\n".join(f"{pid}: {reason}" for pid, reason in stubborn.items()))
        if _agreed("Send SIGKILL to what is left?", yes=yes):
            again = [victim for victim in plan.victims if victim.holder.pid in stubborn]
            stubborn = releasing.end(again, signal.SIGKILL, wait_s=releasing.AFTER_KILL_S)
            for pid, reason in stubborn.items():
                click.echo(
                    f"{pid}: {reason}; if it is stuck in the driver, reset the GPU or reboot"
                )
    click.echo(f"{len(plan.victims) - len(stubborn)} of {len(plan.victims)} ended")
    for line in releasing.came_back(seen.nvml, nvml(host, options.TIMEOUT_S)):
        click.echo(line)
    return EXIT_FINDINGS if left or stubborn else 0


def _agreed(question: str, *, yes: bool) -> bool:
    if yes:
        return True
    try:
        return click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise InputError(
            "expected an answer, got the end of the input: nothing was done; --yes goes without"
        ) from None


@cli.command()
@click.option(
    "-i", "wanted", multiple=True, required=True, help="Index, UUID or PCI address; repeatable."
)
@click.option("--dry-run", is_flag=True, help="Print exactly what would be run, and run nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for the GPU's name.")
@options.timeout
def reset(*, wanted: tuple[str, ...], dry_run: bool, yes: bool, timeout_s: float) -> int:
    """Reset a GPU with nvidia-smi; first say everything for which it would be refused.

    Persistence mode is switched off for the reset and restored, also after a failure.

    Exit codes: 0 reset, and the GPU answers; 1 refused or failed; 2 no such GPU.

    \b
    Example:  gpudiag reset -i 3 --dry-run
    """
    from gpudiag.host import Host
    from gpudiag.reset import perform, prepare
    from gpudiag.snapshot import known_or

    host = Host()
    seen = _snapshot(None, torch=False, timeout_s=timeout_s, redacted=False)
    plan = prepare(host, seen, [one for entry in wanted for one in entry.split(",")])
    for obstacle in plan.obstacles:
        click.echo(f"{'refused' if obstacle.certain else 'maybe'}: {obstacle}")
    if dry_run:
        click.echo("would run, as root:\n" + "\n".join(f"  {line}" for line in plan.commands))
    if plan.refusals or dry_run:
        return EXIT_FINDINGS if plan.refusals else 0
    for gpu in plan.gpus:
        if not yes and not _typed(f"GPU {gpu.index}", known_or(gpu.name, str(gpu.index))):
            click.echo("nothing was reset")
            return EXIT_FINDINGS
    outcome = perform(host, plan)
    click.echo("\n".join(outcome.said))
    click.echo("reset, and it answers" if outcome.done else "the reset failed")
    return 0 if outcome.done else EXIT_FINDINGS


def _typed(what: str, name: str) -> bool:
    """Whether the user types the name of what is about to be changed."""
    try:
        said: str = click.prompt(f"To reset {what}, type its name ({name})", default="")
    except click.Abort:
        if sys.stdin.isatty():
            raise
        said = ""
    return said.strip() == name


@cli.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--output", type=options.FILE, metavar="DIR", help="A new folder for the record.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two samples.",
)
def record(*, command: tuple[str, ...], output: Path | None, interval_s: float) -> int:
    """Run a program unchanged and say what its GPUs did with their time.

    The program keeps its standard streams, its signals and its exit code. The record goes to a
    new folder: CSV (and Parquet), a chart (HTML, and PNG), and the verdict, which is also printed
    to standard error.

    \b
    Example:  gpudiag record -- python train.py --epochs 3
    """
    import datetime as dt

    from gpudiag.record import record_command
    from gpudiag.render.as_table import printable

    folder = output or Path(f"gpudiag-record-{dt.datetime.now():%Y%m%d-%H%M%S}")  # noqa: DTZ005 - local
    code, recording = record_command(command, folder, interval_s=interval_s)
    click.echo(recording.verdict, err=True)
    try:
        recording.save(folder, title=printable(" ".join(command)))
    except (InputError, OSError) as error:  # the program's exit code is what its caller waits for
        click.echo(f"gpudiag: the record could not be written: {error}", err=True)
    else:
        click.echo(f"record: {folder}", err=True)
    return code


@cli.command()
@click.option("-i", "devices", type=int, multiple=True, help="Torch's index of a GPU; repeatable.")
@click.option("--quick", is_flag=True, help="A tenth of the time, and a part of the memory.")
@click.option("--minutes", type=click.FloatRange(min=0.1), help="About how long it may take.")
@options.table_form
@options.output
def measure(
    *,
    devices: tuple[int, ...],
    quick: bool,
    minutes: float | None,
    form: str,
    output: Path | None,
) -> int:
    """Measure how fast the GPUs are and whether they compute right; without one, the CPU.

    Products, copies, convolution, a training step, latencies, memory; each compared with the
    data sheet of the part and with the other GPUs. Under torchrun also collectives, of all ranks.

    Exit codes: 0 measured; 1 a result was wrong, or it broke off.

    \b
    Example:  gpudiag measure --quick
              torchrun --nproc-per-node 8 -m gpudiag measure
    """
    if quick and minutes is not None:
        raise InputError("expected --quick or --minutes, got both: leave one of them out")
    from gpudiag.measure import COLUMNS, as_json, as_text, rows
    from gpudiag.measure import measure as measure_now
    from gpudiag.render import as_table

    found = measure_now(devices=devices, quick=quick, minutes=minutes)
    if found.rank == 0:
        write: dict[str, Callable[[], str]] = {
            "text": lambda: as_text(found),
            "csv": lambda: as_table.as_csv(rows(found), columns=COLUMNS),
            "json": lambda: as_json(found),
        }
        _deliver(write[form](), output)
    return EXIT_FINDINGS if found.faults or found.failure else 0


@cli.command()
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
    rules = _chosen_rules(select, ignore, options.config_of(context))
    comparison = compare(machines[0][1], machines[1][1], rules=rules)
    write: dict[str, Callable[[], str]] = {
        "text": lambda: as_diff.as_text(comparison, machines),
        "csv": lambda: as_diff.as_csv(comparison),
        "json": lambda: as_diff.as_json(comparison, machines),
    }
    _deliver(write[form](), output)
    return EXIT_FINDINGS if comparison.matters else 0


@cli.command()
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
    Example:  srun --ntasks-per-node=1 sh -c 'gpudiag snapshot --output nodes/$(hostname).json'
              gpudiag fleet nodes
    """
    from gpudiag.fleet import survey
    from gpudiag.render import as_fleet
    from gpudiag.saved import read_snapshots

    config = options.config_of(context)
    rules = _chosen_rules(select, ignore, config)
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
    _deliver(write[form](), output)
    return EXIT_FINDINGS if seen.is_odd(_threshold(fail_on, config)) else 0


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
    """Explain a rule: how it is seen, the cause, the cure, and when to ignore it.

    \b
    Example:  gpudiag explain GD202
    """
    from gpudiag.choice import no_such_rule
    from gpudiag.rules import CATALOGUE
    from gpudiag.rules.catalogue import as_text

    rule = next((rule for rule in CATALOGUE if rule.id == rule_id.upper()), None)
    if rule is None:
        raise no_such_rule([rule_id])
    click.echo(as_text(rule))


@cli.command()
def rules() -> None:
    """List every rule with its severity."""
    from gpudiag.rules import CATALOGUE

    for rule in CATALOGUE:
        click.echo(f"{rule.id}  {rule.severity:<7}  {rule.title}")


def _chosen_rules(
    select: tuple[str, ...], ignore: tuple[str, ...], config: Config, *, measured: bool = False
) -> tuple[Rule, ...]:
    from gpudiag.choice import choose_rules  # with all rules: 20 ms, left to where it is needed

    return choose_rules(select, ignore, config, measured=measured)


def _measured(seen: Snapshot, *, from_file: Path | None) -> Snapshot:
    """The snapshot with what is measured now."""
    if from_file is not None:
        raise InputError(
            "expected --measure on the machine itself, got a saved snapshot: leave one of them out"
        )
    from gpudiag.measure import measure
    from gpudiag.measured import with_measurement

    return with_measurement(seen, measure(quick=True))


def _threshold(fail_on: str | None, config: Config) -> Severity | None:
    from gpudiag.finding import Severity

    name = fail_on or config.fail_on or Severity.ERROR
    return None if name == "never" else Severity(name)


def _config_line(config: Config) -> str:
    from gpudiag.render.as_table import printable

    return f"Config   {printable(os.path.relpath(config.path)) if config.path else 'none'}"


def _snapshot(file: Path | None, **how: Any) -> Snapshot:
    if file is None:
        return _take_snapshot(**how)
    from gpudiag.saved import read_snapshot

    return read_snapshot(file)


def _take_snapshot(*, torch: bool, timeout_s: float, redacted: bool) -> Snapshot:
    from gpudiag import children
    from gpudiag.host import Host

    host = Host()
    children.start(host, with_torch=torch)  # before the imports below, which take as long
    from gpudiag.probes import take_snapshot

    seen = take_snapshot(host, torch=torch, timeout_s=timeout_s, meanwhile=_import_the_rest)
    if not redacted:
        return seen
    from gpudiag.redact import Identity, redact

    identity = Identity(
        user=os.environ.get("USER") or os.environ.get("LOGNAME"),
        home=os.environ.get("HOME"),
        host_name=os.uname().nodename,
    )
    return redact(seen, identity)


def _look(seen: Snapshot) -> Seen:
    from gpudiag.host import Host
    from gpudiag.probes.holders import look
    from gpudiag.suspects import named_pids

    return look(Host(), named_pids(seen))


def _import_the_rest() -> None:
    """What follows the snapshot is imported while the probes wait: 40 ms of a short run."""
    import gpudiag.choice
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
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(cli, name="gpudiag", bad_input=InputError))
