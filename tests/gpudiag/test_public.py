import os
import subprocess
import sys

import pandas as pd
import pytest
from builders import GIB, gpu, snapshot

import gpudiag
from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.select import select
from gpudiag.snapshot import AllocatorState, GpuProcess, Missing


def machine():
    held = (GpuProcess(pid=7, kind="compute", used_bytes=3 * GIB, name="python", user="ada"),)
    return snapshot(
        gpus=[
            gpu(0, name="A", memory_used_bytes=5 * GIB, processes=held),
            gpu(1, name=Missing("gone"), processes=()),
        ],
        torch={"version": "2.9.0", "cuda_version": None},
    )


def test_memory_is_a_frame_in_bytes():
    frame = gpudiag.memory(machine())

    assert frame["processes_bytes"].tolist() == [3 * GIB, 0]
    assert frame.loc[0, "unaccounted_bytes"] == 2 * GIB
    assert pd.isna(frame.loc[1, "used_bytes"])
    assert frame.attrs["missing"]["1.name"] == "gone"


def test_memory_tells_what_torch_of_this_process_keeps():
    mine = AllocatorState(
        device="cuda:0",
        uuid="GPU-00000000",
        allocated_bytes=GIB,
        reserved_bytes=2 * GIB,
        fragmented_bytes=GIB // 2,
    )
    seen = snapshot(gpus=[gpu(0), gpu(1)], torch={"allocator": (mine,)})

    frame = gpudiag.memory(seen)

    assert frame["this_process_reserved_bytes"].tolist() == [2 * GIB, pd.NA]
    assert frame.loc[0, "this_process_fragmented_bytes"] == GIB // 2


def test_the_allocator_of_this_process_is_asked_without_importing_torch():
    program = (
        "import sys, types, gpudiag\n"
        "torch = types.ModuleType('torch'); sys.modules['torch'] = torch\n"
        "torch.cuda = types.SimpleNamespace(is_initialized=lambda: True, device_count=lambda: 1,\n"
        "    memory_stats=lambda i: {'allocated_bytes.all.current': 5},\n"
        "    get_device_properties=lambda i: types.SimpleNamespace(uuid='1-2'))\n"
        "print(gpudiag.snapshot(torch=False).torch.allocator)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == (
        "(AllocatorState(device='cuda:0', uuid='GPU-1-2', allocated_bytes=5, reserved_bytes=0, "
        "fragmented_bytes=0),)\n"
    )


def test_devices_and_processes_are_frames():
    assert gpudiag.devices(machine())["index"].tolist() == [0, 1]
    assert gpudiag.processes(machine())[["pid", "used_bytes"]].to_numpy().tolist() == [[7, 3 * GIB]]


def test_versions_tell_nothing_from_not_known():
    frame = gpudiag.versions(machine()).set_index("component")

    assert frame.loc["torch", "version"] == "2.9.0"
    assert pd.isna(frame.loc["cuda of torch", "version"])
    missing = gpudiag.versions(machine()).attrs["missing"]
    assert "not part of this test" in missing.values()


def test_frames_keep_their_columns_without_gpus():
    empty = snapshot(gpus=[])

    assert "unaccounted_bytes" in gpudiag.memory(empty).columns
    assert gpudiag.processes(empty).empty


def test_diagnose_takes_a_snapshot_or_looks_itself():
    report = gpudiag.diagnose(machine())

    assert report.snapshot == machine()
    assert isinstance(gpudiag.snapshot(torch=False), gpudiag.Snapshot)


@pytest.mark.parametrize(
    ("value", "set_to"),
    [
        *(("0, 1", "0,1"), ("", ""), ("-1", "-1"), ("GPU-1a", "GPU-1a"), (0, "0")),
        *(([0, 1], "0,1"), ((1,), "1"), (["1", 0], "1,0"), (range(2), "0,1")),
        ("MIG-GPU-6018366c/1/0", "MIG-GPU-6018366c/1/0"),
    ],
)
def test_devices_are_selected_by_the_variable(monkeypatch, value, set_to):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")

    assert gpudiag.select_devices(value) == set_to
    assert os.environ["CUDA_VISIBLE_DEVICES"] == set_to


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0,0", r"expected every GPU once, got '0,0' with '0' twice: CUDA would hide all of them"),
        ("GPU-6018366c,GPU-6018366c-14b6", r"with 'GPU-6018366c-14b6' twice"),
        ("0\uff0c1", r"expected indices or UUIDs with commas, got .* is not the ASCII one"),
        ("first", r"expected indices or UUIDs with commas, got 'first'"),
        ("MIG-x", r"got 'MIG-x': 'MIG-x' is no UUID: 'gpudiag devices' shows them"),
        ("99999999999999999999", r"expected ind.*, got '99999999999999999999'"),
        (None, r"expected the indices .*, got None; select_devices\(''\) hides every GPU"),
        ([], r"expected the indices or UUIDs of GPUs, .* got \[\]; select_devices\(''\)"),
        (1.5, r"expected the indices or UUIDs of GPUs, as '0,1' or \[0, 1\], got 1.5;"),
        (b"0", r"expected the indices or UUIDs of GPUs, .* got b'0';"),
        (-1, r"expected each entry to be an index or a UUID, got -1 in -1; .* hides every GPU"),
        (True, r"expected each entry to be an index or a UUID, got True"),
        ([0, None], r"expected each entry to be an index or a UUID, got None in \[0, None\]"),
        (["", 0], r"expected each entry to be an index or a UUID, got ''"),
    ],
)
def test_a_selection_that_cuda_would_misread_is_refused(monkeypatch, value, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")

    with pytest.raises(InputError, match=message):
        gpudiag.select_devices(value)

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "9"


@pytest.mark.parametrize(
    "files",
    [[f"proc/driver/nvidia/gpus/0000:{n:02x}:00.0" for n in range(8)], ["dev/nvidia0"]],
)
def test_an_index_that_no_gpu_of_this_machine_has_is_refused(monkeypatch, tmp_path, files):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    for file in files:
        (tmp_path / file).mkdir(parents=True)
    count = len(files)
    host = Host(root=tmp_path)

    assert select(f"{count - 1}", host=host) == f"{count - 1}"
    with pytest.raises(InputError, match=rf"GPUs \(0 to {count - 1}\), got '0,9': CUDA would"):
        select("0,9", host=host)

    assert os.environ["CUDA_VISIBLE_DEVICES"] == f"{count - 1}"


@pytest.mark.parametrize("limit", [-1, 0, float("nan")])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(InputError, match=f"expected timeout_s to be 0.1 .*, got {limit}"):
        gpudiag.snapshot(torch=False, timeout_s=limit)


def test_only_what_is_public_is_listed():
    assert [name for name in dir(gpudiag) if not name.startswith("__")] == gpudiag.__all__


def test_a_selection_after_cuda_is_initialised_is_refused():
    program = (
        "import sys, types, gpudiag\n"
        "torch = types.ModuleType('torch'); torch.cuda = types.SimpleNamespace()\n"
        "torch.cuda.is_initialized = lambda: True; sys.modules['torch'] = torch\n"
        "try:\n    gpudiag.select_devices('0')\n"
        "except RuntimeError as error:\n    print(error)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.stdout == (
        "expected to choose GPUs before CUDA is used, got '0' after it: "
        "set CUDA_VISIBLE_DEVICES in the shell or call select_devices first\n"
    )
