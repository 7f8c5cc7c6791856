"""Facts that single rules need: files in shared memory, the toolkit, what variables name."""

import pytest

from gpudiag.host import Host
from gpudiag.probes import topology
from gpudiag.probes.environment import environment
from gpudiag.probes.kernel_log import OF_INTEREST
from gpudiag.probes.packages import requirements
from gpudiag.probes.system import system
from gpudiag.snapshot import Missing, Package, Requirement, Variable

NO_PROGRAMS = {"PATH": "/nonexistent"}


def write(root, files):
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def test_the_files_of_nccl_in_shared_memory_are_counted(tmp_path):
    write(tmp_path, {"/dev/shm/nccl-a": "", "/dev/shm/nccl-b": "", "/dev/shm/torch_1": ""})

    assert system(Host(root=tmp_path, environment=NO_PROGRAMS), 5).nccl_segments == 2


def test_the_interfaces_of_the_network_are_listed(tmp_path):
    write(tmp_path, {"/sys/class/net/lo/x": "", "/sys/class/net/eth0/x": ""})

    seen = system(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert seen.network_interfaces == ("eth0", "lo")


VERSION = '{"cuda" : {"name" : "CUDA SDK", "version" : "12.4.1"}, "nccl" : {"version" : "2.1"}}'


@pytest.mark.parametrize(
    ("files", "variables", "expected"),
    [
        ({}, {}, None),
        ({"/usr/local/cuda/bin/nvcc": "", "/usr/local/cuda/version.json": VERSION}, {}, "12.4.1"),
        (
            {"/opt/cuda/bin/nvcc": "", "/opt/cuda/version.json": VERSION},
            {"CUDA_HOME": "/opt/cuda"},
            "12.4.1",
        ),
        ({"/usr/local/cuda/lib64/libcudart.so": ""}, {}, None),  # libraries alone compile nothing
    ],
)
def test_the_toolkit_is_the_one_an_extension_would_be_compiled_with(
    tmp_path, files, variables, expected
):
    write(tmp_path, files)

    seen = system(Host(root=tmp_path, environment=NO_PROGRAMS | variables), 5)

    assert seen.cuda_toolkit_version == expected


def test_a_toolkit_without_a_readable_version_is_a_gap(tmp_path):
    write(tmp_path, {"/usr/local/cuda/bin/nvcc": "", "/usr/local/cuda/version.json": "{}"})

    seen = system(Host(root=tmp_path, environment=NO_PROGRAMS), 5)

    assert isinstance(seen.cuda_toolkit_version, Missing)


def test_libibverbs_is_looked_for_where_the_loader_does(tmp_path):
    host = Host(root=tmp_path, environment=NO_PROGRAMS)
    assert topology.infiniband_library(host) is False

    write(tmp_path, {"/usr/lib/x86_64-linux-gnu/libibverbs.so.1.14.50.0": ""})

    assert topology.infiniband_library(host) is True


def test_a_variable_that_names_a_file_which_is_not_there_is_told(tmp_path):
    write(tmp_path, {"/opt/there.xml": ""})
    variables = {
        "NCCL_TOPO_FILE": "/opt/gone.xml",
        "NCCL_GRAPH_FILE": "/opt/there.xml",
        "CUDA_HOME": "relative/is/not/looked/for",
    }

    seen = environment(Host(root=tmp_path, environment=variables), 5)

    assert seen.dangling == (Variable(name="NCCL_TOPO_FILE", value="/opt/gone.xml"),)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Loading of module with unavailable key is rejected", True),
        ("Lockdown: modprobe: unsigned module loading is restricted", True),
        ("Out of memory: Killed process 77 (python) total-vm:1kB", True),
        ("python[7]: segfault at 0 ip 00 sp 00 error 4 in libnccl.so.2[7f+1]", True),
        ("firefox[7]: segfault at 0 ip 00 sp 00 error 4 in libxul.so[7f+1]", False),
        ("usb 1-1: new high-speed USB device", False),
    ],
)
def test_the_kernels_lines_on_modules_memory_and_crashes_are_kept(text, kept):
    assert bool(OF_INTEREST.search(text)) is kept


def test_what_is_compiled_for_torch_tells_which_torch(tmp_path):
    metadata = "Name: flash_attn\nVersion: 2.8.3\nRequires-Dist: torch==2.8.0\n\nText\n"
    write(tmp_path, {"/lib/flash_attn-2.8.3.dist-info/METADATA": metadata})
    installed = (
        Package(name="torch", version="2.9.0", folder="/lib"),
        Package(name="flash-attn", version="2.8.3", folder="/lib"),
    )

    found = requirements(Host(root=tmp_path, environment={}), installed)

    assert found == (
        Requirement(
            package="flash-attn",
            requires="torch",
            specifier="==2.8.0",
            marker="",
            installed="2.9.0",
        ),
    )
