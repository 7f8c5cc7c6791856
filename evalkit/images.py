"""From a file to an upright 8-bit image, or the reason why there is none."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from pathlib import Path

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
BACKGROUND = "white"

ROTATED = "turned upright by EXIF orientation, which many training programs ignore"
TRANSPARENT = f"transparent, laid on {BACKGROUND}"
DEEP = "of 16 bits per channel, scaled to 8"

# What Pillow raises on damaged files; it has no error of its own for them.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)


class UnreadableError(Exception):
    """An image that cannot be read; the message is the reason, without the path."""


def read_image(path: Path, mode: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an image file.

    Args:
        path: File of any format that Pillow knows.
        mode: "RGB" or "L", as `to_mode`.

    Returns:
        The image, upright, and what was unusual about it: any of the texts `ROTATED`,
        `TRANSPARENT` and `DEEP`.

    Raises:
        UnreadableError: The file is missing, empty, cut off, or no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            oddities = _oddities(image)
            return to_mode(ImageOps.exif_transpose(image), mode), oddities
    except FileNotFoundError:
        raise UnreadableError("there is no such file") from None
    except UnidentifiedImageError:
        what = "is empty" if not path.stat().st_size else "is no image of a known format"
        raise UnreadableError(f"the file {what}") from None
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UnreadableError(reason or type(error).__name__) from error


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
    if _is_deep(image):
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257
    elif image.mode in {"I", "F"}:
        raise ValueError(f"pixels are 32-bit numbers (mode {image.mode}) of unknown range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(paper, coloured)
    return image if image.mode == mode else image.convert(mode)


def _is_deep(image: Image.Image) -> bool:
    """Whether the pixels are 16-bit grey; Pillow before 11 read such PNG files as mode "I"."""
    return image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG")


def _oddities(image: Image.Image) -> tuple[str, ...]:
    found = []
    if image.getexif().get(ORIENTATION, 1) != 1:
        found.append(ROTATED)
    if image.has_transparency_data and _shows_through(image):
        found.append(TRANSPARENT)
    if _is_deep(image):
        found.append(DEEP)
    return tuple(found)


def _shows_through(image: Image.Image) -> bool:
    least, _most = image.convert("RGBA").getchannel("A").getextrema()
    return least != 255  # noqa: PLR2004 - opaque
