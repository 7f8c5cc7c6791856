"""From an encoded image to an upright 8-bit one, or the reason why there is none."""

from __future__ import annotations

import io
import os
import stat
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = 1
ON_THEIR_SIDE = (5, 6, 7, 8)  # rows are columns once they are turned
_TURNS = {  # not by ImageOps.exif_transpose, which fails on EXIF data that it cannot write again
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BACKGROUND = "white"
BRIGHTEST = 255
USUAL_BYTES = 64 << 20  # of an image file, at most

ROTATED = "turned upright by EXIF orientation, which many training programs ignore"
TRANSPARENT = f"transparent, laid on {BACKGROUND}"
DEEP = "of 16 bits per channel, scaled to 8"
INKS = "in CMYK, converted to RGB without its colour profile"
GREY = "grey"
PALETTE = "of a palette"
ALPHA = "with an alpha channel that hides nothing"
WORTH_A_WARNING = (ROTATED, TRANSPARENT, DEEP, INKS)  # the others have one right reading

# What Pillow raises on damaged files; it has no error of its own for them.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class UnreadableError(Exception):
    """An image that cannot be read; the message is the reason, without the path."""


def read_image(path: Path, mode: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an image file, see `decode_image`.

    Raises:
        UnreadableError: The file is missing, empty, cut off, or no image.
    """
    return decode_image(read_bytes(path), mode)


def read_bytes(path: str | Path) -> bytes:
    """Return what a file holds.

    Raises:
        UnreadableError: The file is missing, cannot be read, or is no file: a pipe would be waited
            for, and some devices never end.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UnreadableError("there is no such file") from None
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from error
    except ValueError as error:  # a name that no file can have
        raise UnreadableError(str(error)) from error
    try:
        told = os.fstat(handle)
        if not (stat.S_ISREG(told.st_mode) or stat.S_ISDIR(told.st_mode)):
            raise UnreadableError("it is no file, but a pipe, a socket or a device")
        if told.st_size < USUAL_BYTES:
            data = os.read(handle, told.st_size + 1)
            if len(data) == told.st_size:  # one call did, as for nearly all files
                return data
            os.lseek(handle, 0, os.SEEK_SET)
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from error
    finally:
        os.close(handle)


def decode_image(encoded: bytes, mode: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an image with Pillow.

    Args:
        encoded: A file of any format that Pillow knows.
        mode: "RGB" or "L", as `to_mode`.

    Returns:
        The image, upright, and what was unusual about it, as `oddities_of` says.

    Raises:
        UnreadableError: It is empty, cut off, or no image.
    """
    with opened(encoded) as image:
        return finished(image, mode)


@contextmanager
def opened(encoded: bytes) -> Iterator[Image.Image]:
    """Open an image, of which only the header has been read; say of any damage what it is.

    Raises:
        UnreadableError: It is no image, or something in the body found it damaged.
    """
    with damage_told():
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                yield image
        except UnidentifiedImageError:
            what = "is no image of a known format" if encoded else "is empty"
            raise UnreadableError(f"the file {what}") from None


@contextmanager
def damage_told() -> Iterator[None]:
    """Say of any damage that Pillow finds what it is.

    Raises:
        UnreadableError: It found some.
    """
    try:
        yield
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UnreadableError(reason or type(error).__name__) from error


def finished(image: Image.Image, mode: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Return an opened image decoded, upright, in a mode, and what was unusual about it."""
    is_deep = _is_deep(image)  # before decoding, which forgets how many bits the file had
    image.load()
    oddities = oddities_of(image)
    if is_deep and DEEP not in oddities:
        oddities += (DEEP,)
    upright = to_mode(image, mode)
    turn = _TURNS.get(orientation_of(image))
    return upright if turn is None else upright.transpose(turn), oddities


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to 8 bits per channel.

    16-bit grey is scaled, not cut off; transparent images are laid on white, so that the colours
    hidden under transparency stay hidden; CMYK, palettes and the rest are converted by Pillow.

    Args:
        image: Of any mode.
        mode: "RGB" or "L".

    Raises:
        ValueError: The pixels are 32-bit numbers, whose range nobody knows.

    Example:
        >>> red_but_invisible = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
        >>> to_mode(red_but_invisible, "RGB").getpixel((0, 0))
        (255, 255, 255)
        >>> to_mode(Image.new("I;16", (1, 1), 65535), "L").getpixel((0, 0))
        255
    """
    if _is_deep_grey(image):
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257
    elif image.mode in {"I", "F"}:
        raise ValueError(f"pixels are 32-bit numbers (mode {image.mode}) of unknown range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(paper, coloured)
    return image if image.mode == mode else image.convert(mode)


def oddities_of(image: Image.Image) -> tuple[str, ...]:
    """Say what is unusual about an image as its file has it.

    Returns:
        Any of the texts `ROTATED`, `TRANSPARENT`, `DEEP`, `INKS`, `GREY`, `PALETTE` and `ALPHA`.

    Example:
        >>> oddities_of(Image.new("L", (1, 1))), oddities_of(Image.new("RGB", (1, 1)))
        (('grey',), ())
    """
    found = []
    if not is_upright(image):
        found.append(ROTATED)
    if image.has_transparency_data:
        found.append(TRANSPARENT if _shows_through(image) else ALPHA)
    if _is_deep(image):
        found.append(DEEP)
    if image.mode == "CMYK":
        found.append(INKS)
    if image.mode in {"P", "PA"}:
        found.append(PALETTE)
    if image.mode in {"1", "L", "LA", "La", "I", "F", *SIXTEEN_BIT}:
        found.append(GREY)
    return tuple(found)


def is_upright(image: Image.Image) -> bool:
    """Whether the EXIF data leave an image as it is stored."""
    return orientation_of(image) not in _TURNS


def orientation_of(image: Image.Image) -> int:
    """Return the orientation that the EXIF data tell; damaged data tell none, to anybody."""
    try:
        told = image.getexif().get(ORIENTATION, UPRIGHT)
    except (*DAMAGE, AttributeError):  # the latter where Pillow trusts the types of a file
        return UPRIGHT
    return told if isinstance(told, int) else UPRIGHT


def _is_deep_grey(image: Image.Image) -> bool:
    """Whether the pixels are 16-bit grey: "I" from PGM, and before Pillow 11 from PNG files."""
    return image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format in {"PNG", "PPM"})


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits per channel; of coloured images Pillow keeps the upper 8."""
    if _is_deep_grey(image):
        return True
    tiles = getattr(image, "tile", ())
    raw_mode, *rest = _as_tuple(tiles[0][3]) if tiles else ("",)  # .args since Pillow 11
    return ";16" in str(raw_mode) or (image.format == "PPM" and max(rest, default=0) > BRIGHTEST)


def _as_tuple(arguments: Any) -> tuple[Any, ...]:
    return arguments if isinstance(arguments, tuple) and arguments else (arguments,)


def _shows_through(image: Image.Image) -> bool:
    least, _most = image.convert("RGBA").getchannel("A").getextrema()
    return least != BRIGHTEST
