"""A file's bytes: mapped into memory instead of copied, and let go of once they were used."""

from __future__ import annotations

import hashlib
import io
import mmap
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

CHUNK_BYTES = 4 << 20
UNKNOWN_CRC = 0  # what torch writes with set_crc32_options(False)


class Mapped:
    """A file in memory as the system pages it in; nothing that is done to it reaches the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._storage = torch.frombuffer(self._map, dtype=torch.uint8).untyped_storage()

    def whole(self) -> Region:
        """Return all bytes of the file."""
        return Region(mapped=self, start=0, size=len(self._map))

    def bytes_at(self, start: int, size: int) -> bytes:
        """Return a copy of some bytes."""
        return self._map[start : start + size]

    def storage_at(self, start: int, size: int) -> torch.UntypedStorage:
        """Return some bytes as a storage of their own, which keeps the file mapped."""
        if not size:
            return no_bytes()
        storage: torch.UntypedStorage = self._storage[start : start + size]
        return storage

    def release(self) -> None:
        """Give the pages back; they are read again from the file when they are next used."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def no_bytes() -> torch.UntypedStorage:
    """Return a storage of nothing."""
    return torch.empty(0, dtype=torch.uint8).untyped_storage()


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of a mapped file: all of it, or a member of an archive that is stored as it is."""

    mapped: Mapped
    start: int
    size: int

    def part(self, start: int, size: int) -> Region:
        """Return a part of this part.

        Raises:
            ValueError: It is not all within this one.
        """
        if start < 0 or size < 0 or start + size > self.size:
            raise ValueError(f"bytes {start} to {start + size} lie outside of {self.size}")
        return Region(mapped=self.mapped, start=self.start + start, size=size)

    def read(self) -> bytes:
        """Return a copy of the bytes."""
        return self.mapped.bytes_at(self.start, self.size)

    def head(self, size: int) -> bytes:
        """Return a copy of the first bytes."""
        return self.mapped.bytes_at(self.start, min(size, self.size))

    def storage(self) -> torch.UntypedStorage:
        """Return the bytes as a storage that is not copied."""
        return self.mapped.storage_at(self.start, self.size)

    def file(self) -> io.BufferedReader:
        """Return a file that reads these bytes and ends where they end."""
        return io.BufferedReader(_RegionFile(self))


class _RegionFile(io.RawIOBase):
    def __init__(self, region: Region) -> None:
        self._region = region
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._region.size}
        self._position = base[whence] + offset
        if self._position < 0:
            raise ValueError(f"negative position: {self._position}")
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = max(0, min(len(buffer), self._region.size - self._position))
        start = self._region.start + self._position
        buffer[:size] = self._region.mapped.bytes_at(start, size)
        self._position += size
        return size


@dataclass(frozen=True, kw_only=True, order=True)
class Promise:
    """What an archive says about the bytes of one of its members."""

    start: int  # in the file
    size: int
    crc: int
    name: str


def checked_sha256(path: Path, promises: Sequence[Promise] = ()) -> str:
    """Return the SHA-256 of a file's bytes, and compare checksums of its members on the way.

    Args:
        path: The file; it is read once, from its beginning to its end.
        promises: Members that are stored as they are, with the CRC-32 that the archive has for
            them.

    Raises:
        InputError: The bytes of a member are not those that were written.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "empty"
        >>> _ = path.write_bytes(b"")
        >>> checked_sha256(path)[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for promise in _apart(promises):
            _feed(file, promise.start - file.tell(), digest)
            found = _feed(file, promise.size, digest)
            if found != promise.crc:
                raise InputError(
                    f"{path}: expected the bytes that were saved, got others in '{promise.name}', "
                    "whose checksum is wrong, as a faulty disk or transfer leaves it: fetch or "
                    "save it again"
                )
        _feed(file, None, digest)
    return digest.hexdigest()


def _apart(promises: Iterable[Promise]) -> list[Promise]:
    """Return the promises in order, without those that overlap an earlier one."""
    chosen: list[Promise] = []
    end = 0
    for promise in sorted(promises):
        if promise.crc != UNKNOWN_CRC and promise.start >= end:
            chosen.append(promise)
            end = promise.start + promise.size
    return chosen


def _feed(file: io.BufferedReader, size: int | None, digest: hashlib._Hash) -> int:
    """Hash *size* bytes of a file, or all that are left, and return their CRC-32."""
    crc = 0
    while size is None or size > 0:
        chunk = file.read(CHUNK_BYTES if size is None else min(CHUNK_BYTES, size))
        if not chunk:
            break
        digest.update(chunk)
        if size is not None:
            crc = zlib.crc32(chunk, crc)
            size -= len(chunk)
    return crc
