import os
import subprocess
import sys

import pytest
from builders import gpu, snapshot

from gpudiag.diagnose import diagnose
from gpudiag.host import Host
from gpudiag.probes import PROBES, take_snapshot
from gpudiag.redact import Identity, identity_of, redact
from gpudiag.render import FORMS, render
from gpudiag.rules import RULES
from gpudiag.snapshot import GpuProcess, Package, Snapshot

ENVIRONMENT = next(probe for probe in PROBES if probe.section == "environment")
UUID = "GPU-6018366c-14b6-4b37-a8e9-1d4f1d7a4f0a"


def cleaned(text, **identity):
    seen = snapshot(env={"LD_LIBRARY_PATH": text})
    return redact(seen, Identity(**identity)).environment.get("LD_LIBRARY_PATH")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada.l/lib:/opt/lib", "~/lib:/opt/lib"),
        ("/Users/ada/lib", "~/lib"),
        ("/root/lib:/root", "~/lib:~"),
        ("/rootless/lib", "/rootless/lib"),
        ("/x/root/lib", "/x/root/lib"),
        ("/mnt/home/ada/lib", "/mnt/home/redacted/lib"),
        ("10.1.2.3:29500", "redacted:29500"),
        ("13.3.5.600", "13.3.5.600"),
        ("de:ad:be:ef:00:01", "redacted"),
        ("fe80:0:0:0:1:2:3:4", "redacted"),
        ("fe80::1", "redacted"),
        ("NVRM at 0000:1b:00.0", "NVRM at 0000:1b:00.0"),
        ("torchvision::nms c10::Error", "torchvision::nms c10::Error"),
        ("hf_abcdefghijklmnop", "redacted"),
        ("https://ada:secret@host/x", "https://redacted@host/x"),
        ("docker://nvcr.io:5000/nvidia/pytorch@sha256:abcdef",) * 2,
        ("http://wheels:8080/whl/torch-2.9.1@cu128/torch.whl",) * 2,
        (UUID, "GPU-6018366c"),
        ("NVRM: GPU Board Serial Number: 1654523004308", "NVRM: GPU Board Serial Number: redacted"),
        ("NVRM: GPU serial number is 1322621070435.", "NVRM: GPU serial number is redacted"),
        ("an interface enx00e04c6803a1", "an interface enxredacted"),
        ("ada.l@lab.example.org", "redacted"),
        ("--token=abc123 --password s3cret", "--token=redacted --password redacted"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", "redacted"),
        ("ghs_abcdefghijklmnop glpat-abcdefghijklmnop", "redacted redacted"),
        (
            "https://x.blob.core/f?se=1&sig=aBc%2F&sv=2",
            "https://x.blob.core/f?se=1&sig=redacted&sv=2",
        ),
        ("https://s3/f?X-Amz-Signature=fade", "https://s3/f?X-Amz-Signature=redacted"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic redacted"),
        ("'Authorization': 'Bearer abcdef'", "'Authorization': 'Bearer redacted'"),
        ("-H 'Bearer abcdefghijk'", "-H 'Bearer redacted'"),
        ("ASIAABCDEFGHIJKLMNOP", "redacted"),
        ("--api-key abcdef --lr 1", "--api-key redacted --lr 1"),
        ("password: hunter", "password: redacted"),
        ('{"api_key": "abcdef"}', '{"api_key": "redacted"}'),
        ("HF_TOKEN=abcdef", "HF_TOKEN=redacted"),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/redacted"),
        ("postgres://bob:p@ss/word@db", "postgres://redacted@db"),
        # what looks similar and is none of it
        ("a bearer token, a password is required",) * 2,
        ("SyntaxError: invalid token at line x; max_tokens=5 --password -v",) * 2,
        ("git+https://github.com/x/y@main http://proxy:3128/x",) * 2,
        ("tokenizers==0.21.1 serialize=1", "tokenizers==0.21.1 serialize=1"),
        ("a serial bus", "a serial bus"),
        ("undefined symbol: memcpy@GLIBC_2.14", "undefined symbol: memcpy@GLIBC_2.14"),
        ("__nvJitLinkComplete_12_4, version libnvJitLink.so.12",) * 2,
        (
            "Xid (PCI:0000:1b:00): 79, pid=77, name=python",
            "Xid (PCI:0000:1b:00): 79, pid=77, name=python",
        ),
        ("/dev/nvidia0 of torch 2.9.0+cu128", "/dev/nvidia0 of torch 2.9.0+cu128"),
    ],
)
def test_what_names_a_person_or_a_network_is_hidden(text, expected):
    assert cleaned(text) == expected


