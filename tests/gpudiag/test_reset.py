"""Reset, against a stand-in for nvidia-smi with the real one's texts and exit codes.

The texts: https://github.com/NVIDIA/NVSentinel/issues/1690 and
https://github.com/NVIDIA/k8s-test-infra/issues/759; the exit codes: "Return Value" in
https://docs.nvidia.com/deploy/nvidia-smi/index.html. Nothing here runs the real program.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
from builders import gpu, snapshot

import gpudiag
from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.reset import find, perform, prepare
from gpudiag.snapshot import GpuPair, GpuProcess, Missing, Service

# Persistence mode and a holder are files beside it; what it was asked goes to `asked`.
STAND_IN = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> asked
case "$*" in
  --help) cat help ;;
  *"-pm 0") test -e forbidden && {
      echo "Unable to set persistence mode for GPU 00000000:1B:00.0: Insufficient Permissions"
      echo "Terminating early due to previous errors."; exit 4; }
    rm -f persistent
    echo "Disabled persistence mode for GPU 00000000:1B:00.0."; echo "All done." ;;
  *"-pm 1") test -e stuck && { echo "Unable to set persistence mode" ; exit 3; }
    touch persistent
    echo "Enabled persistence mode for GPU 00000000:1B:00.0."; echo "All done." ;;
  --gpu-reset*)
    test -e hangs && sleep 60
    if test -e persistent || test -e held; then
      echo "The following GPUs could not be reset:"
      echo "  GPU 00000000:1B:00.0: In use by another client"
      echo
      echo "1 device is currently being used by one or more other processes (e.g. Fabric Manager,"
      exit 255
    fi
    echo "GPU 00000000:1B:00.0 was successfully reset."; echo "All done." ;;
  *--query-gpu=uuid*) test -e dead && {
      echo "Unable to determine the device handle for GPU0000:1B:00.0: Unknown Error"; exit 255; }
    echo GPU-00000000 ;;
esac
"""


@pytest.fixture
def smi(tmp_path):
    """A folder with the stand-in, which takes the place of the real program on PATH."""
    folder = tmp_path / "smi"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(STAND_IN)
    (folder / "nvidia-smi").chmod(0o755)
    (folder / "help").write_text("    -r    --gpu-reset             Trigger reset of the GPU.\n")
    (folder / "persistent").touch()
    return folder


@pytest.fixture
def host(smi, tmp_path):
    (tmp_path / "root/proc").mkdir(parents=True)
    path = f"{smi}:{os.environ['PATH']}"
    return Host(root=tmp_path / "root", environment={"PATH": path})


def h100(index=0, **facts):
    return gpu(
        index,
        **{
            "name": "NVIDIA H100 80GB HBM3",
            "pci_address": f"0000:{index + 27:02x}:00.0",
            "architecture": "hopper",
            "persistence_enabled": True,
            "display_active": False,
            "mig_uuids": (),
            "processes": (),
            "nvlink_active": (),
        }
        | facts,
    )


def machine(*gpus, **sections):
    return snapshot(
        **{"gpus": gpus or (h100(),), "system": {"is_root": True}, "driver": {"services": ()}}
        | sections
    )


def refusals(host, seen, wanted=("0",)):
    return [str(obstacle) for obstacle in prepare(host, seen, wanted).refusals]


def test_persistence_mode_is_off_for_the_reset_and_on_after_it(host, smi):
    outcome = perform(host, prepare(host, machine(), ["0"]))

    assert outcome.done
    assert outcome.said[2:4] == ("GPU 00000000:1B:00.0 was successfully reset.", "All done.")
    assert (smi / "persistent").exists()
    assert (smi / "asked").read_text().splitlines() == [
        "--help",
        "-i GPU-00000000 -pm 0",
        "--gpu-reset -i GPU-00000000",
        "-i GPU-00000000 -pm 1",
        "-i GPU-00000000 --query-gpu=uuid --format=csv,noheader",
    ]


def test_a_refusal_leaves_nothing_changed(host, smi):
    (smi / "held").touch()

    outcome = perform(host, prepare(host, machine(), ["0"]))

    assert not outcome.done
    assert "  GPU 00000000:1B:00.0: In use by another client" in outcome.said
    assert "nvidia-smi --gpu-reset -i GPU-00000000: exit code 255" in outcome.said
    assert (smi / "persistent").exists()


