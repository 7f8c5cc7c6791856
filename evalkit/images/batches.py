"""Samples to batches: decoded and transformed by threads, in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from evalkit.errors import InputError
from evalkit.images.audit import Audit, SetAside, Unreadable
from evalkit.images.decoding import EXACT, Decoder, Waiting
from evalkit.images.geometry import together
from evalkit.images.reading import UnreadableError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from evalkit.data import Source
    from evalkit.images.decoding import Decoding
    from evalkit.transforms import TransformSpec

__all__ = ["Audit", "Batch", "Unreadable", "batches"]

BATCHES_AHEAD = 2  # one that is being put together, one that waits
AT_ONCE = 4  # samples that a thread takes, where there are many: every taking costs


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples, ready for a model."""

    indices: torch.Tensor  # positions in the source, int64, shape (B,)
    pixels: torch.Tensor  # uint8, shape (B, C, H, W)
    labels: torch.Tensor  # positions in the classes, int64, shape (B,)


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
) -> Iterator[Batch]:
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
                pool, reader.prepare, wanted, workers=workers, ahead=BATCHES_AHEAD * batch_size
            )
            for start in range(0, len(wanted), batch_size):
                block = reader.finish(list(islice(ready, batch_size)))
                places = wanted[start : start + batch_size]
                yield _stacked(list(_readable(source, zip(places, block, strict=True), audit)))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    prepare: Callable[[int], _Prepared],
    positions: Sequence[int],
    *,
    workers: int,
    ahead: int,
) -> Iterator[_Prepared]:
    def prepare_all(some: Sequence[int]) -> list[_Prepared]:
        return [prepare(position) for position in some]

    waiting: deque[Future[list[_Prepared]]] = deque()
    given = taken = 0
    while given < len(positions):
        left = min(len(positions) - given, ahead)
        size = max(1, min(AT_ONCE, left // (2 * workers)))  # fewer towards the end
        while waiting and given + size - taken > ahead:
            done = waiting.popleft().result()
            taken += len(done)
            yield from done
        waiting.append(pool.submit(prepare_all, positions[given : given + size]))
        given += size
    while waiting:
        yield from waiting.popleft().result()


@dataclass(frozen=True)
class _Reader:
    """From the position of a sample to what a model sees of it."""

    source: Source
    transform: TransformSpec
    classes: Mapping[str, int]
    decoder: Decoder

    def prepare(self, position: int) -> _Prepared:
        source = self.source
        if source.labels is not None and source.labels[position] not in self.classes:
            return SetAside(index=position, label=source.labels[position])
        try:
            image, label, oddities = source.fetch(position, self.transform.mode)
            if label not in self.classes:
                return SetAside(index=position, label=label)
            decoded, found = self.decoder.decode(image)
        except UnreadableError as error:
            return error
        output, oddities = self.classes[label], oddities + found
        if isinstance(decoded, Waiting):
            return _Pending(file=decoded, label=output, oddities=oddities)
        return _Ready(pixels=self.transform.pixels(decoded), label=output, oddities=oddities)

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
    source: Source, ready: Iterable[tuple[int, _Finished]], audit: Audit
) -> Iterator[tuple[int, _Ready]]:
    for position, sample in ready:
        if isinstance(sample, UnreadableError):
            found = Unreadable(index=position, path=source.paths[position], reason=str(sample))
            audit.unreadable.append(found)
        elif isinstance(sample, SetAside):
            audit.set_aside.append(sample)
        else:
            audit.oddities.update(sample.oddities)
            yield position, sample


def _stacked(chunk: list[tuple[int, _Ready]]) -> Batch:
    if not chunk:
        nothing = torch.empty(0, dtype=torch.int64)
        return Batch(indices=nothing, pixels=nothing.to(torch.uint8), labels=nothing)
    sizes = sorted({tuple(sample.pixels.shape[1:]) for _position, sample in chunk})
    if len(sizes) > 1:
        raise InputError(
            "images must have one size after the transform, got "
            f"{counted(len(sizes), 'size')}: {some(sizes)}: give a transform with crop"
        )
    return Batch(
        indices=torch.tensor([position for position, _sample in chunk]),
        pixels=_on_one_device([sample.pixels for _position, sample in chunk]),
        labels=torch.tensor([sample.label for _position, sample in chunk]),
    )


def _on_one_device(pixels: list[torch.Tensor]) -> torch.Tensor:
    """Stack images; those that only the CPU could decode follow the others to the GPU."""
    device = next((one.device for one in pixels if one.device.type != "cpu"), pixels[0].device)
    return together([one.to(device) for one in pixels])
