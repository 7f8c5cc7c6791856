"""Tensors from what a pickle says of them, once it is proved that their storage holds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.harmless import HARMLESS, PlainArray
from evalkit.checkpoint.inert import Inert, Named
from evalkit.checkpoint.mapped import no_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_DIMENSIONS = 64
# Values that share memory: more of them than this are no weights, but a file of some bytes that
# would fill the memory once they are copied.
MAX_REPEATED_BYTES = 64 << 20
STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "UntypedStorage": torch.uint8,
    "_UntypedStorage": torch.uint8,
}
QUANTISED = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The bytes of one or more tensors, and the type that their file gives them.

    They may begin anywhere, as legacy files are packed: x86 and ARM read such values as well, and
    copying them here would take the memory of the file a second time and untie tied tensors.
    """

    dtype: torch.dtype
    raw: torch.UntypedStorage

    def viewed(self, offset: int, count: int) -> Storage:
        """Return a part of it.

        Raises:
            ValueError: The part does not lie within it.
        """
        width = self.dtype.itemsize
        start, end = offset * width, (offset + count) * width
        if offset < 0 or count < 0 or end > self.raw.nbytes():
            raise ValueError(f"values {offset} to {offset + count} lie outside of a storage")
        part = self.raw[start:end] if count else no_bytes()
        return Storage(dtype=self.dtype, raw=part)


def storage_dtype(kind: object) -> torch.dtype:
    """Return the type of the values in a storage of the class that a pickle names.

    Raises:
        ValueError: There is no such storage.

    Example:
        >>> storage_dtype(Named("torch.cuda.HalfStorage"))
        torch.float16
    """
    name = kind.path.rpartition(".")[2] if isinstance(kind, Named) else str(kind)
    if name not in STORAGE_DTYPES:
        raise ValueError(f"a storage of class {name}")
    return STORAGE_DTYPES[name]


def copied(raw: torch.UntypedStorage) -> torch.UntypedStorage:
    """Return a copy of a storage."""
    values = torch.empty(0, dtype=torch.uint8).set_(raw)
    return values.clone().untyped_storage()


