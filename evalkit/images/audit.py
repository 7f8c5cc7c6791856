"""What was noticed while samples were read: nothing of it is lost, and parts can be added."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.wording import printable, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN = 20  # unreadable images in one line


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A sample that no prediction can be made for."""

    index: int  # position in the source
    path: str
    reason: str


def unreadable_error(
    found: Sequence[Unreadable], *, samples: int, name: str, more: str = ""
) -> InputError:
    """Say which images could not be read: the first in the message, all in its details.

    Args:
        found: These images, at least one.
        samples: How many there are in all.
        name: Of the data.
        more: What else is to be said, behind the advice.

    Example:
        >>> lost = [Unreadable(index=3, path="a.png", reason="the file is empty")]
        >>> str(unreadable_error(lost, samples=9, name="val")).partition(":")[0]
        'data must have images that can be read, got 1 of 9 in val that cannot'
    """
    shown = found[:SHOWN]
    # A reason that several in a row have is said once, after the last of them.
    alike = groupby(shown, key=lambda one: one.reason)
    listed = [f"{', '.join(one.path for one in group)} ({reason})" for reason, group in alike]
    rest = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    every = (f"{printable(one.path)}: {one.reason}" for one in found if rest)
    return InputError(
        f"data must have images that can be read, got {len(found)} of {samples} in {name} that "
        f"cannot: {some(listed, len(listed))}{rest}: mend them, or leave them out with "
        f"on_unreadable='skip'{more}",
        details=tuple(every),
    )


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A sample of a class that the model does not know, which is not asked about it."""

    index: int  # position in the source
    label: str


@dataclass(kw_only=True)
class Audit:
    """What was noticed while samples were read.

    Whenever `evalkit.batches.batches` has yielded a batch, its audit holds what was noticed up to
    that batch's last sample, and nothing of what comes after it; so an audit can be kept per part
    of a run. Samples in batches, *unreadable* and *set_aside* ones together are all there are.

    Attributes:
        unreadable: Samples without a prediction, because there is no image.
        oddities: How many images were unusual in which way, see
            `evalkit.images.reading.oddities_of`.
        set_aside: Samples without a prediction, because their class is none of the model's.

    Example:
        >>> first, second = Audit(), Audit(oddities=Counter({"a palette": 2}))
        >>> second.unreadable.append(Unreadable(index=3, path="a.png", reason="is empty"))
        >>> first.add(Audit.from_dict(second.as_dict()))
        >>> first == second
        True
        >>> second.take() == first, second == Audit()
        (True, True)
    """

    unreadable: list[Unreadable] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)
    set_aside: list[SetAside] = field(default_factory=list)

    def add(self, other: Audit) -> None:
        """Add what was noticed in another part of the data, in the order of the samples."""
        self.unreadable = sorted([*self.unreadable, *other.unreadable], key=lambda one: one.index)
        self.oddities.update(other.oddities)
        self.set_aside = sorted([*self.set_aside, *other.set_aside], key=lambda one: one.index)

    def take(self) -> Audit:
        """Return what was noticed since this was asked last, and forget it."""
        taken = Audit(unreadable=self.unreadable, oddities=self.oddities, set_aside=self.set_aside)
        self.unreadable, self.oddities, self.set_aside = [], Counter(), []
        return taken

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them."""
        return {
            "unreadable": [asdict(one) for one in self.unreadable],
            "oddities": dict(sorted(self.oddities.items())),
            "set_aside": [asdict(one) for one in self.set_aside],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Audit:
        """Read what `as_dict` wrote."""
        return cls(
            unreadable=[Unreadable(**one) for one in values["unreadable"]],
            oddities=Counter(values["oddities"]),
            set_aside=[SetAside(**one) for one in values["set_aside"]],
        )
