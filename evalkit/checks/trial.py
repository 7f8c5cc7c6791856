"""Ways to ask a model about its own images, tried beside the run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from evalkit.checks.evidence import Booleans, paired
from evalkit.checks.sample import Integers, Ran, Read, ask, given
from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from evalkit.transforms import TransformSpec

# All ways see this many of the run's mistakes. What is to be clearly better must mend some of them:
# a wrong preparation is behind most mistakes of its run, and another right one behind few.
SCREENED = 16
LEAST_MENDED = 4
# Those that do see so many images, right ones too, and then the whole sample if they are ahead at
# this level by themselves. Only then are they judged, once, and corrected for the number of ways.
GLANCE = 64
PROMISING = 0.2
# What models raise when they are given images of another size.
_REFUSALS = (InputError, RuntimeError, ValueError, TypeError, AssertionError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """One way to ask the model about an image, other than the run's."""

    kind: str
    words: str
    spec: TransformSpec
    prepare: Callable[[torch.Tensor], torch.Tensor]
    altered: Callable[[torch.nn.Module], AbstractContextManager[None]] | None = None


class Trial:
    """Which ways were right about which images, as far as they have been asked.

    Every way is judged under one or two orders of the classes, M; the run under the better one.
    """

    def __init__(self, ran: Ran, ways: Sequence[Way], meanings: Sequence[Integers]) -> None:
        self._ran, self._meanings = ran, meanings
        self.ways = list(ways)
        self.tests = len(ways) * len(meanings)  # however many of them are left
        self.images = 0  # that went through the model
        self._asked: list[Integers] = []
        self._right: dict[Way, list[Booleans]] = {way: [] for way in ways}  # (M, B) per chunk
        whole = [meaning[ran.predictions] == ran.labels for meaning in meanings]
        self.run_right: Booleans = max(whole, key=lambda right: int(right.sum()))  # of all samples

    def ask(self, part: Read) -> None:
        """Ask all ways about the same images; forget those that the model refuses."""
        if not part.images:
            return
        self._asked.append(part.chosen)
        labels = self._ran.labels[part.chosen]
        for way in list(self.ways):
            try:
                pixels = torch.stack([way.spec.pixels(image) for image in part.images])
                scores = ask(self._ran, pixels, prepare=way.prepare, altered=way.altered)
            except _REFUSALS:
                self.ways.remove(way)  # the model takes no such images: it never learned on them
                continue
            named = given(scores)
            self.images += len(pixels)
            self._right[way].append(np.stack([m[named] == labels for m in self._meanings]))

    def screen(self, parts: Iterable[Read]) -> None:
        """Forget the ways that mend none of the run's mistakes; start anew with the others."""
        for part in parts:
            self.ask(part)
        self.ways = [way for way in self.ways if self.right(way).sum(axis=1).max() >= LEAST_MENDED]
        self._asked = []
        self._right = {way: [] for way in self.ways}

    def keep_promising(self) -> None:
        """Forget the ways that are not ahead of the run."""
        before = self.before
        self.ways = [
            way
            for way in self.ways
            if any(paired(before, after).p_value <= PROMISING for after in self.right(way))
        ]

    @property
    def _positions(self) -> Integers:
        return np.concatenate([np.zeros(0, dtype=np.int64), *self._asked])

    @property
    def labels(self) -> Integers:
        """Of the images that were asked about, shape (N,)."""
        return self._ran.labels[self._positions]

    @property
    def before(self) -> Booleans:
        """Whether the run was right about them, shape (N,)."""
        return self.run_right[self._positions]

    def right(self, way: Way) -> Booleans:
        """Whether a way was right about them, shape (M, N)."""
        none = np.zeros((len(self._meanings), 0), dtype=np.bool_)
        return np.concatenate([none, *self._right[way]], axis=1)
