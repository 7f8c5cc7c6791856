"""Samples to batches: decoded and transformed by threads, in order, in bounded memory."""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import torch

from evalkit.errors import InputError
from evalkit.images import UnreadableError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from evalkit.data import Source
    from evalkit.transforms import TransformSpec

BATCHES_AHEAD = 2  # one that is being put together, one that waits


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples, ready for a model."""

    indices: torch.Tensor  # positions in the source, int64, shape (B,)
    pixels: torch.Tensor  # uint8, shape (B, C, H, W)
    labels: torch.Tensor  # positions in the classes, int64, shape (B,)


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A sample that no prediction can be made for."""

    path: str
    reason: str


@dataclass(kw_only=True)
class Audit:
    """What was noticed while samples were read."""

    unreadable: list[Unreadable] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class _Ready:
    pixels: torch.Tensor
    label: int
    oddities: tuple[str, ...]


def batches(
    source: Source,
    transform: TransformSpec,
    classes: Mapping[str, int],
    *,
    batch_size: int,
    workers: int,
    audit: Audit,
) -> Iterator[Batch]:
    """Yield all readable samples once, in order.

    At most two batches of decoded samples wait in memory. Samples that cannot be read are left
    out and noted in *audit*, which is complete when the iterator ends.

    Args:
        source: The samples.
        transform: Makes pixels of one size from an image.
        classes: Name -> position among the outputs of the model.
        batch_size: Samples per batch; the last one may be smaller.
        workers: Threads that decode.
        audit: Where to note what was unreadable or odd.

    Raises:
        InputError: Images of one batch end up with different sizes.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            ready = _in_order(pool, source, transform, classes, ahead=BATCHES_AHEAD * batch_size)
            samples = _readable(source, ready, audit)
            while chunk := list(islice(samples, batch_size)):
                yield _stacked(chunk)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    source: Source,
    transform: TransformSpec,
    classes: Mapping[str, int],
    *,
    ahead: int,
) -> Iterator[_Ready | UnreadableError]:
    waiting: deque[Future[_Ready | UnreadableError]] = deque()
    for position in range(len(source)):
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(_prepare, source, transform, classes, position))
    while waiting:
        yield waiting.popleft().result()


def _prepare(
    source: Source, transform: TransformSpec, classes: Mapping[str, int], position: int
) -> _Ready | UnreadableError:
    try:
        loaded = source.load(position, transform.mode)
    except UnreadableError as error:
        return error
    pixels = transform.pixels(loaded.image)
    return _Ready(pixels=pixels, label=classes[loaded.label], oddities=loaded.oddities)


def _readable(
    source: Source, ready: Iterator[_Ready | UnreadableError], audit: Audit
) -> Iterator[tuple[int, _Ready]]:
    for position, sample in enumerate(ready):
        if isinstance(sample, UnreadableError):
            path = source.paths[position]
            audit.unreadable.append(Unreadable(path=path, reason=str(sample)))
        else:
            audit.oddities.update(sample.oddities)
            yield position, sample


def _stacked(chunk: list[tuple[int, _Ready]]) -> Batch:
    sizes = sorted({tuple(sample.pixels.shape[1:]) for _position, sample in chunk})
    if len(sizes) > 1:
        raise InputError(
            "images must have one size after the transform, got "
            f"{counted(len(sizes), 'size')}: {some(sizes)}: give a transform with crop"
        )
    return Batch(
        indices=torch.tensor([position for position, _sample in chunk]),
        pixels=torch.stack([sample.pixels for _position, sample in chunk]),
        labels=torch.tensor([sample.label for _position, sample in chunk]),
    )
