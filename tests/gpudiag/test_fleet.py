"""gpudiag fleet: the majority, the odd ones out, rules counted, files that cannot be read."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import GIB, gpu, snapshot

from gpudiag.finding import Severity
from gpudiag.fleet import survey
from gpudiag.rules import RULES
from gpudiag.saved import read_snapshots
from gpudiag.snapshot import Missing


def node(*, driver="550.54.15", torch="2.9.0", env=None, kernel="6.8.0", **facts):
    return snapshot(
        gpus=[gpu(0, name="H100", error_codes=(), **facts), gpu(1, name="H100", error_codes=())],
        nvml={"driver_version": driver},
        torch={"version": torch},
        system={"kernel": kernel, "shm_total_bytes": 64 * GIB},
        env=env or {},
    )


def spreads(fleet):
    return {
        one.fact: (
            one.usual and (one.usual.value, len(one.usual.machines)),
            [(group.value, group.machines) for group in one.odd],
        )
        for one in fleet.spreads
    }


def test_the_odd_one_out_is_found_per_fact():
    machines = {
        "a": node(),
        "b": node(driver="535.104.05"),
        "c": node(env={"NCCL_P2P_DISABLE": "1"}),
        "d": node(),
    }

    fleet = survey(machines, rules=())

    assert spreads(fleet) == {
        "nvml.driver_version": (("550.54.15", 3), [("535.104.05", ("b",))]),
        "env.NCCL_P2P_DISABLE": ((None, 3), [("1", ("c",))]),
    }
    assert "torch.version" in fleet.alike
    assert fleet.is_odd(None)


def test_a_value_that_is_not_known_is_odd_with_its_reason():
    fleet = survey(
        {"a": node(), "b": node(), "c": node(torch=Missing("import torch fails"))}, rules=()
    )

    assert spreads(fleet)["torch.version"] == (
        ("2.9.0", 2),
        [(Missing("import torch fails"), ("c",))],
    )


def test_half_of_the_machines_are_no_majority():
    fleet = survey({"a": node(driver="550"), "b": node(driver="535")}, rules=())

    assert spreads(fleet)["nvml.driver_version"][0] is None
    assert not fleet.is_odd(Severity.ERROR)


def test_what_rarely_matters_makes_nobody_odd():
    fleet = survey({"a": node(), "b": node(), "c": node(kernel="5.15.0")}, rules=())

    assert [one.fact for one in fleet.spreads] == ["system.kernel"]
    assert not fleet.is_odd(Severity.ERROR)


def test_what_an_older_gpudiag_did_not_ask_makes_nobody_odd():
    old = node(torch=Missing("not recorded in this snapshot"))

    assert survey({"a": node(), "b": node(), "c": old}, rules=()).spreads == ()


def test_rules_are_counted_by_machine_worst_and_most_frequent_first():
    hot = {"clock_event_reasons": 0x40}
    machines = {
        "a": node(**hot),
        "b": node(**hot),
        "c": snapshot(gpus=[gpu(0, error_codes=(15,))]),
        "d": node(),
    }

    fleet = survey(machines, rules=RULES)

    assert [(one.id, one.machines) for one in fleet.rules] == [
        ("GD401", ("c",)),
        ("GD406", ("a", "b")),
    ]
    assert fleet.is_odd(Severity.WARNING)


def test_one_machine_is_alike_with_itself():
    fleet = survey({"a": node()}, rules=())

    assert (fleet.spreads, fleet.is_odd(Severity.NOTE)) == ((), False)


# --- files


def test_machines_are_called_as_their_files_with_folders_only_where_needed(tmp_path):
    for name in ("x/a.json", "y/b.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(node().to_json())
    alone, _ = read_snapshots([tmp_path])
    (tmp_path / "y" / "a.json").write_text(node().to_json())
    together, _ = read_snapshots([tmp_path, tmp_path / "x" / "a.json"])

    assert list(alone) == ["a", "b"]
    assert list(together) == [str(tmp_path / name) for name in ("x/a", "y/a", "y/b")]


def test_files_that_cannot_be_read_are_listed_with_the_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("no json")
    (tmp_path / "new.json").write_text('{"schema_version": 99}')
    paths = [tmp_path / name for name in ("bad.json", "new.json", "gone.json", "empty")]

    snapshots, failures = read_snapshots(paths)

    assert snapshots == {}
    reasons = {Path(file).name: reason for file, reason in failures.items()}
    assert reasons["empty"] == "expected *.json in this folder, got none"
    assert reasons["bad.json"].startswith("expected a snapshot in JSON, got text that is not")
    assert reasons["new.json"].startswith("expected a snapshot of schema version 1, got 99")
    assert reasons["gone.json"].endswith(
        "No such file or directory; record one with 'gpudiag snapshot --output FILE'"
    )


# --- the command


@pytest.fixture
def fleet(tmp_path):
    def run(machines, *options):
        (tmp_path / "nodes").mkdir(exist_ok=True)
        for name, seen in machines.items():
            text = seen if isinstance(seen, str) else seen.to_json()
            (tmp_path / "nodes" / f"{name}.json").write_text(text)
        return subprocess.run(
            [sys.executable, "-m", "gpudiag", "fleet", "nodes", "--select", "GD4", *options],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"NO_COLOR": "1"},
            cwd=tmp_path,
        )

    return run


NODES = {f"node{n:02}": node() for n in range(7)} | {
    "node07": node(driver="535.104.05", kernel="5.15.0"),
    "node08": node(clock_event_reasons=0x40),
    "node09": node(env={"LD_PRELOAD": "=x\x1b[2J"}),
}


def test_the_text_tells_rules_odd_ones_and_unreadable_files(fleet):
    done = fleet(NODES | {"torn": "{"})

    assert done.stdout == (
        "10 machines: 0 with errors, 1 with warnings, 9 with neither\n"
        "\n"
        "Rules\n"
        "rule    severity    machines    title                                 where\n"
        "------  ----------  ----------  ------------------------------------  -------\n"
        "GD406   warning     1           A GPU is held back because it is too  node08\n"
        "                                hot\n"
        "\n"
        "Odd ones out\n"
        "fact                 usual          odd             where\n"
        "-------------------  -------------  --------------  -------\n"
        "nvml.driver_version  550.54.15 (9)  535.104.05 (1)  node07\n"
        "env.LD_PRELOAD       not set (9)    =x\\x1b[2J (1)   node09\n"
        "\n"
        "Not read\n"
        "  nodes/torn.json: expected a snapshot in JSON, got text that is not: Input data was "
        "truncated; record one with 'gpudiag snapshot --output FILE'\n"
        "\n"
        "5 facts alike on all · 1 other difference (-v lists them)\n"
    )
    assert (done.stderr, done.returncode) == ("", 1)


def test_verbose_tells_what_rarely_matters_and_what_has_no_usual_value(fleet):
    halves = {f"n{n}": node(driver=str(500 + n), kernel=str(n % 2)) for n in range(8)}

    done = fleet(halves, "-v")

    assert "nvml.driver_version  no value prevails" in done.stdout
    assert "and 4 more values" in done.stdout
    assert "system.kernel" in done.stdout
    assert done.returncode == 0


def test_json_and_csv_name_every_machine(fleet):
    document = json.loads(fleet(NODES, "--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(fleet(NODES, "--format", "csv").stdout)))

    assert len(document["machines"]) == 10
    assert document["rules"][0] == {
        "id": "GD406",
        "severity": "warning",
        "title": "A GPU is held back because it is too hot",
        "machines": ["node08"],
    }
    assert [one["fact"] for one in document["spreads"]] == [
        *("nvml.driver_version", "env.LD_PRELOAD", "system.kernel"),
    ]
    assert [(row["machine"], row["kind"], row["name"], row["value"]) for row in rows] == [
        ("node08", "rule", "GD406", "warning"),
        ("node07", "fact", "nvml.driver_version", "535.104.05"),
        ("node09", "fact", "env.LD_PRELOAD", "'=x\\x1b[2J"),
        ("node07", "fact", "system.kernel", "5.15.0"),
    ]
    assert rows[1]["usual"] == "550.54.15"


@pytest.mark.parametrize(
    ("machines", "options", "code"),
    [
        ({"a": node(), "b": node()}, [], 0),
        ({"a": node(), "b": node(), "c": node(kernel="x")}, [], 0),
        ({"a": node(), "b": node(), "c": node(torch="x")}, [], 1),
        ({"a": node(clock_event_reasons=0x40)}, [], 0),
        ({"a": node(clock_event_reasons=0x40)}, ["--fail-on", "warning"], 1),
        ({"a": node(), "torn": "{"}, ["--fail-on", "never"], 1),
        ({"torn": "{"}, [], 2),
    ],
)
def test_the_exit_code(fleet, machines, options, code):
    assert fleet(machines, *options).returncode == code


def test_nothing_to_read_is_one_line(fleet):
    done = fleet({})

    assert (done.stdout, done.stderr) == (
        "",
        "gpudiag: expected snapshots, got none that can be read, first nodes: expected *.json in "
        "this folder, got none\n",
    )
