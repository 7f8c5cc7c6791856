"""Programs and libraries that print garbage, half a line, megabytes, or nothing: no fact of it."""

import json
import os
import random
import re
import subprocess
import time

import pytest

from gpudiag import children
from gpudiag.diagnose import diagnose
from gpudiag.host import Host
from gpudiag.probes import Probe, take_snapshot
from gpudiag.probes.child import RECORD, spoken
from gpudiag.probes.driver import driver
from gpudiag.probes.kernel_log import LONGEST_LINE, kernel_log
from gpudiag.probes.nvml import nvml as ask_nvml
from gpudiag.probes.torch_build import torch_build
from gpudiag.programs import Completed
from gpudiag.rules import RULES
from gpudiag.snapshot import Driver, KernelLog, Missing, Snapshot, known

XID = b"NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus."
GARBAGE = {
    "binary": random.Random(7).randbytes(4096),
    "nothing": b"",
    "one newline": b"\n",
    "zeros": bytes(4096),
    "not UTF-8": b"\xff\xfe\x80\n" * 50,
    "half a line": b"NVRM: Xid (PCI:0000:1b",
    "half a version": b"550.",
    "megabytes of lines": b"\x1b[2Jno record of any kind\n" * 2**18,
    "a megabyte in one line": b"NVRM: " + b"x" * 2**20,
    "json of something else": b'{"version": 7, "init_code": "x", "gpu_count": [1]}\n[1]\n"a"\n7\n',
    "brackets": b"[" * 2**17,
}
PROGRAMS = ("modinfo", "nv-fabricmanager", "journalctl", "dmesg")


@pytest.fixture
def machine(tmp_path):
    """A host whose programs each print the given bytes and exit with a code."""

    def build(output, *, code=0, programs=PROGRAMS):
        for program in programs:
            file = tmp_path / "bin" / program
            file.parent.mkdir(exist_ok=True)
            (file.parent / "output").write_bytes(output)
            file.write_text(f"#!/bin/sh\n/bin/cat {file.parent}/output\nexit {code}\n")
            file.chmod(0o755)
        return Host(root=tmp_path, environment={"PATH": f"{tmp_path}/bin"})

    return build


def test_every_program_that_a_probe_runs_is_stood_in_for():
    """Those in the source; the children of gpudiag's own are below."""
    sources = [path.read_text() for path in (children.HERE.parent / "probes").glob("*.py")]

    called = re.compile(r'host\.run\(\s*(?:\*\()?"([\w-]+)"')
    run = {name for text in sources for name in called.findall(text)}
    assert run == set(PROGRAMS)


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_neither_a_version_nor_a_clean_log(machine, kind, code):
    host = machine(GARBAGE[kind], code=code)

    pieces, log = driver(host, 20), kernel_log(host, 10)

    assert isinstance(pieces.module_on_disk_version, Missing)
    assert isinstance(pieces.fabric_manager_version, Missing)
    assert isinstance(log.events, Missing)
    reasons = (pieces.module_on_disk_version, pieces.fabric_manager_version, log.events)
    assert all(len(reason.missing) < 2000 for reason in reasons)
    seen = Snapshot(driver=pieces, kernel_log=log)
    assert Snapshot.from_json(seen.to_json()) == seen


@pytest.mark.parametrize("program", ["journalctl", "dmesg"])
def test_a_record_amid_garbage_is_found_and_a_long_one_cut(machine, program):
    start = b"2026-01-02T03:04:05+0000 " + (b"node kernel: " if program == "journalctl" else b"")
    record = start + XID + b"y" * 2**20
    host = machine(GARBAGE["binary"] + b"\n" + record + b"\n\xff\xff", programs=(program,))

    (event,) = known(kernel_log(host, 10).events)

    assert (event.xid, event.pci_address) == (79, "0000:1b:00")
    assert event.time.startswith("2026-01-02T03:04:05")
    assert len(event.text) == LONGEST_LINE


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_hangs_amid_its_output_is_not_waited_for(tmp_path, program):
    file = tmp_path / "bin" / program
    file.parent.mkdir()
    file.write_text("#!/bin/sh\nprintf '\\377half a li'\nexec /bin/sleep 60\n")
    file.chmod(0o755)
    host = Host(root=tmp_path, environment={"PATH": f"{tmp_path}/bin"})
    probes = (
        Probe(section="driver", kind=Driver, ask=driver, limit_s=2.0),
        Probe(section="kernel_log", kind=KernelLog, ask=kernel_log, limit_s=2.0),
    )

    started = time.monotonic()
    seen = take_snapshot(host, probes=probes)

    assert time.monotonic() - started < 10
    assert isinstance(seen.driver.module_on_disk_version, Missing)
    assert isinstance(seen.kernel_log.events, Missing)


