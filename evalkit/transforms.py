"""From an image to what a model sees: presets for training and evaluation, kept as plain data."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from evalkit.errors import InputError
from evalkit.images.geometry import cropped, middle, resized
from evalkit.models import import_torchvision

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = {"RGB": 3, "L": 1}  # PIL's names
INTERPOLATIONS = ("bilinear", "bicubic", "nearest-exact")
BRIGHTEST = 255
LONGEST = 16_384  # pixels, of what a model sees

Size = int | tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """What happens to an image on its way to a model: plain data that can be called and stored.

    Attributes:
        mode: "RGB" for three channels, "L" for one (grey).
        resize: Length of the shorter side in pixels, or (height, width). None leaves the size.
        crop: Side in pixels, or (height, width), of the middle that is kept. None keeps all.
        interpolation: "bilinear", "bicubic" or "nearest-exact"; the first two with antialiasing,
            always.
        mean: Per channel; 0 is black, 1 is white.
        std: Per channel, in the same unit.
        random_area: For training: the range of the share of the image that a crop at a random
            place covers before it is resized to *crop*. None cuts out the middle.
        flip: For training: the probability of swapping left and right.

    Raises:
        InputError: The values contradict each other.
    """

    mode: str = "RGB"
    resize: Size | None = 256
    crop: Size | None = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    random_area: tuple[float, float] | None = None
    flip: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in CHANNELS:
            raise InputError(f"mode must be one of {', '.join(CHANNELS)}, got '{self.mode}'")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, "
                f"got '{self.interpolation}'"
            )
        fault = _fault_of_numbers(self)
        if fault:
            raise InputError(fault)
        channels = CHANNELS[self.mode]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise InputError(
                f"mean and std must have {channels} values each for mode {self.mode}, std above "
                f"0, got {self.mean} and {self.std}"
            )
        if self.random_area is not None and self.crop is None:
            raise InputError("random_area must come with crop, the size of its result, got none")

    def __call__(self, image: Image | torch.Tensor) -> torch.Tensor:
        """Return what the model sees of one image, shape (C, H, W), float32, normalised.

        Args:
            image: A PIL image of any mode, or pixels of shape (C, H, W), uint8.
        """
        return self.normalize(self.pixels(image).unsqueeze(0)).squeeze(0)

    def pixels(self, image: Image | torch.Tensor) -> torch.Tensor:
        """Return what the model sees before normalisation, shape (C, H, W), uint8.

        Pillow resizes its own images, torch resizes tensors, see `evalkit.images.geometry`.
        """
        from evalkit.images.reading import to_mode

        if not isinstance(image, torch.Tensor):
            image = to_mode(image, self.mode)
        else:
            image = _with_channels(image, self.mode)
        if not isinstance(image, torch.Tensor):
            pixels: torch.Tensor = _geometry(self)(image)
            return pixels
        image = self._part_of(image)
        return image.flip(-1) if self.flip and torch.rand(1) < self.flip else image

    def _part_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what is left of a tensor by resizing and cropping; random numbers as v2's."""
        if self.random_area is None:
            if self.resize is not None and self.crop is not None:
                return middle(pixels, self.resize, self.crop, self.interpolation)
            if self.resize is not None:
                return resized(pixels, self.resize, self.interpolation)
            return pixels if self.crop is None else cropped(pixels, self.crop)
        assert self.crop is not None  # noqa: S101 - seen to by __post_init__
        drawn = _geometry(self).transforms[0].make_params([pixels])
        rows = slice(drawn["top"], drawn["top"] + drawn["height"])
        columns = slice(drawn["left"], drawn["left"] + drawn["width"])
        size = self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)
        return resized(pixels[:, rows, columns], size, self.interpolation)

    @property
    def is_exact_on_tensors(self) -> bool:
        """Whether tensors are resized into the pixels that Pillow gives, within 1 of 255."""
        leaves_the_size = self.resize is None and self.random_area is None
        return leaves_the_size or self.interpolation == "bilinear"

    @property
    def is_random(self) -> bool:
        """Whether an image becomes something else every time, as in training."""
        return bool(self.flip) or self.random_area is not None

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape (C, H, W) of what the model sees; None where it depends on the image."""
        size = self.resize if self.crop is None else self.crop
        if size is None or (self.crop is None and not isinstance(size, tuple)):
            return None
        height, width = size if isinstance(size, tuple) else (size, size)
        return CHANNELS[self.mode], height, width

    def normalize(self, pixels: torch.Tensor, *, into: torch.Tensor | None = None) -> torch.Tensor:
        """Turn pixels of shape (N, C, H, W), uint8, into float32, on the device they are on.

        Args:
            pixels: They stay as they are.
            into: Memory of the same shape, float32, that takes the result; None takes new one.
        """
        values = pixels.float() if into is None else into.copy_(pixels)
        if values.numel() and values.is_contiguous(memory_format=torch.channels_last):
            rows = values.permute(0, 2, 3, 1).view(-1, values.shape[3] * values.shape[1])
            mean, std = _statistics(self, pixels.device, repeated=values.shape[3])
        else:
            rows = values
            mean, std = (one.view(-1, 1, 1) for one in _statistics(self, pixels.device))
        rows.div_(BRIGHTEST).sub_(mean).div_(std)
        return values

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or a checkpoint; `from_dict` reads them."""
        values = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransformSpec:
        """Read what `as_dict` wrote.

        Raises:
            InputError: A name is unknown or a value is out of range.

        Example:
            >>> spec = evaluation(resize=32, crop=28)
            >>> TransformSpec.from_dict(spec.as_dict()) == spec
            True
        """
        unknown = sorted(set(values) - {*_names()})
        if unknown:
            raise InputError(
                f"transform must have only the names {', '.join(_names())}, "
                f"got {', '.join(unknown)}"
            )
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**given)


