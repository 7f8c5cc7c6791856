"""The classes of the data joined with the outputs of the model: by name, where there are names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.errors import InputError
from evalkit.wording import counted, natural_order, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from evalkit.data import Source

ON_UNKNOWN = ("fail", "skip")


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Which output of the model each class of the data is.

    Attributes:
        names: Of the model's outputs, in their order.
        outputs: From the label of a sample to the position of its output.
        unknown: Labels of the data that are no output: their samples are set aside.
        warnings: What was assumed because nobody said it.
    """

    names: tuple[str, ...]
    outputs: Mapping[str, int]
    unknown: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def join(
    source: Source,
    *,
    given: Sequence[str] | None = None,
    stored: Sequence[str] | None = None,
    on_unknown: str = "fail",
) -> Joined:
    """Find the output of the model for every class of the data.

    Args:
        source: The data.
        given: Names of the outputs as the user gave them.
        stored: Names of the outputs as the checkpoint has them, if nobody gave any. Without these
            too, the classes of the data are taken for the outputs, in their order.
        on_unknown: "fail", or "skip" to set the samples of classes aside that are no output.

    Raises:
        InputError: The data have classes that the model does not know, or none that it knows.

    Example:
        >>> from evalkit.data import Source
        >>> data = Source(name="x", paths=["a"], classes=("cat", "yak"), load=print)
        >>> join(data, given=["dog", "cat"], on_unknown="skip")
        Joined(names=('dog', 'cat'), outputs={'dog': 0, 'cat': 1}, unknown=('yak',), warnings=())
    """
    if on_unknown not in ON_UNKNOWN:
        raise InputError(f"on_unknown_class must be fail or skip, got '{on_unknown}'")
    named_by = "option" if given is not None else "checkpoint"
    known = given if given is not None else stored
    if known is None:
        return Joined(
            names=source.classes,
            outputs=_positions(source.classes),
            warnings=tuple(_about_order(source)),
        )
    names = tuple(str(name) for name in known)
    outputs = _positions(names)
    outputs |= _composed_otherwise(source.classes, outputs)
    unknown = tuple(name for name in source.classes if name not in outputs)
    warnings: tuple[str, ...] = ()
    none_known = bool(unknown) and len(unknown) == len(source.classes)
    if source.numbered and none_known and _all_positions(source.classes, len(names)):
        outputs = {str(position): position for position in range(len(names))}
        warnings = (_about_numbers(source, names, named_by),)
        unknown, none_known = (), False
    if unknown and (on_unknown == "fail" or none_known):
        raise InputError(_about_unknown(source, names, unknown, named_by))
    return Joined(names=names, outputs=outputs, unknown=unknown, warnings=warnings)


def _positions(names: Sequence[str]) -> dict[str, int]:
    return {name: position for position, name in enumerate(names)}


def _composed_otherwise(labels: Sequence[str], outputs: Mapping[str, int]) -> dict[str, int]:
    """Find labels that are names but for how Unicode composes letters, which macOS may change."""
    if all(map(str.isascii, labels)):
        return {}
    at = {_composed(name): position for name, position in outputs.items()}
    known, written = (Counter(map(_composed, names)) for names in (outputs, labels))
    return {
        label: at[composed]
        for label in labels
        if label not in outputs and known[composed := _composed(label)] == written[composed] == 1
    }


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _all_positions(labels: Sequence[str], number: int) -> bool:
    return {*labels} <= {str(position) for position in range(number)}


def _about_unknown(
    source: Source, names: Sequence[str], unknown: Sequence[str], named_by: str
) -> str:
    advice = (
        "leave their samples out with on_unknown_class='skip'"
        if len(unknown) < len(source.classes)
        else "none of them fits, so name the outputs of the model in their order with classes"
    )
    if source.numbered and len(unknown) < len(source.classes):
        advice = (
            "others of its numbers are names of outputs, and so are no positions: write the names "
            f"of classes into the data, or {advice}"
        )
    if any(name.strip() in names for name in unknown):
        advice = f"remove the blanks around {some([*map(repr, unknown)])}"
    elif alike := _alike(unknown, names):
        advice = f"write them alike, as only blanks or case differ: {some(alike)}"
    return (
        f"data must have only classes that the model knows by the {named_by}, "
        f"{counted(len(names), 'name')} such as {some(names)}, got "
        f"{counted(len(unknown), 'other')} in {source.name}: {some(unknown)}: {advice}"
    )


def _alike(unknown: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return what is a name but for blanks, case or the composition of letters, with that name."""
    similar = {_composed(name).strip().casefold(): name for name in names}
    found = ((name, similar.get(_composed(name).strip().casefold())) for name in unknown)
    return [f"{name!r} and {like!r}" for name, like in found if like is not None]


def _about_numbers(source: Source, names: Sequence[str], named_by: str) -> str:
    pairs = [f"{label} is {names[int(label)]}" for label in source.classes]
    return (
        "the data know their classes by number alone: the numbers were taken for positions among "
        f"the outputs that the {named_by} names, from 0: {some(pairs, shown=3)}"
    )


def _about_order(source: Source) -> Iterator[str]:
    """Say that the order of the outputs is that of the data, because nobody names them."""
    first = some(source.classes, shown=3)
    if source.numbered:
        yield (
            "neither the checkpoint nor the data name the classes: the numbers of the data were "
            f"taken for outputs, in the order {first}"
        )
    elif source.order_is_a_guess:
        yield (
            "the checkpoint does not name its classes: outputs were taken in the order "
            f"{first}; programs that count naturally have "
            f"{some(natural_order(source.classes), shown=3)}: if the model was trained so, name "
            "the classes"
        )
    else:
        yield (
            "the checkpoint does not name its classes: outputs were taken in the order of the "
            f"data, {first}"
        )
