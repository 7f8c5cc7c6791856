import subprocess

import pytest
from builders import GIB, gpu, only, silent, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gpudiag.rules import modes, torch_build, visibility
from gpudiag.rules.system import few_cpus_for_the_gpus
from gpudiag.snapshot import (
    DeviceNode,
    GpuProcess,
    Missing,
    Misspelling,
    NotObserved,
    PciDevice,
    TorchDevice,
)
from gpudiag.visible_devices import parse_visible_devices

FULL_WIDTH_COMMA = "0\uff0c1"


@pytest.mark.parametrize(
    ("value", "kept", "malformed"),
    [
        ("0,1", (0, 1), None),
        (" 1 , 0 ", (1, 0), None),
        ("", (), None),
        ("-1", (), None),
        ("0,-1,1", (0,), "-1 ends the list"),
        ("1gpu2,2ampere", (1, 2), "'1gpu2' is read as 1"),
        ("0-2", (0,), "'0-2' is read as 0: ranges are not supported"),
        ("0 1", (0,), "'0 1' is read as 0: entries are separated by commas, not spaces"),
        (FULL_WIDTH_COMMA, (0,), f"{FULL_WIDTH_COMMA!r} is read as 0: its comma is not the ASCII"),
        ("0,x,1", (0,), "'x' is not a number and ends the list"),
        ("all", (), "'all' is not a number and ends the list"),
        ("0,,1", (0,), "an empty entry ends the list"),
        ('"0,1"', (), "'\"0' is not a number and ends the list"),
        ("GPU-1a,GPU-2b", ("GPU-1a", "GPU-2b"), None),
        ("GPU-1a,0", ("GPU-1a",), "'0' ends the list: GPU- entries do not mix with others"),
        ("0,GPU-1a", (0,), "'GPU-1a' is not a number and ends the list"),
    ],
)
def test_the_list_is_read_as_cuda_reads_it(value, kept, malformed):
    visible = parse_visible_devices(value)

    assert visible.kept == kept
    assert visible.repeated is None
    if malformed is None:
        assert visible.malformed is None
    else:
        assert visible.malformed.startswith(malformed)


@pytest.mark.parametrize("value", ["0,1,0", "GPU-1a,GPU-2b,GPU-1a"])
def test_a_repeated_entry_empties_the_list(value):
    visible = parse_visible_devices(value)

    assert visible.kept == ()
    assert visible.repeated in {"0", "GPU-1a"}


def test_the_first_index_that_no_gpu_has_ends_the_list():
    assert parse_visible_devices("0,7,1", device_count=8).beyond is None
    assert parse_visible_devices("0,8,1", device_count=8).kept == (0,)
    assert parse_visible_devices("0,8,1", device_count=8).beyond == 8


@settings(deadline=None)
@given(st.text(alphabet="0123456789,-+ GPUMIgx\uff0c", max_size=12))
def test_torch_reads_every_value_alike(value):
    """torch's own parser is the oracle; it knows no device count."""
    cuda = pytest.importorskip("torch.cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", value)
        try:
            expected = cuda._parse_visible_devices()
        except ValueError:
            expected = None  # torch trips over "+" and "-" alone; CUDA reads no number

    kept = list(parse_visible_devices(value).kept)

    assert expected is None or kept == expected


def seen(value, *, gpus=2, **more):
    listed = [gpu(i, uuid=f"GPU-0000000{i}-1111-2222-3333-444444444444") for i in range(gpus)]
    return snapshot(gpus=listed, env={"CUDA_VISIBLE_DEVICES": value}, **more)


RULES = (
    visibility.all_gpus_hidden,
    visibility.visible_devices_malformed,
    visibility.visible_device_repeated,
    visibility.visible_device_does_not_exist,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "GD301"),
        ("-1", "GD301"),
        ("NoDevFiles", "GD301"),
        (FULL_WIDTH_COMMA, "GD302"),
        ("0-1", "GD302"),
        ("0,0", "GD303"),
        ("0,2", "GD304"),
        ("GPU-99999999", "GD304"),
        ("GPU-", "GD304"),
        ("GPU-00000001,GPU-00000001-1111", "GD303"),
    ],
)
def test_each_fault_is_found_by_one_rule(value, expected):
    findings = [finding for rule in RULES for finding in rule(seen(value)).findings]

    assert [finding.id for finding in findings] == [expected]
    assert findings[0].evidence[0] == f"CUDA_VISIBLE_DEVICES={value!r}"


@pytest.mark.parametrize("value", ["0", "1,0", "GPU-00000001", "GPU-00000000,GPU-00000001"])
def test_a_right_value_is_no_finding(value):
    assert all(silent(rule, seen(value)) for rule in RULES)


