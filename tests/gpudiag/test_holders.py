"""Who holds GPU memory: real processes left behind, and trees of files for what cannot be made."""

import csv
import io
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import GIB, gpu, snapshot

from gpudiag.host import Host
from gpudiag.memory.suspects import explanation, suspects
from gpudiag.probes.holders import Handles, Holder, Seen, handles, holder
from gpudiag.snapshot import GpuProcess, Missing, Service

# A trainer that starts a worker, tells its number, and waits.
TRAINER = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "worker = subprocess.Popen([sys.executable, '-c', {worker!r}], **{how!r}); "
    "print(worker.pid, flush=True); time.sleep(60)"
)
SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def left_behind():
    """A real worker whose trainer was killed, as Ctrl-C or the OOM killer leaves it."""
    started = []

    def start(worker=SLEEP, *, kill=True, env=None, **how):
        trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER.format(worker=worker, how=how)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | (env or {}),
        )
        pid = int(trainer.stdout.readline())
        # exec closes the pipe that Popen waits for before the kernel knows the new arguments
        wait_until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes())
        started.append((trainer, pid))
        if kill:
            trainer.kill()
            trainer.wait()
            wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[3] != str(trainer.pid))
        return pid

    yield start
    for trainer, pid in started:
        trainer.kill()
        trainer.wait()
        trainer.stdout.close()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_until(true):
    limit = time.monotonic() + 10
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_worker_is_an_orphan_once_its_trainer_is_gone(left_behind):
    living, orphan = left_behind(kill=False), left_behind()

    assert holder(Host(), living).orphaned is None
    assert holder(Host(), orphan).orphaned == "its parent is gone"


def test_a_multiprocessing_worker_is_called_by_its_kind(left_behind):
    worker = "'from multiprocessing.spawn import spawn_main'; import time; time.sleep(60)"

    seen = holder(Host(), left_behind(worker))

    assert seen.orphaned == "a multiprocessing worker whose parent is gone"


@pytest.mark.parametrize("how", [{"start_new_session": True}, {"process_group": 0}])
def test_what_was_detached_on_purpose_is_no_orphan(left_behind, how):
    assert holder(Host(), left_behind(**how)).orphaned is None


def test_nohup_is_no_orphan(left_behind):
    nohup = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {SLEEP}"
    pid = left_behind(nohup)
    limit = time.monotonic() + 10
    while not ignores_hangup(pid) and time.monotonic() < limit:  # the program has to come so far
        time.sleep(0.01)

    assert holder(Host(), pid).orphaned is None


def ignores_hangup(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("SigIgn:")[2].split()[0], 16) & 1


# A trainer whose worker is torch's own, which waits in the data set.
DATA_LOADER = (
    "import os, signal, sys, time; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "import torch\n"
    "class Slow(torch.utils.data.Dataset):\n"
    "    def __len__(self): return 4\n"
    "    def __getitem__(self, index):\n"
    "        print(os.getpid(), flush=True); time.sleep(60); return index\n"
    "if __name__ == '__main__':\n"
    "    how = {{'num_workers': 1, 'multiprocessing_context': {how!r}}}\n"
    "    next(iter(torch.utils.data.DataLoader(Slow(), **how)))\n"
)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_data_loader_worker_without_its_trainer_is_an_orphan(tmp_path, how):
    """A forked worker is known by the name that torch gives it, a spawned one by its command."""
    pytest.importorskip("torch")
    script = tmp_path / "train.py"
    script.write_text(DATA_LOADER.format(how=how))
    trainer = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    pid = int(trainer.stdout.readline())
    try:
        assert holder(Host(), pid).orphaned is None
        trainer.kill()
        trainer.wait()
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[3] != str(trainer.pid))

        orphaned = holder(Host(), pid).orphaned

        assert orphaned in {
            "a DataLoader worker whose parent is gone",
            "a multiprocessing worker whose parent is gone",
        }
    finally:
        trainer.kill()
        trainer.wait()
        trainer.stdout.close()
        os.kill(pid, signal.SIGKILL)


EXIT_OF_ONE_THREAD = {"x86_64": 60, "aarch64": 93}  # the number of the system call


