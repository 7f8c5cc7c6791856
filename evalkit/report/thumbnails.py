"""Small pictures of samples as data URIs, never more of them than a page can bear."""

from __future__ import annotations

import base64
import io
import itertools
import warnings
from typing import TYPE_CHECKING

from PIL import Image

from evalkit.images.reading import DAMAGE, finished

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SIDE = 144  # pixels: sharp at 96 CSS pixels on most screens
LOSSLESS_UP_TO = 64  # smaller images are shown pixel by pixel
QUALITY = 62
MOST_BYTES = 3 << 20  # of the page
MOST_IMAGES = 400  # of 8 ms each for photographs of 500 x 375 pixels
# A warning is an error here: nobody waits for a picture of 100 million pixels.
UNREADABLE = (*DAMAGE, Image.DecompressionBombWarning)


def thumbnails(
    paths: Iterable[str],
    folder: Path,
    *,
    most_bytes: int = MOST_BYTES,
    most_images: int = MOST_IMAGES,
) -> dict[str, str]:
    """Make thumbnails of the first of *paths* that can be read, until there are enough.

    Args:
        paths: Relative to *folder*, or absolute; the most important ones first.
        folder: Where the images are.
        most_bytes: How long the data URIs may be altogether.
        most_images: How many files may be opened.

    Returns:
        From path to data URI, without those that are missing or cannot be read.
    """
    found: dict[str, str] = {}
    spent = 0
    for path in itertools.islice(dict.fromkeys(paths), most_images):
        uri = _thumbnail(folder / path)
        if uri is not None and spent + len(uri) <= most_bytes:
            found[path] = uri
            spent += len(uri)
    return found


def _thumbnail(path: Path) -> str | None:
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.draft("RGB", (2 * SIDE, 2 * SIDE))  # JPEG: decode at a fraction of its size
                small = _shrunk(image)
    except UNREADABLE:
        return None
    stream = io.BytesIO()
    tiny = max(small.size) <= LOSSLESS_UP_TO
    small.save(stream, "WEBP", quality=QUALITY, lossless=tiny, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _shrunk(image: Image.Image) -> Image.Image:
    upright, _oddities = finished(image, "RGB")
    upright.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return upright
