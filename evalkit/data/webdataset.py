"""WebDataset tars: indexed once, so that samples can be read in any order and by many."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.data.source import of_files
from evalkit.errors import InputError
from evalkit.images.reading import EXTENSIONS, UnreadableError
from evalkit.wording import counted, natural_order, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evalkit.data.source import Source

INSTALL = "pip install 'gpudiag[webdataset]'"
_IMAGES = tuple(extension.removeprefix(".") for extension in EXTENSIONS)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_META = re.compile(r"__[^/]*__($|/)")  # names that WebDataset keeps for itself

_Place = tuple[Path, int, int]  # the tar, where in it the file begins, its length


def are_tars(data: str) -> bool:
    """Whether data are named as WebDataset tars are.

    Example:
        >>> are_tars("val-{000..012}.tar"), are_tars("val.tar.gz"), are_tars("val")
        (True, True, False)
    """
    return data.lower().endswith((".tar", *_COMPRESSED))


def tars(data: str) -> Source:
    """Index tars of images (``.jpg``, ``.png``, …) with ``.cls`` or ``.json`` beside them.

    A ``.cls`` file holds the class, as a number or a name, a ``.json`` file holds it as ``label``.

    Args:
        data: One tar, or several as ``shard-{000..012}.tar``.

    Raises:
        InputError: A tar is missing, compressed or damaged; samples lack an image or a label.
    """
    paths, labels, places = [], [], []
    incomplete = []
    for shard in _shards(data):
        for key, members in _samples(shard):
            images = [suffix for suffix in members if suffix in _IMAGES]
            label = _label(members)
            if len(images) != 1 or not label:
                incomplete.append(f"{shard.name}/{key}")
                continue
            paths.append(f"{shard.name}/{key}.{images[0]}")
            labels.append(label)
            places.append(members[images[0]])
    if incomplete or not paths:
        raise InputError(
            "data must have samples of one image (.jpg, .png, …) and a class (.cls, or .json with "
            f"label), got {counted(len(incomplete), 'sample')} without in {data}: "
            f"{some(incomplete) or 'it is empty'}"
        )
    names = sorted(set(labels))
    numbered = all(name.isdecimal() for name in names)
    return of_files(
        lambda position: _read(places[position]),
        name=data,
        paths=paths,
        labels=labels,
        classes=tuple(natural_order(names) if numbered else names),
        numbered=numbered,
        order_is_a_guess=not numbered and names != natural_order(names),
        version=_version(places),
    )


def _version(places: Sequence[_Place]) -> str:
    """A fingerprint of where in the tars the images are, and of how many bytes."""
    digest = hashlib.sha256()
    for shard, offset, size in places:
        digest.update(f"{shard.name}:{offset}:{size},".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _shards(data: str) -> list[Path]:
    if data.lower().endswith(_COMPRESSED):
        raise InputError(
            "data must be tars of which any part can be read, got compressed ones in "
            f"{data}: unpack them, with gunzip or the like"
        )
    if "://" in data or data.startswith("pipe:"):
        raise InputError(f"data must be tars on this machine, got {data}: copy them here first")
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise InputError(f"reading {data} needs webdataset: {INSTALL}") from error
    shards = [Path(shard) for shard in expand_urls(data)]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        raise InputError(
            f"data must be tars that are there, got {data} without "
            f"{counted(len(missing), 'of them', 'of them')}: {some(missing)}"
        )
    return shards


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, _Place]]]:
    """Yield the key of every sample of a tar and where its files are, by suffix."""
    from webdataset.tariterators import base_plus_ext

    found: dict[str, dict[str, _Place]] = defaultdict(dict)
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key, suffix = base_plus_ext(member.name)
                if not member.isreg() or key is None or _META.match(member.name):
                    continue
                if suffix.lower() in found[key]:
                    raise InputError(
                        f"data must have every file once, got {member.name} twice in {shard}"
                    )
                found[key][suffix.lower()] = (shard, member.offset_data, member.size)
                archive.members = []  # type: ignore[attr-defined] # else it keeps them all
            end = archive.offset  # of the last member
        if not _is_ended(shard, end):
            raise InputError(
                f"data must be whole tars, got {shard} without the zeros that end one: it was cut "
                "off, so copy it once more (or, if it is whole, write it anew with tar)"
            )
    except (tarfile.TarError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"data must be whole tars, got {shard}: {reason}") from error
    yield from found.items()


def _is_ended(shard: Path, end: int) -> bool:
    """Whether behind the last file of a tar is the block of zeros that every tar ends with."""
    with shard.open("rb") as stream:
        stream.seek(end)
        return stream.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _label(members: dict[str, _Place]) -> str:
    """Return the class of a sample, or "" where there is none."""
    try:
        if "cls" in members:
            return _read(members["cls"]).decode().strip()
        if "json" in members:
            told = json.loads(_read(members["json"]))
            return str(told["label"]).strip()
    except (UnreadableError, ValueError, KeyError, TypeError, RecursionError):
        return ""  # and so the sample is listed as one without
    return ""


def _read(place: _Place) -> bytes:
    shard, offset, size = place
    try:
        with shard.open("rb") as stream:
            stream.seek(offset)
            content = stream.read(size)
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from error
    if len(content) < size:
        raise UnreadableError("the tar is cut off")
    return content
