"""How samples are cut into batches and shards: always alike, whoever works on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

SHARDS = 1_024  # so many, where neither bound holds: enough for all processes to end together
SMALLEST = 512  # samples: a file for fewer is not worth its making
LARGEST = 8_192  # samples: what a killed run loses at most, per process
MOST_SHARDS = 16_384  # files in one folder; beyond, shards grow instead
MOST_SCORES = 4_000_000  # in one shard, where scores are kept: 16 MB


@dataclass(frozen=True, kw_only=True)
class Cut:
    """N samples in batches, and batches in shards, by position alone.

    A batch is the same whichever process makes it, and after whatever: so are its last digits.

    Attributes:
        samples: N.
        batch_size: Positions per batch.
        shard_size: Positions per shard, a multiple of *batch_size*.

    Example:
        >>> cut = Cut(samples=10, batch_size=2, shard_size=4)
        >>> [list(cut.positions(shard)) for shard in cut.shards]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        >>> list(cut.batches([0, 2]))
        [(0, False), (0, True), (2, True)]
    """

    samples: int
    batch_size: int
    shard_size: int

    @property
    def shards(self) -> range:
        """The numbers of all shards."""
        return range(-(-self.samples // self.shard_size))

    def positions(self, shard: int) -> range:
        """The samples of a shard."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.samples))

    def batches(self, shards: Sequence[int]) -> Iterator[tuple[int, bool]]:
        """The batches of some shards: the shard of each, and whether it is the last one of it."""
        for shard in shards:
            count = -(-len(self.positions(shard)) // self.batch_size)
            for number in range(1, count + 1):
                yield shard, number == count

    def of_shards(self, shards: Sequence[int]) -> Positions:
        """The samples of some shards, one after the other."""
        return Positions(cut=self, shards=tuple(shards))


@dataclass(frozen=True, kw_only=True)
class Positions(Sequence[int]):
    """The positions of the samples of some shards, without a list of them.

    Example:
        >>> cut = Cut(samples=10, batch_size=2, shard_size=4)
        >>> some = cut.of_shards([0, 2])
        >>> list(some), len(some), some[-1]
        ([0, 1, 2, 3, 8, 9], 6, 9)
        >>> some[3:5]
        [3, 8]
    """

    cut: Cut
    shards: tuple[int, ...]  # ascending: only the last one may be shorter

    @cached_property
    def _length(self) -> int:
        return sum(len(self.cut.positions(shard)) for shard in self.shards)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> list[int]: ...

    def __getitem__(self, place: int | slice) -> int | list[int]:
        places = range(self._length)[place]
        return self._at(places) if isinstance(places, int) else [self._at(one) for one in places]

    def _at(self, place: int) -> int:
        shard, rest = divmod(place, self.cut.shard_size)
        return self.shards[shard] * self.cut.shard_size + rest


def cut(samples: int, *, batch_size: int, scores: int = 0) -> Cut:
    """Decide how samples are cut, by their number alone.

    Args:
        samples: How many there are.
        batch_size: How many go through the model at once.
        scores: How many numbers are kept of each, where all of them are.

    Example:
        >>> cut(50_000, batch_size=64).shard_size, len(cut(10_000_000, batch_size=64).shards)
        (512, 1221)
        >>> cut(100, batch_size=64).shard_size
        512
    """
    wanted = min(max(samples // SHARDS, SMALLEST), LARGEST)
    wanted = max(wanted, -(-samples // MOST_SHARDS))
    if scores:
        wanted = min(wanted, MOST_SCORES // scores)
    return Cut(
        samples=samples,
        batch_size=batch_size,
        shard_size=max(1, -(-wanted // batch_size)) * batch_size,
    )
