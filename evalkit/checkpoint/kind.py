"""What a file is, told from its bytes: names and suffixes of checkpoints are not to be trusted."""

from __future__ import annotations

import struct
import zipfile
from enum import StrEnum
from typing import IO, TYPE_CHECKING

from evalkit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled 0x1950a86a20f9469cfc6c
TAR_MAGIC_OFFSET = 257
HEAD_BYTES = 1024
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000  # the format's own limit
INDEX_SUFFIX = ".index.json"
WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar")


class Kind(StrEnum):
    """What the bytes of a file say it is. The first eight are read, the others are refused."""

    TORCH_ZIP = "torch zip"
    TORCH_LEGACY = "legacy torch"
    SAFETENSORS = "safetensors"
    SHARDED = "sharded weights"
    DISTRIBUTED = "torch.distributed.checkpoint"
    TORCHSCRIPT = "TorchScript archive"
    TORCH_EXPORT = "torch.export archive"
    TAR = "tar archive"
    ONNX = "ONNX model"
    GGUF = "GGUF file"
    DISTRIBUTED_PART = "part of a torch.distributed.checkpoint"
    TRUNCATED_ZIP = "truncated zip"
    OTHER_ZIP = "zip archive"
    GZIP = "gzip archive"
    HDF5 = "HDF5 file"
    NUMPY = "NumPy arrays"
    PICKLE = "plain pickle"
    HTML = "HTML page"
    LFS_POINTER = "Git LFS pointer"
    TEXT = "text file"
    EMPTY = "empty file"
    UNKNOWN = "unknown"


_MAGICS = {
    b"\x1f\x8b": Kind.GZIP,
    b"GGUF": Kind.GGUF,
    b"\x89HDF\r\n": Kind.HDF5,
    b"\x93NUMPY": Kind.NUMPY,
}
READABLE = tuple(Kind)[:8]

_REFUSALS = {
    Kind.ONNX: "an ONNX model, whose weights have lost their names in the PyTorch model: where it "
    "was made, save the model's state_dict() with torch.save",
    Kind.GGUF: "a GGUF file of llama.cpp, whose weights are quantised for it: give the checkpoint "
    "it was made from",
    Kind.DISTRIBUTED_PART: "one file of a directory that torch.distributed.checkpoint wrote: give "
    "the directory",
    Kind.TRUNCATED_ZIP: "a zip file whose list of contents, at its end, is missing or damaged, as "
    "a download that broke off or a full disk leaves it: fetch or save it again",
    Kind.OTHER_ZIP: "a zip archive without weights of torch.save (no data.pkl): unpack it and give "
    "the checkpoint inside",
    Kind.GZIP: "a gzip archive: unpack it with 'gunzip' or 'tar xzf' and give the checkpoint "
    "inside",
    Kind.HDF5: "an HDF5 file, as Keras writes it: convert the weights to PyTorch first",
    Kind.NUMPY: "arrays of NumPy: turn them into a dict of tensors by the names of the model's "
    "state_dict(), with torch.from_numpy, and save that with torch.save",
    Kind.PICKLE: "a plain pickle, which can run any code when it is read: where it was made, "
    "save the weights with torch.save or safetensors",
    Kind.HTML: "an HTML page, as a download that asked for a login leaves it: fetch the file "
    "itself again",
    Kind.LFS_POINTER: "a Git LFS pointer, which stands for the file: run 'git lfs pull'",
    Kind.TEXT: "a text file: check the path",
    Kind.EMPTY: "an empty file, as a save or download that broke off leaves it: fetch or save it "
    "again",
    Kind.UNKNOWN: "bytes of no known format: check the path, or fetch the file again",
}


