"""docs/automation.md does what it says: its shell snippets are run, its options exist."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from gpudiag.cli import cli
from gpudiag.config import read_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "automation.md").read_text()
README = (ROOT / "README.md").read_text()
CONTEXT = click.Context(cli)
IN_README = "# In schedulers, clusters and CI"


def snippet(heading, language="sh", *, number=0, page=PAGE):
    """A block of a language under a heading."""
    section = page.partition(f"\n## {heading}\n")[2] or page.partition(f"\n##{heading}\n")[2]
    return re.findall(rf"```{language}\n(.*?)```", section.partition("\n##")[0], re.DOTALL)[number]


def command_of(name):
    return cli.get_command(CONTEXT, name)


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
    program("logger", f'echo "$@" >> {tmp_path}/syslog')

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


@pytest.mark.parametrize(("scenario", "code"), [("healthy_8", 0), ("lost_gpu", 1)])
def test_the_prolog_looks_also_where_the_report_cannot_be_written(
    shell, nvml, tmp_path, scenario, code
):
    (tmp_path / "job-4711.json").symlink_to("elsewhere")

    assert shell(snippet("Slurm prolog"), nvml(scenario)).returncode == code


def test_the_prolog_makes_the_folder_of_the_report(shell, nvml, tmp_path):
    prolog = snippet("Slurm prolog").replace("/var/log/gpudiag", f"{tmp_path}/not/yet/there")

    assert shell(prolog, nvml("lost_gpu")).returncode == 1
    assert (tmp_path / "not/yet/there/job-4711.json").exists()


def test_the_prolog_drains_nothing_where_gpudiag_is_missing_and_says_so(shell, tmp_path):
    assert shell(snippet("Slurm prolog"), without=["gpudiag"]).returncode == 0
    assert (tmp_path / "syslog").read_text() == (
        "-t gpudiag prolog of job 4711: exit code 127, the node is not checked\n"
    )


@pytest.mark.parametrize(
    ("scenario", "code"), [("healthy_8", 0), ("lost_gpu", 1), ("driver_library_mismatch", 1)]
)
def test_the_readmes_prolog_drains_a_node_with_a_fault_alone(shell, nvml, scenario, code):
    prolog = snippet(IN_README, page=README)

    done = shell(prolog, nvml(scenario))

    assert prolog.startswith("#!/bin/sh\n")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", code)


@pytest.mark.parametrize("ends", ["exit 2", "exit 3", "kill -SEGV $$"])
def test_the_readmes_prolog_drains_nothing_where_gpudiag_fails(shell, tmp_path, ends):
    (tmp_path / "bin" / "gpudiag").write_text(f"#!/bin/sh\n{ends}\n")

    assert shell(snippet(IN_README, page=README)).returncode == 0
    assert shell(snippet(IN_README, page=README), without=["gpudiag"]).returncode == 0


def test_the_readmes_init_container_is_one():
    (container,) = yaml.safe_load(snippet(IN_README, "yaml", page=README))["initContainers"]

    program, command, *options = container["command"]
    assert program == "gpudiag"
    assert command_of(command).make_context(command, options)
    assert container.keys() == {"name", "image", "command", "resources"}
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}


@pytest.mark.parametrize(("scenario", "code"), [("healthy_8", 0), ("lost_gpu", 1)])
def test_the_readmes_step_of_a_ci_leaves_its_report(shell, nvml, tmp_path, scenario, code):
    (step,) = yaml.safe_load(snippet(IN_README, "yaml", number=1, page=README))
    ignored = "GD221,GD601,GD602,GD605,GD611"  # of the machine that runs the tests

    done = shell(
        step["run"].replace("diagnose", f"diagnose --no-torch --ignore {ignored}"), nvml(scenario)
    )

    assert (done.stdout, done.stderr, done.returncode) == ("", "", code)
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("**gpudiag: ")
    assert ("GD401" in text) is bool(code)


BLOCKS = [
    pytest.param(language, text, id=f"{name}-{number}")
    for name, page in (("automation.md", PAGE), ("README.md", README))
    for number, (language, text) in enumerate(
        re.findall(r"```(sh|yaml|toml)\n(.*?)```", page, re.DOTALL)
    )
]


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_every_block_is_of_its_language(language, text):
    if language == "sh":
        done = subprocess.run(
            ["bash", "-n"], input=text, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert yaml.safe_load(text) if language == "yaml" else tomllib.loads(text)


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
    asked = command_of(words[1]).make_context(words[1], words[2:])
    assert asked.params["fail_on"] == "error"


def test_the_configuration_can_be_read():
    table = tomllib.loads(snippet("A step of a CI", "toml"))["tool"]["gpudiag"]

    assert read_config(table, Path("pyproject.toml")).fail_on == "warning"


def test_every_option_of_the_page_exists():
    names = cli.list_commands(CONTEXT)
    known = {option for name in names for p in command_of(name).params for option in p.opts}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--ntasks-per-node"}

    assert named <= known
