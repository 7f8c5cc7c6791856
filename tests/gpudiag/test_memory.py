"""clear_cache: what torch of this process keeps, given back."""

import subprocess
import sys

import pytest

import gpudiag
from gpudiag.memory.cache import COLUMNS

# A torch with two GPUs of 100 bytes, a context on the first: 30 reserved, 20 of them allocated;
# 5 are garbage in a cycle, 10 are tensors that another process has let go of.
FAKE_TORCH = """
import gc, sys, types; gc.disable()
torch = types.ModuleType("torch")
state = {"allocated": 20, "reserved": 30, "ipc": 10, "calls": []}
class Tensor:
    def __init__(self): self.me = self
    def __del__(self): state["allocated"] -= 5
Tensor()
def empty_cache():
    state["calls"].append("empty_cache"); state["reserved"] = state["allocated"]
def ipc_collect():
    state["calls"].append("ipc_collect"); state["ipc"] = 0
def only_the_first(index):
    assert index == 0, "a device without a context was asked"
torch.cuda = types.SimpleNamespace(
    is_initialized=lambda: True, device_count=lambda: 2,
    memory_allocated=lambda i: only_the_first(i) or state["allocated"],
    memory_reserved=lambda i: only_the_first(i) or state["reserved"],
    mem_get_info=lambda i: only_the_first(i) or (100 - state["reserved"] - state["ipc"], 100),
    empty_cache=empty_cache, ipc_collect=ipc_collect)
torch.xpu = types.SimpleNamespace(is_initialized=lambda: False)
MORE
torch._C = types.SimpleNamespace(_cuda_hasPrimaryContext=lambda i: i == 0)
torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
sys.modules["torch"] = torch
import gpudiag
frame = gpudiag.clear_cache()
"""


# From 2.9 on torch.accelerator has what the fake's torch.cuda has; only IPC is CUDA's own.
ACCELERATOR = """
old = torch.cuda
torch.cuda = types.SimpleNamespace(
    is_initialized=old.is_initialized, device_count=old.device_count, ipc_collect=ipc_collect)
torch.accelerator = types.SimpleNamespace(
    current_accelerator=lambda: types.SimpleNamespace(type="cuda"), empty_cache=empty_cache,
    memory_allocated=old.memory_allocated, memory_reserved=old.memory_reserved,
    get_memory_info=old.mem_get_info)
"""
ACCELERATOR_OF_2_6 = """
torch.accelerator = types.SimpleNamespace(
    current_accelerator=lambda: types.SimpleNamespace(type="cuda"))
"""


def python(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("more", ["", ACCELERATOR_OF_2_6, ACCELERATOR])
def test_garbage_cache_and_foreign_tensors_are_given_back(more):
    program = FAKE_TORCH.replace("MORE", more)

    said = python(program + "print(frame.to_dict('records'), frame.attrs, state['calls'])")

    assert said == (
        "[{'device': 'cuda:0', 'allocated_before_bytes': 20, 'allocated_after_bytes': 15, "
        "'reserved_before_bytes': 30, 'reserved_after_bytes': 15, "
        "'free_before_bytes': 60, 'free_after_bytes': 85}] "
        "{'reason': None} ['empty_cache', 'ipc_collect']\n"
    )


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("", "torch is not loaded in this process, so it keeps no GPU memory"),
        (
            "import torch; torch.ones(3); ",
            "torch of this process has not initialised a device, so it keeps no GPU memory",
        ),
    ],
)
def test_where_there_is_nothing_to_clear_it_says_so(first, reason):
    program = (
        f"{first}import sys, gpudiag; frame = gpudiag.clear_cache(); "
        "print(frame.attrs['reason'], len(frame), *frame.columns, "
        f"'torch' in sys.modules, sep='|'); {'print(torch.cuda.is_initialized())' if first else ''}"
    )

    said = python(program).splitlines()

    assert said[0] == "|".join([reason, "0", "device", *COLUMNS, str(bool(first))])
    assert said[1:] == (["False"] if first else [])


def test_the_names_of_torch_that_are_called_exist():
    torch = pytest.importorskip("torch")

    for backend in (torch.cuda, torch.xpu):
        for name in ("is_initialized", "mem_get_info", "memory_reserved", "empty_cache"):
            assert callable(getattr(backend, name))
    assert callable(torch.cuda.ipc_collect)
    if hasattr(torch.accelerator, "empty_cache"):
        for name in ("empty_cache", "memory_allocated", "memory_reserved"):
            assert callable(getattr(torch.accelerator, name))
    for name in ("driver_allocated_memory", "current_allocated_memory", "recommended_max_memory"):
        assert callable(getattr(torch.mps, name))


def test_a_torch_for_another_accelerator_is_asked_through_torch_accelerator():
    program = FAKE_TORCH.replace("MORE", ACCELERATOR.replace('type="cuda"', 'type="npu"'))
    program = program.replace(
        "torch.accelerator =", "torch.npu, torch.cuda = torch.cuda, torch.xpu\ntorch.accelerator ="
    ).replace("device_count=old.device_count", "device_count=lambda: 1")

    said = python(program + "print(frame.device.tolist(), state['calls'], frame.attrs)")

    assert said == "['npu:0'] ['empty_cache'] {'reason': None}\n"


def test_an_empty_frame_can_be_summed():
    assert gpudiag.clear_cache()["reserved_before_bytes"].dtype == "int64"
