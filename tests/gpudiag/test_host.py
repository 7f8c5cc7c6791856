import os
import signal
import stat
import time
from pathlib import Path

import pytest

from gpudiag.host import Host
from gpudiag.pipes import LARGEST_OUTPUT_BYTES
from gpudiag.programs import Completed
from gpudiag.snapshot import Missing


def program(folder, name, body):
    """A stand-in for a real program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


@pytest.fixture
def host(tmp_path):
    return Host(root=tmp_path, environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})


def test_a_program_that_is_not_there_is_a_fact(host):
    assert host.run("nvidia-smi-that-is-not-there", timeout_s=1) == Missing(
        "nvidia-smi-that-is-not-there not found on PATH"
    )


def test_a_program_is_run_with_the_hosts_environment(host, tmp_path):
    program(tmp_path, "tool", "echo $PATH; echo bad >&2; exit 9")

    outcome = host.run("tool", timeout_s=5)

    assert outcome.stdout.strip() == host.environment["PATH"]
    assert outcome.stderr == "bad\n"
    assert (outcome.exit_code, outcome.failure) == (9, "exit code 9")


def test_a_program_that_cannot_be_executed_is_a_fact(host, tmp_path):
    (tmp_path / "tool").write_bytes(b"\x00\x01 not a program")
    (tmp_path / "tool").chmod(0o755)

    assert host.run("tool", timeout_s=5).missing.startswith("tool cannot be run")


def test_what_a_hanging_program_said_before_it_was_killed_is_kept(host, tmp_path):
    program(tmp_path, "tool", "echo first; sleep 60")

    started = time.monotonic()
    outcome = host.run("tool", timeout_s=0.5)

    assert time.monotonic() - started < 3
    assert outcome.stdout == "first\n"
    assert (outcome.exit_code, outcome.failure) == (None, "no answer within 0.5 s")


def test_of_a_program_that_prints_without_end_the_beginning_is_kept(host, tmp_path):
    program(tmp_path, "tool", "exec yes 0123456")

    started = time.monotonic()
    outcome = host.run("tool", timeout_s=1)

    assert time.monotonic() - started < 5
    assert outcome.failure == "no answer within 1 s"
    assert outcome.stdout == "0123456\n" * (LARGEST_OUTPUT_BYTES // 8)


def test_a_program_goes_on_beyond_what_is_kept_of_it(host, tmp_path):
    size = LARGEST_OUTPUT_BYTES + 2**20
    program(tmp_path, "tool", f"head -c {size} /dev/zero; echo said >&2; exit 7")

    outcome = host.run("tool", timeout_s=60)

    assert (len(outcome.stdout), outcome.stderr) == (LARGEST_OUTPUT_BYTES, "said\n")
    assert outcome.failure == "exit code 7"


def test_a_program_that_closes_its_output_is_waited_for(host, tmp_path):
    program(tmp_path, "tool", "echo out; exec >&- 2>&-; sleep 0.3; exit 5")

    outcome = host.run("tool", timeout_s=10)

    assert (outcome.stdout, outcome.failure) == ("out\n", "exit code 5")


def test_the_children_of_a_hanging_program_are_killed_with_it(host, tmp_path):
    program(tmp_path, "tool", f"sleep 300 & echo $! > {tmp_path}/pid; wait")

    host.run("tool", timeout_s=0.5)

    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_crash_is_named_by_its_signal(host, tmp_path):
    program(tmp_path, "tool", "kill -SEGV $$")

    assert host.run("tool", timeout_s=5).failure == "killed by signal 11 (SIGSEGV)"


def test_an_unknown_signal_is_a_number():
    ended = Completed(stdout="", stderr="", exit_code=-(signal.NSIG + 9), timeout_s=1)

    assert ended.failure == f"killed by signal {signal.NSIG + 9} (unknown)"


def test_a_program_that_was_started_early_is_not_run_again(host, tmp_path):
    program(tmp_path, "tool", f"echo run >> {tmp_path}/runs; echo $1")
    host.start("tool", "answer")

    outcome = host.run("tool", "answer", timeout_s=5)

    assert (outcome.stdout, (tmp_path / "runs").read_text()) == ("answer\n", "run\n")
    assert host.run("tool", "another", timeout_s=5).stdout == "another\n"


def test_a_program_that_cannot_be_started_early_says_so_when_it_is_asked(host):
    host.start("nowhere")

    assert host.run("nowhere", timeout_s=5) == Missing("nowhere not found on PATH")


def test_what_still_runs_can_be_ended(host, tmp_path):
    program(tmp_path, "tool", f"echo $$ > {tmp_path}/pid; exec sleep 300")
    host.start("tool")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not (tmp_path / "pid").exists():
        time.sleep(0.02)

    host.end_programs()

    assert host.run("tool", timeout_s=5).failure == "killed by signal 9 (SIGKILL)"


def test_files_and_folders_are_looked_up_below_the_root(host, tmp_path):
    (tmp_path / "sys/module").mkdir(parents=True)
    (tmp_path / "sys/module/version").write_text("550.54.15\n")

    assert host.read("/sys/module/version") == "550.54.15\n"
    assert host.read_bytes("/sys/module/version") == b"550.54.15\n"
    assert host.names("/sys") == ("module",)
    assert host.exists("/sys/module")
    assert not host.exists("/proc")


def test_what_cannot_be_read_says_why(host):
    assert host.read("/nowhere") == Missing("/nowhere: No such file or directory")
    assert host.read_bytes("/nowhere") == Missing("/nowhere: No such file or directory")
    assert host.names("/nowhere") == Missing("/nowhere: No such file or directory")
    assert host.read_log("/nowhere") == Missing("/nowhere: No such file or directory")
    assert host.capacity_bytes("/nowhere") == Missing("/nowhere: No such file or directory")
    assert host.owner("/nowhere") == Missing("/nowhere: No such file or directory")


def test_a_log_is_read_to_its_end_without_waiting(host, tmp_path):
    os.mkfifo(tmp_path / "kmsg")
    reader = os.open(tmp_path / "kmsg", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "kmsg", os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"6,1,100,-;first\n6,2,200,-;second\n")

    started = time.monotonic()
    records = host.read_log("/kmsg")  # the writer is still open: more could come

    os.close(reader)
    os.close(writer)
    assert time.monotonic() - started < 1
    assert records == ("6,1,100,-;first", "6,2,200,-;second")


def test_links_give_their_targets_name(host, tmp_path):
    (tmp_path / "driver").symlink_to("../../bus/pci/drivers/nouveau")

    assert host.link_target_name("/driver") == "nouveau"
    assert host.link_target_name("/kmsg") is None


def test_the_owner_of_a_file_is_known_by_name(host, tmp_path):
    (tmp_path / "mine").write_text("")

    assert host.owner("/mine") == (tmp_path / "mine").owner()


def test_capacity_is_total_and_used_bytes():
    total, used = Host().capacity_bytes("/")

    assert 0 < used <= total


def test_where_a_program_lies(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/tool"
    tool.write_text("")
    (tmp_path / "bin/text").write_text("")
    tool.chmod(0o755)
    monkeypatch.chdir(tmp_path)

    def which(program, path):
        return Host(environment={"PATH": path}).which(program)

    assert which("tool", f"/nowhere:{tmp_path}/bin") == str(tool)
    assert which(str(tool), "") == str(tool)
    assert which("bin/tool", "/nowhere") == "bin/tool"
    assert [which(name, f"{tmp_path}:{tmp_path}/bin") for name in ("text", "bin", "no")] == [
        None
    ] * 3
    monkeypatch.chdir(tmp_path / "bin")
    assert which("tool", "") is None  # not even from the folder that we are in
