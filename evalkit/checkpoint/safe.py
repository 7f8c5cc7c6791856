"""Safetensors files: a JSON header, then the bytes of the tensors.

The format is read here and not by its own package, so that its tensors lie on the same mapping as
those of all other files and are let go of while they are loaded; the tests compare both.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.tensors import Storage, strided

if TYPE_CHECKING:
    from evalkit.checkpoint.mapped import Region

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}


def read_safetensors(region: Region) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, mapped, and the text in its header.

    Raises:
        ValueError: It is damaged.
    """
    size = int.from_bytes(region.head(LENGTH_BYTES), "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes")
    header = json.loads(region.part(LENGTH_BYTES, size).read())
    data_start = LENGTH_BYTES + size
    data = region.part(data_start, region.size - data_start)
    said = header.pop("__metadata__", None) or {}
    return {key: _tensor(data, entry) for key, entry in header.items()}, dict(said)


def _tensor(data: Region, entry: Any) -> torch.Tensor:
    name, shape = entry["dtype"], entry["shape"]
    start, end = entry["data_offsets"]
    dtype = getattr(torch, DTYPES.get(name, "?"), None)
    if dtype is None:
        raise ValueError(f"values of type {name}")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f"a tensor of shape {shape} in {end - start} bytes")
    raw = data.part(start, end - start).storage()
    return strided(Storage(dtype=dtype, raw=raw), 0, tuple(shape), _contiguous(shape))


def _contiguous(shape: list[int]) -> tuple[int, ...]:
    """Return the strides of a tensor whose values lie one after the other."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
