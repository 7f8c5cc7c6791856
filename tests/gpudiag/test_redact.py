import pytest
from builders import gpu, snapshot

from gpudiag.redact import redact
from gpudiag.snapshot import GpuProcess, KernelEvent, Package

UUID = "GPU-6018366c-14b6-4b37-a8e9-1d4f1d7a4f0a"


def cleaned(text, **how):
    return redact(snapshot(env={"LD_LIBRARY_PATH": text}), **how).environment.get("LD_LIBRARY_PATH")


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
        ("hf_abcdefghijklmnop", "redacted"),
        ("https://ada:secret@host/x", "https://redacted@host/x"),
        (UUID, "GPU-6018366c"),
    ],
)
def test_what_names_a_person_or_a_network_is_hidden(text, expected):
    assert cleaned(text) == expected


def test_the_host_name_is_hidden_as_a_word():
    assert cleaned("/data/node07/x:/node071", host_name="node07") == "/data/redacted/x:/node071"
    assert cleaned("localhost", host_name="localhost") == "localhost"


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


def test_planted_secrets_are_nowhere_in_the_output():
    event = KernelEvent(text="NVRM: node07 at 10.9.8.7 for /home/ada/run")

    text = redact(
        snapshot(
            events=(event,),
            torch={"import_error": "OSError: /home/ada/venv/lib: node07"},
            env={"NCCL_SOCKET_IFNAME": "10.9.8.7"},
        ),
        host_name="node07",
    ).to_json()

    assert not [secret for secret in ("node07", "10.9.8.7", "ada") if secret in text]
