"""Whether samples stay what they are: a Dataset may give other pixels every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from evalkit.images.reading import UnreadableError

if TYPE_CHECKING:
    import numpy.typing as npt

    from evalkit.data.source import Loaded, Source

LOOKS = 8  # samples that are asked for twice: of those flipped at random half are the same again


def changing(source: Source, mode: str) -> str | None:
    """Return the path of a sample that has other pixels when it is asked for again, or None.

    Files have the same ones: only samples that somebody's own code makes are asked for.

    Args:
        source: The data.
        mode: As for ``source.load``.
    """
    if source.encoded is not None:
        return None
    for position in range(min(LOOKS, len(source))):
        try:
            first, second = (_pixels(source.load(position, mode)) for _time in range(2))
        except UnreadableError:
            continue
        if not np.array_equal(first, second):
            return source.paths[position]
    return None


def _pixels(loaded: Loaded) -> npt.NDArray[np.generic]:
    image = loaded.image
    return image.cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
