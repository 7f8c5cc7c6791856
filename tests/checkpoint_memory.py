"""How much memory a load takes beside what was there, as a share of the checkpoint's bytes.

In a process of its own, whose memory holds nothing else; the kernel's record of its peak can be
set back to what it takes now.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

IS_KNOWN = Path("/proc/self/clear_refs").exists()  # Linux
LAYER_BYTES = 2048 * 2048 * 4
ONE_FILE = ("zip", "legacy", "safetensors")
SEVERAL_FILES = ("sharded safetensors", "sharded .bin", "torch.distributed.checkpoint, 2 ranks")

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

def model_of(dtype):
    with torch.device("meta"):
        layers = (nn.Linear(2048, 2048, bias=False, dtype=dtype) for _ in range(number))
        return nn.ModuleDict({"layers": nn.ModuleList(layers)})

def share_of_file(path, dtype):
    model = model_of(dtype).to_empty(device="cpu")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    _model, report = load_checkpoint(path, model)
    peak = memory("VmHWM")
    assert report.matched_fraction == 1
    assert all((layer.weight == 0.5).all() for layer in model["layers"])
    return (peak - before) / size_of(path)

def save_in_shards(folder, save, index):
    os.mkdir(folder)
    suffix = index.split(".")[1]
    places = {key: f"part-{number % 4}.{suffix}" for number, key in enumerate(state)}
    for shard in set(places.values()):
        save({key: state[key] for key in state if places[key] == shard}, f"{folder}/{shard}")
    with open(f"{folder}/{index}.index.json", "w") as file:
        json.dump({"metadata": {}, "weight_map": places}, file)

number, kinds = int(sys.argv[1]), sys.argv[2:]
state = {f"module.layers.{n}.weight": torch.full((2048, 2048), 0.5) for n in range(number)}
for kind in kinds:
    if kind == "zip":
        torch.save({"state_dict": state}, kind)
    elif kind == "legacy":
        torch.save({"state_dict": state}, kind, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        save_file(state, kind)
    elif kind == "sharded safetensors":
        save_in_shards(kind, save_file, "model.safetensors")
    elif kind == "sharded .bin":
        save_in_shards(kind, torch.save, "pytorch_model.bin")
del state
shares = {kind: share_of_file(kind, torch.float32) for kind in kinds}
print(json.dumps({**shares, "into half": share_of_file(kinds[0], torch.float16)}))
"""
# One of two processes, each with half of the rows of every layer.
RANK = """
import sys, warnings, torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

warnings.simplefilter("ignore")
rank, number, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
distributed.init_process_group("gloo", "file://rendezvous", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
state = {
    f"module.layers.{n}.weight":
        DTensor.from_local(torch.full((1024, 2048), 0.5), mesh, [Shard(0)])
    for n in range(number)
}
checkpoint.save({"model": state}, checkpoint_id=folder)
distributed.destroy_process_group()
"""


def shares_of(folder, kinds, *, layers=25):
    """Write checkpoints of so many layers of 16 MiB into *folder*, and load each.

    Returns:
        From kind of file to peak, and under "into half" that of the first of them into a model of
        half precision.
    """
    if SEVERAL_FILES[-1] in kinds:
        program = RANK.replace("file://", f"file://{folder}/")
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(rank), str(layers), SEVERAL_FILES[-1]],
                cwd=folder,
            )
            for rank in (0, 1)
        ]
        if [process.wait(timeout=600) for process in ranks] != [0, 0]:
            raise RuntimeError("the distributed checkpoint could not be written")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(layers), *kinds],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        # glibc would keep what the last model freed, and the next load would touch nothing new
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"},
    )
    return json.loads(done.stdout)
