"""What stands for the classes and objects that a pickle names and nobody here imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_KEY_PARTS = 16
MAX_KEY_DEPTH = 3


@dataclass(frozen=True, eq=False)
class Named:
    """A class or function as a pickle names it, and what is called in its place, if anything."""

    path: str  # "package.module.name"
    make: Callable[..., Any] | None = None


@dataclass(eq=False, repr=False)
class Inert:
    """An object of a class that is not known here: its name, and what was pickled with it."""

    path: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)  # where it is a list or a set
    entries: dict[Any, Any] = field(default_factory=dict)  # where it is a dict

    def __repr__(self) -> str:
        return f"Inert({self.path!r})"  # what was pickled with it may be endless

    def values(self) -> Mapping[Any, Any]:
        """Return its entries, or its attributes where it has no entries."""
        if self.entries:
            return self.entries
        return self.state if isinstance(self.state, dict) else {}


def require_key(key: Any, depth: int = MAX_KEY_DEPTH) -> Any:
    """Return *key* if it can be hashed in a short time and without deep recursion.

    Raises:
        pickle.UnpicklingError: It cannot.

    Example:
        >>> require_key(("fc", 0))
        ('fc', 0)
    """
    if isinstance(key, tuple | frozenset):
        if not depth or len(key) > MAX_KEY_PARTS:
            raise UnpicklingError("a key of too many parts")
        for part in key:
            require_key(part, depth - 1)
    return key
