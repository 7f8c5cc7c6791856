"""The process that takes the snapshot while the command line is read, and what is forked for it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEVICES = (sys.executable, "-m", "gpudiag", "devices", "--format", "csv")
CHANGES = ("taken_at", "probe_times_s", "environment", "system", "kernel_log", "driver")


def python(program, **variables):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def taken(command, *, env, cwd):
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, timeout=60, check=True)
    seen = json.loads(done.stdout)
    return {name: facts for name, facts in seen.items() if name not in CHANGES}


@pytest.mark.parametrize("scenario", ["healthy_8", "mig", "lost_gpu", "old_driver"])
def test_it_sees_what_the_function_sees(nvml, tmp_path, scenario):
    env = os.environ | nvml(scenario)
    by_function = "import gpudiag; print(gpudiag.snapshot(torch=False).to_json())"

    ahead = taken(
        [sys.executable, "-m", "gpudiag", "snapshot", "--no-torch"], env=env, cwd=tmp_path
    )

    assert ahead == taken([sys.executable, "-c", by_function], env=env, cwd=tmp_path)
    assert ahead["nvml"]["gpus"]


def test_when_it_is_killed_the_snapshot_is_taken_all_the_same(nvml, tmp_path):
    program = (
        "import os, signal, sys; from gpudiag import ahead\n"
        "ahead._serve = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = ['gpudiag', 'devices', '--format', 'csv']\n"
        "from gpudiag.__main__ import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | nvml("healthy_8"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert len(done.stdout.splitlines()) == 1 + 8
    assert done.stderr == ""


def test_when_no_process_is_to_be_had_the_snapshot_is_taken_all_the_same(nvml, tmp_path):
    program = (
        "import errno, os, sys\n"
        "def fork(): raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "os.fork = fork\n"
        "sys.argv = ['gpudiag', 'devices', '--format', 'csv']\n"
        "from gpudiag.__main__ import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | nvml("healthy_8"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert len(done.stdout.splitlines()) == 1 + 8


def test_a_wrong_command_line_ends_it(nvml, tmp_path):
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-m", "gpudiag", "devices", "--format", "nonsense"],
        env=os.environ | nvml("hangs_halfway"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert time.monotonic() - began < 10  # NVML hangs for a minute


@pytest.mark.parametrize("limit", ["3000000", "inf"])
def test_a_limit_may_be_as_long_as_one_likes(nvml, tmp_path, limit):
    done = subprocess.run(
        [*DEVICES, "--timeout", limit],
        env=os.environ | nvml("healthy_8"),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )

    assert (len(done.stdout.splitlines()), done.returncode) == (1 + 8, 0), done.stderr


def test_ended_children_that_nobody_is_told_of_change_nothing(nvml, tmp_path):
    done = subprocess.run(
        ["env", "--ignore-signal=SIGCHLD", *DEVICES],
        env=os.environ | nvml("healthy_8"),
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (len(done.stdout.splitlines()), done.returncode, done.stderr) == (1 + 8, 0, b"")


def test_when_it_hangs_it_is_ended_and_the_time_is_not_taken_twice(nvml, tmp_path):
    program = (
        "import sys, time; from gpudiag import ahead\n"
        "ahead._serve = lambda *_: time.sleep(300)\n"
        "sys.argv = ['gpudiag', 'devices', '--format', 'csv', '--timeout', '2']\n"
        "from gpudiag.__main__ import main; main()"
    )
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | nvml("healthy_8"),
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=True,
    )

    assert len(done.stdout.splitlines()) == 1 + 8
    assert time.monotonic() - began < 2 + 2 + 2  # the limit, the spare time, the second try


FORKED = """
import os, signal, sys, time
from gpudiag.host import Host
host = Host(); command = ("x", "y")
def work(): {work}
host.fork(command, work)
done = host.run(*command, timeout_s={limit_s})
print(repr((done.stdout, done.exit_code, done.failure, done.stderr.splitlines()[-1:])))
"""


@pytest.mark.parametrize(
    ("work", "limit_s", "expected"),
    [
        ("print('a'); os.write(2, b'b')", 5, ("a\n", 0, None, ["b"])),
        (
            "print('a'); 1 / 0",
            5,
            ("a\n", 1, "exit code 1", ["ZeroDivisionError: division by zero"]),
        ),
        ("os.kill(os.getpid(), 11)", 5, ("", -11, "killed by signal 11 (SIGSEGV)", [])),
        (
            "print('a', flush=True); time.sleep(60)",
            0.5,
            ("a\n", None, "no answer within 0.5 s", []),
        ),
        ("print('a'); sys.exit(3)", 5, ("a\n", 1, "exit code 1", ["SystemExit: 3"])),
    ],
)
def test_what_a_forked_function_says_is_kept_however_it_ends(work, limit_s, expected):
    assert eval(python(FORKED.format(work=work, limit_s=limit_s))) == expected


def test_a_forked_function_has_no_file_of_its_parent(tmp_path):
    secret = tmp_path / "secret"
    secret.touch()
    work = (
        "print(sorted(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]))"
    )

    program = f"kept = open({str(secret)!r})\n" + FORKED.format(work=work, limit_s=5)

    assert str(secret) not in python(program)


def test_what_was_forked_can_be_ended(tmp_path):
    program = f"""
import os, time
from gpudiag.host import Host
host = Host()
def work():
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    time.sleep(60)
host.fork(("x",), work)
while not os.path.exists({str(tmp_path / "pid")!r}): time.sleep(0.01)
host.end_programs()
print(host.run("x", timeout_s=5).exit_code)
"""
    assert python(program) == f"{-signal.SIGKILL}\n"
    pid = (tmp_path / "pid").read_text()
    assert not Path(f"/proc/{pid}").exists()
