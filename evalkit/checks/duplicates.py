"""Whether images of the test are in the training data as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evalkit.checks.finding import Check
from evalkit.checks.fingerprints import (
    BANDS,
    BITS,
    NEAR_BITS,
    Fingerprints,
    fingerprints,
    look_alike,
)
from evalkit.images.reading import UnreadableError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.checks.sample import Integers, Ran
    from evalkit.data.source import Source

DUPLICATES = "train-test-duplicates"
MOST_LOOKED_AT = 5  # training images per test image, those with the nearest hashes first
LISTED = 100  # pairs in the summary
SHOWN = 3
ONES = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A test image and a training image that show the same."""

    test: int  # position in the source of the test
    train: int
    exact: bool  # pixel by pixel


def check_duplicates(ran: Ran, train: Source) -> Check:
    """Ask which of the evaluated images the training data hold.

    Exactly: the same pixels, whatever the file. Nearly: difference hashes within 3 of 64 bits,
    and thumbnails that agree; only images of 32 pixels or more on either side.

    Args:
        ran: The run.
        train: The images of the training.
    """
    known = fingerprints(train, workers=ran.workers)
    tested = fingerprints(ran.source, workers=ran.workers)
    evaluated = set(ran.positions.tolist())
    copies = [
        copy for copy in find_copies(ran.source, tested, train, known) if copy.test in evaluated
    ]
    figures = {
        "samples": len(ran),
        "train_images": len(known),
        "too_plain": int((~tested.telling).sum()),
        "exact": sum(copy.exact for copy in copies),
        "near": sum(not copy.exact for copy in copies),
    }
    if not copies:
        return Check(
            id=DUPLICATES,
            verdict="passed",
            evidence=(
                f"none of {counted(len(ran), 'image')} is among {len(known):,} training images, "
                "neither pixel by pixel nor nearly"
            ),
            figures=figures,
        )
    return _warning(ran, train, copies, figures)


def find_copies(
    test: Source, tested: Fingerprints, train: Source, known: Fingerprints
) -> list[Copy]:
    """Return for each test image the training image that is the same, or looks the same."""
    order = np.argsort(known.digests, kind="stable")
    places = np.searchsorted(known.digests, tested.digests, sorter=order)
    found = []
    for number, place in enumerate(places.tolist()):
        same = place < len(known) and known.digests[order[place]] == tested.digests[number]
        if same:
            at = int(known.positions[order[place]])
            found.append(Copy(test=int(tested.positions[number]), train=at, exact=True))
    exact = {copy.test for copy in found}
    for number, candidates in _candidates(tested, known):
        position = int(tested.positions[number])
        if position in exact:
            continue
        alike = (int(known.positions[one]) for one in candidates)
        near = next((one for one in alike if _look_alike(test, position, train, one)), None)
        if near is not None:
            found.append(Copy(test=position, train=near, exact=False))
    return sorted(found, key=lambda copy: copy.test)


def _candidates(tested: Fingerprints, known: Fingerprints) -> Iterator[tuple[int, list[int]]]:
    """Yield test images with the training images whose hashes are near, the nearest first."""
    told = np.flatnonzero(known.telling)
    bands = []
    for band in range(BANDS):
        values = _band(known.hashes[told], band)
        order = np.argsort(values, kind="stable")
        asked = _band(tested.hashes, band)
        ends = (np.searchsorted(values, asked, side, sorter=order) for side in ("left", "right"))
        bands.append((told[order], *ends))
    for number in np.flatnonzero(tested.telling).tolist():
        parts = [members[first[number] : last[number]] for members, first, last in bands]
        members = np.unique(np.concatenate(parts))
        distances = _distance(known.hashes[members], tested.hashes[number])
        order = np.argsort(distances, kind="stable")
        near = order[distances[order] <= NEAR_BITS]
        if near.size:
            yield number, members[near][:MOST_LOOKED_AT].tolist()


def _band(hashes: npt.NDArray[np.uint64], band: int) -> npt.NDArray[np.uint64]:
    width = BITS // BANDS
    shifted: npt.NDArray[np.uint64] = hashes >> np.uint64(band * width)
    return shifted & np.uint64(2**width - 1)


def _distance(hashes: npt.NDArray[np.uint64], one: np.uint64) -> Integers:
    differing = np.ascontiguousarray(hashes ^ one).view(np.uint8).reshape(-1, 8)
    distances: Integers = ONES[differing].sum(axis=1, dtype=np.int64)
    return distances


def _look_alike(test: Source, position: int, train: Source, other: int) -> bool:
    try:
        images = test.load(position, "RGB").image, train.load(other, "RGB").image
    except UnreadableError:
        return False  # it was readable a moment ago, and is not now
    return look_alike(*images)


def _warning(ran: Ran, train: Source, copies: list[Copy], figures: dict[str, int]) -> Check:
    right = ran.predictions == ran.labels
    clean = ~np.isin(ran.positions, [copy.test for copy in copies])
    accuracy = float(right.mean())
    without = float(right[clean].mean()) if clean.any() else None
    pairs = [f"{ran.source.paths[one.test]} = {train.paths[one.train]}" for one in copies]
    said = f"{without:.3f}" if without is not None else "undefined"
    return Check(
        id=DUPLICATES,
        verdict="warning",
        evidence=(
            f"{len(copies):,} of {counted(len(ran), 'image')} are in the training data, "
            f"{figures['exact']:,} pixel by pixel and {figures['near']:,} nearly "
            f"({some(pairs, shown=SHOWN)}): accuracy is {accuracy:.3f}, and {said} without them"
        ),
        figures={
            **figures,
            "accuracy": accuracy,
            "accuracy_other": without,
            "pairs": [
                {
                    "test": ran.source.paths[one.test],
                    "train": train.paths[one.train],
                    "exact": one.exact,
                }
                for one in copies[:LISTED]
            ],
        },
    )
