"""Write the corpus: small real inputs of every kind. Those that once failed (``found-…``) stay.

``python fuzz/seeds.py`` writes it anew; it is in the repository, so that this is hardly needed.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import pandas as pd
import torch

from gpudiag.snapshot import Snapshot

CORPUS = Path(__file__).parent / "corpus"
LARGEST_BYTES = 20_000
SMALL = {"layer.weight": torch.ones(2, 3), "layer.bias": torch.zeros(2)}


def checkpoints() -> dict[str, bytes]:
    """Files of torch and others that weigh hardly anything."""
    found = {
        "zip": _saved(SMALL),
        "legacy": _saved(SMALL, new=False),
        "nested": _saved({"epoch": 3, "state_dict": OrderedDict(SMALL), "best": 0.5}),
        "half": _saved({"w": torch.ones(2, dtype=torch.float16), "b": torch.ones(1).bfloat16()}),
        "view": _saved({"w": torch.arange(6.0).view(2, 3).t()}),
        "scalar": _saved(torch.tensor(1.0)),
        "system": pickle.dumps(_Calls()),
        "plain": pickle.dumps({"weights": [1, 2, 3]}, protocol=2),
        "html": b"<!DOCTYPE html><html><body>log in</body></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    }
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    found["safetensors"] = struct.pack("<Q", len(header)) + header + bytes(8)
    return found


class _Calls:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 + 1",)


def _saved(value: object, *, new: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def tables() -> dict[str, bytes]:
    """Manifests of a few rows."""
    buffer = io.BytesIO()
    pd.DataFrame({"path": ["a.png"], "label": ["cat"], "site": [1]}).to_parquet(buffer)
    return {
        "csv": b"path,label\na.png,cat\nb.png,dog\n",
        "columns": b'path,label,site\n"a, b.png",007,north\nb.png,NA,\n',
        "marked": "\ufeffpath,label\nä.png,Kätzchen\n".encode(),
        "parquet": buffer.getvalue(),
    }


def main() -> None:
    """Write all of them."""
    kept = checkpoints()
    environments = {
        "usual": b"CUDA_VISIBLE_DEVICES=0,1\nOMP_NUM_THREADS=4\nHOME=/root",
        "misspelt": b"CUDA_VIDIBLE_DEVICES=0\nNCCL_DEBUG=INFO\nTORCH_CUDA_ARCH_LIST=8.0 9.0+PTX",
        "odd": b"OMP_NUM_THREADS=many\nCUDA_VISIBLE_DEVICES=-1,,GPU-1\nLD_LIBRARY_PATH=:/a:",
    }
    recorded = sorted((CORPUS.parent.parent / "tests" / "recorded").glob("*.json"))
    snapshots = {"empty": Snapshot().to_json().encode()}
    small = [path for path in recorded if path.stat().st_size < LARGEST_BYTES]
    snapshots |= {path.stem: path.read_bytes() for path in small[:3]}
    for target, inputs in {
        "sniffer": {name: b"\0" + data for name, data in kept.items()},
        "unpickler": kept,
        "snapshot": snapshots,
        "lint": environments,
        "manifest": tables(),
    }.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
