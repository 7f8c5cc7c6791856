"""Bytes to tensors, and to nothing that could run: the only place that reads what others wrote."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.checkpoint import zips
from evalkit.checkpoint.beside import whole_ones_beside
from evalkit.checkpoint.distributed import file_names, read_distributed
from evalkit.checkpoint.exported import read_exported
from evalkit.checkpoint.kind import Kind, index_in, kind_of_head, require_readable, zip_kind
from evalkit.checkpoint.legacy import (
    is_of_2017,
    read_legacy,
    read_tar_of_2017,
    tar_members,
)
from evalkit.checkpoint.mapped import Mapped, Promise, Region, checked_sha256
from evalkit.checkpoint.modules import SCRIPTED
from evalkit.checkpoint.names import require_plain_name
from evalkit.checkpoint.safe import read_safetensors
from evalkit.checkpoint.trusted import read_trusted
from evalkit.errors import InputError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEAD_BYTES = 1024
# What bytes that nobody wrote on purpose, or somebody did, raise where they are taken apart.
DAMAGE = (
    *zips.DAMAGE,
    pickle.UnpicklingError,
    tarfile.TarError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint holds: tensors on the mapped file, plain values, and inert objects."""

    path: Path
    kind: Kind
    sha256: str  # of the file's bytes, 64 hexadecimal digits; of several: see `read`
    tree: Any  # usually a dict; what torch.save was given
    header: Mapping[str, Any] = field(default_factory=dict)  # what safetensors say beside tensors
    unknown: tuple[str, ...] = ()  # classes in the file that are not known here, full names
    is_trusted: bool = False  # the file's own classes were imported and their code was run
    size_bytes: int = 0
    files: tuple[Mapped, ...] = ()

    @property
    def notes(self) -> Mapping[Any, Any]:
        """What stands beside the weights, by name: in the tree or in a header."""
        return {**self.header, **(self.tree if isinstance(self.tree, dict) else {})}

    def release(self) -> None:
        """Give back the memory that the tensors take; it is filled again when they are used."""
        for file in self.files:
            file.release()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one file or one member of an archive holds."""

    tree: Any
    unknown: tuple[str, ...] = ()
    header: Mapping[str, str] = field(default_factory=dict)
    promises: tuple[Promise, ...] = ()


def read(path: Path, *, trust: bool = False) -> Contents:
    """Read a checkpoint without running anything in it, whatever device it was saved on.

    Tensors are mapped into memory, not copied, wherever they are stored uncompressed. Objects of
    classes that are not known here stay as `Inert` objects, with what was saved in them. Checksums
    of archives are verified. The SHA-256 of several files is that of the list of theirs, one line
    "digest  name" per file in order of the names, as ``sha256sum`` prints them.

    Args:
        path: File, index of sharded weights, or directory of torch.distributed.checkpoint.
        trust: Import the file's own classes and run their code, as ``torch.load`` and
            ``torch.jit.load`` do without restrictions.

    Raises:
        InputError: It is no checkpoint, or a damaged one.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "epoch_3.pth"
        >>> torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(2, 2)}}, path)
        >>> contents = read(path)
        >>> contents.kind.value, sorted(contents.tree)
        ('torch zip', ['epoch', 'state_dict'])
    """
    try:
        return _read(path, trust=trust)
    except InputError as error:
        if not path.is_file():
            raise
        raise InputError(f"{error}{whole_ones_beside(path)}") from error


def _read(path: Path, *, trust: bool) -> Contents:
    kind = require_readable(path)
    if kind is Kind.SHARDED:
        return _read_sharded(path)
    if kind is Kind.DISTRIBUTED:
        return _read_distributed(path)
    if trust and kind in (Kind.TORCH_ZIP, Kind.TORCH_LEGACY, Kind.TORCHSCRIPT):
        tree = read_trusted(path, is_script=kind is Kind.TORCHSCRIPT)
        return Contents(
            path=path,
            kind=kind,
            sha256=checked_sha256(path),
            tree=tree,
            is_trusted=True,
            size_bytes=path.stat().st_size,
        )
    mapped, part = _read_file(path, kind)
    return Contents(
        path=path,
        kind=kind,
        sha256=checked_sha256(path, part.promises),
        tree=part.tree,
        header={key: _plain(value) for key, value in part.header.items()},
        unknown=part.unknown,
        size_bytes=path.stat().st_size,
        files=(mapped,),
    )


def _read_file(path: Path, kind: Kind) -> tuple[Mapped, _Part]:
    try:
        mapped = Mapped(path)
        return mapped, _read_region(mapped.whole(), kind)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise InputError(f"{path}: {_damaged(error)}") from error


def _read_region(region: Region, kind: Kind) -> _Part:
    if kind is Kind.SAFETENSORS:
        tensors, header = read_safetensors(region)
        return _Part(tree=tensors, header=header)
    if kind is Kind.TORCH_LEGACY:
        tree, unknown = read_legacy(region)
        return _Part(tree=tree, unknown=unknown)
    if kind is Kind.TAR:
        return _read_tar(region)
    archive = zips.TorchZip(region)
    tree = read_exported(archive) if kind is Kind.TORCH_EXPORT else archive.tree()
    unknown = tuple(name for name in archive.unknown if not name.startswith(SCRIPTED))
    return _Part(tree=tree, unknown=unknown, promises=tuple(archive.promises()))


def _read_tar(region: Region) -> _Part:
    """Read a file of 2017, or the only checkpoint in a tar archive.

    Raises:
        InputError: It holds none, or several.
    """
    members = tar_members(region)
    if is_of_2017(members):
        tree, unknown = read_tar_of_2017(members)
        return _Part(tree=tree, unknown=unknown)
    inside = {name: _kind_of(member) for name, member in members.items() if member.size}
    readable = [name for name, kind in inside.items() if kind in _IN_A_TAR]
    if len(readable) != 1:
        held = f"{len(readable)} checkpoints" if readable else "none"
        raise InputError(
            f"expected one checkpoint in the tar archive, got {held} among "
            f"{counted(len(members), 'file')}: unpack it with 'tar xf' and give the checkpoint "
            "inside"
        )
    return _read_region(members[readable[0]], inside[readable[0]])


_IN_A_TAR = (
    *(Kind.TORCH_ZIP, Kind.TORCH_LEGACY, Kind.SAFETENSORS, Kind.TORCHSCRIPT, Kind.TORCH_EXPORT),
)


def _kind_of(region: Region) -> Kind:
    head = region.head(HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        with region.file() as file:
            return zip_kind(file)
    return kind_of_head(head, size_bytes=region.size)


def _read_sharded(path: Path) -> Contents:
    """Read the files that an index of sharded weights names, into one set of weights."""
    index = (index_in(path) or path) if path.is_dir() else path
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        names = sorted({require_plain_name(name) for name in places.values()})
    except (*DAMAGE, RecursionError) as error:
        raise InputError(f"{path}: {_damaged(error)}") from error
    folder = index.parent
    tree: dict[str, Any] = {}
    files, digests, unknown = [], [], dict[str, None]()
    for name in names:
        shard = folder / name
        mapped, part = _read_file(shard, require_readable(shard))
        held = part.tree if isinstance(part.tree, dict) else {}
        tree |= {key: value for key, value in held.items() if places.get(key) == name}
        files.append(mapped)
        digests.append((name, checked_sha256(shard, part.promises)))
        unknown |= dict.fromkeys(part.unknown)
    missing = [key for key in places if key not in tree]
    if missing:
        raise InputError(
            f"{path}: expected {len(places)} tensors as the index says, got {len(missing)} less "
            f"in the files, such as {some(missing, 1)}: fetch the files again"
        )
    return Contents(
        path=path,
        kind=Kind.SHARDED,
        sha256=_joint(digests),
        tree=tree,
        unknown=tuple(unknown),
        size_bytes=sum((folder / name).stat().st_size for name in names),
        files=tuple(files),
    )


def _read_distributed(path: Path) -> Contents:
    try:
        assembled = read_distributed(path)
    except DAMAGE as error:
        raise InputError(f"{path}: {_damaged(error)}") from error
    return Contents(
        path=path,
        kind=Kind.DISTRIBUTED,
        sha256=_joint(
            (file.name, checked_sha256(file, assembled.promises.get(file.name, ())))
            for file in file_names(path)
        ),
        tree=assembled.tree,
        unknown=tuple(assembled.unknown),
        size_bytes=sum(file.stat().st_size for file in file_names(path)),
        files=tuple(assembled.files.values()),
    )


def _joint(digests: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest()


def _plain(text: object) -> Any:
    """Return what a header holds under a name: JSON where it is that, else its text."""
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError):
        return text


def _damaged(error: BaseException) -> str:
    reason = " ".join(str(error).split())
    got = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return (
        f"expected a whole checkpoint, got a damaged one ({some([got[:200]])}): fetch or save "
        "it again"
    )
