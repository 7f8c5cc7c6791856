"""Other ways to prepare an image that programs use, and a model may have been trained with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evalkit.transforms import IMAGENET_MEAN, IMAGENET_STD, Size, TransformSpec

if TYPE_CHECKING:
    import torch

CHANNEL_ORDER, NORMALISATION, PRESET = "channel-order", "normalisation", "preset"
KINDS = (CHANNEL_ORDER, NORMALISATION, PRESET)
USUAL_CROP = 0.875  # of the resized image: 224 of 256


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One other preparation.

    Attributes:
        kind: Name of the check that it answers.
        words: What it is, to follow "with".
        spec: The preparation.
        swapped: Whether red and blue change places before it.
    """

    kind: str
    words: str
    spec: TransformSpec
    swapped: bool = False

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the model sees of pixels of shape (B, C, H, W)."""
        return self.spec.normalize(pixels.flip(1) if self.swapped else pixels)


def alternatives(
    spec: TransformSpec, *, image_size: tuple[int, int] | None = None
) -> list[Alternative]:
    """Return the usual preparations that differ from the one in use.

    Args:
        spec: The one in use.
        image_size: Height and width, if all images have the same.

    Example:
        >>> from evalkit.transforms import evaluation
        >>> [one.words for one in alternatives(evaluation(mode="L", mean=(0.5,), std=(0.5,)))][0]
        'pixels from 0 to 1'
    """
    found = [*_channel_orders(spec), *_normalisations(spec), *_presets(spec, image_size)]
    in_use = _plainly(spec)
    return [one for one in found if one.swapped or _plainly(one.spec) != in_use]


def _plainly(spec: TransformSpec) -> TransformSpec:
    """Return the same preparation with the crop as height and width."""
    return replace(spec, crop=(spec.crop, spec.crop)) if isinstance(spec.crop, int) else spec


def _channel_orders(spec: TransformSpec) -> list[Alternative]:
    if spec.mode != "RGB":
        return []
    words = "red and blue exchanged (BGR, as OpenCV reads images)"
    found = [Alternative(kind=CHANNEL_ORDER, words=words, spec=spec, swapped=True)]
    reversed_too = replace(spec, mean=spec.mean[::-1], std=spec.std[::-1])
    if reversed_too != spec:
        words = f"{words}, in mean and deviation too"
        found.append(Alternative(kind=CHANNEL_ORDER, words=words, spec=reversed_too, swapped=True))
    return found


def _normalisations(spec: TransformSpec) -> list[Alternative]:
    channels = len(spec.mean)
    ranges = {
        "pixels from 0 to 1": (0.0, 1.0),
        "pixels from -1 to 1": (0.5, 0.5),
        "pixels from 0 to 255": (0.0, 1 / 255),
    }
    found = [
        Alternative(
            kind=NORMALISATION,
            words=words,
            spec=replace(spec, mean=(mean,) * channels, std=(std,) * channels),
        )
        for words, (mean, std) in ranges.items()
    ]
    if max(spec.mean) > 1:  # brighter than white
        mean, std = (tuple(value / 255 for value in pair) for pair in (spec.mean, spec.std))
        words = "mean and deviation divided by 255, for pixels from 0 to 1"
        scaled = replace(spec, mean=mean, std=std)
        found.append(Alternative(kind=NORMALISATION, words=words, spec=scaled))
    if channels == len(IMAGENET_MEAN):
        usual = replace(spec, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        caffe = replace(spec, mean=IMAGENET_MEAN[::-1], std=(1 / 255,) * channels)
        found += [
            Alternative(kind=NORMALISATION, words="the mean and deviation of ImageNet", spec=usual),
            Alternative(
                kind=NORMALISATION,
                words="Caffe's preparation (BGR, 0 to 255, less the mean)",
                spec=caffe,
                swapped=True,
            ),
        ]
    return found


def _presets(spec: TransformSpec, image_size: tuple[int, int] | None) -> list[Alternative]:
    other = "bilinear" if spec.interpolation == "bicubic" else "bicubic"
    found = [
        Alternative(kind=PRESET, words=f"{other} resizing", spec=replace(spec, interpolation=other))
    ]
    seen = spec.crop if spec.crop is not None else spec.resize
    if isinstance(seen, int):
        seen = (seen, seen) if spec.crop is not None else None
    if seen is not None:
        short = min(seen)
        ways: dict[str, tuple[Size, Size | None]] = {
            f"the whole image squeezed to {seen[0]} x {seen[1]}": (seen, None),
            f"the shorter side resized to {short}, then the middle": (short, seen),
            f"the shorter side resized to {round(short / USUAL_CROP)}, then the middle": (
                round(short / USUAL_CROP),
                seen,
            ),
        }
        found += [
            Alternative(kind=PRESET, words=words, spec=replace(spec, resize=resize, crop=crop))
            for words, (resize, crop) in ways.items()
        ]
    if image_size is not None and image_size != seen:
        found.append(
            Alternative(
                kind=PRESET,
                words=f"images as they are, {image_size[0]} x {image_size[1]}",
                spec=replace(spec, resize=None, crop=None),
            )
        )
    return found
