"""From encoded images to pixels by the fastest decoder that gives those of Pillow."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from evalkit.errors import InputError
from evalkit.images.geometry import resized_size
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
    from evalkit.transforms import Size, TransformSpec

PLACES = ("cpu", "gpu")
HALF = 2
MOST_PIXELS = 178_956_970  # of an image, what Pillow takes for an attack beyond
_COLOURS = {"RGB": "RGB", "L": "GRAY"}  # Pillow's names -> those of the libraries


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


@dataclass(frozen=True, kw_only=True)
class Jpegs:
    """A library that decodes JPEG files into tensors.

    Attributes:
        name: With its version.
        decode: From files and "RGB" or "GRAY" and a device to pixels, uint8, shape (C, H, W) each,
            the colours side by side in memory. Raises RuntimeError.
    """

    name: str
    decode: Callable[[Sequence[torch.Tensor], str, str], list[torch.Tensor]]


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
            return [*self._jpegs.decode(encoded, _COLOURS[self._mode], "cuda")]
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
            return self._jpegs.decode([data], _COLOURS[file.mode], "cpu")[0]
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


def as_tensor(image: Image.Image) -> torch.Tensor:
    """Return the pixels of an image of mode "RGB" or "L", uint8, shape (C, H, W), channels last."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)  # noqa: PLR2004


@functools.cache
def exact_jpegs() -> Jpegs | None:
    """Return the first library that is installed and gives the very pixels of Pillow, or None."""
    candidates = (_simplejpeg(), _torchcodec(), _torchvision())
    return next((one for one in candidates if one is not None and equals_pillow(one)), None)


def gpu_jpegs() -> Jpegs:
    """Return the library that decodes on a GPU.

    Raises:
        InputError: There is no GPU, or no such library.
    """
    if not torch.cuda.is_available():
        raise InputError(
            "decode must be cpu where torch sees no CUDA device, got 'gpu': run 'gpudiag diagnose' "
            "to see why"
        )
    library = _torchcodec() or _torchvision()
    if library is None:
        raise InputError(
            "decode must be cpu where neither torchcodec nor torchvision's decoders can be loaded, "
            "got 'gpu': pip install torchcodec"
        )
    return Jpegs(name=f"nvJPEG by {library.name}", decode=library.decode)


def equals_pillow(library: Jpegs) -> bool:
    """Whether a library decodes a few JPEG files of every kind into the very pixels of Pillow.

    Both contain a libjpeg; which one, and how it rounds, depends on who built them.
    """
    options: tuple[dict[str, Any], ...] = (
        {},
        {"progressive": True},
        {"subsampling": 0, "quality": 95},
    )
    return all(
        _decodes_as_pillow(library, _jpeg(mode, **each), mode)
        for mode in ("RGB", "L")
        for each in options
    )


@functools.cache
def fills_in_as_pillow(library: Jpegs) -> bool:
    """Whether a progressive file that lacks its last scans, too, gives the very pixels of Pillow.

    What stands in their place changed in libjpeg-turbo 2.1; torchvision before 0.27 brings 2.0.
    """
    for mode in ("RGB", "L"):
        encoded = _jpeg(mode, progressive=True)
        while (scan := encoded.rindex(b"\xff\xda")) != encoded.index(b"\xff\xda"):
            encoded = encoded[:scan]
            if not _decodes_as_pillow(library, encoded + b"\xff\xd9", mode):
                return False
    return True


def _jpeg(mode: str, **options: Any) -> bytes:
    """A small picture of waves and noise, encoded."""
    rows, columns = np.mgrid[0:83, 0:61]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin(rows * columns / 900)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 10, waves.shape)
    picture = Image.fromarray((waves * 90 + 127 + noise).clip(0, 255).astype(np.uint8))
    stream = io.BytesIO()
    picture.convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def _decodes_as_pillow(library: Jpegs, encoded: bytes, mode: str) -> bool:
    with opened(encoded) as image:
        expected = as_tensor(finished(image, mode)[0])
    data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    try:
        (given,) = library.decode([data], _COLOURS[mode], "cpu")
    except RuntimeError:  # built without libjpeg
        return False
    return torch.equal(given, expected)


def _simplejpeg() -> Jpegs | None:
    try:
        import simplejpeg
    except ImportError:  # not there, or for another NumPy
        return None

    def decode(encoded: Sequence[torch.Tensor], colours: str, _device: str) -> list[torch.Tensor]:
        try:
            # strict: what libjpeg warns of is Pillow's to judge
            images = [simplejpeg.decode_jpeg(one.numpy(), colours, strict=True) for one in encoded]
        except ValueError as error:
            raise RuntimeError(str(error)) from error
        return [torch.from_numpy(one).permute(2, 0, 1) for one in images]

    return Jpegs(name=f"simplejpeg {version('simplejpeg')}", decode=decode)


def _torchcodec() -> Jpegs | None:
    try:
        from torchcodec import decoders
    except (ImportError, OSError, RuntimeError):  # not there, or for another torch
        return None
    read: Any = getattr(decoders, "decode_jpeg", None)  # since 0.16
    if read is None:
        return None

    def decode(encoded: Sequence[torch.Tensor], colours: str, device: str) -> list[torch.Tensor]:
        found: list[torch.Tensor] = read(list(encoded), mode=colours, device=device)
        return found

    return Jpegs(name=f"torchcodec {version('torchcodec')}", decode=decode)


def _torchvision() -> Jpegs | None:
    try:
        from torchvision import io as torchvision_io
    except (ImportError, AttributeError, RuntimeError):  # without its native part, or without any
        return None
    read: Any = getattr(torchvision_io, "decode_jpeg", None)  # deprecated since 0.29
    if read is None:
        return None

    def decode(encoded: Sequence[torch.Tensor], colours: str, device: str) -> list[torch.Tensor]:
        mode = torchvision_io.ImageReadMode[colours]
        found: list[torch.Tensor] = read(list(encoded), mode=mode, device=device)
        return found

    return Jpegs(name=f"torchvision {version('torchvision')}", decode=decode)
