"""Write the pages that come from the code: rules.md and reference.md. Usage: make docs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

import evalkit.cli
import gpudiag.cli
from gpudiag.rules.catalogue import document

HERE = Path(__file__).parent
PROGRAMS = {"gpudiag": gpudiag.cli.cli, "evalkit": evalkit.cli.cli}
INTRODUCTION = """\
# Reference

Every command with its arguments and options, made from the commands themselves by `make docs`.
The exit codes: 0 done (nothing at or above `--fail-on`), 1 findings, 2 usage error or unreadable
input, 3 the program itself failed, 130 interrupted. Both programs take `--version`, every command
`-h` and `--help`. An error is one line; where your own code failed (a model, a Dataset) it names
the file and line, and `EVALKIT_DEBUG=1` or `GPUDIAG_DEBUG=1` prints the whole traceback before it.

The shell completes commands and options after

```sh
eval "$(_GPUDIAG_COMPLETE=bash_source gpudiag)"   # in ~/.bashrc; or zsh_source, fish_source
eval "$(_EVALKIT_COMPLETE=bash_source evalkit)"
```
"""


def reference() -> str:
    """The page of all commands, in Markdown."""
    pages = [INTRODUCTION]
    for program, group in PROGRAMS.items():
        context = click.Context(group, info_name=program)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is None:
                raise LookupError(f"{program} lists {name} and does not have it")
            pages.append("\n".join(_section(command, click.Context(command, context, name))))
    return "\n".join(pages)


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text, _, example = inspect.cleandoc(command.help or "").partition("\b\nExample:  ")
    yield f"## {context.command_path}\n\n{text.strip()}\n"
    lines = [line.strip() for line in example.strip().splitlines()]
    yield "\n".join(["```sh", f"# {usage}", *lines, "```", ""])
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "| option | means | default |\n|---|---|---|"
        yield from (_row(option, context) for option in options)
        yield ""


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag else f" {_value(option, context)}"
    means, _, told = (option.help or "").partition("[default: ")
    default = told.rstrip("]") or _default(option)
    more = " May be given several times." if option.multiple else ""
    needed = " Required." if option.required else ""
    return f"| `{names}{takes}` | {_cell(means.strip() + more + needed)} | {_cell(default)} |"


def _value(option: click.Option, context: click.Context) -> str:
    if isinstance(option.type, click.Choice):
        return "\\|".join(map(str, option.type.choices))
    return option.make_metavar(context)


def _default(option: click.Option) -> str:
    if option.is_flag or option.multiple or not isinstance(option.default, str | int | float):
        return ""
    return f"`{option.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    (HERE / "rules.md").write_text(document())
    (HERE / "reference.md").write_text(reference())