def test_the_host_that_the_ranks_meet_on_is_hidden_wherever_it_is():
    seen = redact(snapshot(env={"NCCL_COMM_ID": "login7.corp.example.com:4000", "NCCL_DEBUG": "I"}))

    assert seen.environment.get("NCCL_COMM_ID") == "redacted:4000"
    assert seen.environment.get("NCCL_DEBUG") == "I"


def test_the_host_name_is_hidden_as_a_word_with_its_domain():
    identity = {"host_name": "node07.lab.example.org"}

    assert cleaned("/data/node07/x:/node071", **identity) == "/data/redacted/x:/node071"
    assert cleaned("node07.lab.example.org:22", **identity) == "redacted:22"
    assert cleaned("localhost", host_name="localhost") == "localhost"


def test_the_user_and_an_unusual_home_are_hidden():
    identity = {"users": ("ada",), "home": "/mnt/people/ada"}

    assert cleaned("/mnt/people/ada/lib:/scratch/ada/x", **identity) == "~/lib:/scratch/redacted/x"
    assert cleaned("/opt/adamant", **identity) == "/opt/adamant"
    assert cleaned("/opt/ubuntu/x", users=("ubuntu",)) == "/opt/ubuntu/x"


@pytest.mark.parametrize("name", ["dev", "nvidia", "Torch", "gpu", "d"])
def test_a_user_or_host_called_like_a_thing_does_not_hide_the_thing(name):
    text = "/dev/nvidia0 gpu torch Torch d 7"

    assert cleaned(text, users=(name,), host_name=name) == text


def test_whoever_called_sudo_and_whose_job_it_is_are_hidden_too():
    variables = {"USER": "root", "SUDO_USER": "ada", "SLURM_JOB_USER": "bob", "HOME": "/root"}
    identity = identity_of(variables, login="carl", host_name="node07")

    seen = redact(snapshot(env={"PYTHONPATH": "/x/ada:/x/bob:/x/carl:/x/node07:/x/root"}), identity)

    hidden = "/x/redacted:" * 4
    assert seen.environment.get("PYTHONPATH") == f"{hidden}/x/root"


def test_users_of_processes_are_hidden_but_root():
    processes = (
        GpuProcess(pid=1, kind="compute", user="ada"),
        GpuProcess(pid=2, kind="compute", user="root"),
    )

    seen = redact(snapshot(gpus=[gpu(0, processes=processes)]))

    assert [p.user for p in seen.nvml.gpus[0].processes] == ["redacted", "root"]


def test_shortened_uuids_still_join_findings_and_variables():
    seen = redact(snapshot(gpus=[gpu(0, uuid=UUID)], env={"CUDA_VISIBLE_DEVICES": UUID}))

    assert seen.environment.get("CUDA_VISIBLE_DEVICES") == seen.nvml.gpus[0].uuid == "GPU-6018366c"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (UUID, "GPU-6018366c"),
        (UUID[:17], "GPU-6018366c"),
        (f"{UUID[:-1]}b", "GPU-6018366c-redacted"),
        (f"{UUID[:13]}f658,GPU-6018366c", "GPU-6018366c-redacted,GPU-6018366c"),
    ],
)
def test_a_uuid_that_is_wrong_at_its_end_is_still_that_of_no_gpu(value, expected):
    seen = redact(snapshot(gpus=[gpu(0, uuid=UUID)], env={"CUDA_VISIBLE_DEVICES": value}))

    assert seen.environment.get("CUDA_VISIBLE_DEVICES") == expected


