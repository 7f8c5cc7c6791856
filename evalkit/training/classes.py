"""The classes of a model and those that the data has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.errors import InputError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.data import Source


def require_known_classes(source: Source, classes: Sequence[str]) -> None:
    """Raise unless every class of the data is one of the model's.

    Raises:
        InputError: One is not.
    """
    known = set(classes)
    unknown = [name for name in source.classes if name not in known]
    if unknown:
        raise InputError(
            f"data must have only classes that the model has, {counted(len(classes), 'name')} "
            f"such as {some(classes)}, got {counted(len(unknown), 'other')} in {source.name}: "
            f"{some(unknown)}"
        )
