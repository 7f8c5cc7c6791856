"""docs/automation.md does what it says: its shell snippets are run, its options exist."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gpudiag.cli import cli
from gpudiag.config import read_config

PAGE = (Path(__file__).parents[2] / "docs" / "automation.md").read_text()


def snippet(heading, language="sh"):
    """The first block of a language under a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture
def shell(tmp_path):
    """Runs a snippet with this gpudiag on PATH, and folders of the system below tmp_path."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def program(name, text):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    program("gpudiag", f'exec {shlex.quote(sys.executable)} -m gpudiag "$@"')
    program("srun", 'shift; exec "$@"')
    program("hostname", "echo node01")

    def run(text, env=None, *, without=()):
        for name in without:
            (programs / name).unlink()
        for folder in ("/var/log/gpudiag", "/var/lib/node_exporter/textfile_collector"):
            text = text.replace(folder, str(tmp_path))
        return subprocess.run(
            ["sh", "-c", text],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "PATH": f"{programs}:/usr/bin:/bin",
                "SLURM_JOB_ID": "4711",
                "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            }
            | (env or {}),
            cwd=tmp_path,
        )

    return run


def test_the_prolog_lets_a_healthy_node_work(shell, nvml, tmp_path):
    done = shell(snippet("Slurm prolog"), nvml("healthy_8"))

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert '"findings"' in (tmp_path / "job-4711.json").read_text()


def test_the_prolog_drains_a_node_with_a_lost_gpu(shell, nvml):
    assert shell(snippet("Slurm prolog"), nvml("lost_gpu")).returncode == 1


def test_the_prolog_drains_nothing_where_gpudiag_is_missing_or_cannot_write(shell, nvml, tmp_path):
    (tmp_path / "job-4711.json").symlink_to("elsewhere")

    assert shell(snippet("Slurm prolog"), nvml("lost_gpu")).returncode == 0
    assert shell(snippet("Slurm prolog"), without=["gpudiag"]).returncode == 0


def test_the_collectors_file_is_whole_and_readable_by_others(shell, nvml, tmp_path):
    done = shell(snippet("Prometheus"), nvml("lost_gpu"))

    assert (done.stderr, done.returncode) == ("", 0)
    file = tmp_path / "gpudiag.prom"
    assert 'gpudiag_finding{id="GD401",severity="error"' in file.read_text()
    assert file.read_text().endswith("\n")
    assert file.stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob("gpudiag.[0-9]*"))


def test_a_collectors_file_that_failed_is_taken_away(shell, tmp_path):
    shell(snippet("Prometheus"), without=["gpudiag"])

    assert not list(tmp_path.glob("gpudiag.*"))


def test_the_step_of_a_ci_leaves_every_form(shell, nvml, tmp_path):
    text = snippet("A step of a CI").replace("gpudiag snapshot", "gpudiag snapshot --no-torch")

    done = shell(text, nvml("lost_gpu"))

    assert (done.stderr, done.returncode) == ("", 1)
    assert "<testsuites>" in (tmp_path / "gpudiag.xml").read_text()
    assert "<html" in (tmp_path / "gpudiag.html").read_text()
    assert (tmp_path / "summary.md").read_text().startswith("**gpudiag: 1 error")


def test_a_fleet_is_gathered_and_compared(shell, nvml, tmp_path):
    (tmp_path / "nodes").mkdir()
    text = snippet("Many machines").replace("gpudiag snapshot", "gpudiag snapshot --no-torch")

    done = shell(text, nvml("lost_gpu"))

    assert (done.stderr, done.returncode) == ("", 1)
    assert "node01,rule,GD401,true,error," in (tmp_path / "odd.csv").read_text()


def test_a_training_is_stopped_by_an_error(shell, nvml, tmp_path):
    text = snippet("Before a training").replace("diagnose", "diagnose --no-torch")

    done = shell(text + "touch trained\n", nvml("lost_gpu"))

    assert "GD401" in done.stdout
    assert done.returncode == 1
    assert not (tmp_path / "trained").exists()


def test_the_init_container_calls_gpudiag_as_it_can_be_called():
    command = re.search(r"command: \[(.*)\]", snippet("Kubernetes init container", "yaml"))[1]
    words = [word.strip('" ') for word in command.split(",")]

    assert words[0] == "gpudiag"
    assert cli.commands[words[1]].make_context(words[1], words[2:]).params["fail_on"] == "error"


def test_the_configuration_can_be_read():
    table = tomllib.loads(snippet("A step of a CI", "toml"))["tool"]["gpudiag"]

    assert read_config(table, Path("pyproject.toml")).fail_on == "warning"


def test_every_option_of_the_page_exists():
    known = {
        option for command in cli.commands.values() for p in command.params for option in p.opts
    }
    named = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--ntasks-per-node"}

    assert named <= known
