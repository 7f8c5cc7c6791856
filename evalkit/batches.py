"""Samples to batches: decoded and transformed by threads, in order, in bounded memory."""

from __future__ import annotations

import functools
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from evalkit.errors import InputError
from evalkit.images import UnreadableError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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

    index: int  # position in the source
    path: str
    reason: str


@dataclass(kw_only=True)
class Audit:
    """What was noticed while samples were read.

    Whenever `batches` has yielded a batch, its audit holds what was noticed up to that batch's
    last sample, and nothing of what comes after it; so an audit can be kept per part of a run.

    Example:
        >>> first, second = Audit(), Audit(oddities=Counter({"a palette": 2}))
        >>> second.unreadable.append(Unreadable(index=3, path="a.png", reason="is empty"))
        >>> first.add(Audit.from_dict(second.as_dict()))
        >>> first == second
        True
        >>> second.take() == first, second == Audit()
        (True, True)
    """

    unreadable: list[Unreadable] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)

    def add(self, other: Audit) -> None:
        """Add what was noticed in another part of the data, in the order of the samples."""
        self.unreadable = sorted([*self.unreadable, *other.unreadable], key=lambda one: one.index)
        self.oddities.update(other.oddities)

    def take(self) -> Audit:
        """Return what was noticed since this was asked last, and forget it."""
        taken = Audit(unreadable=self.unreadable, oddities=self.oddities)
        self.unreadable, self.oddities = [], Counter()
        return taken

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them."""
        return {
            "unreadable": [asdict(one) for one in self.unreadable],
            "oddities": dict(sorted(self.oddities.items())),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Audit:
        """Read what `as_dict` wrote."""
        return cls(
            unreadable=[Unreadable(**one) for one in values["unreadable"]],
            oddities=Counter(values["oddities"]),
        )


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
    positions: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Yield all readable samples once, in order, cut into batches at the same positions always.

    What is unreadable leaves a gap in its batch, which may become empty: so a part of the samples
    gets the same batches, and with them the same last digits, as all of them. Samples that cannot
    be read are noted in *audit*, which is complete when the iterator ends. At most two batches of
    decoded samples wait in memory.

    Args:
        source: The samples.
        transform: Makes pixels of one size from an image.
        classes: Name -> position among the outputs of the model.
        batch_size: Samples per batch, with the unreadable ones; the last one may be smaller.
        workers: Threads that decode.
        audit: Where to note what was unreadable or odd.
        positions: Which samples of the source, in this order. None takes all.

    Raises:
        InputError: Images of one batch end up with different sizes.
    """
    wanted = range(len(source)) if positions is None else positions
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            prepare = functools.partial(_prepare, source, transform, classes)
            ready = _in_order(pool, prepare, wanted, ahead=BATCHES_AHEAD * batch_size)
            samples = zip(wanted, ready, strict=True)
            while block := list(islice(samples, batch_size)):
                yield _stacked(list(_readable(source, block, audit)))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    prepare: Callable[[int], _Ready | UnreadableError],
    positions: Sequence[int],
    *,
    ahead: int,
) -> Iterator[_Ready | UnreadableError]:
    waiting: deque[Future[_Ready | UnreadableError]] = deque()
    for position in positions:
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(prepare, position))
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
    source: Source, ready: Iterable[tuple[int, _Ready | UnreadableError]], audit: Audit
) -> Iterator[tuple[int, _Ready]]:
    for position, sample in ready:
        if isinstance(sample, UnreadableError):
            found = Unreadable(index=position, path=source.paths[position], reason=str(sample))
            audit.unreadable.append(found)
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
        pixels=torch.stack([sample.pixels for _position, sample in chunk]),
        labels=torch.tensor([sample.label for _position, sample in chunk]),
    )
