"""Samples that can be loaded one by one, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.images.reading import decode_image

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from PIL.Image import Image

# Columns of predictions.parquet that the data must not bring themselves.
RESERVED = (
    *("index", "prediction", "confidence", "label_probability", "loss", "top5"),
    "probabilities",
)
PROBABILITY = "p_"  # before the name of the class


def reserved(classes: Iterable[str]) -> set[str]:
    """Names of columns that would be taken for the predictions, in data of these classes.

    Example:
        >>> sorted(reserved(["cat"]) - {*RESERVED})
        ['p_cat']
    """
    return {*RESERVED, *(f"{PROBABILITY}{name}" for name in classes)}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One sample in memory."""

    image: Image | torch.Tensor
    label: str
    oddities: tuple[str, ...] = ()  # see `evalkit.images.reading.oddities_of`


@dataclass(frozen=True, kw_only=True)
class Source:
    """Samples that can be loaded one by one, in any order and from several threads.

    Attributes:
        name: What the user gave.
        paths: One per sample, for the table of predictions.
        classes: Names of the classes that the data knows, in its own order.
        load: From the position of a sample and the mode of images ("RGB" or "L") to the sample.
            Raises `evalkit.images.reading.UnreadableError`.
        columns: What else the data say of their samples, one row each; or None.
        order_is_a_guess: Whether another program may number these classes in another order.
        labels: The class of every sample, where it is known before the sample is loaded.
        encoded: From the position of a sample to its image as an encoded file, where there is
            one. Raises as *load* does.
        numbered: Whether the data know their classes by number alone: the names are "0", "1", …
        version: What tells the samples from others under the same paths, where these are no files:
            a fingerprint.
        code: A fingerprint of the code that makes the samples, where it is somebody's own.
        doubts: What a reader of the result must know of the data, a sentence each.
    """

    name: str
    paths: Sequence[str]
    classes: tuple[str, ...]
    load: Callable[[int, str], Loaded]
    columns: pd.DataFrame | None = None
    order_is_a_guess: bool = False
    labels: Sequence[str] | None = None
    encoded: Callable[[int], bytes] | None = None
    numbered: bool = False
    version: str | None = None
    code: str | None = None
    doubts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(
        self, position: int, mode: str
    ) -> tuple[bytes | Image | torch.Tensor, str, tuple[str, ...]]:
        """Return an image, still encoded if it is a file, its class, and what was unusual about it.

        Raises:
            UnreadableError: There is none.
        """
        if self.encoded is not None and self.labels is not None:
            return self.encoded(position), self.labels[position], ()
        loaded = self.load(position, mode)
        return loaded.image, loaded.label, loaded.oddities


def of_files(  # noqa: D417 - the others are the attributes of `Source`
    encoded: Callable[[int], bytes],
    *,
    name: str,
    paths: Sequence[str],
    labels: Sequence[str],
    classes: tuple[str, ...],
    columns: pd.DataFrame | None = None,
    order_is_a_guess: bool = False,
    numbered: bool = False,
    version: str | None = None,
    doubts: tuple[str, ...] = (),
) -> Source:
    """Make a source of images that are encoded files, with labels that are known.

    Args:
        encoded: From the position of a sample to its file. Raises
            `evalkit.images.reading.UnreadableError`.
    """

    def load(position: int, mode: str) -> Loaded:
        image, oddities = decode_image(encoded(position), mode)
        return Loaded(image=image, label=labels[position], oddities=oddities)

    return Source(
        name=name,
        paths=paths,
        classes=classes,
        load=load,
        columns=columns,
        order_is_a_guess=order_is_a_guess,
        labels=labels,
        encoded=encoded,
        numbered=numbered,
        version=version,
        doubts=doubts,
    )


@dataclass(frozen=True)
class Numbered(Sequence[str]):
    """The names of samples that have no names: made when they are asked for.

    Example:
        >>> names = Numbered("mine:test_set", 10_000_000)
        >>> len(names), names[7], names[-1]
        (10000000, 'mine:test_set[7]', 'mine:test_set[9999999]')
    """

    name: str
    number: int

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, position: int) -> str:  # type: ignore[override] # no slices are asked for
        return f"{self.name}[{range(self.number)[position]}]"
