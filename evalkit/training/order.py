"""Which samples make up which step: a function of the seed and the epoch, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Key = tuple[int, int]  # the epoch and the position of a sample: all that its augmentation rests on


@dataclass(frozen=True, kw_only=True)
class Order:
    """Every sample once per epoch, in steps whose sizes differ by one at the most.

    A step may be divided among several processes (ranks) and, in each of them, into parts that
    are computed one after the other; neither changes which samples the step is made of.

    Attributes:
        samples: How many there are.
        batch_size: Samples per step, over all ranks and parts; never more, perhaps fewer.
        seed: With the epoch it decides everything.
        parts: How many forward and backward passes make up a step, on every rank.
        rank: This process, from 0.
        ranks: How many processes share the work.

    Raises:
        InputError: There are no samples, or a step is smaller than the parts it is divided into.

    Example:
        >>> order = Order(samples=10, batch_size=4, seed=0)
        >>> order.steps, [len(order.step(1, number)) for number in range(3)]
        (3, [3, 3, 4])
        >>> sorted(np.concatenate([order.step(1, number) for number in range(3)]).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    samples: int
    batch_size: int
    seed: int
    parts: int = 1
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError("training must have at least one sample, got none")
        if min(self.batch_size, self.parts) < 1:
            raise InputError(
                f"batch_size and accumulate must be at least 1, got {self.batch_size} and "
                f"{self.parts}"
            )
        smallest = self.samples // self.steps
        if smallest < self.parts * self.ranks:
            raise InputError(
                "a step must have a sample for every process and every part, got steps of "
                f"{smallest} samples (batch_size {self.batch_size}, {self.samples} samples) for "
                f"{self.ranks} x {self.parts}: enlarge batch_size"
            )

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""
        return -(-self.samples // self.batch_size)

    def step(self, epoch: int, number: int) -> npt.NDArray[np.int64]:
        """Positions of the samples of a step of an epoch; steps count from 0."""
        return self._step(self._permutation(epoch), number)

    def size(self, number: int) -> int:
        """How many samples a step has, over all ranks and parts."""
        return self._bound(number + 1) - self._bound(number)

    def keys(self, epoch: int, *, first_step: int = 0) -> Iterator[list[Key]]:
        """What this rank computes in an epoch, part after part.

        Args:
            epoch: From 1.
            first_step: Steps that are left out because they were done before.
        """
        permutation = self._permutation(epoch)
        among = self.parts * self.ranks
        for number in range(first_step, self.steps):
            positions = self._step(permutation, number)
            for part in range(self.parts):
                place = part * self.ranks + self.rank
                low, high = (len(positions) * edge // among for edge in (place, place + 1))
                yield [(epoch, int(position)) for position in positions[low:high]]

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.samples)

    def _step(self, permutation: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
        return permutation[self._bound(number) : self._bound(number + 1)]

    def _bound(self, number: int) -> int:
        return self.samples * number // self.steps
