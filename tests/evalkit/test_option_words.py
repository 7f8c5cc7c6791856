"""What a person at the command line reads, and what one in Python."""

import click
import pytest
from click.testing import CliRunner

from evalkit.cli import cli
from evalkit.commands.option_words import in_options
from evalkit.errors import InputError

OPTIONS = [
    click.Option(["--new-head"], is_flag=True),
    click.Option(["--on-unmatched"]),
    click.Option(["--allow-partial"]),
    click.Option(["--seed", "resampling_seed"]),
    click.Option(["--label-column"]),
    click.Option(["--resume"], is_flag=True),
    click.Argument(["the_file"]),
]


@pytest.mark.parametrize(
    ("in_python", "at_the_command_line"),
    [
        ("replace it (new_head=True)", "replace it (--new-head)"),
        ("leave out with on_unmatched='skip'", "leave out with --on-unmatched skip"),
        ("or allow_partial=0.9603 if meant", "or --allow-partial 0.9603 if meant"),
        ("give allow_partial=0.9.", "give --allow-partial 0.9."),
        ("mean label_column='true class'?", "mean --label-column 'true class'?"),
        ("seed must be 0 or more", "seed must be 0 or more"),
        ("go on with resume=True", "go on with --resume"),
        ("resume must come with out", "resume must come with out"),
        ("allow_partial must be in (0, 1]", "--allow-partial must be in (0, 1]"),
        # Words of somebody else stay as they are.
        ("got runs/new_head/last.pth", "got runs/new_head/last.pth"),
        ("got new_head.pth and new_head/a", "got new_head.pth and new_head/a"),
        ("got 'new_head' and \"new_head\"", "got 'new_head' and \"new_head\""),
        ("got my_new_head, new_heads, x-new_head", "got my_new_head, new_heads, x-new_head"),
        ("the_file and other_name='x'", "the_file and other_name='x'"),
    ],
)
def test_arguments_become_options_and_nothing_else_does(in_python, at_the_command_line):
    assert in_options(in_python, OPTIONS) == at_the_command_line


def test_the_command_that_failed_is_the_one_whose_options_are_named(tmp_path):
    arguments = ["train", "--data", ".", "--out", str(tmp_path), "--learning-rate", "0"]

    with pytest.raises(InputError, match=r"^--learning-rate must be above 0, got 0\.0$"):
        CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