def test_an_unset_variable_is_no_finding():
    assert all(silent(rule, snapshot(gpus=[gpu()], env={})) for rule in RULES)


def test_without_the_environment_nothing_is_passed():
    for rule in RULES:
        with pytest.raises(NotObserved):
            rule(snapshot(gpus=[gpu()]))


def test_an_index_cannot_be_held_against_gpus_that_are_not_known():
    with pytest.raises(NotObserved):
        visibility.visible_device_does_not_exist(snapshot(env={"CUDA_VISIBLE_DEVICES": "7"}))


def test_the_end_of_the_list_is_told_with_what_is_left():
    finding = only(visibility.visible_device_does_not_exist, seen("0,2,1"))

    assert finding.evidence[1] == "it names index 2, with 2 GPU(s) counted from 0"
    assert finding.cause == "CUDA stops reading there and uses: 0"


@pytest.mark.parametrize(
    ("value", "wrong", "used"),
    [
        ("GPU-00000001,GPU-deadbeef,GPU-00000000", "GPU-deadbeef, which is no GPU", "GPU-00000001"),
        ("GPU-0000000", "'GPU-0000000', with which the UUIDs of 2 GPUs begin", "no GPU"),
    ],
)
def test_the_uuids_before_one_that_no_gpu_has_are_used(value, wrong, used):
    finding = only(visibility.visible_device_does_not_exist, seen(value))

    assert finding.evidence[1].startswith(f"it names {wrong}")
    assert finding.cause == f"CUDA stops reading there and uses: {used}"


@pytest.mark.parametrize(
    ("rule", "value"),
    [(visibility.visible_device_repeated, "0,0"), (visibility.visible_devices_malformed, "0 1")],
)
@pytest.mark.parametrize(("gpus", "example"), [(1, "0"), (2, "0,1")])
def test_the_cure_names_gpus_that_there_are(rule, value, gpus, example):
    assert f"export CUDA_VISIBLE_DEVICES={example}" in only(rule, seen(value, gpus=gpus)).fix
    assert silent(visibility.visible_device_does_not_exist, seen(example, gpus=gpus))


ADA = {"name": "RTX 4090", "uuid": "GPU-aaaaaaaa", "compute_capability": (8, 9)}
PASCAL = {"name": "GTX 1060", "uuid": "GPU-bbbbbbbb", "compute_capability": (6, 1)}


def two_kinds(env, **torch):
    build = {"cuda_version": "13.0", "arch_list": ("sm_75", "sm_86", "sm_90"), **torch}
    return snapshot(gpus=[gpu(0, **ADA), gpu(1, **PASCAL)], env=env, torch=build)


