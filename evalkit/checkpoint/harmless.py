"""Classes that checkpoints carry beside their weights, rebuilt by stand-ins that can do no harm.

torch's restricted unpickler accepts a class by name only with something to call for it. Here no
name leads into NumPy, which trusts the pickled state of its dtypes and arrays: values are decoded
from their bytes, and only those of plain numbers and text. The names are those under which NumPy 1
and 2 and the standard library of Python 3.8 to 3.14 pickle these classes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import pathlib
from typing import Any

import numpy as np

PLAIN_KINDS = "biufcSU"  # bool, int, unsigned, float, complex, bytes, text; no objects, no structs


class PlainDtype:
    """A NumPy dtype as it is pickled: a code such as "f8", and a byte order."""

    def __init__(self, code: object, *_flags: object) -> None:
        self.code = code
        self.byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = {"<": "<", ">": ">"}.get(state[1], "=")

    def decode(self, data: object) -> Any:
        """Return the values in *data* as a flat array, or None where they are not plain."""
        if not isinstance(self.code, str) or not self.code.isalnum():
            return None
        dtype = np.dtype(self.code)
        if dtype.kind not in PLAIN_KINDS or not isinstance(data, bytes | str):
            return None
        raw = data.encode("latin-1") if isinstance(data, str) else data  # text: written by Python 2
        return np.frombuffer(raw, dtype=np.dtype(self.byte_order + self.code))


class PlainArray:
    """A NumPy array as it is pickled; ``value`` is the array, or None where it is not plain."""

    def __init__(self, *_empty: object) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, is_fortran, data = state
        flat = dtype.decode(data) if isinstance(dtype, PlainDtype) else None
        if flat is not None:
            self.value = flat.reshape(shape, order="F" if is_fortran else "C")


def plain_scalar(dtype: object, data: object) -> Any:
    """Return the Python number or text that a pickled NumPy scalar stands for, or None."""
    values = dtype.decode(data) if isinstance(dtype, PlainDtype) else None
    return values.item() if values is not None else None


def plain_dict(*_factory: object) -> dict[Any, Any]:
    """Return the empty dict that the items of a pickled ``defaultdict`` are put into."""
    return {}


def plain_list(*_empty: object) -> list[Any]:
    """Return the empty list that the items of a pickled ``deque`` are put into."""
    return []


def nothing(*_arguments: object) -> None:
    """Stand for what is only named: the class of an array, the factory of a ``defaultdict``."""


_STAND_INS: dict[Any, tuple[str, ...]] = {
    plain_scalar: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    PlainArray: ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    PlainDtype: ("numpy.dtype",),
    argparse.Namespace: ("argparse.Namespace",),
    pathlib.PurePosixPath: tuple(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath")
    ),
    pathlib.PureWindowsPath: tuple(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("WindowsPath", "PureWindowsPath")
    ),
    dt.datetime: ("datetime.datetime",),
    dt.date: ("datetime.date",),
    dt.time: ("datetime.time",),
    dt.timedelta: ("datetime.timedelta",),
    dt.timezone: ("datetime.timezone",),
    plain_dict: ("collections.defaultdict",),
    plain_list: ("collections.deque",),
    frozenset: ("builtins.frozenset",),
    str: ("torch.torch_version.TorchVersion",),
    nothing: (
        "numpy.ndarray",
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str")),
    ),
}

HARMLESS: list[Any] = [
    (stand_in, name) for stand_in, names in _STAND_INS.items() for name in names
]  # as torch.serialization.safe_globals takes them
