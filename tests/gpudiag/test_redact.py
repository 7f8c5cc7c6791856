import os

import pytest
from builders import gpu, snapshot

from gpudiag.host import Host
from gpudiag.probes import take_snapshot
from gpudiag.redact import Identity, redact
from gpudiag.snapshot import GpuProcess, Package, Snapshot

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
        ("10.1.2.3:29500", "redacted:29500"),
        ("13.3.5.600", "13.3.5.600"),
        ("de:ad:be:ef:00:01", "redacted"),
        ("fe80:0:0:0:1:2:3:4", "redacted"),
        ("fe80::1", "redacted"),
        ("NVRM at 0000:1b:00.0", "NVRM at 0000:1b:00.0"),
        ("torchvision::nms c10::Error", "torchvision::nms c10::Error"),
        ("hf_abcdefghijklmnop", "redacted"),
        ("https://ada:secret@host/x", "https://redacted@host/x"),
        (UUID, "GPU-6018366c"),
    ],
)
def test_what_names_a_person_or_a_network_is_hidden(text, expected):
    assert cleaned(text) == expected


def test_the_host_name_is_hidden_as_a_word_with_its_domain():
    identity = {"host_name": "node07.lab.example.org"}

    assert cleaned("/data/node07/x:/node071", **identity) == "/data/redacted/x:/node071"
    assert cleaned("node07.lab.example.org:22", **identity) == "redacted:22"
    assert cleaned("localhost", host_name="localhost") == "localhost"


def test_the_user_and_an_unusual_home_are_hidden():
    identity = {"user": "ada", "home": "/mnt/people/ada"}

    assert cleaned("/mnt/people/ada/lib:/scratch/ada/x", **identity) == "~/lib:/scratch/redacted/x"
    assert cleaned("/opt/adamant", **identity) == "/opt/adamant"
    assert cleaned("/opt/ubuntu/x", user="ubuntu") == "/opt/ubuntu/x"


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


def test_versions_that_look_like_addresses_are_kept():
    package = Package(name="nvidia-cudnn-cu12", version="9.1.0.70", folder="/home/ada/lib")

    seen = redact(snapshot(packages={"installed": (package,)}))

    assert seen.packages.installed[0].version == "9.1.0.70"
    assert seen.packages.installed[0].folder == "~/lib"


SECRETS = ("node07", "10.9.8.7", "ada", "de:ad:be:ef:00:01", "hf_abcdefghijklmnop", "hunter2")


def test_planted_secrets_are_nowhere_in_the_output(tmp_path):
    """Secrets in every place that a probe reads; the whole snapshot is searched."""
    planted = " ".join(SECRETS[:-1]) + " /home/ada/x https://ada:hunter2@host/"
    files = {
        "proc/cmdline": f"root=/dev/sda1 nvidia.x={planted.replace(' ', '_')}",
        "dev/kmsg": f"6,1,0,-;NVRM: {planted}\n",
        "etc/os-release": f'PRETTY_NAME="Linux of {planted}"\n',
        "proc/driver/nvidia/params": f"RegistryDwords: {planted}\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    package = tmp_path / "torch"
    package.mkdir()
    (package / "version.py").write_text("__version__ = '2.9.0'\ncuda = '12.8'\n")
    (package / "__init__.py").write_text(f"raise ImportError({planted!r})\n")
    variables = {
        **dict.fromkeys(("LD_LIBRARY_PATH", "NCCL_SOCKET_IFNAME", "CUDA_VIDIBLE_DEVICES"), planted),
        **dict.fromkeys(("MY_PASSWORD", "SLURM_JOB_USER", "NVIDIA_API_KEY", "USER"), planted),
        "PYTHONPATH": str(tmp_path),
        "PATH": os.environ["PATH"],
    }

    seen = take_snapshot(Host(root=tmp_path, environment=variables))
    text = redact(seen, Identity(user="ada", home="/home/ada", host_name="node07")).to_json()

    assert [secret for secret in SECRETS if secret in seen.to_json()] == list(SECRETS)
    assert [secret for secret in SECRETS if secret in text] == []
    assert Snapshot.from_json(text).torch.version == "2.9.0"
