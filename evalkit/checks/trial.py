"""Ways to ask a model about its own images, tried beside the run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from evalkit.checks.evidence import Booleans, paired
from evalkit.checks.sample import Integers, Ran, Read, RefusedError, ask, given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from evalkit.transforms import TransformSpec

# All ways see this many of the run's mistakes. What is to be clearly better must mend some of them:
# a wrong preparation is behind most mistakes of its run, and another right one behind few.
SCREENED = 16
LEAST_MENDED = 3
MISSED = 0.05  # chance that one is lost here that mends just enough of all mistakes
# The others see a few images, right ones too, then more and more while they are ahead.
GLANCE, USUAL, MOST = 64, 256, 1024
SHARE_OF_RUN = 8  # more than the usual number of images are at most an eighth of the run's


@dataclass(frozen=True, kw_only=True)
class Look:
    """How far the ways are tried before the next decision about them.

    Attributes:
        images: Of the sample that have been seen by then.
        share: Of the level at which ways are judged here, so that all looks together keep it; 0
            where they are not judged.
        ahead: Ways go on if they are ahead, with a p-value of this or less by themselves; the few
            mistakes among few images seldom say more than that.
    """

    images: int
    share: float = 0.0
    ahead: float = 0.0


def looks_at(samples: int) -> tuple[Look, ...]:
    """Return the looks at a run of so many samples.

    Example:
        >>> [look.images for look in looks_at(1_000)], [look.images for look in looks_at(50_000)]
        ([64, 256], [64, 256, 1024])
    """
    most = min(MOST, samples // SHARE_OF_RUN)
    first = Look(images=min(GLANCE, samples), ahead=1.0)
    if most <= USUAL:
        return first, Look(images=min(USUAL, samples), share=1.0)
    return first, Look(images=USUAL, share=0.5, ahead=0.05), Look(images=most, share=0.5)


def least_mended(needed: int, mistakes: int, shown: int) -> int:
    """Return how many of the mistakes that it is shown a way must mend to be tried further.

    Args:
        needed: Mistakes that a way must mend to be clearly better, of all that it may see.
        mistakes: All that it may see.
        shown: Those that it is shown.

    Example:
        >>> least_mended(16, 300, 16), least_mended(16, 31, 16)
        (3, 5)
    """
    from scipy.special import bdtr

    enough = LEAST_MENDED
    while enough < shown and bdtr(enough, shown, min(1.0, needed / mistakes)) <= MISSED:
        enough += 1
    return enough


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
            except (RefusedError, RuntimeError, ValueError):  # or images of several sizes
                self.ways.remove(way)  # it never learned on such images
                continue
            named = given(scores)
            self.images += len(pixels)
            self._right[way].append(np.stack([m[named] == labels for m in self._meanings]))

    def screen(self, parts: Iterable[Read], *, enough: int) -> None:
        """Forget the ways that mend fewer of the run's mistakes; start anew with the others."""
        for part in parts:
            self.ask(part)
        self.ways = [way for way in self.ways if self.right(way).sum(axis=1).max() >= enough]
        self._asked = []
        self._right = {way: [] for way in self.ways}

    def keep(self, *, ahead: float) -> None:
        """Forget the ways that are not ahead of the run at this level, each by itself."""
        before = self.before
        self.ways = [
            way
            for way in self.ways
            if any(
                counts.gain > 0 and counts.p_value <= ahead
                for counts in (paired(before, after) for after in self.right(way))
            )
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

    def right_in(self, meaning: Integers) -> Booleans:
        """Whether the run would have been right about them in another order, shape (N,)."""
        positions = self._positions
        return np.asarray(meaning[self._ran.predictions[positions]] == self._ran.labels[positions])

    def right(self, way: Way) -> Booleans:
        """Whether a way was right about them, shape (M, N)."""
        none = np.zeros((len(self._meanings), 0), dtype=np.bool_)
        return np.concatenate([none, *self._right[way]], axis=1)
