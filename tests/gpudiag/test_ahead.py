"""The process that takes the snapshot while the command line is read, and what is forked for it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.fixture
def devices(nvml, tmp_path):
    """Run ``gpudiag devices --format csv``, behind a program or after lines of Python."""

    def devices(*options, behind=(), first="", scenario="healthy_8"):
        program = f"{first}\nfrom gpudiag.__main__ import main; main()"
        began = time.monotonic()
        done = subprocess.run(
            [*behind, sys.executable, "-c", program, "devices", "--format", "csv", *options],
            env=os.environ | nvml(scenario),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        done.seconds = time.monotonic() - began
        return done

    return devices


def is_answered(done):
    return (len(done.stdout.splitlines()), done.stderr, done.returncode) == (1 + 8, "", 0)


KILLED = """
import os, signal; from gpudiag import ahead
ahead._serve = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
NOT_TO_BE_HAD = """
import errno, os
def fork(): raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
os.fork = fork
"""
FAILING = """
from gpudiag import ahead
def serve(*_): raise ValueError("a fault of our own")
ahead._serve = serve
"""
HANGING = """
import time; from gpudiag import ahead
ahead._serve = lambda *_: time.sleep(300)
"""


@pytest.mark.parametrize("first", [KILLED, NOT_TO_BE_HAD, FAILING])
def test_without_it_the_snapshot_is_taken_all_the_same(devices, first):
    assert is_answered(devices(first=first))


def test_a_fault_of_our_own_is_told_to_whoever_looks_for_one(devices, monkeypatch):
    monkeypatch.setenv("GPUDIAG_DEBUG", "1")

    done = devices(first=FAILING)

    assert done.stderr.splitlines()[-1] == "ValueError: a fault of our own"
    assert (len(done.stdout.splitlines()), done.returncode) == (1 + 8, 0)


def test_when_it_hangs_it_is_ended_and_the_time_is_not_taken_twice(devices):
    done = devices("--timeout", "2", first=HANGING)

    assert is_answered(done)
    assert done.seconds < 2 + 2 + 2  # the limit, the spare time, the second try


def test_a_wrong_command_line_ends_it(devices):
    done = devices("--nonsense", scenario="hangs_halfway")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.seconds < 10  # NVML hangs for a minute


@pytest.mark.parametrize("limit", ["3000000", "inf"])
def test_a_limit_may_be_as_long_as_one_likes(devices, limit):
    assert is_answered(devices("--timeout", limit))


def test_ended_children_that_nobody_is_told_of_change_nothing(devices):
    assert is_answered(devices(behind=["env", "--ignore-signal=SIGCHLD"]))


ASKED_AT_THE_END = """
import atexit, sys
atexit.register(lambda: print("typing_extensions" in sys.modules, file=sys.stderr))
"""


def test_what_torch_has_brought_is_not_imported(devices):
    pytest.importorskip("typing_extensions")

    done = devices(first=ASKED_AT_THE_END)

    assert (len(done.stdout.splitlines()), done.stderr) == (1 + 8, "False\n")


@pytest.mark.parametrize("first", ["import typing_extensions", "import msgspec"])
def test_what_is_imported_already_stays(devices, first):
    done = devices(first=f"{first}\n{ASKED_AT_THE_END}")

    assert (len(done.stdout.splitlines()), done.stderr) == (1 + 8, "True\n")


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
