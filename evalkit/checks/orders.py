"""Orders that classes may have by mistake, guessed from their names alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evalkit.wording import natural_order

if TYPE_CHECKING:
    from collections.abc import Sequence

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """What every given class would mean if the order of the classes had been mistaken.

    Attributes:
        words: How it came about, to follow "as if".
        meaning: Position of the class that was meant, for every given class, shape (C,).
    """

    words: str
    meaning: Integers


def likely_orders(names: Sequence[str]) -> list[Order]:
    """Return the mistakes that programs make, each once, the order as it is left out.

    Args:
        names: The C classes in their order.

    Example:
        >>> [order.words for order in likely_orders(["1", "10", "2"])][:2]
        ['every prediction were one class too late (counting begins at 1, not 0)',
         'every prediction were one class too early (a background class comes first)']
    """
    size = len(names)
    positions = np.arange(size)
    found = [
        Order(
            words="every prediction were one class too late (counting begins at 1, not 0)",
            meaning=(positions - 1) % size,
        ),
        Order(
            words="every prediction were one class too early (a background class comes first)",
            meaning=(positions + 1) % size,
        ),
    ]
    sorts = {
        "the order given": list(names),
        "sorted order (1, 10, 2; a, B as B, a)": sorted(names),
        "natural order (1, 2, 10)": natural_order(names),
        "sorted order without regard to case": sorted(names, key=str.casefold),
    }
    place = {name: position for position, name in enumerate(names)}
    places = {words: np.array([place[name] for name in sort]) for words, sort in sorts.items()}
    for said, those in places.items():
        for meant, these in places.items():
            meaning = positions.copy()
            meaning[those] = these
            words = f"outputs were named in {said} and the model had learned {meant}"
            found.append(Order(words=words, meaning=meaning))
    distinct: dict[bytes, Order] = {positions.tobytes(): found[0]}  # not the order as it is
    for order in found:
        distinct.setdefault(order.meaning.astype(np.int64).tobytes(), order)
    return list(distinct.values())[1:]
