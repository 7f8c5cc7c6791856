"""Classes that checkpoints carry beside their weights, rebuilt by stand-ins that can do no harm.

Here no name leads into NumPy, which trusts the pickled state of its dtypes and arrays: values are
decoded from their bytes, and only those of plain numbers and text. The names are those under which
NumPy 1 and 2 and the standard library of Python 2.7 to 3.14 pickle these classes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import pathlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.checkpoint.inert import Inert, Named, require_key

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN_KINDS = "biufcSU"  # bool, int, unsigned, float, complex, bytes, text; no objects, no structs


class PlainDtype:
    """A NumPy dtype as it is pickled: a code such as "f8", and a byte order."""

    def __init__(self, code: object, *_flags: object) -> None:
        self.code = code
        self.byte_order = "="

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take the byte order; all else follows from the code."""
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
    """A NumPy array as it is pickled.

    ``value`` is the array, or None where it is not plain; ``text`` is what a row of objects holds,
    or None where these are not all text.
    """

    def __init__(self, *_empty: object) -> None:
        self.value: Any = None
        self.text: list[str] | None = None

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take the values."""
        _version, shape, dtype, is_fortran, data = state
        flat = dtype.decode(data) if isinstance(dtype, PlainDtype) else None
        if flat is not None:
            self.value = flat.reshape(shape, order="F" if is_fortran else "C")
        elif isinstance(data, list) and all(isinstance(one, str) for one in data):
            self.text = data if shape == (len(data),) else None


def plain_scalar(dtype: object, data: object) -> Any:
    """Return the Python number or text that a pickled NumPy scalar stands for, or None."""
    values = dtype.decode(data) if isinstance(dtype, PlainDtype) else None
    return values.item() if values is not None else None


def plain_array(data: object, dtype: object, shape: Any, order: str = "C") -> PlainArray:
    """Return an array as pickle protocol 5 writes it."""
    array = PlainArray()
    if isinstance(data, bytearray):
        data = bytes(data)
    array.restore((1, shape, dtype, order == "F", data))
    return array


def plain_bytes(text: object, encoding: object = "latin1") -> bytes:
    """Return the bytes that Python 3 pickles as text in protocol 2.

    Raises:
        ValueError: These are other things.
    """
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes as {type(text).__name__} in {encoding}")
    return text.encode("latin-1")


def plain_bytearray(data: object = b"", encoding: object = "latin-1") -> bytearray:
    """Return a bytearray from its bytes, never from a length."""
    if isinstance(data, str):
        data = plain_bytes(data, encoding)
    return bytearray(data) if isinstance(data, bytes) else bytearray()


def plain_dict(*_factory: object) -> dict[Any, Any]:
    """Return the empty dict that the items of a pickled ``defaultdict`` are put into."""
    return {}


def ordered_dict(pairs: object = ()) -> OrderedDict[Any, Any]:
    """Return an OrderedDict, from pairs as Python 2 pickles it."""
    items = pairs.items() if isinstance(pairs, dict) else _list_of(pairs)
    return OrderedDict((require_key(key), value) for key, value in items)


def counter(counts: object = ()) -> dict[Any, Any]:
    """Return the counts of a pickled ``Counter``."""
    return dict(counts) if isinstance(counts, dict) else {}


def plain_list(*values: object) -> list[Any]:
    """Return the list that the items of a pickled ``deque`` are put into."""
    return list(_list_of(values[0])) if values else []


def plain_set(values: object = ()) -> set[Any]:
    """Return a set whose members are quickly hashed."""
    return set(map(require_key, _list_of(values)))


def plain_frozenset(values: object = ()) -> frozenset[Any]:
    """Return a frozenset whose members are quickly hashed."""
    return frozenset(map(require_key, _list_of(values)))


def plain_text(value: object = "") -> str:
    """Return text, and nothing for what is no text."""
    return value if isinstance(value, str) else ""


def reconstructed(cls: object, *arguments: object) -> Inert:
    """Stand for an object of protocol 0 or 1, or one that asks for its class to be called."""
    path = cls.path if isinstance(cls, Named) else "unknown"
    return Inert(path=path, arguments=arguments)


def nothing(*_arguments: object) -> None:
    """Stand for what is only named: the class of an array, the factory of a ``defaultdict``."""


def _list_of(values: object) -> list[Any] | tuple[Any, ...]:
    return values if isinstance(values, list | tuple) else []


def _in(modules: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for module in modules for name in names)


_BUILTINS = ("builtins",)
_PATHLIB = ("pathlib", "pathlib._local")
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_STAND_INS: dict[Any, tuple[str, ...]] = {
    plain_scalar: _in(_MULTIARRAY, "scalar"),
    PlainArray: _in(_MULTIARRAY, "_reconstruct"),
    plain_array: ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    PlainDtype: ("numpy.dtype",),
    argparse.Namespace: ("argparse.Namespace",),
    pathlib.PurePosixPath: _in(_PATHLIB, "PosixPath", "PurePosixPath"),
    pathlib.PureWindowsPath: _in(_PATHLIB, "WindowsPath", "PureWindowsPath"),
    dt.datetime: ("datetime.datetime",),
    dt.date: ("datetime.date",),
    dt.time: ("datetime.time",),
    dt.timedelta: ("datetime.timedelta",),
    dt.timezone: ("datetime.timezone",),
    plain_bytes: ("_codecs.encode",),
    plain_bytearray: _in(_BUILTINS, "bytearray"),
    plain_dict: ("collections.defaultdict",),
    ordered_dict: ("collections.OrderedDict",),
    counter: ("collections.Counter",),
    plain_list: ("collections.deque",),
    plain_set: _in(_BUILTINS, "set"),
    plain_frozenset: _in(_BUILTINS, "frozenset"),
    complex: _in(_BUILTINS, "complex"),
    plain_text: ("torch.torch_version.TorchVersion",),
    reconstructed: _in(("copyreg",), "_reconstructor", "__newobj__", "__newobj_ex__"),
    nothing: (
        "numpy.ndarray",
        *_in(_BUILTINS, "bool", "dict", "float", "int", "list", "str", "object", "unicode"),
    ),
}

HARMLESS: dict[str, Callable[..., Any]] = {
    name: stand_in for stand_in, names in _STAND_INS.items() for name in names
}  # what `Unpickler` makes of these names