def test_versions_that_look_like_addresses_are_kept():
    package = Package(name="nvidia-cudnn-cu12", version="9.1.0.70", folder="/home/ada/lib")

    seen = redact(snapshot(packages={"installed": (package,)}))

    assert seen.packages.installed[0].version == "9.1.0.70"
    assert seen.packages.installed[0].folder == "~/lib"


SECRETS = (
    *("node07", "10.9.8.7", "ada", "de:ad:be:ef:00:01", "hf_abcdefghijklmnop", "1654523004308"),
    *("fe80::1", "ada.l@lab.example.org", "00e04c6803a1", "hunter2"),
)
PLANTED = (
    "node07 10.9.8.7 ada de:ad:be:ef:00:01 hf_abcdefghijklmnop serial number 1654523004308 fe80::1 "
    "ada.l@lab.example.org enx00e04c6803a1 /home/ada/x https://ada:hunter2@host/"
)


def planted_files():
    """Secrets in every file that a probe reads text from."""
    display = "sys/bus/pci/devices/0000:1b:00.0"
    return {
        "proc/cmdline": f"root=/dev/sda1 nvidia.x={PLANTED.replace(' ', '_')}",
        "dev/kmsg": f"6,1,0,-;NVRM: {PLANTED}\n",
        "etc/os-release": f'PRETTY_NAME="Linux of {PLANTED}"\n',
        "proc/driver/nvidia/params": f"RegistryDwords: {PLANTED}\n",
        "proc/driver/nvidia/version": f"NVRM version: Kernel Module  550.54.15  {PLANTED}\n",
        "sys/module/nvidia/version": f"{PLANTED}\n",
        f"{display}/vendor": "0x10de\n",
        f"{display}/class": "0x030200\n",
        f"{display}/device": f"{PLANTED}\n",
        "proc/30/stat": f"30 ({PLANTED}) D 1",
        "proc/30/wchan": f"nvidia_ioctl {PLANTED}",
        "proc/1/cgroup": f"0::/docker/{PLANTED}",
        "sys/class/dmi/id/sys_vendor": f"{PLANTED}\n",
        "sys/class/dmi/id/product_name": f"{PLANTED}\n",
        "usr/local/cuda/bin/nvcc": PLANTED,
        "usr/local/cuda/version.json": PLANTED,
        "sys/class/net/enx00e04c6803a1/address": PLANTED,
        "sys/class/infiniband/mlx5_node07/node_guid": PLANTED,
    }


