"""Samples to batches: decoded and transformed by threads, in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL.Image import Image

from evalkit.errors import InputError
from evalkit.images.audit import Audit, SetAside, Unreadable
from evalkit.images.decoding import EXACT, Decoder, Waiting
from evalkit.images.geometry import together
from evalkit.images.reading import UnreadableError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from evalkit.data import Source
    from evalkit.images.decoding import Decoding
    from evalkit.transforms import TransformSpec

__all__ = ["Audit", "Batch", "Unreadable", "batches"]

BATCHES_AHEAD = 2  # one that is being put together, one that waits
# Samples that a thread takes, where there are many: every taking costs, and files that are read one
# after the other cost less than those between which an image was decoded.
AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples, ready for a model."""

    indices: torch.Tensor  # positions in the source, int64, shape (B,)
    pixels: torch.Tensor  # uint8, shape (B, C, H, W)
    labels: torch.Tensor  # positions in the classes, int64, shape (B,)


class _Room:
    """Memory for the pixels of one batch: threads put each image where it belongs in it."""

    def __init__(self, samples: int, shape: tuple[int, int, int]) -> None:
        channels, height, width = shape
        self._images = np.empty((samples, height, width, channels), np.uint8)  # in large pages
        self._memory = torch.from_numpy(self._images)

    def put(self, place: int, pixels: torch.Tensor) -> torch.Tensor:
        """Copy an image of shape (C, H, W) into its place, and return it there."""
        np.copyto(self._images[place], pixels.permute(1, 2, 0).cpu().numpy())
        return self._memory[place].permute(2, 0, 1)

    def batch(self, places: list[int]) -> torch.Tensor:
        """Return what was put into some places, shape (N, C, H, W), the colours side by side."""
        is_full = len(places) == len(self._memory)
        return (self._memory if is_full else self._memory[places]).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Place:
    """A sample, and where its pixels go; without a room they stay where they were made."""

    position: int  # in the source
    room: _Room | None
    number: int  # in its batch


@dataclass(frozen=True, kw_only=True)
class _Ready:
    pixels: torch.Tensor
    label: int
    oddities: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Pending:
    file: Waiting
    label: int
    oddities: tuple[str, ...]


_Encoded = tuple[bytes | Image | torch.Tensor, str, tuple[str, ...]]
_Fetched = _Encoded | UnreadableError | SetAside
_Finished = _Ready | UnreadableError | SetAside
_Prepared = _Finished | _Pending