def test_the_meaning_of_an_exit_code_is_told_and_no_reset_is_tried(host, smi):
    (smi / "forbidden").touch()

    outcome = perform(host, prepare(host, machine(), ["0"]))

    assert not outcome.done
    assert "nvidia-smi -i GPU-00000000 -pm 0: exit code 4, this user may not do it" in outcome.said
    assert "--gpu-reset" not in (smi / "asked").read_text()
    assert (smi / "persistent").exists()


def test_a_mode_that_was_off_is_left_off(host, smi):
    (smi / "persistent").unlink()

    outcome = perform(host, prepare(host, machine(h100(persistence_enabled=False)), ["0"]))

    assert outcome.done
    assert not (smi / "persistent").exists()


def test_a_reset_that_hangs_has_a_limit_and_the_mode_is_restored(host, smi):
    (smi / "hangs").touch()

    outcome = perform(host, prepare(host, machine(), ["0"]), limit_s=0.5)

    assert not outcome.done
    assert "nvidia-smi --gpu-reset -i GPU-00000000: no answer within 0.5 s" in outcome.said
    assert (smi / "persistent").exists()


def test_a_gpu_that_does_not_answer_afterwards_is_told(host, smi):
    (smi / "dead").touch()

    outcome = perform(host, prepare(host, machine(), ["0"]))

    assert not outcome.done
    assert outcome.said[-1] == "GPU 0 does not answer after the reset: reboot"


def test_a_mode_that_cannot_be_restored_is_told(host, smi):
    (smi / "stuck").touch()

    outcome = perform(host, prepare(host, machine(), ["0"]))

    assert not outcome.done
    assert any(
        line == "persistence mode was not restored, by hand: sudo nvidia-smi -i GPU-00000000 -pm 1"
        for line in outcome.said
    )


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            {"processes": (GpuProcess(pid=7, kind="compute"),)},
            "process 7 uses GPU 0 (not in this PID namespace): end it on the host, where it is "
            "seen",
        ),
        (
            {"display_active": True},
            "a display is attached to GPU 0: stop the display manager: "
            "sudo systemctl isolate multi-user.target",
        ),
        (
            {"mig_uuids": ("MIG-1", "MIG-2")},
            "GPU 0 has 2 MIG instance(s), which a reset does not keep: destroy them: "
            "sudo nvidia-smi mig -dci -i 0 && sudo nvidia-smi mig -dgi -i 0",
        ),
    ],
)
def test_what_the_gpu_is_used_for_is_in_the_way(host, facts, reason):
    assert refusals(host, machine(h100(**facts))) == [reason]


def test_without_root_it_is_refused(host):
    seen = machine(system={"is_root": False})

    assert refusals(host, seen) == ["only root may reset a GPU: run it with sudo"]


def test_an_old_nvidia_smi_is_told(host, smi):
    (smi / "help").write_text("no such option")

    assert refusals(host, machine()) == [
        "this driver's nvidia-smi does not know --gpu-reset: update the driver"
    ]


