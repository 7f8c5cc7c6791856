"""What several commands do: take or read a snapshot, choose rules, deliver the answer."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gpudiag.config import Config
    from gpudiag.finding import Rule, Severity
    from gpudiag.probes.holders import Seen
    from gpudiag.snapshot import Missing, Snapshot

EXIT_FINDINGS = 1
SECOND_TRY_S = 1.0  # at least, where the process that was to take the snapshot has used up the time


def snapshot(file: Path | None, **how: Any) -> Snapshot:
    """The snapshot in a file, or one that is taken now (*how*: see `_take`)."""
    if file is None:
        return _take(**how)
    from gpudiag.saved import read_snapshot

    return read_snapshot(file)


def _take(*, torch: bool, timeout_s: float, redacted: bool) -> Snapshot:
    from gpudiag import snapshot as take_snapshot
    from gpudiag.ahead import Started

    ahead, Started.ahead = Started.ahead, None
    if ahead is not None:
        began = time.monotonic()
        ahead.ask(torch=torch, timeout_s=timeout_s, redacted=redacted)
        _import_the_rest()
        seen = ahead.answer(timeout_s=timeout_s)
        if seen is not None:
            return seen
        ahead.end()  # what it has started would be asked beside what is started now
        timeout_s = max(SECOND_TRY_S, timeout_s - (time.monotonic() - began))
    return take_snapshot(torch=torch, timeout_s=timeout_s, redacted=redacted)


def _import_the_rest() -> None:
    """What follows the snapshot is imported while it is taken: 20 ms of a short run.

    It is only a head start: where files are short, what could not be read now is imported when it
    is needed.
    """
    with suppress(OSError):
        import gpudiag.choice
        import gpudiag.diagnose
        import gpudiag.render.as_text  # noqa: F401 - only the import's time is wanted here


def look(seen: Snapshot) -> Seen:
    """What /proc tells of the processes that the snapshot names."""
    from gpudiag.host import Host
    from gpudiag.memory.suspects import named_pids
    from gpudiag.probes.holders import look as look_now

    return look_now(Host(), named_pids(seen))


def by_reason(untold: Iterable[tuple[int, Missing]]) -> Iterator[str]:
    """A line per reason with the GPUs, by index, that did not tell something for it."""
    from gpudiag.render.as_table import printable

    indices: dict[str, list[str]] = {}
    for index, fact in untold:
        indices.setdefault(fact.missing, []).append(str(index))
    for reason, of_gpus in indices.items():
        yield f"GPU {', '.join(of_gpus)}: {printable(reason)}"


def chosen_rules(
    select: tuple[str, ...], ignore: tuple[str, ...], config: Config, *, measured: bool = False
) -> tuple[Rule, ...]:
    """The rules that the options choose, or else the configuration."""
    from gpudiag.choice import choose_rules  # with all rules: 20 ms, left to where it is needed

    return choose_rules(select, ignore, config, measured=measured)


def threshold(fail_on: str | None, config: Config) -> Severity | None:
    """The severity from which the exit code is 1, None for never."""
    from gpudiag.finding import Severity

    name = fail_on or config.fail_on or Severity.ERROR
    return None if name == "never" else Severity(name)


def deliver(text: str, output: Path | None) -> None:
    """Print the answer, or write it to the file that was asked for."""
    if output is None:
        click.echo(text)
    else:
        from gpudiag.output import write_private

        write_private(output, text + "\n")


def wants_colour() -> bool:
    """Whether standard output is a terminal that has colours, and its user has not refused them."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def terminal_width() -> int | None:
    """What COLUMNS says, else the columns of the terminal that standard output is, if it is one."""
    in_terminal = sys.stdout is not None and sys.stdout.isatty()
    if not in_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        return None
    from shutil import get_terminal_size

    return get_terminal_size((0, 0)).columns or None
