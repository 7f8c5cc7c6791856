import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from builders import gpu, snapshot

from gpudiag.diagnose import diagnose
from gpudiag.host import Host
from gpudiag.probes import take_snapshot
from gpudiag.render.as_json import as_json
from gpudiag.rules import RULES
from gpudiag.schema import json_schema
from gpudiag.snapshot import Missing, Snapshot

RECORDED = sorted((Path(__file__).parent.parent / "recorded").glob("*.json"))


def faults(text, document):
    """What the published schema finds wrong with a document, each with its place."""
    schema = json_schema(document)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return [(one.json_path, one.message) for one in validator.iter_errors(json.loads(text))]


def holds(whole, part):
    """Whether nothing of *part* was lost; facts that came with a later version may be more."""
    if isinstance(part, dict):
        return all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return whole == part


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recorded_snapshot_is_read_and_valid(path):
    read = Snapshot.from_json(path.read_bytes())

    assert faults(path.read_text(), "snapshot") == []
    assert diagnose(read, RULES).crashed == {}
    assert holds(json.loads(read.to_json()), json.loads(path.read_text()))


@pytest.mark.parametrize("scenario", ["healthy_8", "lost_gpu", "old_driver", "mig", "implausible"])
def test_snapshots_and_reports_of_simulated_machines_are_valid(nvml, scenario):
    seen = take_snapshot(Host(environment=os.environ | nvml(scenario)), torch=False)

    assert faults(seen.to_json(), "snapshot") == []
    assert faults(as_json(diagnose(seen, RULES)), "report") == []


def test_a_wrong_snapshot_is_not_valid():
    document = json.loads(snapshot(gpus=[gpu(0, name=Missing("gone"))]).to_json())
    document["nvml"]["gpus"][0]["name"] = 7

    found = faults(json.dumps(document), "snapshot")

    assert [place for place, _ in found] == ["$.nvml.gpus"]  # a list of GPUs, or the reason


@pytest.mark.parametrize("document", ["snapshot", "report"])
def test_the_command_prints_the_schema(document):
    command = [sys.executable, "-m", "gpudiag", "schema", document]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == json.loads(json.dumps(json_schema(document)))
