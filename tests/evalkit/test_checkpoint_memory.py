import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, whose memory holds nothing else; the kernel's record of its peak can be
# set back to what it takes now.
PROGRAM = """
import json, os, sys, torch
from safetensors.torch import save_file
from torch import nn
from evalkit.checkpoint import load_checkpoint

def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024

def share_of_file(path, dtype):
    with torch.device("meta"):
        layers = (nn.Linear(2048, 2048, bias=False, dtype=dtype) for _ in range(25))
        model = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    model = model.to_empty(device="cpu")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    _model, report = load_checkpoint(path, model)
    peak = memory("VmHWM")
    assert report.matched_fraction == 1
    assert all((layer.weight == 0.5).all() for layer in model["layers"])
    return (peak - before) / os.path.getsize(path)

os.chdir(sys.argv[1])
state = {f"module.layers.{number}.weight": torch.full((2048, 2048), 0.5) for number in range(25)}
save_file(state, "safetensors")
torch.save({"state_dict": state}, "zip")
torch.save({"state_dict": state}, "legacy", _use_new_zipfile_serialization=False)
del state
shares = {name: share_of_file(name, torch.float32) for name in ("zip", "legacy", "safetensors")}
shares["zip into half"] = share_of_file("zip", torch.float16)
print(json.dumps(shares))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="measured by Linux's records of memory"
)
def test_peak_of_memory_as_a_share_of_the_file(tmp_path):
    """400 MiB into a model of 400 or 200 MiB, whose memory is first touched by the load."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        # glibc would keep what the last model freed, and the next load would touch nothing new
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"},
    )

    shares = json.loads(done.stdout)

    for file in tmp_path.iterdir():
        file.unlink()
    for name in ("zip", "legacy", "safetensors"):
        assert 0.9 < shares[name] < 1.2
    assert 0.4 < shares["zip into half"] < 0.7
