"""The tutorial: its commands run in its order, and print what it shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/tutorial.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
DIFFERS = "exit code 1"


def steps():
    """Every command with the lines that are shown below it."""
    for block in BLOCKS:
        for step in block.removeprefix("$ ").split("\n$ "):
            command, *shown = step.rstrip("\n").split("\n")
            yield command, shown


def assert_shown(shown, printed):
    """The lines are among the printed ones in this order; … stands for any text."""
    lines = iter(printed.splitlines())
    for line in shown:
        pattern = ".*".join(map(re.escape, line.split("…")))
        assert any(re.fullmatch(pattern, candidate) for candidate in lines), (line, printed)


@pytest.mark.slow
def test_the_tutorial(tmp_path):
    pytest.importorskip("torch")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    for command, shown in steps():
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == (1 if DIFFERS in command else 0), (command, done.stderr)
        assert_shown([line for line in shown if line != "…"], done.stdout + done.stderr)


def test_the_quick_commands_of_the_tutorial(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    quick = [(c, shown) for c, shown in steps() if "--snapshot" in c or "explain" in c]

    assert len(quick) > 2
    for command, shown in quick:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )

        assert_shown([line for line in shown if line != "…"], done.stdout)