def batches(
    source: Source,
    transform: TransformSpec,
    classes: Mapping[str, int],
    *,
    batch_size: int,
    workers: int,
    audit: Audit,
    positions: Sequence[int] | None = None,
    decoding: Decoding = EXACT,
) -> Generator[Batch]:
    """Yield all readable samples once, in order, cut into batches at the same positions always.

    What has no prediction leaves a gap in its batch, which may become empty: so a part of the
    samples gets the same batches, and with them the same last digits, as all of them. Samples that
    cannot be read, and those of classes that the model does not know, are noted in *audit*, which
    is complete when the iterator ends. At most two batches of decoded samples wait in memory.

    Args:
        source: The samples.
        transform: Makes pixels of one size from an image.
        classes: Name -> position among the outputs of the model.
        batch_size: Samples per batch, with those in the audit; the last one may be smaller.
        workers: Threads that decode.
        audit: Where to note what was unreadable, odd or set aside.
        positions: Which samples of the source, in this order. None takes all.
        decoding: How to decode files.

    Raises:
        InputError: Images of one batch end up with different sizes, or decoding cannot be had.
    """
    wanted = range(len(source)) if positions is None else positions
    reader = _Reader(source, transform, classes, Decoder(transform, decoding))
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            ready = _in_order(
                pool,
                reader.prepare,
                reader.places(wanted, batch_size),
                workers=workers,
                ahead=BATCHES_AHEAD * batch_size,
                count=len(wanted),
            )
            while block := list(islice(ready, batch_size)):
                samples = reader.finish([sample for _place, sample in block])
                places = [place for place, _sample in block]
                yield _stacked(list(_readable(source, zip(places, samples, strict=True), audit)))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    prepare: Callable[[Sequence[_Place]], list[_Prepared]],
    places: Iterator[_Place],
    *,
    workers: int,
    ahead: int,
    count: int,
) -> Iterator[tuple[_Place, _Prepared]]:
    waiting: deque[tuple[list[_Place], Future[list[_Prepared]]]] = deque()
    given = taken = 0
    while given < count:
        left = min(count - given, ahead)
        size = max(1, min(AT_ONCE, left // (2 * workers)))  # fewer towards the end
        while waiting and given + size - taken > ahead:
            group, done = waiting.popleft()
            taken += len(group)
            yield from zip(group, done.result(), strict=True)
        group = list(islice(places, size))
        waiting.append((group, pool.submit(prepare, group)))
        given += size
    while waiting:
        group, done = waiting.popleft()
        yield from zip(group, done.result(), strict=True)


@dataclass(frozen=True)
class _Reader:
    """From the positions of samples to what a model sees of them."""

    source: Source
    transform: TransformSpec
    classes: Mapping[str, int]
    decoder: Decoder

    def places(self, wanted: Sequence[int], batch_size: int) -> Iterator[_Place]:
        """Yield where each sample goes, with memory for a batch as its first sample comes."""
        shape = None if self.decoder.waits else self.transform.shape
        for start in range(0, len(wanted), batch_size):
            positions = wanted[start : start + batch_size]
            room = None if shape is None else _Room(len(positions), shape)
            for number, position in enumerate(positions):
                yield _Place(position, room, number)

    def prepare(self, places: Sequence[_Place]) -> list[_Prepared]:
        """Read and decode some samples; files are read before the first of them is decoded."""
        if self.source.encoded is None:  # what comes decoded is large: one at a time
            return [self._decode(place, self._fetch(place)) for place in places]
        fetched = [self._fetch(place) for place in places]
        return [self._decode(place, one) for place, one in zip(places, fetched, strict=True)]

    def _fetch(self, place: _Place) -> _Fetched:
        labels = self.source.labels
        if labels is not None and labels[place.position] not in self.classes:
            return SetAside(index=place.position, label=labels[place.position])
        try:
            return self.source.fetch(place.position, self.transform.mode)
        except UnreadableError as error:
            return error

    def _decode(self, place: _Place, fetched: _Fetched) -> _Prepared:
        if not isinstance(fetched, tuple):
            return fetched
        image, label, oddities = fetched
        if label not in self.classes:
            return SetAside(index=place.position, label=label)
        try:
            decoded, found = self.decoder.decode(image)
        except UnreadableError as error:
            return error
        output, oddities = self.classes[label], oddities + found
        if isinstance(decoded, Waiting):
            return _Pending(file=decoded, label=output, oddities=oddities)
        pixels = self.transform.pixels(decoded)
        if place.room is not None:
            pixels = place.room.put(place.number, pixels)
        return _Ready(pixels=pixels, label=output, oddities=oddities)

    def finish(self, block: Sequence[_Prepared]) -> Iterator[_Finished]:
        """Decode those samples of a block that wait for each other."""
        files = [one.file for one in block if isinstance(one, _Pending)]
        decoded = iter(self.decoder.decode_waiting(files) if files else ())
        for one in block:
            if not isinstance(one, _Pending):
                yield one
                continue
            image = next(decoded)
            if isinstance(image, UnreadableError):
                yield image
            else:
                pixels = self.transform.pixels(image)
                yield _Ready(pixels=pixels, label=one.label, oddities=one.oddities)


def _readable(
    source: Source, samples: Iterable[tuple[_Place, _Finished]], audit: Audit
) -> Iterator[tuple[_Place, _Ready]]:
    for place, sample in samples:
        if isinstance(sample, UnreadableError):
            path = source.paths[place.position]
            found = Unreadable(index=place.position, path=path, reason=str(sample))
            audit.unreadable.append(found)
        elif isinstance(sample, SetAside):
            audit.set_aside.append(sample)
        else:
            audit.oddities.update(sample.oddities)
            yield place, sample


def _stacked(chunk: list[tuple[_Place, _Ready]]) -> Batch:
    if not chunk:
        nothing = torch.empty(0, dtype=torch.int64)
        return Batch(indices=nothing, pixels=nothing.to(torch.uint8), labels=nothing)
    return Batch(
        indices=torch.tensor([place.position for place, _sample in chunk]),
        pixels=_pixels(chunk),
        labels=torch.tensor([sample.label for _place, sample in chunk]),
    )


def _pixels(chunk: list[tuple[_Place, _Ready]]) -> torch.Tensor:
    room = chunk[0][0].room
    if room is not None:
        return room.batch([place.number for place, _sample in chunk])
    images = [sample.pixels for _place, sample in chunk]
    sizes = sorted({tuple(one.shape[1:]) for one in images})
    if len(sizes) > 1:
        raise InputError(
            "images must have one size after the transform, got "
            f"{counted(len(sizes), 'size')}: {some(sizes)}: give a transform with crop"
        )
    return _on_one_device(images)


def _on_one_device(pixels: list[torch.Tensor]) -> torch.Tensor:
    """Stack images; those that only the CPU could decode follow the others to the GPU."""
    device = next((one.device for one in pixels if one.device.type != "cpu"), pixels[0].device)
    return together([one.to(device) for one in pixels])
