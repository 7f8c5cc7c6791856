"""SIGKILL at random moments: nothing is lost, nothing half-written is taken for whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

TESTS = Path(__file__).parent.parent


def kills(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=TESTS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["evaluate", "report"])
def test_a_killed_command_done_again_gives_the_same_tables(name, count, tmp_path):
    found = kills(TESTS / "faults/kill_commands.py", name, tmp_path, count)

    assert found["killed"] == count
    assert found["lost"] == []


@pytest.mark.slow
def test_a_training_killed_fifty_times_ends_with_the_same_weights(tmp_path):
    found = kills(TESTS / "kill_trainings.py", tmp_path, 50)

    assert found["killed"] >= 50
    assert found["differences"] == []
