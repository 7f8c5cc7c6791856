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
torch._C = types.SimpleNamespace(_cuda_hasPrimaryContext=lambda i: i == 0)
torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
sys.modules["torch"] = torch
import gpudiag
frame = gpudiag.clear_cache()
"""


def python(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout


def test_garbage_cache_and_foreign_tensors_are_given_back():
    said = python(FAKE_TORCH + "print(frame.to_dict('records'), frame.attrs, state['calls'])")

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
    for name in ("driver_allocated_memory", "current_allocated_memory", "recommended_max_memory"):
        assert callable(getattr(torch.mps, name))


def test_an_empty_frame_can_be_summed():
    assert gpudiag.clear_cache()["reserved_before_bytes"].dtype == "int64"