@pytest.fixture
def full_of_secrets(tmp_path):
    """A machine with secrets wherever a probe looks; where one refuses, the reason holds them."""
    for path, text in planted_files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for program in ("modinfo", "nv-fabricmanager"):
        (programs / program).write_text(f"#!/bin/sh\necho '{PLANTED}' | tee /dev/stderr; exit 1\n")
        (programs / program).chmod(0o755)
    package = tmp_path / "torch"
    package.mkdir()
    (package / "version.py").write_text("__version__ = '2.9.0'\ncuda = '12.8'\n")
    (package / "__init__.py").write_text(f"raise ImportError({PLANTED!r})\n")
    variables = {
        **dict.fromkeys(("LD_LIBRARY_PATH", "NCCL_SOCKET_IFNAME", "CUDA_VIDIBLE_DEVICES"), PLANTED),
        **dict.fromkeys(("NCCL_TOPO_FILE", "SLURM_NNODES", "CC", "CUDA_HOME"), f"/{PLANTED}"),
        **dict.fromkeys(("MY_PASSWORD", "SLURM_JOB_USER", "NVIDIA_API_KEY", "USER"), PLANTED),
        "PYTHONPATH": str(tmp_path),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    return Host(root=tmp_path, environment=variables)


@pytest.mark.parametrize(
    "name",
    [
        *("CUDA_PWD", "TORCH_PASSPHRASE", "NCCL_COOKIE", "PYTORCH_PASS", "NVIDIA_DB_PASS2"),
        *("CUDA_CREDS", "torch_x_pwd", "NCCL_AUTH_FILE", "TORCH_CREDENTIALS", "NVIDIA_PASSWD_X"),
    ],
)
def test_a_variable_that_speaks_of_a_secret_is_not_recorded(name):
    host = Host(environment={name: "hunter2", "NCCL_DEBUG": "INFO"})

    seen = take_snapshot(host, probes=(ENVIRONMENT,))

    assert [variable.name for variable in seen.environment.variables] == ["NCCL_DEBUG"]
    assert "hunter2" not in seen.to_json()


@pytest.mark.parametrize("name", ["NVIDIA_BYPASS", "TORCH_COMPASS_PATH", "CUDA_PASSES"])
def test_a_variable_that_only_sounds_like_a_secret_is_recorded(name):
    seen = take_snapshot(Host(environment={name: "1"}), probes=(ENVIRONMENT,))

    assert seen.environment.get(name) == "1"


def test_python_hides_what_the_command_hides(nvml, tmp_path):
    library = tmp_path / "bert" / "lib"
    library.mkdir(parents=True)
    (library / "torch.py").write_text("raise ImportError('none here')")
    program = (
        "import gpudiag\n"
        "for how in ({}, {'redacted': False}):\n"
        "    text = gpudiag.snapshot(torch=False, **how).to_json()\n"
        f"    print({UUID[:12]!r} in text, [part in text for part in ('10.9.8.7', 'bert/lib')],\n"
        "        gpudiag.Snapshot.from_json(text).nvml.gpus[0].uuid)\n"
        "print(gpudiag.diagnose().snapshot.nvml.gpus[0].uuid)\n"
        "print(gpudiag.devices().uuid[0])\n"
    )
    secret = {"USER": "bert", "NCCL_SOCKET_IFNAME": "10.9.8.7", "LD_PRELOAD": ""}
    env = os.environ | nvml("healthy_8", changes={"gpu.0.uuid": UUID}) | secret

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=env | {"PYTHONPATH": str(library)},
    )

    assert done.stdout.splitlines() == [
        "True [False, False] GPU-6018366c",
        f"True [True, True] {UUID}",
        "GPU-6018366c",
        UUID,
    ]


IDENTITY = Identity(users=("ada",), home="/home/ada", host_name="node07")


def test_planted_secrets_are_nowhere_in_the_output(full_of_secrets):
    seen = take_snapshot(full_of_secrets)

    text = redact(seen, IDENTITY).to_json()

    assert [secret for secret in SECRETS if secret in seen.to_json()] == list(SECRETS)
    assert [secret for secret in SECRETS if secret in text] == []
    assert Snapshot.from_json(text).torch.version == "2.9.0"


@pytest.mark.parametrize("form", FORMS)
def test_planted_secrets_are_in_no_form_of_the_report(full_of_secrets, form):
    seen = redact(take_snapshot(full_of_secrets, torch=False), IDENTITY)

    text = render(diagnose(seen, RULES), form, verbose=True)

    assert [secret for secret in SECRETS if secret in text] == []


def test_planted_secrets_of_nvml_are_hidden(nvml):
    changes = {"gpu.0.name": PLANTED, "gpu.1.vbios_version": PLANTED, "gpu.2.serial": "secret77"}
    host = Host(environment=os.environ | nvml("healthy_8", changes=changes))

    text = redact(take_snapshot(host, torch=False), IDENTITY).to_json()

    assert [secret for secret in (*SECRETS, "secret77") if secret in text] == []
