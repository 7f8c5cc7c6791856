"""Whether the model does clearly better on the same images when they are prepared otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from evalkit.checks import batch_norm
from evalkit.checks.alternatives import CHANNEL_ORDER, KINDS, NORMALISATION, alternatives
from evalkit.checks.batch_norm import BATCH_NORM
from evalkit.checks.evidence import LEVEL, Booleans, Paired, least_gained, paired
from evalkit.checks.finding import RIVAL, Check, skipped
from evalkit.checks.labels import LABEL_ORDER
from evalkit.checks.sample import Integers, Ran, Read, choose, read
from evalkit.checks.trial import SCREENED, USUAL, Look, Trial, Way, least_mended, looks_at
from evalkit.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evalkit.transforms import TransformSpec

CHUNK = 32  # images at a time; batch norm needs about as many to estimate its statistics
LEAST_APART = 0.05  # p-value from which on an order of the classes is no better than other pixels
LEAST_GAIN = 0.01  # of accuracy: below a point nothing is called clearly better
ADVICE = {
    CHANNEL_ORDER: "let the model flip the channels first, or take weights for RGB",
    NORMALISATION: "give the mean and deviation of the training with --transform",
    BATCH_NORM: (
        "the running statistics were not learned or do not fit these images; train on with a "
        "smaller momentum, or estimate them anew"
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Better:
    """A way that is clearly better than the run's."""

    way: Way
    counts: Paired
    accuracy: tuple[float, float]  # on the sample: as the run did it, and in this way
    right: Booleans  # shape (N,)
    as_labelled: bool  # under the order of the classes as given


def check_preparation(
    ran: Ran,
    spec: TransformSpec,
    *,
    sample: int | None,
    meaning: Integers | None = None,
) -> list[Check]:
    """Ask whether channel order, normalisation, preset and batch norm statistics are right.

    A sample of the run's images is prepared in every other usual way. All ways see 16 mistakes of
    the run; those that mend some of them see 64 images, and those that are then ahead 256, and 1024
    where the run is large. The best one that is clearly better is warned of; others that are better
    too are explained by it.

    Args:
        ran: The run.
        spec: How it prepared its images.
        sample: Images that all ways see; None for the few that it takes.
        meaning: Another order of the classes that fits the run clearly better, see
            `evalkit.checks.labels`; then all ways are tried under both orders, so that permuted
            labels are not mistaken for wrong pixels, nor these for those.

    Returns:
        One check each of "channel-order", "normalisation", "preset" and "batch-norm".
    """
    state = batch_norm.check_state(ran.model)
    if state is not None and state.verdict == "warning":
        reason = "batch norm has no statistics to go by"
        return [*(skipped(kind, reason) for kind in KINDS), state]
    kinds = [*KINDS, *([BATCH_NORM] if state is None else [])]
    checks = _asked_of(ran, spec, kinds, sample=sample, meaning=meaning)
    if meaning is not None and all(one.verdict == "passed" for one in checks):
        rival = _rival(ran, spec, kinds, meaning)
        checks = [rival if rival and one.id == rival.id else one for one in checks]
    return [*checks, *([state] if state is not None else [])]


def _asked_of(
    ran: Ran,
    spec: TransformSpec,
    kinds: Sequence[str],
    *,
    sample: int | None,
    meaning: Integers | None,
) -> list[Check]:
    known = np.arange(len(ran.classes))
    meanings = [known] if meaning is None else [known, meaning]
    looks = looks_at(len(ran)) if sample is None else (Look(images=sample, share=1.0),)
    chosen = choose(ran, looks[-1].images)
    trial = Trial(ran, _ways(ran, spec, kinds), meanings)
    mistaken = chosen[~trial.run_right[chosen]]
    needed = least_gained(trial.tests, LEVEL * looks[-1].share)
    if reason := _without_hope(len(chosen), len(mistaken), needed):
        return [reason(kind) for kind in kinds]
    size = min(CHUNK, ran.batch_size)
    screened = list(read(ran, mistaken[:SCREENED], spec.mode, size=min(size, SCREENED)))
    shown = sum(len(part.images) for part in screened)
    if not shown:
        return [skipped(kind, "the images could not be read again") for kind in kinds]
    ways = _ways(ran, spec, kinds, image_size=_common_size(screened))
    trial = Trial(ran, ways, meanings)
    if sample is None:
        trial.screen(screened, enough=least_mended(needed, len(mistaken), shown))
    seen, better = 0, list[Better]()
    for look in looks:
        if better or not trial.ways:
            break
        for part in read(ran, chosen[seen : look.images], spec.mode, size=size):
            trial.ask(part)
        if look.share:
            better = list(_clearly_better(trial, share=look.share))
        trial.keep(ahead=look.ahead)
        seen = look.images
    return _verdicts(trial, kinds, better)


