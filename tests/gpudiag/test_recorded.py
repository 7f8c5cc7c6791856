"""Every recorded machine keeps what its name says, and another one can be recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import record_machine
from record_machine import contradiction

from gpudiag.diagnose import diagnose
from gpudiag.render import FORMS, render
from gpudiag.rules import RULES
from gpudiag.snapshot import Snapshot

RECORDED = sorted(record_machine.RECORDED.glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_machine_is_what_its_name_says(path):
    assert contradiction(path.stem, Snapshot.from_json(path.read_bytes())) is None


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_machine_is_read_back_and_shown_in_every_form(path):
    text = path.read_text()
    seen = Snapshot.from_json(text)

    assert Snapshot.from_json(seen.to_json()) == seen
    assert all(render(diagnose(seen, RULES), form) for form in FORMS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "healthy_torch",
            "a healthy machine gives no error and no warning; found: ['GD204', 'GD205']",
        ),
        ("faulty_gd226_torch", "GD226 finds nothing; found: ['GD204', 'GD205']"),
        ("faulty_gd205_torch", None),
        ("any_torch", None),
    ],
)
def test_a_name_that_says_something_else_is_refused(name, message):
    (path,) = (one for one in RECORDED if "gd205" in one.stem)

    assert contradiction(name, Snapshot.from_json(path.read_bytes())) == message


@pytest.fixture
def record(tmp_path):
    def run(*arguments, **variables):
        script = Path(record_machine.__file__)
        command = [sys.executable, str(script), *arguments, "--no-torch", "--folder", str(tmp_path)]
        environment = os.environ | variables
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run


def test_a_machine_is_recorded_under_a_name_that_it_keeps(record, nvml, tmp_path):
    done = record("faulty_gd401_eight_h100", "--sections", "nvml", **nvml("lost_gpu"))

    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    seen = Snapshot.from_json(path.read_bytes())
    assert contradiction(path.stem, seen) is None
    assert len(seen.nvml.gpus) == 8
    assert "look it through" in done.stdout


def test_the_whole_machine_is_recorded_without_sections(record, tmp_path):
    assert record("this_machine").returncode == 0

    document = json.loads((tmp_path / "this_machine.json").read_text())
    assert isinstance(document["system"]["kernel"], str)
    assert document["probe_times_s"].keys() >= {"nvml", "driver", "system"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("healthy_eight_h100", "--sections", "nvml"), "found: ['GD401']"),
        (("../x",), "expected a name such as healthy_h200_node, got ../x"),
        (("this_machine", "--sections", "nvml,disk"), "expected sections of a snapshot, got disk"),
    ],
)
def test_nothing_is_written_where_the_name_or_a_section_is_wrong(
    record, nvml, tmp_path, arguments, message
):
    done = record(*arguments, **nvml("lost_gpu"))

    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
