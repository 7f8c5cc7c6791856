import json
import os
import shutil
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

def size_of(path):
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))

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
    return (peak - before) / size_of(path)

def save_in_shards(folder, save, suffix):
    os.mkdir(folder)
    places = {key: f"model-{number % 4}.{suffix}" for number, key in enumerate(state)}
    for shard in set(places.values()):
        save({key: state[key] for key in state if places[key] == shard}, f"{folder}/{shard}")
    index = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    with open(f"{folder}/{index}.index.json", "w") as file:
        json.dump({"metadata": {}, "weight_map": places}, file)

os.chdir(sys.argv[1])
state = {f"module.layers.{number}.weight": torch.full((2048, 2048), 0.5) for number in range(25)}
if sys.argv[2] == "one file":
    save_file(state, "safetensors")
    torch.save({"state_dict": state}, "zip")
    torch.save({"state_dict": state}, "legacy", _use_new_zipfile_serialization=False)
    kinds = ["zip", "legacy", "safetensors"]
else:
    save_in_shards("sharded safetensors", save_file, "safetensors")
    save_in_shards("sharded bin", torch.save, "bin")
    kinds = ["sharded safetensors", "sharded bin", "distributed"]
del state
shares = {name: share_of_file(name, torch.float32) for name in kinds}
shares["into half"] = share_of_file(kinds[0], torch.float16)
print(json.dumps(shares))
"""
# One of two processes, each with half of the rows of every layer.
RANK = """
import os, sys, warnings, torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

warnings.simplefilter("ignore")
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
state = {
    f"module.layers.{number}.weight":
        DTensor.from_local(torch.full((1024, 2048), 0.5), mesh, [Shard(0)])
    for number in range(25)
}
checkpoint.save({"model": state}, checkpoint_id=f"{folder}/distributed")
distributed.destroy_process_group()
"""


def shares_of(folder, files):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), files],
        capture_output=True,
        text=True,
        check=True,
        # glibc would keep what the last model freed, and the next load would touch nothing new
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"},
    )
    shutil.rmtree(folder)
    return json.loads(done.stdout)


def check(shares):
    """400 MiB into a model of 400 or 200 MiB, whose memory is first touched by the load."""
    assert 0.4 < shares.pop("into half") < 0.7
    assert len(shares) == 3
    assert all(0.9 < share < 1.2 for share in shares.values()), shares


measured = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="measured by Linux's records of memory"
)


@measured
def test_peak_of_memory_as_a_share_of_one_file(tmp_path):
    check(shares_of(tmp_path, "one file"))


@measured
@pytest.mark.slow
def test_peak_of_memory_as_a_share_of_several_files(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    assert len(list((tmp_path / "distributed").glob("*.distcp"))) == 2

    check(shares_of(tmp_path, "several files"))
