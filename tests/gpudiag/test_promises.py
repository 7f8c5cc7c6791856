"""What a diagnosis never does: reach for the network, change a file, need a variable or root."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "snapshot.md").read_text()

# Tells which kind of socket a process opens, and refuses to open none.
SOCKETS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int socket(int domain, int type, int protocol) {
    int (*real)(int, int, int) = dlsym(RTLD_NEXT, "socket");
    char line[32];
    int length = snprintf(line, sizeof line, "%d\n", domain);
    int log = open(getenv("SOCKET_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log >= 0 && write(log, line, length) > 0) close(log);
    return real(domain, type, protocol);
}
"""
INTERNET = {"2", "10"}  # AF_INET, AF_INET6


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Variables under which every process and its children log the sockets that they open."""
    folder = tmp_path_factory.mktemp("sockets")
    (folder / "sockets.c").write_text(SOCKETS)
    command = ["gcc", "-shared", "-fPIC", "-o", "sockets.so", "sockets.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return {"LD_PRELOAD": str(folder / "sockets.so"), "SOCKET_LOG": str(folder / "log")}


def opened(watched):
    log = Path(watched["SOCKET_LOG"])
    seen = set(log.read_text().split()) if log.exists() else set()
    log.unlink(missing_ok=True)
    return seen


def run(*command, **variables):
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )


def test_the_watch_sees_a_socket_of_the_internet(watched):
    run("-c", "import socket; socket.socket()", **watched)

    assert opened(watched) == {"2"}


@pytest.mark.parametrize(
    "command",
    [
        ("snapshot", "--no-torch"),
        ("diagnose", "--no-torch"),
        ("memory",),
        ("processes",),
        ("versions",),
    ],
    ids=lambda command: command[0],
)
def test_nothing_reaches_for_the_network(watched, nvml, command):
    done = run("-m", "gpudiag", *command, **nvml("healthy_8"), **watched)

    assert done.returncode in {0, 1}, done.stderr
    assert opened(watched) & INTERNET == set()


def tree(folder):
    """What lies there; when it was changed, for a file (torch tries whether TMPDIR is writable)."""
    return {path: path.is_file() and path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_is_written_but_the_output_and_torch_reaches_for_no_network(
    watched, nvml, tmp_path
):
    for name in ("home/.cache", "tmp", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "mine").write_text("mine")
    before = tree(tmp_path)
    places = {
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "home/.cache"),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    library = nvml("healthy_8")

    done = subprocess.run(
        [sys.executable, "-m", "gpudiag", "diagnose", "--format", "json", "--fail-on", "never"],
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | library | places | watched,
    )

    assert json.loads(done.stdout)["crashed"] == {}
    assert tree(tmp_path) == before
    assert opened(watched) & INTERNET == set()


def test_an_empty_environment_is_enough(tmp_path):
    """As a daemon or a minimal container starts it: no HOME, no USER, no PATH."""
    command = [sys.executable, "-m", "gpudiag", "snapshot", "--no-torch"]

    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)

    document = json.loads(done.stdout)
    assert isinstance(document["system"]["kernel"], str)


def test_a_user_without_a_name_and_without_rights_gets_an_answer():
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without a name")
    command = [sys.executable, "-m", "gpudiag", "diagnose", "--no-torch", "--format", "json"]
    nobody = {"user": 54321, "group": 54321, "extra_groups": [], "cwd": "/"}
    try:
        readable = subprocess.run([*command[:1], "-c", "import gpudiag"], **nobody, check=False)
    except PermissionError:
        pytest.skip("this Python lies where only root may read")
    if readable.returncode:
        pytest.skip("these packages lie where only root may read")

    done = subprocess.run(command, **nobody, capture_output=True, text=True, check=False)

    assert done.returncode in {0, 1}, done.stderr
    document = json.loads(done.stdout)
    assert document["crashed"] == {}
    assert document["snapshot"]["system"]["is_root"] is False


def test_the_pages_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    names = {}
    exec(block, names)

    assert names["again"] == names["seen"]
