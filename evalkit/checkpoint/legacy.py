"""Files of torch.save before 1.6, pickles and then storages; and those of 2017, in a tar."""

from __future__ import annotations

import struct
import tarfile
from typing import IO, TYPE_CHECKING, Any

from evalkit.checkpoint.pickles import Unpickler
from evalkit.checkpoint.tensors import KNOWN, Storage, storage_dtype, strided

if TYPE_CHECKING:
    from evalkit.checkpoint.mapped import Region

MEMBERS_OF_2017 = ("sys_info", "pickle", "storages", "tensors")
COUNT = struct.Struct("<q")


def read_legacy(region: Region) -> tuple[Any, tuple[str, ...]]:
    """Return what a file of torch.save before 1.6 holds, and the classes in it nobody knows.

    The pickle is read twice: where its storages are is only known behind its end.
    """
    with region.file() as stream:
        sizes: dict[str, int] = {}
        header = Unpickler(KNOWN)
        for _magic_protocol_system in range(3):
            header.load(stream)
        start = stream.tell()
        Unpickler(_WITHOUT_TENSORS, lambda identifier: _note(identifier, sizes)).load(stream)
        keys = Unpickler(KNOWN).load(stream)
        places = _places(region, stream.tell(), keys, sizes)
        stream.seek(start)
        reader = Unpickler(KNOWN, lambda identifier: _storage(identifier, places))
        return reader.load(stream), tuple(reader.unknown)


def _nothing(*_arguments: object) -> None:
    return None


_WITHOUT_TENSORS = {
    name: _nothing if name.startswith("torch._utils._rebuild") else known
    for name, known in KNOWN.items()
}


def _note(identifier: Any, sizes: dict[str, int]) -> Any:
    if identifier[0] == "module":
        return identifier[1]
    _storage, kind, key, _location, _count, _view = identifier
    sizes[str(key)] = storage_dtype(kind).itemsize
    return None


def _places(region: Region, start: int, keys: Any, sizes: dict[str, int]) -> dict[str, Region]:
    """Return where each storage is: they follow each other, each behind its number of values."""
    places = {}
    for key in keys:
        (count,) = COUNT.unpack(region.part(start, COUNT.size).read())
        places[str(key)] = region.part(start + COUNT.size, count * sizes[str(key)])
        start += COUNT.size + places[str(key)].size
    return places


def _storage(identifier: Any, places: dict[str, Region]) -> Any:
    if identifier[0] == "module":  # a class, beside the source text that it had
        return identifier[1]
    _kind, kind, key, _location, _count, view = identifier
    storage = Storage(dtype=storage_dtype(kind), raw=places[str(key)].storage())
    if view is None:
        return storage
    _key, offset, count = view
    return storage.viewed(offset, count)


def tar_members(region: Region) -> dict[str, Region]:
    """Return the plain files in a tar archive, as they lie in it.

    Raises:
        tarfile.TarError: It is damaged.
    """
    with region.file() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        return {
            member.name: region.part(member.offset_data, member.size)
            for member in archive
            if member.isreg() and not member.issparse()
        }


def is_of_2017(members: dict[str, Region]) -> bool:
    """Whether these are the members of a file that torch 0.1.10 or older wrote."""
    return {"pickle", "storages", "tensors"} <= set(members)


def read_tar_of_2017(members: dict[str, Region]) -> tuple[Any, tuple[str, ...]]:
    """Return what torch 0.1.10 or older saved, and the classes in it nobody knows."""
    storages = _storages_of_2017(members["storages"])
    tensors = _tensors_of_2017(members["tensors"], storages)

    def persistent(identifier: Any) -> Any:
        return identifier[0] if isinstance(identifier, tuple) else tensors[int(identifier)]

    reader = Unpickler(KNOWN, persistent)
    with members["pickle"].file() as stream:
        return reader.load(stream), tuple(reader.unknown)


def _storages_of_2017(region: Region) -> dict[Any, Storage]:
    storages: dict[Any, Storage] = {}
    reader = Unpickler(KNOWN)
    with region.file() as stream:
        for _number in range(reader.load(stream)):
            key, _location, kind = reader.load(stream)
            dtype = storage_dtype(kind)
            (count,) = COUNT.unpack(stream.read(COUNT.size))
            place = region.part(stream.tell(), count * dtype.itemsize)
            storages[key] = Storage(dtype=dtype, raw=place.storage())
            stream.seek(place.size, 1)
        for key, root, offset, count in reader.load(stream):
            storages[key] = storages[root].viewed(offset, count)
    return storages


def _tensors_of_2017(region: Region, storages: dict[Any, Storage]) -> dict[int, Any]:
    tensors: dict[int, Any] = {}
    reader = Unpickler(KNOWN)
    with region.file() as stream:
        for _number in range(reader.load(stream)):
            key, storage, _kind = reader.load(stream)
            (dimensions,) = struct.unpack("<i4x", stream.read(8))
            size = _read_numbers(stream, dimensions)
            stride = _read_numbers(stream, dimensions)
            (offset,) = _read_numbers(stream, 1)
            tensors[int(key)] = strided(storages[storage], offset, size, stride)
    return tensors


def _read_numbers(stream: IO[bytes], count: int) -> tuple[int, ...]:
    if not 0 <= count <= 64:  # noqa: PLR2004 - torch's own limit of dimensions
        raise ValueError(f"a tensor of {count} dimensions")
    return struct.unpack(f"<{count}q", stream.read(8 * count))
