"""Archives of torch.export: the weights beside the program, which is not read."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.tensors import Storage, strided
from evalkit.checkpoint.zips import TorchZip

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS_CONFIG = "_weights_config.json"
# Where all weights are one file of torch.save: before torch 2.8, and in it.
STATE = re.compile(r"serialized_state_dict\.pt|(?:.*/)?data/weights/[^/]+\.pt")
# Numbers that the format has for types.
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}


def read_exported(archive: TorchZip) -> dict[str, Any]:
    """Return the weights and buffers of an exported program, under the names of its model.

    Raises:
        ValueError: They are not where torch.export puts them.
    """
    whole = next(filter(STATE.fullmatch, archive.names()), None)
    if whole is not None:
        state = _nested(archive, whole)
        if not isinstance(state, dict):
            raise ValueError(f"{whole} that holds {type(state).__name__}")
        return state
    configs = [name for name in archive.names() if name.endswith(WEIGHTS_CONFIG)]
    if len(configs) != 1:
        raise ValueError(f"{len(configs)} lists of weights instead of one")
    config = json.loads(archive.data(configs[0]))["config"]
    return dict(_weights(archive, configs[0].rpartition("/")[0], config))


def _weights(
    archive: TorchZip, folder: str, config: dict[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, entry in config.items():
        member = f"{folder}/{entry['path_name']}"
        if entry["use_pickle"]:
            yield name, _nested(archive, member)
            continue
        meta = entry["tensor_meta"]
        dtype = DTYPES.get(meta["dtype"])
        if dtype is None:
            raise ValueError(f"{name} with values of type number {meta['dtype']}")
        storage = Storage(dtype=dtype, raw=archive.storage(member))
        size, stride = _integers(meta["sizes"]), _integers(meta["strides"])
        offset = _integers([meta["storage_offset"]])[0]
        yield name, strided(storage, offset, size, stride)


def _integers(entries: list[dict[str, int]]) -> tuple[int, ...]:
    return tuple(entry["as_int"] for entry in entries)


def _nested(archive: TorchZip, name: str) -> Any:
    """Return what torch.save wrote into a member."""
    region = archive.stored(name)
    if region is None:
        raise ValueError(f"{name} that is compressed")
    return TorchZip(region).tree()
