"""Shards made: samples are read and scored, and whole shards are handed on."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.images.batches import Audit, batches
from evalkit.inference.loop import run_over
from evalkit.inference.normalizer import Normalizer
from evalkit.inference.outputs import Rows
from evalkit.run.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    import torch

    from evalkit.run.cut import Cut
    from evalkit.run.plan import Plan

WAITING = 2  # shards that may wait for the disk


@dataclass(kw_only=True, eq=False)
class _Batch:
    """A batch from its reading to its results."""

    shard: int
    is_last: bool  # of its shard
    indices: torch.Tensor
    audit: Audit
    rows: Rows | None = None

    @property
    def is_done(self) -> bool:
        return self.rows is not None or not len(self.indices)


@dataclass(kw_only=True)
class Worked:
    """What became of the shards that were to be made.

    Attributes:
        samples: How many were scored.
        flags: What decides how exact the results are, see `evalkit.inference.hardware.computing`.
        lost: What was noticed after the first unreadable image of a run that must not have any:
            nothing is scored from there on, only looked at.
    """

    samples: int = 0
    flags: dict[str, Any] = field(default_factory=dict)
    lost: Audit = field(default_factory=Audit)


def make_shards(
    plan: Plan,
    cut: Cut,
    shards: Sequence[int],
    *,
    deliver: Callable[[Shard], None],
    advance: Callable[[int], object],
) -> Worked:
    """Read and score the samples of some shards.

    Args:
        plan: What is evaluated.
        cut: How its samples are cut.
        shards: Which of them, ascending.
        deliver: Called with every shard that is whole, in order.
        advance: Called with how many samples have been looked at, as they are.

    Raises:
        InputError: The model fails, see `evalkit.inference.loop.run_over`.
    """
    worked = Worked()
    under_way: deque[_Batch] = deque()
    assembled: list[_Batch] = []

    def hand_on() -> None:
        while under_way and under_way[0].is_done:
            batch = under_way.popleft()
            assembled.append(batch)
            if batch.is_last:
                deliver(_whole(assembled))
                assembled.clear()

    def take(batch: _Batch, rows: Rows) -> None:
        batch.rows = rows
        worked.samples += len(rows)
        hand_on()

    feed = _fed(plan, cut, shards, under_way=under_way, worked=worked, advance=advance)
    with closing(feed):  # here, and not by whichever thread collects what an error left behind
        worked.flags = run_over(
            plan.model,
            feed,
            take,
            classes=plan.classes,
            how=plan.computation,
            prepare=Normalizer(plan.transform),
        )
    hand_on()
    return worked


def _fed(
    plan: Plan,
    cut: Cut,
    shards: Sequence[int],
    *,
    under_way: deque[_Batch],
    worked: Worked,
    advance: Callable[[int], object],
) -> Generator[tuple[_Batch, torch.Tensor, torch.Tensor]]:
    """Yield what is to be scored; keep every batch, also one of which nothing could be read."""
    audit = Audit()
    read = batches(
        plan.source,
        plan.transform,
        plan.outputs,
        batch_size=cut.batch_size,
        workers=plan.workers,
        audit=audit,
        positions=cut.of_shards(shards),
        decoding=plan.decoding,
    )
    with closing(read):
        for (shard, is_last), one in zip(cut.batches(shards), read, strict=True):
            noticed = audit.take()
            advance(len(one.indices) + len(noticed.unreadable) + len(noticed.set_aside))
            if worked.lost.unreadable or (noticed.unreadable and plan.on_unreadable == "fail"):
                worked.lost.add(noticed)  # the run is lost: only the list of them is still wanted
                continue
            batch = _Batch(shard=shard, is_last=is_last, indices=one.indices, audit=noticed)
            under_way.append(batch)
            if len(one.indices):
                yield batch, one.pixels, one.labels


def _whole(parts: Sequence[_Batch]) -> Shard:
    audit = Audit()
    for part in parts:
        audit.add(part.audit)
    rows = [part.rows for part in parts if part.rows is not None]
    return Shard(
        number=parts[0].shard,
        indices=np.concatenate([part.indices.numpy() for part in parts]),
        rows=Rows.joined(rows) if rows else None,
        audit=audit,
    )


@contextmanager
def in_background(write: Callable[[Shard], None]) -> Iterator[Callable[[Shard], None]]:
    """Let a thread write shards, so that scoring goes on; what it raises is raised here.

    Yields:
        What takes a shard; it waits where two are waiting already.
    """
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:

        def take(shard: Shard) -> None:
            while len(waiting) >= WAITING:
                waiting.popleft().result()
            waiting.append(pool.submit(write, shard))

        yield take
        for future in waiting:
            future.result()