def _rival(ran: Ran, spec: TransformSpec, kinds: Sequence[str], meaning: Integers) -> Check | None:
    """Return the other way that explains the run as well as another order of the classes, if any.

    Where classes differ by colour alone, exchanged channels look like exchanged labels.
    """
    trial = Trial(ran, _ways(ran, spec, kinds), [np.arange(len(ran.classes))])
    for part in read(ran, choose(ran, USUAL), spec.mode, size=min(CHUNK, ran.batch_size)):
        trial.ask(part)
    reordered = trial.right_in(meaning)
    as_good = [
        one
        for one in _clearly_better(trial, share=1.0)
        if paired(one.right, reordered).p_value > LEAST_APART
    ]
    best = _best(as_good)
    if best is None:
        return None
    known = {"samples": len(reordered), "alternatives": trial.tests, "images_run": trial.images}
    order = Check(id=LABEL_ORDER, verdict="warning", evidence="")
    return _warning(best, {**known, RIVAL: True}).explained_by(order)


def _without_hope(samples: int, mistakes: int, needed: int) -> Callable[[str], Check] | None:
    """Return what to say where nothing could come out, whatever the model did."""
    if samples < needed:
        return lambda kind: skipped(
            kind, f"{counted(samples, 'image')} cannot tell: at least {needed} are needed"
        )
    if mistakes < needed:
        return lambda kind: Check(
            id=kind,
            verdict="passed",
            evidence=(
                f"the model is right about {samples - mistakes} of {samples} images as they were "
                "prepared, which nothing else could clearly improve"
            ),
            figures={"samples": samples, "mistakes": mistakes, "images_run": 0},
        )
    return None


def _ways(
    ran: Ran,
    spec: TransformSpec,
    kinds: Sequence[str],
    *,
    image_size: tuple[int, int] | None = None,
) -> list[Way]:
    found = [
        Way(kind=one.kind, words=one.words, spec=one.spec, prepare=one.prepare)
        for one in alternatives(spec, image_size=image_size)
    ]
    if BATCH_NORM in kinds and ran.batch_size >= batch_norm.LEAST_BATCH:
        words = "the mean and variance of each batch in place of the running statistics"
        found.append(
            Way(
                kind=BATCH_NORM,
                words=words,
                spec=spec,
                prepare=spec.normalize,
                altered=batch_norm.batch_statistics,
            )
        )
    return found


def _common_size(parts: Sequence[Read]) -> tuple[int, int] | None:
    """Return the height and width that all images have, or None."""
    sizes = {
        tuple(image.shape[-2:]) if isinstance(image, torch.Tensor) else image.size[::-1]
        for part in parts
        for image in part.images
    }
    if len(sizes) != 1:
        return None
    height, width = sizes.pop()
    return int(height), int(width)


def _clearly_better(trial: Trial, *, share: float) -> Iterator[Better]:
    before, labels = trial.before, trial.labels
    if not len(labels):
        return
    commonest = np.bincount(labels).max() / len(labels)
    for way in trial.ways:
        for position, after in enumerate(trial.right(way)):
            counts = paired(before, after)
            if (
                counts.is_better(alternatives=trial.tests, level=LEVEL * share)
                and counts.gain >= LEAST_GAIN
                and after.mean() > commonest  # else it may name that class whatever it sees
            ):
                yield Better(
                    way=way,
                    counts=counts,
                    accuracy=(float(before.mean()), float(after.mean())),
                    right=after,
                    as_labelled=position == 0,
                )


def _best(better: Sequence[Better]) -> Better | None:
    """Return the best preparation, unless batch statistics are clearly better than that.

    They undo much of a wrong normalisation, so that they are better than the run with it as well.
    """
    prepared = [one for one in better if one.way.kind != BATCH_NORM]
    by_batch = [one for one in better if one.way.kind == BATCH_NORM]
    best = max(prepared, key=lambda one: one.counts.gain, default=None)
    for one in by_batch:
        if best is None or paired(best.right, one.right).is_better(alternatives=1):
            return one
    return best


def _verdicts(trial: Trial, kinds: Sequence[str], better: Sequence[Better]) -> list[Check]:
    best, samples = _best(better), len(trial.labels)
    seen = f"none of {trial.tests} other ways was clearly better"
    known = {"samples": samples, "alternatives": trial.tests, "images_run": trial.images}
    checks = []
    for kind in kinds:
        of_kind = [one for one in better if one.way.kind == kind]
        if best is not None and kind == best.way.kind:
            checks.append(_warning(best, known))
        elif best is not None and of_kind:
            most = max(of_kind, key=lambda one: one.counts.gain)
            checks.append(_warning(most, known).explained_by(_warning(best, known)))
        else:
            checks.append(
                Check(
                    id=kind,
                    verdict="passed",
                    evidence=seen,
                    figures=known,
                )
            )
    return checks


def _warning(found: Better, known: Mapping[str, int]) -> Check:
    before, after = found.accuracy
    counts, way = found.counts, found.way
    advice = ADVICE.get(way.kind, "compare with how images were prepared for the training")
    return Check(
        id=way.kind,
        verdict="warning",
        evidence=(
            f"on {counted(counts.samples, 'image')} of this run, accuracy is {after:.3f} instead "
            f"of {before:.3f} with {way.words} ({counts.gained} gained, {counts.lost} lost, "
            f"p = {counts.p_value:.1g}): {advice}"
        ),
        figures={
            **known,
            "other": way.words,
            "accuracy": before,
            "accuracy_other": after,
            "gained": counts.gained,
            "lost": counts.lost,
            "p_value": counts.p_value,
            "as_labelled": found.as_labelled,
        },
    )