def test_a_child_of_a_zombie_is_an_orphan():
    """A main thread that has ended while another one runs: a zombie that still has its children."""
    program = (
        "import ctypes, subprocess, sys, threading, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])\n"
        "print(child.pid, flush=True)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        f"ctypes.CDLL(None).syscall({EXIT_OF_ONE_THREAD[platform.machine()]}, 0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        pid = int(parent.stdout.readline())
        try:
            wait_until(lambda: holder(Host(), parent.pid).state == "zombie")

            orphaned = holder(Host(), pid).orphaned
            assert orphaned.startswith(f"its parent {parent.pid} (python")
            assert orphaned.endswith(") is a zombie")
        finally:
            os.kill(pid, signal.SIGKILL)
            parent.kill()


def test_a_stopped_job_is_told(left_behind):
    pid = left_behind(kill=False)

    os.kill(pid, signal.SIGSTOP)

    wait_until(lambda: holder(Host(), pid).state == "stopped")
    assert holder(Host(), pid).orphaned == "it is stopped (Ctrl-Z, or SIGSTOP)"


def test_a_process_is_described(left_behind):
    seen = holder(Host(), left_behind(kill=False))

    assert seen.command.endswith(f"-c {SLEEP}")
    assert seen.uid == os.getuid()
    assert 0 <= seen.age_s < 60
    assert seen.state in {"sleeping", "running"}


def tree(folder, processes):
    """A /proc of processes: pid -> (name, state, parent, group, session), and its files."""
    for pid, ((name, state, parent, group, session), files) in processes.items():
        process = folder / f"proc/{pid}"
        (process / "fd").mkdir(parents=True)
        rest = " ".join(["0"] * 15)
        (process / "stat").write_text(f"{pid} ({name}) {state} {parent} {group} {session} {rest} 7")
        for file, content in files.items():
            if isinstance(content, Path):
                (process / "fd" / file).symlink_to(content)
            else:
                (process / file).write_text(content)
    return Host(root=folder, environment={})


def test_a_rank_of_torchrun_is_an_orphan_although_it_has_a_session_of_its_own(tmp_path):
    rank = {"environ": "A=1\0TORCHELASTIC_RUN_ID=x\0"}
    host = tree(
        tmp_path,
        {
            1: (("systemd", "S", 0, 1, 1), {}),
            40: (("python", "R", 1, 40, 40), rank),
            41: (("python", "R", 1, 41, 41), {}),
        },
    )

    assert holder(host, 40).orphaned == "a torchrun worker whose parent is gone"
    assert holder(host, 41).orphaned is None


def test_a_rank_whose_launcher_is_the_first_process_of_a_container_is_none(tmp_path):
    rank = {"environ": "TORCHELASTIC_RUN_ID=x\0"}
    host = tree(
        tmp_path,
        {1: (("torchrun", "S", 0, 1, 1), {}), 40: (("python", "R", 1, 40, 40), rank)},
    )

    assert holder(host, 40).orphaned is None


def test_the_dead_and_their_children_are_told(tmp_path):
    host = tree(
        tmp_path,
        {
            30: (("train) (er", "Z", 2, 30, 30), {}),
            31: (("python", "S", 30, 30, 30), {}),
        },
    )

    assert holder(host, 30).orphaned == "it is dead and waits for its parent 2 to notice"
    assert holder(host, 31).orphaned == "its parent 30 (train) (er) is a zombie"


@pytest.mark.parametrize(
    ("cgroup", "container"),
    [
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        (f"0::/system.slice/docker-{'ab12' * 16}.scope\n", "docker ab12ab12ab12"),
        (f"4:memory:/docker/{'ab12' * 16}\n", "docker ab12ab12ab12"),
        (
            f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{'cd34' * 16}.scope",
            "kubepods cd34cd34cd34",
        ),
    ],
)
def test_the_container_is_read_from_the_cgroup(tmp_path, cgroup, container):
    host = tree(tmp_path, {30: (("python", "S", 2, 30, 30), {"cgroup": cgroup})})

    assert holder(host, 30).container == container


def test_open_gpus_are_found_by_their_device_nodes(tmp_path):
    opened = {"3": Path("/dev/nvidia1"), "4": Path("/dev/nvidiactl"), "5": Path("/dev/nvidia1")}
    host = tree(
        tmp_path,
        {
            30: (("python", "S", 2, 30, 30), opened),
            31: (("bash", "S", 2, 31, 31), {"3": Path("/dev/nvme0")}),
            32: (("secret", "S", 2, 32, 32), {}),
        },
    )
    (tmp_path / "proc/32/fd").rmdir()

    assert handles(host) == Handles(nodes={30: ("nvidia1",)}, unreadable=1)


def seen_by(holders=(), **facts):
    listed = {"nodes": {}, "unreadable": 0} | facts
    return Seen(holders={one.pid: one for one in holders}, handles=Handles(**listed))


HIDDEN = gpu(
    0,
    minor_number=3,
    memory_used_bytes=5 * GIB,
    memory_reserved_bytes=GIB,
    processes=(GpuProcess(pid=7, kind="compute", used_bytes=GIB, visible=False),),
)


def test_suspects_are_named_the_surest_first():
    worker = Holder(
        pid=9,
        start_ticks=1,
        parent_pid=1,
        user="ada",
        command="python train.py",
        container="docker ab12ab12ab12",
        orphaned="its parent is gone",
    )
    seen = snapshot(
        gpus=[HIDDEN],
        driver={"services": (Service(name="nvidia-cuda-mps-control", running=True),)},
        system={"container": "docker"},
    )

    text = explanation(seen, seen_by([worker], nodes={9: ("nvidia3",)}, unreadable=2))

    assert text == (
        "GPU 0: 6.00 GiB in use = 1.00 by processes + 4.00 unaccounted for + 1.00 of the driver's "
        "own\n"
        "  what is unaccounted for could be held by\n"
        "  - process 9 of ada: python train.py, in container docker ab12ab12ab12, orphaned: its "
        "parent is gone, which has /dev/nvidia3 open\n"
        "  - process 7, which NVML names and /proc does not: of another container, or dead\n"
        "  - the MPS server, in the name of its clients (nvidia-cuda-mps-control runs)\n"
        "  - one of 2 processes whose open files only root may list: sudo gpudiag memory\n"
        "  - a process outside of this container (docker): look from the host"
    )


def test_without_any_suspect_the_driver_is_one():
    hidden = gpu(0, memory_used_bytes=GIB, processes=())

    assert suspects(hidden, snapshot(gpus=[hidden]), seen_by()) == (
        "a process that died and whose memory the driver keeps: gpudiag reset explains the way",
    )


def test_memory_that_is_accounted_for_has_no_suspects():
    held = (GpuProcess(pid=7, kind="compute", used_bytes=GIB),)
    full = gpu(0, memory_used_bytes=GIB + 1, processes=held)

    assert suspects(full, snapshot(gpus=[full]), seen_by()) == ()


def test_what_is_not_known_is_said():
    text = explanation(snapshot(gpus=[gpu(0, memory_used_bytes=Missing("gone"))]), seen_by())

    assert text == "GPU 0: not known: gone"


def gpudiag(*arguments, env):
    return subprocess.run(
        [sys.executable, "-m", "gpudiag", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | env,
    ).stdout


def test_the_command_processes_tells_the_orphan(nvml, left_behind):
    pid = left_behind()
    env = nvml("healthy_8", changes={"gpu.0.process.0": f"{pid} {3 * GIB} compute"})

    rows = list(csv.DictReader(io.StringIO(gpudiag("processes", "--format", "csv", env=env))))
    text = gpudiag("processes", env=env).splitlines()

    assert (rows[0]["pid"], rows[0]["orphaned"]) == (str(pid), "its parent is gone")
    assert rows[0]["used_bytes"] == str(3 * GIB)
    assert (rows[1]["pid"], rows[1]["orphaned"]) == ("41201", "")
    assert text[0].split()[:4] == ["index", "pid", "user", "used"]
    assert "its parent is gone" in text[2]


def test_the_command_memory_explains_what_is_hidden(nvml):
    text = gpudiag("memory", env=nvml("hidden_memory"))

    assert (
        "GPU 0: 40.53 GiB in use = 0.00 by processes + 40.00 unaccounted for + 0.53 of the "
        "driver's own\n  what is unaccounted for could be held by\n  - "
    ) in text
    assert "\nGPU 7: 76.45 GiB in use = 75.92 by processes + 0.00 unaccounted for" in text