# --- libraries within gpudiag's own children

NOISE = r"""
#include <stdio.h>
__attribute__((constructor)) static void noise(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("\xff\xfe{\"version\": 7, \"init_code\": 5}\n{\"python\": 7}\n[WARN] half a line");
    fprintf(stderr, "\x1b[2J\xff");
}
"""


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Variables under which every process prints garbage before it begins."""
    folder = tmp_path_factory.mktemp("noise")
    (folder / "noise.c").write_text(NOISE)
    command = ["gcc", "-shared", "-fPIC", "-o", "noise.so", "noise.c"]
    subprocess.run(command, cwd=folder, check=True)
    return {"LD_PRELOAD": str(folder / "noise.so")}


def test_a_library_that_prints_costs_no_fact_of_nvml(noise, nvml):
    variables = os.environ | nvml("healthy_8")

    quiet = ask_nvml(Host(environment=variables), 15)
    noisy = ask_nvml(Host(environment=variables | noise), 15)

    assert len(known(noisy.gpus)) == 8
    assert noisy == quiet


def test_a_library_that_prints_costs_no_fact_of_cuda(noise, tmp_path):
    quiet = driver(Host(root=tmp_path), 20)
    noisy = driver(Host(root=tmp_path, environment=os.environ | noise), 20)

    assert noisy.cuda_init_code == quiet.cuda_init_code
    assert noisy.libcuda_path == quiet.libcuda_path


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_torch_that_prints_costs_no_fact_of_its_files(tmp_path, kind):
    package = tmp_path / "torch"
    package.mkdir()
    (tmp_path / "output").write_bytes(GARBAGE[kind])
    (package / "version.py").write_text("__version__ = '2.9.0+cu128'\ncuda = '12.8'\nhip = None\n")
    (package / "__init__.py").write_text(
        "import os\n"
        f"data = open({str(tmp_path / 'output')!r}, 'rb').read()\n"
        "while data:\n    data = data[os.write(1, data):]\n"
        "raise ImportError('no kernel image')\n"
    )

    facts = torch_build(Host(environment=os.environ | {"PYTHONPATH": str(tmp_path)}), 20)

    assert (facts.version, facts.cuda_version) == ("2.9.0+cu128", "12.8")
    assert facts.import_error == "ImportError: no kernel image"


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_child_that_says_nothing_but_garbage_has_said_nothing(kind):
    text = GARBAGE[kind].decode(errors="replace")
    signed = f"{text}{RECORD}{json.dumps({'fact': 1})}\n"

    objects, failure = spoken(Completed(stdout=signed, stderr=text, exit_code=3, timeout_s=1))

    assert objects == [{"fact": 1}]
    assert failure.startswith("exit code 3")
    assert len(failure) < 1000


# --- files of /proc, /sys and /etc

FILES = (
    *("sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max", "proc/meminfo", "proc/uptime"),
    *("proc/cmdline", "proc/cpuinfo", "proc/version", "proc/1/cgroup", "etc/os-release"),
    *("proc/driver/nvidia/version", "proc/driver/nvidia/params", "sys/module/nvidia/version"),
    *("sys/class/dmi/id/sys_vendor", "sys/bus/pci/devices/0000:1b:00.0/vendor"),
    *("sys/bus/pci/devices/0000:1b:00.0/class", "sys/bus/pci/devices/0000:1b:00.0/config"),
    *("proc/30/stat", "proc/30/wchan", "dev/kmsg", "usr/local/cuda/bin/nvcc"),
    *("usr/local/cuda/version.json", "sys/firmware/efi/efivars/SecureBoot-" + "8be4df61" * 4),
)
IN_FILES = GARBAGE | {
    "a minus": b"-\n",
    "words": b"max max max\n",
    "zero of zero": b"0 0\n",
    "a huge number": b"9" * 5000 + b"\n",
    "a digit of another script": "²\n".encode(),
}


@pytest.mark.parametrize("kind", IN_FILES)
def test_a_garbled_file_costs_its_own_fact_and_no_other(tmp_path, kind):
    for path in FILES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(IN_FILES[kind][: 2**16])
    host = Host(root=tmp_path, environment={"PATH": "/nonexistent"})

    seen = take_snapshot(host, torch=False)

    assert isinstance(seen.system.kernel, str)
    assert isinstance(seen.system.cpu_affinity_count, int)
    assert isinstance(seen.driver.services, tuple)
    assert isinstance(seen.system.memory_total_bytes, Missing)
    assert Snapshot.from_json(seen.to_json()) == seen
    assert diagnose(seen, RULES).crashed == {}
