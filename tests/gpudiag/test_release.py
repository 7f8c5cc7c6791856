"""Release: real processes left behind are ended, and no others."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import GIB, snapshot

from gpudiag.commands.release import _agreed
from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.memory.release import plan
from gpudiag.probes.holders import Handles, Seen, holder
from gpudiag.snapshot import Missing

READY = (
    "import signal, sys, time; {}; print(0, flush=True)\n"
    "for _ in range(1200): time.sleep(0.05)"  # one long sleep would not see a signal just before it
)
WILLING = READY.format("pass")
STUBBORN = READY.format("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
# As it ends, the scenario says that its memory came back.
HONEST = READY.format(
    "signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], 'a').write("
    "'\\ngpu.0.memory_used_bytes = 1073741824\\n'), sys.exit(0)))"
)
LAUNCHER = (
    "import signal, subprocess, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "worker = subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], stdout=subprocess.PIPE); "
    "worker.stdout.readline(); print(worker.pid, flush=True)"
)


@pytest.fixture
def orphan():
    """A worker whose launcher has ended; `program` prints a line when it is ready."""
    pids = []

    def start(program=WILLING, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", LAUNCHER, program, *arguments],
            stdout=subprocess.PIPE,
            check=True,
            start_new_session=True,
        )
        pids.append(int(done.stdout))
        return pids[-1]

    yield start
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def release(nvml):
    def command(*options, orphan, say="", scenario=None, base="healthy_8", changes=None):
        held = {"gpu.0.process.0": f"{orphan} {3 * GIB} compute"} | (changes or {})
        return subprocess.run(
            [sys.executable, "-m", "gpudiag", "release", *options],
            input=say,
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | (scenario or nvml(base, changes=held)),
        )

    return command


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_orphan_is_shown_asked_about_and_ended(release, orphan):
    pid = orphan()

    done = release(orphan=pid, say="y\n")

    assert not is_alive(pid)
    assert "its parent is gone" in done.stdout
    assert done.stdout.endswith(
        "Send SIGTERM to them? [y/N]: 1 of 1 ended\nGPU 0: +0.00 GiB free (+0 bytes)\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_memory_that_came_back_is_told(release, orphan, nvml):
    env = nvml("healthy_8", changes={"gpu.0.memory_used_bytes": str(4 * GIB)})
    scenario = Path(env["NVML_SIMULATOR_SCENARIO"])
    pid = orphan(HONEST, str(scenario))
    held = f"gpu.0.process.0 = {pid} {3 * GIB} compute"
    lines = [line for line in scenario.read_text().splitlines() if "gpu.0.process.0 " not in line]
    scenario.write_text("\n".join([*lines, held]))

    done = release("--yes", orphan=pid, scenario=env)

    assert done.stdout.endswith("1 of 1 ended\nGPU 0: +3.00 GiB free (+3,221,225,472 bytes)\n")


@pytest.mark.parametrize(("options", "say"), [(["--dry-run"], ""), ([], "n\n")])
def test_without_a_yes_nothing_is_ended(release, orphan, options, say):
    pid = orphan()

    done = release(*options, orphan=pid, say=say)

    assert is_alive(pid)
    assert done.stdout.endswith("nothing was ended\n")
    assert done.returncode == 1


def test_where_nobody_can_answer_nothing_is_ended(release, orphan):
    pid = orphan()

    done = release(orphan=pid)

    assert is_alive(pid)
    assert done.returncode == 2
    assert done.stderr == (
        "gpudiag: expected an answer, got the end of the input: nothing was done; "
        "--yes goes without\n"
    )


def test_one_that_ignores_sigterm_is_asked_about_again(release, orphan):
    pid = orphan(STUBBORN)

    started = time.monotonic()
    done = release(orphan=pid, say="y\ny\n")

    assert time.monotonic() - started >= 10
    assert f"{pid}: it did not end within 10 s of SIGTERM\nSend SIGKILL to what is left?" in (
        done.stdout
    )
    assert not is_alive(pid)
    assert done.returncode == 0


def test_where_nobody_answers_it_says_what_was_done_so_far(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    with pytest.raises(InputError, match="end of the input: SIGTERM was sent; --yes goes without"):
        _agreed("Send SIGKILL to what is left?", yes=False, so_far="SIGTERM was sent")


def test_a_living_trainer_is_left_alone_unless_it_is_named(release):
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        first = release("--yes", orphan=trainer.pid)
        assert first.stdout == "no process of yours is left behind on a GPU\n"
        assert trainer.poll() is None

        second = release("--yes", "--pid", str(trainer.pid), orphan=trainer.pid)

        assert "1 of 1 ended" in second.stdout
        assert trainer.wait(5) == -signal.SIGTERM
    finally:
        trainer.kill()
        trainer.wait()


def test_a_stopped_job_is_ended(release):
    job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        job.send_signal(signal.SIGSTOP)
        os.waitpid(job.pid, os.WUNTRACED)

        done = release("--yes", orphan=job.pid)

        assert "it is stopped (Ctrl-Z, or SIGSTOP)" in done.stdout
        assert "1 of 1 ended\n" in done.stdout
        assert job.wait(5) == -signal.SIGTERM
    finally:
        job.kill()
        job.wait()


def test_a_process_without_gpu_memory_is_refused(release, orphan):
    idle = orphan()

    done = release("--yes", "--pid", str(idle), orphan=1)

    assert is_alive(idle)
    assert f"not {idle}: it holds no GPU memory that can be seen from here\n" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("driver_not_loaded", "who is on a GPU is not known: NVML did not start"),
        ("healthy_8", "GPU 5, 6, 7: NVML was asked and did not answer"),
    ],
)
def test_a_gpu_that_was_not_asked_is_no_proof_that_nothing_is_left(release, orphan, base, said):
    pid = orphan()

    done = release(
        "--yes",
        orphan=1,
        changes={"gpu.5.handle": "crash", "gpu.5.process.0": f"{pid} {3 * GIB} compute"},
        base=base,
    )

    assert done.stdout == "no process of yours is seen on a GPU\n"
    assert done.stderr.startswith(f"gpudiag: {said}")
    assert done.returncode == 1
    assert is_alive(pid)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_has_nobody_left_behind():
    done = subprocess.run(
        [sys.executable, "-m", "gpudiag", "release", "--yes"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "no process of yours is left behind on a GPU\n"


def refusal(seen_holder, host=None):
    seen = Seen(holders={seen_holder.pid: seen_holder}, handles=Handles(nodes={}, unreadable=0))
    chosen = plan(host or Host(), snapshot(gpus=[]), seen, pids=[seen_holder.pid])
    assert chosen.victims == ()
    return chosen.refused[seen_holder.pid]


def described(pid, **changes):
    import msgspec

    return msgspec.structs.replace(holder(Host(), pid), **changes)


def test_itself_and_its_ancestors_are_refused():
    for pid in (os.getpid(), os.getppid()):
        assert refusal(described(pid)) == "it is gpudiag itself, or what gpudiag was started by"


def test_processes_of_others_are_refused(orphan):
    theirs = described(orphan(), uid=os.getuid() + 1, user="ada")

    assert refusal(theirs) == "it belongs to ada"
    assert refusal(described(theirs.pid, uid=Missing("gone"), user=Missing("gone"))) == (
        "it belongs to another user"
    )


def test_a_number_that_was_given_to_another_process_is_refused(orphan):
    pid = orphan()
    reused = described(pid, start_ticks=described(pid).start_ticks - 1)

    assert refusal(reused) == f"{pid} is another process now than when it was listed"
    assert is_alive(pid)


def test_one_that_ended_meanwhile_is_refused():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as brief:
        gone = described(brief.pid, state="sleeping")

    assert refusal(gone) == f"process {gone.pid} has ended"


def test_the_dead_are_refused():
    brief = subprocess.Popen([sys.executable, "-c", ""])
    limit = time.monotonic() + 10
    while is_alive(brief.pid):
        assert time.monotonic() < limit
        time.sleep(0.01)

    assert refusal(described(brief.pid)) == (
        f"it is dead already; only the end of its parent {os.getpid()} removes it"
    )
    brief.wait()
