"""From encoded images to pixels by the fastest decoder that gives those of Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from evalkit.errors import InputError
from evalkit.images.geometry import as_tensor, resized_size
from evalkit.images.jpegs import COLOURS, Jpegs, exact_jpegs, fills_in_as_pillow, gpu_jpegs
from evalkit.images.reading import (
    GREY,
    ON_THEIR_SIDE,
    ROTATED,
    UnreadableError,
    damage_told,
    finished,
    is_upright,
    oddities_of,
    opened,
    orientation_of,
    to_mode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.transforms import Size, TransformSpec

PLACES = ("cpu", "gpu")
HALF = 2
MOST_PIXELS = 178_956_970  # of an image, what Pillow takes for an attack beyond


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How encoded images are decoded.

    Attributes:
        place: "cpu", or "gpu" for JPEG files by nvJPEG, which rounds a little differently.
        fast: Decode large JPEG files at a half, a quarter or an eighth of their size, not below
            what the transform resizes to, and resize by torch whatever the interpolation. Other
            pixels than those that models were trained on.

    Raises:
        InputError: There is no such place, or the two exclude each other.
    """

    place: str = "cpu"
    fast: bool = False

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise InputError(f"decode must be {' or '.join(PLACES)}, got '{self.place}'")
        if self.fast and self.place == "gpu":
            raise InputError("fast-decode must be asked for with decode cpu, got it with 'gpu'")


EXACT = Decoding()  # the pixels of Pillow, as fast as they can be had


@dataclass(frozen=True)
class Waiting:
    """A JPEG file that is decoded together with the others of its batch."""

    encoded: torch.Tensor  # uint8, shape (bytes,)


class Decoder:
    """Decodes images for one transform; several threads may share it.

    Attributes:
        name: What decodes, for the record.
        waits: Whether JPEG files are decoded together, see `decode_waiting`.
    """

    def __init__(self, transform: TransformSpec, how: Decoding = EXACT) -> None:
        self._mode = transform.mode
        self.waits = how.place == "gpu"
        self._as_tensors = transform.is_exact_on_tensors or how.fast or self.waits
        self._resize = transform.resize
        self._draft = transform.resize if how.fast else None
        self._jpegs: Jpegs | None = None
        self._progressive = True
        if self.waits:
            self._jpegs = gpu_jpegs()
        elif self._as_tensors:
            self._jpegs = exact_jpegs()
            self._progressive = self._jpegs is not None and fills_in_as_pillow(self._jpegs)
        library = "Pillow" if self._jpegs is None else f"{self._jpegs.name}, Pillow for other files"
        self.name = f"{library}, large JPEG files at reduced size" if how.fast else library

    def decode(
        self, image: bytes | Image.Image | torch.Tensor
    ) -> tuple[Image.Image | torch.Tensor | Waiting, tuple[str, ...]]:
        """Decode one image, in the mode of the transform.

        Returns:
            An image of Pillow or pixels of shape (C, H, W), uint8, whatever the transform resizes
            faster to the right pixels; and what was unusual about it, see
            `evalkit.images.reading.oddities_of`.

        Raises:
            UnreadableError: The file is empty, cut off, or no image.
        """
        if isinstance(image, torch.Tensor):
            return image, ()
        if isinstance(image, Image.Image):  # upright or not is for whoever made it to say
            with damage_told():  # it may be one of which only the header was read
                oddities = tuple(one for one in oddities_of(image) if one != ROTATED)
                return self._as_wanted(to_mode(image, self._mode)), oddities
        with opened(image) as file:
            self._refuse_the_endless(file)
            pixels = self._by_library(file, image)
            if pixels is not None:
                return pixels, (GREY,) if file.mode == "L" else ()
            upright, oddities = finished(file, self._mode)
            return self._as_wanted(upright), oddities

    def decode_waiting(self, waiting: Sequence[Waiting]) -> list[torch.Tensor | UnreadableError]:
        """Return the pixels of files that waited, on the GPU, or why there are none."""
        assert self._jpegs is not None  # noqa: S101 - nothing waits without
        encoded = [one.encoded for one in waiting]
        try:
            return [*self._jpegs.decode(encoded, COLOURS[self._mode], "cuda")]
        except RuntimeError:  # one of them is damaged, and nvJPEG does not say which
            return [self._by_pillow(one) for one in encoded]

    def _by_pillow(self, encoded: torch.Tensor) -> torch.Tensor | UnreadableError:
        try:
            with opened(encoded.numpy().tobytes()) as file:
                return as_tensor(finished(file, self._mode)[0])
        except UnreadableError as error:
            return error

    def _by_library(self, file: Image.Image, encoded: bytes) -> torch.Tensor | Waiting | None:
        """Return what the library makes of a file, or None if Pillow shall do or judge it."""
        if file.format != "JPEG" or file.mode not in {"L", self._mode}:
            return None
        if self._draft is not None:
            height, width = resized_size(file.height, file.width, self._as_stored(file))
            if min(file.height // height, file.width // width) >= HALF:
                file.draft(None, (width, height))
                return None
        if self._jpegs is None or not is_upright(file):
            return None
        if "progressive" in file.info and not self._progressive:
            return None
        data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        if self.waits:
            return Waiting(data)
        try:
            return self._jpegs.decode([data], COLOURS[file.mode], "cpu")[0]
        except RuntimeError:
            return None

    def _refuse_the_endless(self, file: Image.Image) -> None:
        """Raise where an image is so narrow that its other side would become endless."""
        if self._resize is None:
            return
        height, width = resized_size(file.height, file.width, self._resize)
        if height * width > MOST_PIXELS:
            raise UnreadableError(
                f"of {file.width} x {file.height} pixels it would become one of {width:,} x "
                f"{height:,} when it is resized"
            )

    def _as_stored(self, file: Image.Image) -> Size:
        """Return what a file is resized to, by the sides that it has before it is turned."""
        size = self._draft
        assert size is not None  # noqa: S101 - the caller asked
        if isinstance(size, tuple) and orientation_of(file) in ON_THEIR_SIDE:
            return size[1], size[0]
        return size

    def _as_wanted(self, image: Image.Image) -> Image.Image | torch.Tensor:
        return as_tensor(image) if self._as_tensors else image