def test_an_nvidia_smi_that_fails_is_told(host, smi):
    (smi / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")

    assert refusals(host, machine()) == [
        "nvidia-smi --help: exit code 9: install or repair the driver's utilities"
    ]


def test_without_nvidia_smi_it_is_refused(tmp_path):
    bare = Host(root=tmp_path, environment={"PATH": str(tmp_path)})

    assert refusals(bare, machine()) == [
        "nvidia-smi not found on PATH: install or repair the driver's utilities"
    ]


PAIRS = (
    GpuPair(first=0, second=1, p2p_nvlink="ok"),
    GpuPair(first=0, second=2, p2p_nvlink="gpu_not_supported"),
    GpuPair(first=1, second=2, p2p_nvlink="gpu_not_supported"),
)
TOGETHER = "GPU(s) 1 are linked by NVLink and "


def linked(architecture, *, switches=0, fabric_manager=False):
    """Three GPUs of which the first two are linked."""
    gpus = [h100(i, nvlink_active=(0, 1), architecture=architecture) for i in range(3)]
    services = (Service(name="nvidia-fabricmanager", running=fabric_manager),)
    driver = {"services": services, "nvswitch_count": switches}
    return machine(*gpus, nvml={"pairs": PAIRS}, driver=driver)


@pytest.mark.parametrize("switches", [0, 6])
@pytest.mark.parametrize("architecture", ["pascal", "volta", "turing"])
def test_before_ampere_linked_gpus_must_go_together(host, architecture, switches):
    seen = linked(architecture, switches=switches, fabric_manager=bool(switches))

    assert refusals(host, seen, ["0"]) == [
        f"{TOGETHER}must be reset together with it: gpudiag reset -i 0 -i 1"
    ]
    together = prepare(host, seen, ["0", "1"])
    assert together.refusals == ()
    assert together.reset == ("nvidia-smi", "--gpu-reset", "-i", "GPU-00000000,GPU-00000001")


@pytest.mark.parametrize("architecture", ["ampere", "ada", "hopper", "blackwell"])
def test_from_ampere_on_directly_linked_gpus_go_alone(host, architecture):
    assert prepare(host, linked(architecture), ["0"]).obstacles == ()


@pytest.mark.parametrize("architecture", ["ampere", "hopper", "blackwell"])
def test_behind_a_switch_gpus_go_alone_while_fabric_manager_runs(host, architecture):
    seen = linked(architecture, switches=6, fabric_manager=True)

    assert prepare(host, seen, ["0"]).obstacles == ()


@pytest.mark.parametrize(("architecture", "certain"), [("ampere", True), ("hopper", False)])
def test_without_fabric_manager_behind_a_switch_they_go_together(host, architecture, certain):
    (obstacle,) = prepare(host, linked(architecture, switches=6), ["0"]).obstacles

    assert obstacle.certain is certain
    assert str(obstacle) == (
        f"{TOGETHER}go together while Fabric Manager does not run: sudo systemctl start "
        "nvidia-fabricmanager, or gpudiag reset -i 0 -i 1"
    )


def test_of_an_unknown_architecture_it_is_told_as_possible(host):
    (obstacle,) = prepare(host, linked(Missing("old driver")), ["0"]).obstacles

    assert not obstacle.certain
    assert obstacle.reason.endswith("which decides whether they go together, is not known")


def test_what_might_be_in_the_way_is_told_and_does_not_stop(host, tmp_path):
    (tmp_path / "root/sys/module/nvidia_drm").mkdir(parents=True)
    names = ("nvidia-fabricmanager", "nvidia-cuda-mps-control", "nv-hostengine (DCGM)")
    seen = machine(
        h100(persistence_enabled=Missing("old driver"), architecture="volta"),
        driver={"services": tuple(Service(name=name, running=True) for name in names)},
        system={"is_root": True, "virtual_machine": "KVM", "container": "docker"},
    )

    plan = prepare(host, seen, ["0"])

    assert plan.refusals == ()
    told = " ".join(str(obstacle) for obstacle in plan.obstacles)
    for word in (*names, "virtual machine (KVM)", "container (docker)", "nvidia_drm", "-pm 0 -i 0"):
        assert word in told


@pytest.mark.parametrize(
    "wanted",
    ["1", "GPU-00000001", "gpu-00000001", "0000:1c:00.0", "00000000:1C:00.0", "1c:00.0"],
)
def test_a_gpu_is_found_by_index_uuid_or_address(wanted):
    assert find(machine(h100(0), h100(1)), wanted).index == 1


@pytest.mark.parametrize(
    "wanted", ["7", "²", "-1", "GPU-0000000", "GPU-ff", "00:1c", "", "nonsense"]
)
def test_what_is_not_one_gpu_is_refused(wanted):
    with pytest.raises(InputError, match="expected the index, UUID or PCI address of one GPU, got"):
        find(machine(h100(0), h100(1)), wanted)


@pytest.fixture
def command(smi, nvml):
    quiet = {f"gpu.{index}.process.0": "missing" for index in range(8)}

    def run(*arguments, say="", changes=None):
        return subprocess.run(
            [sys.executable, "-m", "gpudiag", "reset", *arguments],
            input=say,
            check=False,
            capture_output=True,
            text=True,
            env=os.environ
            | nvml("healthy_8", changes=quiet | (changes or {}))
            | {"PATH": f"{smi}:{os.environ['PATH']}"},
        )

    return run


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the command refuses without root")
NOBODY = (
    "gpudiag: expected the name to be typed, got the end of the input: nothing was reset; "
    "--yes goes without\n"
)
UUID = "GPU-6018366c-f658-47a7-aed3-4fe53a096533"


@as_root
def test_a_dry_run_prints_exactly_what_would_be_run(command, smi):
    done = command("-i", "0", "--dry-run")

    assert done.stdout.endswith(
        "would run, as root:\n"
        f"  nvidia-smi -i {UUID} -pm 0\n"
        f"  nvidia-smi --gpu-reset -i {UUID}\n"
        f"  nvidia-smi -i {UUID} -pm 1\n"
        f"  nvidia-smi -i {UUID} --query-gpu=uuid --format=csv,noheader\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert (smi / "asked").read_text() == "--help\n"


@as_root
@pytest.mark.parametrize(
    ("arguments", "say", "code"),
    [
        (["--yes"], "", 0),
        ([], "NVIDIA H100 80GB HBM3\n", 0),
        ([], "yes\n", 1),
        ([], "", 2),
    ],
)
def test_the_name_of_the_gpu_has_to_be_typed(command, smi, arguments, say, code):
    done = command("-i", "0", *arguments, say=say)

    assert done.returncode == code
    last = ("reset, and it answers\n", "nothing was reset\n", "(NVIDIA H100 80GB HBM3) []: ")
    assert done.stdout.endswith(last[code])
    assert done.stderr == (NOBODY if code == 2 else "")
    assert ("--gpu-reset" in (smi / "asked").read_text()) is not bool(code)


@as_root
def test_a_gpu_in_use_is_not_reset_even_with_yes(command, smi):
    done = command("-i", "0", "--yes", changes={"gpu.0.process.0": "41200 1048576 compute"})

    assert done.returncode == 1
    assert "refused: process 41200 uses GPU 0 (not in this PID namespace)" in done.stdout
    assert (smi / "asked").read_text() == "--help\n"


@as_root
@pytest.mark.parametrize(
    ("number", "said", "code"),
    [
        (signal.SIGTERM, "ended by SIGTERM", 143),
        (signal.SIGINT, "interrupted", 130),
        (signal.SIGHUP, "ended by SIGHUP", 129),
    ],
)
def test_one_who_is_ended_in_the_middle_restores_the_mode_first(smi, nvml, number, said, code):
    (smi / "hangs").touch()
    quiet = {f"gpu.{index}.process.0": "missing" for index in range(8)}
    with subprocess.Popen(
        [sys.executable, "-m", "gpudiag", "reset", "-i", "0", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | nvml("healthy_8", changes=quiet) | {"PATH": f"{smi}:{os.environ['PATH']}"},
    ) as running:
        limit = time.monotonic() + 30
        (smi / "asked").touch()
        while "--gpu-reset" not in (smi / "asked").read_text():
            assert time.monotonic() < limit
            time.sleep(0.02)
        assert not (smi / "persistent").exists()
        running.send_signal(number)
        out, err = running.communicate(timeout=30)

    assert (smi / "persistent").exists()
    assert (err.strip(), running.returncode) == (f"gpudiag: {said}", code), out


def test_a_gpu_that_is_not_there_is_one_line(command):
    done = command("-i", "9")

    assert done.returncode == 2
    assert done.stderr == (
        "gpudiag: expected the index, UUID or PCI address of one GPU, got '9', which is 0 of the "
        "GPUs 0, 1, 2, 3, 4, 5, 6, 7\n"
    )


def test_from_python_a_refusal_is_an_error_with_every_reason(smi, nvml, monkeypatch):
    (smi / "help").write_text("nothing")
    path = {"PATH": f"{smi}:{os.environ['PATH']}"}
    for name, value in (nvml("healthy_8") | path).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(RuntimeError, match=r"nvidia-smi would refuse: .*does not know --gpu-reset"):
        gpudiag.reset(0)

    assert gpudiag.reset(0, dry_run=True).commands[1] == f"nvidia-smi --gpu-reset -i {UUID}"