IN_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_gpu_that_this_process_does_not_see_needs_no_code():
    for env in (IN_ORDER | {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "GPU-aaaaaaaa"}):
        assert silent(torch_build.no_kernel_image, two_kinds(env))

    for env in ({}, IN_ORDER | {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": ""}):
        assert only(torch_build.no_kernel_image, two_kinds(env)).subject == "gpu:GPU-bbbbbbbb"


def test_an_index_of_gpus_that_are_ordered_by_speed_is_known_by_what_torch_lists():
    first = {"CUDA_VISIBLE_DEVICES": "0"}
    listed = TorchDevice(
        index=0,
        name="RTX 4090",
        uuid="GPU-aaaaaaaa",
        compute_capability=(8, 9),
        memory_total_bytes=24 * GIB,
    )

    unnamed = replace(listed, uuid=Missing("an old torch does not tell"))
    for devices in ((listed,), (unnamed,)):
        assert silent(torch_build.no_kernel_image, two_kinds(first, devices=devices))
    slow = replace(unnamed, name="GTX 1060")
    assert only(torch_build.no_kernel_image, two_kinds(first, devices=(slow,)))
    with pytest.raises(NotObserved, match="counts the fastest GPU first"):
        torch_build.no_kernel_image(two_kinds(first))


def test_cpus_are_held_against_the_gpus_that_this_process_uses():
    machine = {"system": {"cpu_affinity_count": 8, "cpu_quota": None}, "gpus": [gpu(0)] * 8}

    assert silent(few_cpus_for_the_gpus, snapshot(**machine, env={"CUDA_VISIBLE_DEVICES": "0"}))
    assert only(few_cpus_for_the_gpus, snapshot(**machine, env={}))


def test_a_misspelt_variable_is_named_with_the_one_meant():
    slip = Misspelling(name="CUDA_VIDIBLE_DEVICES", meant="CUDA_VISIBLE_DEVICES", value="0,1")

    finding = only(visibility.variable_misspelt, snapshot(misspelt=[slip]))

    assert finding.id == "GD305"
    assert finding.evidence == (
        "CUDA_VIDIBLE_DEVICES='0,1' is set; CUDA_VISIBLE_DEVICES was meant",
    )
    assert finding.fix == "unset CUDA_VIDIBLE_DEVICES; export CUDA_VISIBLE_DEVICES=0,1"
    assert silent(visibility.variable_misspelt, snapshot(misspelt=[]))
    with pytest.raises(NotObserved):
        visibility.variable_misspelt(snapshot())


@pytest.mark.parametrize(
    ("value", "exported"),
    [
        ("~/cuda", "/home/ada/cuda"),
        ("/opt/lib:~/my lib:", "/opt/lib:/home/ada/my lib:"),
        ("it's $HOME", "it's $HOME"),
        ("", ""),
    ],
)
def test_a_shell_exports_the_value_that_was_meant(value, exported):
    slip = Misspelling(name="CUDA_HOM", meant="CUDA_HOME", value=value)
    fix = only(visibility.variable_misspelt, snapshot(misspelt=[slip])).fix

    said = subprocess.run(
        ["bash", "-c", f'{fix}; printf %s "$CUDA_HOME"'],
        check=True,
        capture_output=True,
        text=True,
        env={"HOME": "/home/ada"},
    )

    assert said.stdout == exported


def container(kind="docker", nodes=(), devices=("0000:1b:00.0",)):
    return snapshot(
        system={"container": kind},
        driver={
            "device_nodes": nodes,
            "pci_devices": tuple(
                PciDevice(address=address, device_id="0x2330", kernel_driver="nvidia")
                for address in devices
            ),
        },
        env={},
    )


def test_a_container_on_a_gpu_host_without_device_files_was_started_without_gpus():
    finding = only(visibility.container_without_gpus, container())

    assert finding.id == "GD306"
    assert finding.evidence[-1] == "NVIDIA_VISIBLE_DEVICES is not set"
    assert "--gpus all" in finding.fix


def test_kubernetes_gets_its_own_cure():
    assert "nvidia.com/gpu" in only(visibility.container_without_gpus, container("kubernetes")).fix


def test_a_container_with_gpus_or_on_a_host_without_is_fine():
    node = DeviceNode(path="/dev/nvidia0", usable=True)

    assert silent(visibility.container_without_gpus, container(nodes=(node,)))
    assert silent(visibility.container_without_gpus, container(devices=()))
    assert silent(visibility.container_without_gpus, container(None))
    with pytest.raises(NotObserved):
        visibility.container_without_gpus(snapshot())


def test_device_files_that_this_user_may_not_open_are_listed():
    nodes = (
        DeviceNode(path="/dev/nvidia0", usable=False),
        DeviceNode(path="/dev/nvidiactl", usable=True),
    )

    finding = only(visibility.device_files_not_accessible, snapshot(driver={"device_nodes": nodes}))

    assert (finding.id, finding.evidence) == (
        "GD307",
        ("no permission to read and write: /dev/nvidia0",),
    )
    assert silent(
        visibility.device_files_not_accessible, snapshot(driver={"device_nodes": nodes[1:]})
    )
    with pytest.raises(NotObserved):
        visibility.device_files_not_accessible(snapshot())


def test_a_prohibited_gpu_is_reported():
    prohibited = snapshot(gpus=[gpu(3, compute_mode="prohibited")])

    assert only(modes.compute_mode_prohibited, prohibited).fix == (
        "sudo nvidia-smi -i 3 -c DEFAULT"
    )
    assert silent(modes.compute_mode_prohibited, snapshot(gpus=[gpu(compute_mode="default")]))


def test_an_exclusive_gpu_is_reported_while_somebody_is_on_it():
    holder = GpuProcess(pid=4711, kind="compute", name="python")
    held = gpu(compute_mode="exclusive_process", processes=(holder,))
    free = gpu(compute_mode="exclusive_process", processes=())

    finding = only(modes.compute_mode_exclusive, snapshot(gpus=[held]))

    assert finding.id == "GD309"
    assert finding.evidence[1] == "held by process 4711 (python)"
    assert silent(modes.compute_mode_exclusive, snapshot(gpus=[free]))


def test_a_gpu_whose_mode_is_not_known_is_a_gap_and_no_pass():
    for rule in (modes.compute_mode_prohibited, modes.compute_mode_exclusive):
        assert rule(snapshot(gpus=[gpu(2)])).gaps == ("GPU 2: not part of this test",)