def sniff(path: Path) -> Kind:
    """Tell what kind of file *path* is from its first bytes, and from its list if it is a zip.

    Raises:
        InputError: There is no such file, it is a directory, or it must not be read.

    Example:
        >>> import tempfile, pathlib
        >>> page = pathlib.Path(tempfile.mkdtemp()) / "resnet18.pth"
        >>> _ = page.write_text("<!DOCTYPE html><html>Sign in</html>")
        >>> sniff(page).value
        'HTML page'
    """
    if path.is_dir():
        return _directory_kind(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise InputError(
            f"{path}: expected a checkpoint file, got a path where there is none: check the path"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: expected a checkpoint file that can be read, got '{error.strerror}': "
            "check its permissions"
        ) from error
    if path.suffix == ".distcp":
        return Kind.DISTRIBUTED_PART
    if path.name.endswith(INDEX_SUFFIX) and head.lstrip().startswith(b"{"):
        return Kind.SHARDED
    if head.startswith(b"PK\x03\x04"):
        with path.open("rb") as file:
            return zip_kind(file)
    return kind_of_head(head, size_bytes=path.stat().st_size)


def require_readable(path: Path) -> Kind:
    """Return the kind of *path* if weights can be read from it.

    Raises:
        InputError: It is anything else; the line names what it is and what to do.
    """
    kind = sniff(path)
    if kind not in READABLE:
        raise InputError(f"{path}: expected a checkpoint, got {_REFUSALS[kind]}")
    return kind


def kind_of_head(head: bytes, *, size_bytes: int) -> Kind:
    r"""Tell the kind of a file, zips aside, from its first bytes and its size.

    Example:
        >>> kind_of_head(b"\x1f\x8b\x08\x00", size_bytes=4000).value
        'gzip archive'
    """
    if not head:
        return Kind.EMPTY
    if head.startswith(LEGACY_MAGIC):
        return Kind.TORCH_LEGACY
    if _is_safetensors(head, size_bytes):
        return Kind.SAFETENSORS
    if head[TAR_MAGIC_OFFSET:].startswith(b"ustar"):
        return Kind.TAR
    for magic, kind in _MAGICS.items():
        if head.startswith(magic):
            return kind
    if _is_onnx(head):
        return Kind.ONNX
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Kind.PICKLE
    return _text_kind(head)


def _is_onnx(head: bytes) -> bool:
    """Whether this begins as the protocol buffer of an ONNX model: its version, then its maker."""
    version, next_field = head[1:2], head[2:3]
    return head[:1] == b"\x08" and b"\x01" <= version <= b"\x1f" and next_field in (b"\x12", b":")


def _is_safetensors(head: bytes, size_bytes: int) -> bool:
    header_bytes = int.from_bytes(head[:8], "little")
    fits = header_bytes <= min(size_bytes - 8, MAX_SAFETENSORS_HEADER_BYTES)
    return head[8:9] == b"{" and fits


def _text_kind(head: bytes) -> Kind:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return Kind.HTML
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return Kind.LFS_POINTER
    if b"\x00" in head:
        return Kind.UNKNOWN
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut_in_a_character = len(head) == HEAD_BYTES and error.start > HEAD_BYTES - 4
        return Kind.TEXT if cut_in_a_character else Kind.UNKNOWN
    return Kind.TEXT


def zip_kind(file: IO[bytes]) -> Kind:
    """Tell what a zip archive holds from the names in its list of contents."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
        return Kind.TRUNCATED_ZIP  # ValueError: names that are no text
    if names and all(name.endswith(".npy") for name in names):
        return Kind.NUMPY
    inner = {*names, *(name.partition("/")[2] for name in names)}
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        return Kind.TORCH_EXPORT
    if "constants.pkl" in inner:
        return Kind.TORCHSCRIPT
    return Kind.TORCH_ZIP if "data.pkl" in inner else Kind.OTHER_ZIP


def index_in(folder: Path) -> Path | None:
    """Return the index of sharded weights in a directory, or None where there is not just one."""
    found = [item for item in folder.iterdir() if item.name.endswith(INDEX_SUFFIX)]
    preferred = [item for item in found if "safetensors" in item.name]
    return (preferred or found)[0] if len(preferred or found) == 1 else None


def _directory_kind(path: Path) -> Kind:
    if (path / ".metadata").is_file():
        return Kind.DISTRIBUTED
    if index_in(path) is not None:
        return Kind.SHARDED
    raise InputError(_directory_message(path))


def _directory_message(path: Path) -> str:
    inside = sorted(item.name for item in path.iterdir() if item.suffix in WEIGHT_SUFFIXES)
    advice = f"give one of the files in it: {', '.join(inside[:5])}" if inside else "give the file"
    return f"{path}: expected a checkpoint file, got a directory: {advice}"
