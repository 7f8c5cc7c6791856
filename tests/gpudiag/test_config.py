"""gpudiag.toml and pyproject.toml: what is read, what wins, and one line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from builders import gpu, snapshot

from gpudiag.choice import choose_rules
from gpudiag.cli import cli
from gpudiag.config import FAIL_ON, Config, find_config
from gpudiag.errors import InputError

HOT_AND_LOST = snapshot(gpus=[gpu(0, clock_event_reasons=0x40, error_codes=(15,))])


@pytest.fixture
def diagnose(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "machine.json").write_text(HOT_AND_LOST.to_json())

    def run(*arguments, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return subprocess.run(
            [
                *(sys.executable, "-m", "gpudiag", "diagnose", "--snapshot", "../machine.json"),
                *arguments,
            ],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"NO_COLOR": "1"},
            cwd=tmp_path / "work",
        )

    return run


def ids(done):
    return [finding["id"] for finding in json.loads(done.stdout)["findings"]]


def test_without_a_file_nothing_is_configured(tmp_path):
    assert find_config(tmp_path) == Config()


@pytest.mark.parametrize(
    ("name", "head"), [("gpudiag.toml", ""), ("pyproject.toml", "[tool.gpudiag]\n")]
)
def test_the_four_keys_are_read(tmp_path, name, head):
    (tmp_path / name).write_text(
        head + 'select = ["gd4"]\nignore = ["GD406"]\nfail-on = "note"\ntimeout = 5\n'
    )

    assert find_config(tmp_path) == Config(
        path=tmp_path / name, select=("GD4",), ignore=("GD406",), fail_on="note", timeout_s=5.0
    )


def test_the_nearest_file_counts_alone(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "gpudiag.toml").write_text('ignore = ["GD4"]')
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.gpudiag]\ntimeout = 5\n")
    (inner / "pyproject.toml").write_text('[project]\nname = "uses-gpudiag"\n')

    assert find_config(inner) == Config(path=tmp_path / "a" / "pyproject.toml", timeout_s=5.0)


def test_its_own_file_comes_before_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.gpudiag]\ntimeout = 5\n")
    (tmp_path / "gpudiag.toml").write_text("")

    assert find_config(tmp_path) == Config(path=tmp_path / "gpudiag.toml")


def test_a_broken_pyproject_that_is_not_about_gpudiag_is_passed_over(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project\n")

    assert find_config(tmp_path) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'selct = ["GD4"]',
            "{path}: expected the keys select, ignore, fail-on, timeout, got selct, close ones "
            "are select",
        ),
        (
            "colour = true\nlanguage = 1",
            "{path}: expected the keys select, ignore, fail-on, timeout, got colour, language",
        ),
        (
            'select = "GD4"',
            '{path}: expected select to be a list of rule ids, as in ["GD2", "GD401"], got \'GD4\'',
        ),
        (
            "ignore = [605]",
            '{path}: expected ignore to be a list of rule ids, as in ["GD605"], got [605]',
        ),
        (
            'fail-on = "fatal"',
            "{path}: expected fail-on to be one of note, warning, error, never, got 'fatal'",
        ),
        ("fail-on = 1", "{path}: expected fail-on to be one of note, warning, error, never, got 1"),
        ("timeout = 0", "{path}: expected timeout to be a number of seconds from 0.1, got 0"),
        ("timeout = true", "{path}: expected timeout to be a number of seconds from 0.1, got True"),
        ("timeout = nan", "{path}: expected timeout to be a number of seconds from 0.1, got nan"),
        (
            "timeout = ",
            "expected TOML in {path}, got: Invalid value (at end of document); correct it or use "
            "--no-config",
        ),
    ],
)
def test_a_mistake_is_told_with_the_file(tmp_path, text, message):
    path = tmp_path / "gpudiag.toml"
    path.write_text(text)

    with pytest.raises(InputError) as error:
        find_config(tmp_path)

    assert str(error.value) == message.replace("{path}", str(path))


def test_a_table_that_is_none_is_told(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool]\ngpudiag = 1\n")

    with pytest.raises(InputError, match=r"expected tool.gpudiag to be a table, got 1"):
        find_config(tmp_path)


def test_text_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "gpudiag.toml").write_bytes(b'select = ["\xff"]')

    with pytest.raises(InputError, match=r"expected TOML in .*gpudiag\.toml, got: 'utf-8' codec"):
        find_config(tmp_path)


def chosen(typed_select, typed_ignore, **config):
    rules = choose_rules(typed_select, typed_ignore, Config(path=Path("gpudiag.toml"), **config))
    return {rule.id for rule in rules}


def test_a_selection_on_the_command_line_replaces_the_configuration():
    assert chosen(["GD406"], [], select=("GD1",), ignore=("GD406",)) == {"GD406"}


def test_ignoring_on_the_command_line_adds_to_the_configuration():
    left = chosen([], ["GD401,gd402"], select=("GD40",), ignore=("GD403",))

    assert not left & {"GD401", "GD402", "GD403"}
    assert {"GD404", "GD406"} <= left


def test_a_choice_that_leaves_no_rule_is_refused():
    with pytest.raises(InputError) as error:
        choose_rules(["GD406"], ["GD4"], Config())

    assert str(error.value) == "expected a rule to be left, got all of GD406 ignored by GD4"


def test_the_configuration_chooses_and_sets_the_threshold(diagnose):
    config = 'ignore = ["GD401"]\nfail-on = "warning"\n'

    done = diagnose("--format", "json", gpudiag=config)
    lenient = diagnose("--fail-on", "error")
    without = diagnose("--format", "json", "--no-config")

    assert (ids(done), done.returncode) == (["GD406"], 1)
    assert lenient.returncode == 0
    assert ids(without) == ["GD401", "GD406"]


def test_an_unknown_id_in_the_file_is_one_line(diagnose, tmp_path):
    done = diagnose(pyproject='[tool.gpudiag]\nignore = ["GD4O1"]\n')

    assert done.stdout == ""
    assert done.stderr.startswith(
        f"gpudiag: {tmp_path / 'pyproject.toml'}: expected the id of a rule, got GD4O1, close ones "
        "are GD4"
    )
    assert (done.stderr.count("\n"), done.returncode) == (1, 2)


def test_the_verbose_text_says_which_file_was_used(diagnose):
    def last_line(*options, **files):
        return diagnose("-v", *options, **files).stdout.splitlines()[-1]

    assert last_line() == "Config   none"
    assert last_line(gpudiag="") == "Config   ../gpudiag.toml"
    assert last_line("--no-config") == "Config   none"


def test_quiet_leaves_the_exit_code_alone(diagnose, tmp_path):
    done = diagnose("-q")
    never = diagnose("-q", "--fail-on", "never", "--output", "report.txt")

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 1)
    assert (never.stdout, never.returncode) == ("", 0)
    assert "GD401" in (tmp_path / "work" / "report.txt").read_text()


@pytest.mark.parametrize(("fail_on", "code"), [("note", 1), ("warning", 0), ("never", 0)])
def test_even_a_note_can_fail(diagnose, tmp_path, fail_on, code):
    (tmp_path / "machine.json").write_text(
        snapshot(
            nvml={"init_code": 12},
            driver={"pci_devices": (), "module_loaded": False, "device_nodes": ()},
        ).to_json()
    )

    assert diagnose("-q", "--fail-on", fail_on).returncode == code


def test_the_file_and_the_command_line_know_the_same_thresholds():
    command = cli.get_command(click.Context(cli), "diagnose")
    option = next(one for one in command.params if one.name == "fail_on")

    assert tuple(option.type.choices) == FAIL_ON


def test_the_timeout_of_the_file_is_used_by_every_command_that_looks(tmp_path):
    (tmp_path / "gpudiag.toml").write_text("timeout = true")
    command = [sys.executable, "-m", "gpudiag"]

    for name in ("snapshot", "devices"):
        done = subprocess.run(
            [*command, name], check=False, capture_output=True, text=True, cwd=tmp_path
        )

        assert "expected timeout to be a number of seconds" in done.stderr
        assert done.returncode == 2
