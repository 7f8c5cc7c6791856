"""``gpudiag versions``, ``devices``, ``memory``, ``processes``: one table each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpudiag.commands import options, running

if TYPE_CHECKING:
    from gpudiag.snapshot import Gpu


def _table_command(
    name: str, *, help_text: str, empty: str, torch: bool = False, holders: bool = False
) -> click.Command:
    @click.command(name=name, help=f"{help_text}\n\n\b\nExample:  gpudiag {name} --format csv")
    @options.table_form
    @options.snapshot_file
    @options.timeout
    @options.no_config
    def command(*, form: str, snapshot_file: Path | None, timeout_s: float) -> None:
        from gpudiag.render import as_table
        from gpudiag.snapshot import Missing, known_or
        from gpudiag.tables import TABLES, columns, in_a_terminal

        seen = running.snapshot(snapshot_file, torch=torch, timeout_s=timeout_s, redacted=False)
        here = running.look(seen) if holders and snapshot_file is None else None
        rows = TABLES[name](seen, here) if holders else TABLES[name](seen)
        gpus = seen.nvml.gpus
        reason = f"{empty}: {gpus.missing}" if isinstance(gpus, Missing) else empty
        write: dict[str, Callable[[], str]] = {
            "text": lambda: as_table.as_text(
                in_a_terminal(name, rows), empty=reason, width=running.terminal_width()
            ),
            "csv": lambda: as_table.as_csv(rows, columns=columns(name)),
            "json": lambda: as_table.as_json(rows),
        }
        click.echo(write[form]())
        if name == "memory" and form == "text" and here and rows:
            from gpudiag.memory.suspects import explanation

            click.echo(f"\n{explanation(seen, here)}")
        if name != "versions" and form != "json":  # which tells the reason in every cell
            for line in _silent(known_or(gpus, ())):
                click.echo(f"gpudiag: {line}", err=True)

    return command


def _silent(gpus: Sequence[Gpu]) -> Iterator[str]:
    """The GPUs that told nothing, not even a name, with the reason."""
    from gpudiag.snapshot import Missing

    return running.by_reason(
        (gpu.index, gpu.name)
        for gpu in gpus
        if isinstance(gpu.name, Missing) and isinstance(gpu.memory_total_bytes, Missing)
    )


versions = _table_command(
    "versions",
    help_text="Show the versions of the driver, CUDA, torch and what belongs to them.",
    empty="no versions",
    torch=True,
)
devices = _table_command(
    "devices",
    help_text="Show every GPU: name, address, memory, temperature, power, modes.",
    empty="no GPUs",
)
memory = _table_command(
    "memory",
    help_text="Show for each GPU how much memory is used, by whom, and who could hold the rest.",
    empty="no GPUs",
    holders=True,
)
processes = _table_command(
    "processes",
    help_text="Show the processes that hold GPU memory: whose, how much, how old, if orphaned.",
    empty="no processes on a GPU",
    holders=True,
)