def strided(
    storage: object,
    offset: Any,
    size: Any,
    stride: Any,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return a tensor on a storage.

    Args:
        storage: The `Storage`.
        offset: Its first value there.
        size: Its shape.
        stride: How far values are apart, one number per dimension.
        dtype: None takes that of the storage.

    Raises:
        ValueError: It would reach beyond its storage, or it repeats too much of it.

    Example:
        >>> raw = torch.arange(6.0).untyped_storage()
        >>> strided(Storage(dtype=torch.float32, raw=raw), 1, (2, 2), (2, 1))
        tensor([[1., 2.],
                [3., 4.]])
    """
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor on {type(storage).__name__}")  # noqa: TRY004 - damage, no bug
    size, stride, offset = _numbers(size), _numbers(stride), _numbers((offset,))[0]
    if len(size) != len(stride):
        raise ValueError(f"a tensor of shape {size} with strides {stride}")
    dtype = dtype or storage.dtype
    held = storage.raw.nbytes()
    values = math.prod(size)
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if values and (last + 1) * dtype.itemsize > held:
        raise ValueError(f"a tensor of shape {size} in {held} bytes")
    if values * dtype.itemsize > max(held, MAX_REPEATED_BYTES):
        raise ValueError(f"a tensor of shape {size} that repeats {held} bytes")
    if dtype in QUANTISED:
        raise ValueError("a quantised tensor without its scale")
    empty = torch.empty(0, dtype=dtype)
    return empty.set_(storage.raw, offset if values else 0, size, stride)


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_DIMENSIONS:
        raise ValueError("a shape that is none")
    if any(type(value) is not int or not 0 <= value < 2**63 for value in values):
        raise ValueError(f"a shape of {values}")
    return tuple(values)


def _rebuild(storage: object, offset: Any, size: Any, stride: Any, *rest: Any) -> torch.Tensor:
    tensor = strided(storage, offset, size, stride)
    return _with_bits(tensor, rest[2] if len(rest) > 2 else None)  # noqa: PLR2004


def _rebuild_v3(storage: object, offset: Any, size: Any, stride: Any, *rest: Any) -> torch.Tensor:
    _requires_grad, _hooks, dtype, *metadata = rest
    tensor = strided(storage, offset, size, stride, dtype)
    return _with_bits(tensor, metadata[0] if metadata else None)


def _with_bits(tensor: torch.Tensor, metadata: object) -> torch.Tensor:
    """Apply what a lazily conjugated or negated tensor was saved with."""
    bits = metadata if isinstance(metadata, dict) else {}
    if bits.get("conj"):
        tensor = tensor.conj()
    return -tensor if bits.get("neg") else tensor


def _rebuild_quantised(
    storage: object, offset: Any, size: Any, stride: Any, quantiser: Any, *_rest: object
) -> torch.Tensor:
    """Return a quantised tensor, made from its integers.

    Raises:
        ValueError: Scales, zero points or axis do not fit it.
    """
    if not isinstance(storage, Storage) or storage.dtype not in QUANTISED:
        raise ValueError("a quantised tensor on other values")
    raw = Storage(dtype=QUANTISED[storage.dtype], raw=storage.raw)
    integers = strided(raw, offset, size, stride)
    scheme, *parameters = quantiser
    if scheme == "torch.per_tensor_affine":
        scale, zero_point = parameters
        return torch._make_per_tensor_quantized_tensor(  # noqa: SLF001 - it has no public name
            integers, float(scale), int(zero_point)
        )
    scales, zero_points, axis = parameters
    if not 0 <= axis < integers.ndim or not (
        scales.shape == zero_points.shape == (integers.shape[axis],)
    ):
        raise ValueError("a quantised tensor with other scales than channels")
    return torch._make_per_channel_quantized_tensor(  # noqa: SLF001 - it has no public name
        integers, scales, zero_points, axis
    )


def _rebuild_sparse(*arguments: object) -> Inert:
    return Inert(path="torch.sparse", arguments=arguments)


def _rebuild_meta(*arguments: object) -> Inert:
    return Inert(path="torch.meta", arguments=arguments)


def _rebuild_parameter(data: Any, *_rest: object) -> Any:
    return data


def _rebuild_from_numpy(data: object, dtype: torch.dtype, *_rest: object) -> Any:
    return from_array(data, dtype) if isinstance(data, PlainArray) else data


def from_array(array: PlainArray, dtype: torch.dtype | None = None) -> torch.Tensor | None:
    """Return a NumPy array of numbers as a tensor, or None where it holds others.

    Example:
        >>> from_array(PlainArray()) is None
        True
    """
    if array.value is None or array.value.dtype.kind not in "biufc":
        return None
    native = array.value.astype(array.value.dtype.newbyteorder("="), order="C")
    try:
        return torch.from_numpy(native).to(dtype or None)
    except TypeError:  # a type that torch does not have
        return None


def _rebuild_subclass(function: object, _type: object, arguments: Any, _state: object) -> Any:
    """Return the plain tensor under a subclass, or one that carries attributes."""
    path = function.path if isinstance(function, Named) else ""
    known = _REBUILDERS.get(path)
    return known(*arguments) if known else Inert(path=path, arguments=tuple(arguments))


def _size(values: Any = ()) -> torch.Size:
    return torch.Size(_numbers(list(values)))


def _plain_name(value: object = "", *_rest: object) -> str:
    return str(value) if isinstance(value, str | int) else ""


def _first(value: Any = None, *_rest: object) -> Any:
    return value


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_v3,
    "torch._utils._rebuild_qtensor": _rebuild_quantised,
    "torch._utils._rebuild_sparse_tensor": _rebuild_sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _rebuild_meta,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _rebuild_from_numpy,
    "torch._utils._rebuild_xla_tensor": _rebuild_from_numpy,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _rebuild_from_numpy,
}
_DTYPES = {
    str(value): value
    for name in sorted(vars(torch))
    if isinstance(value := getattr(torch, name), torch.dtype)
}
_NAMES: Sequence[str] = (
    *("torch.per_tensor_affine", "torch.per_channel_affine", "torch.per_tensor_symmetric"),
    *("torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams"),
)

_STORAGES = [
    f"{module}.{name}"
    for module in ("torch", "torch.cuda", "torch.storage")
    for name in (*STORAGE_DTYPES, "Tensor")
]

# What `Unpickler` makes of every name that is known.
KNOWN: dict[str, Any] = {
    **HARMLESS,
    **_REBUILDERS,
    **_DTYPES,
    **{name: name for name in _NAMES},
    **{path: Named(path) for path in _STORAGES},
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch.Size": _size,
    "torch.device": _plain_name,
    "torch.serialization._get_layout": _plain_name,
    **{
        f"torch.jit._pickle.{name}": _first
        for name in (
            *("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"),
            "restore_type_tag",
        )
    },
    "torch.jit._pickle.build_tensor_from_id": _first,
}
