"""Bytes to tensors, and to nothing that could run: the only place that unpickles."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.harmless import HARMLESS
from evalkit.checkpoint.kind import Kind, require_readable
from evalkit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

# What torch's unpickler raises on bytes that nobody wrote on purpose, or somebody did.
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_UNSAFE_GLOBAL = re.compile(r"Unsupported global: GLOBAL (\S+)|unsupported GLOBAL (\S+)")
_OPERAND = re.compile(r"Unsupported operand")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint file holds: tensors and plain values, all of them on the CPU."""

    path: Path
    kind: Kind
    sha256: str  # of the file's bytes, 64 hexadecimal digits
    tree: Any  # usually a dict; what torch.save was given


def read(path: Path) -> Contents:
    """Read a checkpoint file without running anything in it, whatever device it was saved on.

    Zip files are mapped into memory, not copied, wherever their tensors are stored uncompressed.

    Raises:
        InputError: The file is no checkpoint, is damaged, or holds a Python class, which is named.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "epoch_3.pth"
        >>> torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(2, 2)}}, path)
        >>> contents = read(path)
        >>> contents.kind.value, sorted(contents.tree)
        ('torch zip', ['epoch', 'state_dict'])
    """
    kind = require_readable(path)
    tree = _read_safetensors(path) if kind is Kind.SAFETENSORS else _read_torch(path, kind)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Contents(path=path, kind=kind, sha256=sha256, tree=tree)


def _read_torch(path: Path, kind: Kind) -> Any:
    mmap = kind is Kind.TORCH_ZIP and _is_stored_uncompressed(path)
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what fails is said below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except _DAMAGE as error:
        raise InputError(f"{path}: {_explained(error)}") from error


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(
            f"{path}: expected the safetensors package for this file, got none installed: "
            "pip install safetensors"
        ) from None
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise InputError(
            f"{path}: expected whole safetensors, got a damaged file ({error}): fetch it again"
        ) from error


def _is_stored_uncompressed(path: Path) -> bool:
    """Whether tensors can be mapped: in a zip that was packed again, offsets lead to nonsense."""
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _explained(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if unsafe := _UNSAFE_GLOBAL.search(text):
        return (
            f"expected tensors and plain values, got an object of class {unsafe[1] or unsafe[2]}, "
            "which could run code when it is read: where the file was made, "
            "save the model's state_dict() instead"
        )
    if _OPERAND.search(text):
        return (
            "expected torch.save's default pickle protocol 2, got another one: where the file was "
            "made, save it again without pickle_protocol"
        )
    reason = text.rpartition("WeightsUnpickler error: ")[2].partition(". ")[0]
    got = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return f"expected a whole checkpoint, got a damaged one ({got}): fetch or save it again"
