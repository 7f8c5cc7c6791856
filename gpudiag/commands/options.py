"""The options that several commands share, with the configuration behind them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gpudiag.config import Config

FILE = click.Path(path_type=Path)
TIMEOUT_S = 20.0
CONFIG = "gpudiag.config"  # where a command keeps the configuration that it has read


def config_of(context: click.Context) -> Config:
    """The configuration of this run: the nearest file, read once, or none with --no-config."""
    from gpudiag.config import Config, find_config

    if CONFIG not in context.meta:
        try:
            context.meta[CONFIG] = find_config(Path.cwd())
        except FileNotFoundError:  # the working folder itself is gone
            context.meta[CONFIG] = Config()
    config: Config = context.meta[CONFIG]
    return config


def _without_config(context: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    if value:
        from gpudiag.config import Config

        context.meta[CONFIG] = Config()


class Seconds(click.FloatRange):
    """A number from a smallest one, and really a number."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; ``nan`` is neither below nor above any other."""
        number: float = super().convert(value, param, ctx)
        if number != number:  # noqa: PLR0124 - not a number
            self.fail(f"{value} is no number.", param, ctx)
        return number


def _to_file(_context: click.Context, _option: click.Parameter, value: Path | None) -> Path | None:
    """The file to write to; None for standard output, also by its name."""
    return None if value in {Path("-"), Path("/dev/stdout")} else value


def _timeout_s(context: click.Context, _option: click.Parameter, value: float | None) -> float:
    return value or config_of(context).timeout_s or TIMEOUT_S


no_config = click.option(
    "--no-config",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_without_config,
    help="Do not read gpudiag.toml or pyproject.toml.",
)
no_torch = click.option("--no-torch", is_flag=True, help="Do not import torch: faster, knows less.")
no_redact = click.option(
    "--no-redact", is_flag=True, help="Keep user names, home paths, addresses and whole UUIDs."
)
timeout = click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(min=0.1),
    callback=_timeout_s,
    metavar="SECONDS",
    help="Limit for the whole; what has not answered by then is reported as such.  "
    f"[default: {TIMEOUT_S:.0f}]",
)
output = click.option(
    "--output",
    type=FILE,
    callback=_to_file,
    metavar="FILE",
    help="Write to a file (mode 0600); - is standard output.",
)
snapshot_file = click.option(
    "--snapshot",
    "snapshot_file",
    type=FILE,
    metavar="FILE",
    help="Use a saved snapshot and do not look at this machine.",
)
select = click.option(
    "--select", multiple=True, metavar="ID,…", help="Only these rules; GD2 means GD2xx."
)
ignore = click.option("--ignore", multiple=True, metavar="ID,…", help="Not these rules.")
fail_on = click.option(
    "--fail-on",
    type=click.Choice(["note", "warning", "error", "never"]),
    help="The severity from which the exit code is 1.  [default: error]",
)
table_form = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="For people, for programs, or for a spreadsheet.",
)
