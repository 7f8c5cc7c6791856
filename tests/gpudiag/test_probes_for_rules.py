"""Facts that single rules need: files in shared memory, the toolkit, what variables name."""

import sys

import pytest
from builders import only, snapshot

from gpudiag.host import Host
from gpudiag.probes import topology
from gpudiag.probes.environment import environment
from gpudiag.probes.kernel_log import OF_INTEREST
from gpudiag.probes.packages import packages, requirements
from gpudiag.probes.system import system
from gpudiag.rules.packages import nvidia_wheels_of_other_versions
from gpudiag.rules.requirement import PINNING, satisfied
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


def test_what_torch_requires_through_the_toolkits_extras_is_known(tmp_path):
    """As torch 2.15 and cuda-toolkit 13.2.2 write it."""
    linux = 'platform_system == "Linux"'
    on_linux = "sys_platform == 'linux' and platform_machine == 'x86_64'"
    torch = (
        "Name: torch\nVersion: 2.15.0\n"
        f"Requires-Dist: cuda-toolkit[cublas,nvjitlink]==13.2.2; {linux}\n"
        f"Requires-Dist: cuda-bindings<14,>=13.0.3; {linux}\n"
        f"Requires-Dist: nvidia-cudnn-cu13==9.26.0.51; {linux}\n"
        "Requires-Dist: setuptools>=77.0.3\n"
        'Requires-Dist: optree>=0.13.0; extra == "optree"\n\nText\n'
    )
    toolkit = (
        "Name: cuda-toolkit\nVersion: 13.2.2\n"
        f"Requires-Dist: nvidia-cublas==13.4.1.3.*; ({on_linux}) and extra == 'all'\n"
        f"Requires-Dist: nvidia-cublas==13.4.1.3.*; ({on_linux}) and extra == 'cublas'\n"
        f"Requires-Dist: nvidia-cufft==12.2.0.57.*; ({on_linux}) and extra == 'cufft'\n"
        f"Requires-Dist: nvidia-nvjitlink<14,>=13.2.86; ({on_linux}) and extra == 'nvjitlink'\n\n"
    )
    write(
        tmp_path,
        {
            "/lib/torch-2.15.0.dist-info/METADATA": torch,
            "/lib/cuda_toolkit-13.2.2.dist-info/METADATA": toolkit,
        },
    )
    installed = (
        Package(name="torch", version="2.15.0", folder="/lib"),
        Package(name="cuda-toolkit", version="13.2.2", folder="/lib"),
        Package(name="nvidia-cublas", version="13.0.0.19", folder="/lib"),
    )

    found = requirements(Host(root=tmp_path, environment={}), installed)

    assert [(n.package, n.requires, n.specifier, n.installed) for n in found] == [
        ("torch", "cuda-toolkit", "==13.2.2", "13.2.2"),
        ("torch", "cuda-bindings", "<14,>=13.0.3", None),
        ("torch", "nvidia-cudnn-cu13", "==9.26.0.51", None),
        ("cuda-toolkit", "nvidia-cublas", "==13.4.1.3.*", "13.0.0.19"),
        ("cuda-toolkit", "nvidia-nvjitlink", "<14,>=13.2.86", None),
    ]
    assert found[3].marker == f"({on_linux})"
    finding = only(
        nvidia_wheels_of_other_versions,
        snapshot(
            packages={"installed": installed, "requirements": found},
            system={"architecture": "x86_64", "python_version": "3.11.9"},
        ),
    )
    assert finding.evidence == (
        "cuda-toolkit requires nvidia-cublas==13.4.1.3.*, installed is 13.0.0.19",
    )


def test_everything_that_the_installed_torch_pins_is_installed_as_it_pins_it():
    """The metadata of this very environment, whatever its torch is."""
    pytest.importorskip("torch")

    seen = packages(Host(), 5)

    pinned = {need.requires for need in seen.requirements if need.package in PINNING}
    of_wheels = {p.name for p in seen.installed if p.name.startswith("nvidia-")}
    assert [need for need in seen.requirements if need.package in PINNING and need.installed]
    assert of_wheels - pinned <= {"nvidia-ml-py", "nvidia-cuda-cccl"}
    assert [n for n in seen.requirements if n.installed and not satisfied(n)] == []


@pytest.mark.parametrize(
    ("variables", "scheduler"),
    [
        ({"SLURM_JOB_ID": "7"}, "slurm"),
        ({"PBS_JOBID": "7"}, "pbs"),
        ({"LSB_JOBID": "7"}, "lsf"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"SLURM_JOB_ID": "7", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "slurm"),
        ({}, None),
    ],
)
def test_the_scheduler_is_known_by_a_variable_of_its_own(tmp_path, variables, scheduler):
    host = Host(root=tmp_path, environment=variables)

    assert system(host, 5).scheduler == scheduler


def test_what_slurm_granted_is_recorded_and_who_asked_for_it_is_not(tmp_path):
    granted = {
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_ON_NODE": "32",
        "SLURM_MEM_PER_NODE": "65536",
        "SLURM_GPUS_PER_NODE": "h100:4",
    }
    personal = {"SLURM_JOB_USER": "ada", "SLURM_SUBMIT_HOST": "login1", "SLURM_JOB_NAME": "secret"}

    seen = environment(Host(root=tmp_path, environment=granted | personal), 5)

    assert {v.name: v.value for v in seen.variables} == granted


def test_an_environment_that_was_activated_through_a_link_is_the_same(tmp_path):
    link = tmp_path / "venv"
    link.symlink_to(sys.prefix)

    def prefix(active):
        return packages(Host(environment={"VIRTUAL_ENV": str(active)}), 5).prefix

    assert prefix(link) == str(link)
    assert prefix(tmp_path) == sys.prefix
