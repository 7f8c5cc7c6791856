"""Zip archives of torch.save, torch.jit.save and torch.export.save: their members as tensors."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.mapped import Promise, Region, no_bytes
from evalkit.checkpoint.pickles import Unpickler
from evalkit.checkpoint.tensors import KNOWN, Storage, copied, storage_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
LOCAL_HEADER_BYTES = 30
MAX_PICKLE_BYTES = 512 << 20
# Weights hardly get smaller when they are packed; what grows more than this is a bomb.
MAX_INFLATED_TIMES = 20
MAX_INFLATED_BYTES = 256 << 20  # of which zeros may always make so much


class TorchZip:
    """One archive: its pickle and its storages, by name, without unpacking anything to disk."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._archive = zipfile.ZipFile(region.file())
        self._members = {member.filename: member for member in self._archive.infolist()}
        pickles = [name for name in self._members if name.rpartition("/")[2] == "data.pkl"]
        root = min(pickles, key=len, default="data.pkl").removesuffix("data.pkl")
        self.root = root  # the folder that all names begin with, slash included
        self._inflated_bytes = 0
        self._is_swapped = self.text("byteorder", "little") == "big"
        self._storages: dict[str, torch.UntypedStorage] = {}
        self.unknown: tuple[str, ...] = ()  # classes in the pickle that nobody knows

    def has(self, name: str) -> bool:
        """Whether there is a member of that name below the root."""
        return self.root + name in self._members

    def names(self) -> list[str]:
        """Return the names of all members below the root."""
        return [name.removeprefix(self.root) for name in self._members]

    def text(self, name: str, default: str = "") -> str:
        """Return a small member as text."""
        return self.data(name).decode() if self.has(name) else default

    def data(self, name: str) -> bytes:
        """Return a member that is no tensor.

        Raises:
            ValueError: It is larger than such members are.
        """
        member = self._members[self.root + name]
        if member.file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"{name} of {member.file_size} bytes")
        region = self.stored(name)
        return self._archive.read(member) if region is None else region.read()

    def stored(self, name: str) -> Region | None:
        """Return a member as it lies in the file, or None where it is compressed."""
        member = self._members[self.root + name]
        return self._located(member) if member.compress_type == zipfile.ZIP_STORED else None

    def storage(self, name: str) -> torch.UntypedStorage:
        """Return the bytes of a member, mapped where they are stored as they are.

        Raises:
            ValueError: It is compressed and would fill the memory.
        """
        if name not in self._storages:
            region = self.stored(name)
            self._storages[name] = self._inflated(name) if region is None else region.storage()
        return self._storages[name]

    def promises(self) -> Iterator[Promise]:
        """Yield what the archive says of its members that are stored as they are."""
        for member in self._members.values():
            if member.compress_type == zipfile.ZIP_STORED and member.file_size:
                region = self._located(member)
                yield Promise(
                    start=region.start, size=region.size, crc=member.CRC, name=member.filename
                )

    def tree(self) -> Any:
        """Return what the archive's pickle describes, with tensors on its storages."""
        reader = Unpickler(KNOWN, self._persistent)
        tree = reader.load(io.BytesIO(self.data("data.pkl")))
        self.unknown = tuple(reader.unknown)
        return tree

    def _persistent(self, identifier: Any) -> Storage:
        kind, storage, key, _location, count = identifier
        if kind != "storage" or type(count) is not int:
            raise ValueError(f"a reference to {kind}")
        dtype = storage_dtype(storage)
        raw = self.storage(f"data/{key}")
        if count * dtype.itemsize > raw.nbytes():
            raise ValueError(f"{count} values in {raw.nbytes()} bytes")
        if self._is_swapped and dtype.itemsize > 1:
            raw = copied(raw)
            raw.byteswap(dtype)  # type: ignore[no-untyped-call]
        return Storage(dtype=dtype, raw=raw)

    def _located(self, member: zipfile.ZipInfo) -> Region:
        """Return where the bytes of a member are: behind a header whose length only it knows."""
        header = self._region.part(member.header_offset, LOCAL_HEADER_BYTES).read()
        signature, name_length, extra_length = LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no header of {member.filename}")
        start = member.header_offset + LOCAL_HEADER_BYTES + name_length + extra_length
        return self._region.part(start, member.file_size)

    def _inflated(self, name: str) -> torch.UntypedStorage:
        member = self._members[self.root + name]
        self._inflated_bytes += member.file_size
        if self._inflated_bytes > max(MAX_INFLATED_BYTES, MAX_INFLATED_TIMES * self._region.size):
            raise ValueError(f"{self._region.size} packed bytes that grow beyond all weights")
        data = bytearray(self._archive.read(member))
        if not data:
            return no_bytes()
        return torch.frombuffer(data, dtype=torch.uint8).untyped_storage()


DAMAGE = (zipfile.BadZipFile, zlib.error)  # what only this module raises on damaged bytes
