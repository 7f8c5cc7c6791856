"""Two runs into one folder at the same time: one result, whole, and never a mixture."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")

import noise

TESTS = Path(__file__).parent.parent
TIMES = 3


def start(*command, **extra):
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)} | extra,
    )


def ended(running):
    said, complained = running.communicate(timeout=200)
    assert "Traceback" not in complained
    assert "internal error" not in complained
    return running.returncode, said, complained


def test_of_two_evaluations_one_is_refused_and_the_other_whole(tmp_path):
    noise.write_checkpoint(tmp_path / "net.pth")
    command = (
        *("evalkit", "evaluate", "--checkpoint", tmp_path / "net.pth", "--data", "noise:noise"),
        *("--model", "noise:conv_net", "--device", "cpu", "--out", tmp_path / "out", "--resume"),
    )

    both = [ended(one) for one in [start(*command, NOISE_SLEEP="0.004") for _ in range(2)]]

    assert sorted(code for code, _, _ in both) == [0, 2]
    refused = next(complained for code, _, complained in both if code == 2)
    assert refused.count("\n") == 1
    assert "out must be free of other runs" in refused
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["samples"] == noise.SAMPLES
    assert len(pd.read_parquet(tmp_path / "out/predictions.parquet")) == noise.SAMPLES


def test_two_reports_leave_tables_that_are_whole(tmp_path):
    names = [f"class {number}" for number in range(400)]
    frame = pd.DataFrame({"label": names * 5})
    frame.assign(prediction=names * 5).to_csv(tmp_path / "table.csv", index=False)
    command = ("evalkit", "report", tmp_path / "table.csv", "--out", tmp_path / "out")

    for _ in range(TIMES):
        both = [ended(one) for one in [start(*command) for _ in range(2)]]

        assert [code for code, _, _ in both] == [0, 0]
        assert pd.read_csv(tmp_path / "out/per_class.csv")["support"].sum() == len(frame)
        assert json.loads((tmp_path / "out/summary.json").read_text())["samples"] == len(frame)
        assert not list((tmp_path / "out").glob(".*"))


def test_two_snapshots_into_one_file_leave_a_whole_one(tmp_path):
    command = ("gpudiag", "snapshot", "--no-torch", "--output", tmp_path / "s.json")

    for _ in range(TIMES):
        both = [ended(one) for one in [start(*command) for _ in range(2)]]

        assert [code for code, _, _ in both] == [0, 0]
        assert json.loads((tmp_path / "s.json").read_text())["schema_version"]
        assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
