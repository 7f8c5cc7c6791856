"""The help of every command, and docs/reference.md, which is made of it."""

import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parent.parent


def load_generator():
    specification = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


GENERATOR = load_generator()
COMMANDS = [
    pytest.param(program, group.get_command(click.Context(group), name), id=f"{program} {name}")
    for program, group in GENERATOR.PROGRAMS.items()
    for name in group.list_commands(click.Context(group))
]


def examples(command):
    """The lines under "Example:", without what a shell would do with the output."""
    text = inspect.cleandoc(command.help).partition("\b\nExample:  ")[2]
    joined = re.sub(r"\\\n\s*", "", text)
    return [re.split(r" [>|] ", line)[0].strip() for line in joined.splitlines() if line.strip()]


def test_the_reference_is_what_the_commands_say():
    written = (ROOT / "docs/reference.md").read_text()

    assert written == GENERATOR.reference(), "docs/reference.md is stale: run 'make docs'"


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_help_has_an_example_that_can_be_parsed(program, command):
    lines = [shlex.split(line) for line in examples(command)]
    own = [words[2:] for words in lines if words[:2] == [program, command.name]]

    assert own
    for arguments in own:
        assert command.make_context(command.name, list(arguments)).args == []


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_option_says_what_it_means(program, command):
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]

    assert [f"{program} {one.opts[0]}" for one in options if not one.help] == []