def _fault_of_numbers(spec: Any) -> str:
    """Return what is wrong with the numbers of a transform, which may come from a file, or ""."""
    for name in ("resize", "crop"):
        size = getattr(spec, name)
        sides = size if isinstance(size, tuple) else (size, size)
        are_lengths = len(sides) == 2 and all(type(n) is int and n > 0 for n in sides)  # noqa: PLR2004
        if size is not None and (not are_lengths or max(sides) > LONGEST):
            return f"{name} must be one or two lengths of up to {LONGEST} pixels, got {size!r}"
    area = spec.random_area if spec.random_area is not None else (0, 1)
    for name, numbers in (("mean", spec.mean), ("std", spec.std), ("random_area", area)):
        if not isinstance(numbers, tuple) or not all(
            isinstance(n, int | float) and math.isfinite(n) for n in numbers
        ):
            return f"{name} must be numbers, got {numbers!r}"
    if len(area) != 2 or not 0 <= area[0] <= area[1] <= 1:  # noqa: PLR2004
        return f"random_area must be two shares of an image, got {area!r}"
    if not isinstance(spec.flip, int | float) or not 0 <= spec.flip <= 1:
        return f"flip must be a probability, got {spec.flip!r}"
    return ""


def evaluation(
    *,
    resize: Size | None = 256,
    crop: Size | None = 224,
    interpolation: str = "bilinear",
    mode: str = "RGB",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> TransformSpec:
    """Make the transform for evaluation: resize, crop the middle, normalise.

    The defaults are those that most models for ImageNet were trained for.

    Example:
        >>> from PIL import Image
        >>> evaluation()(Image.new("RGB", (640, 480))).shape
        torch.Size([3, 224, 224])
    """
    return TransformSpec(
        mode=mode, resize=resize, crop=crop, interpolation=interpolation, mean=mean, std=std
    )


def train(
    *,
    crop: Size = 224,
    random_area: tuple[float, float] = (0.08, 1.0),
    flip: float = 0.5,
    interpolation: str = "bilinear",
    mode: str = "RGB",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> TransformSpec:
    """Make the transform for training: a random crop, resized, perhaps mirrored, normalised.

    Randomness comes from torch's generator: `evalkit.seed_everything` makes it repeatable.

    Example:
        >>> from PIL import Image
        >>> train(crop=96)(Image.new("L", (640, 480))).shape
        torch.Size([3, 96, 96])
    """
    return TransformSpec(
        mode=mode,
        resize=None,
        crop=crop,
        interpolation=interpolation,
        mean=mean,
        std=std,
        random_area=random_area,
        flip=flip,
    )


def read_transform(path: Path) -> TransformSpec:
    """Read a transform from a JSON file, see `TransformSpec.from_dict`.

    Raises:
        InputError: The file cannot be read, or is no transform.
    """
    expected = f"transform must be a JSON file of the names {', '.join(_names())}, got {path}"
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{expected}: {reason}") from error
    if not isinstance(values, dict):
        raise InputError(f"{expected} with a {type(values).__name__}")
    try:
        return TransformSpec.from_dict(values)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}: {error}") from error


def _names() -> list[str]:
    return sorted(field.name for field in fields(TransformSpec))


def _with_channels(pixels: torch.Tensor, mode: str) -> torch.Tensor:
    """Return pixels of shape (C, H, W), uint8, with the channels of *mode*."""
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] not in {1, 3}:  # noqa: PLR2004
        raise InputError(
            "an image must be a PIL image or a tensor of shape (1 or 3, H, W) and dtype uint8, got "
            f"shape {tuple(pixels.shape)} and dtype {pixels.dtype}"
        )
    if pixels.shape[0] == CHANNELS[mode]:
        return pixels
    if mode == "RGB":
        return pixels.expand(3, -1, -1)
    import_torchvision()
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    grey: torch.Tensor = rgb_to_grayscale(pixels)
    return grey


@functools.lru_cache(maxsize=16)
def _statistics(
    spec: TransformSpec, device: torch.device, *, repeated: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and std on a device: a GPU waits for every copy of them.

    Args:
        spec: Whose.
        device: Where to.
        repeated: How often the values of all channels follow each other: once for every pixel of a
            row where the channels lie innermost, or a CPU computes three values at a time.
    """
    with torch.inference_mode(mode=False):  # they outlive it
        mean, std = (
            torch.tensor(one, device=device).repeat(repeated) for one in (spec.mean, spec.std)
        )
    return mean, std


@functools.lru_cache(maxsize=16)
def _geometry(spec: TransformSpec) -> Any:
    """Return torchvision's transforms from an image of the right mode to its pixels."""
    import_torchvision()
    from torchvision.transforms import InterpolationMode, v2

    how = {"interpolation": InterpolationMode(spec.interpolation), "antialias": True}
    steps: list[Any] = []
    if spec.random_area is not None:
        steps.append(v2.RandomResizedCrop(spec.crop, scale=spec.random_area, **how))
    else:
        steps += [v2.Resize(spec.resize, **how)] if spec.resize is not None else []
        steps += [v2.CenterCrop(spec.crop)] if spec.crop is not None else []
    if spec.flip:
        steps.append(v2.RandomHorizontalFlip(spec.flip))
    return v2.Compose([*steps, v2.PILToTensor()])
