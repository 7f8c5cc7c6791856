"""A fact is a value or the reason why there is none: the vocabulary of every section.

Every name carries its unit (``_bytes``, ``_celsius``, ``_s``, ``_fraction`` in [0, 1]). `None`
means "nothing" (a CPU build has no CUDA version), never "unknown": unknown is a `Missing`.
"""

from __future__ import annotations

from typing import Any, Self, TypeAlias, TypeVar

from msgspec import Struct, field

NOT_RECORDED = "not recorded in this snapshot"

T = TypeVar("T")


class NotObserved(Exception):  # noqa: N818 - an answer, not an error
    """A rule asked for a fact that no probe could establish; the message is the reason."""


class Missing(Struct, frozen=True):
    """Why a fact has no value."""

    missing: str


Fact: TypeAlias = T | Missing


def known(fact: T | Missing) -> T:
    """The value of a fact.

    Raises:
        NotObserved: The fact has no value; the message is the probe's reason.

    Example:
        >>> known(Missing("NVML function not found in driver 418.87"))
        Traceback (most recent call last):
        gpudiag.fact.NotObserved: NVML function not found in driver 418.87
    """
    if isinstance(fact, Missing):
        raise NotObserved(fact.missing)
    return fact


def known_or(fact: T | Missing, default: T) -> T:
    """The value of a fact, or *default* where there is none (for display, not for rules)."""
    return default if isinstance(fact, Missing) else fact


def not_recorded() -> Any:
    """The default of every fact: an older gpudiag did not ask for it."""
    return field(default=Missing(NOT_RECORDED))


class Section(Struct, frozen=True, kw_only=True):
    """A group of facts that one probe establishes."""

    @classmethod
    def missing(cls, reason: str, **facts: Any) -> Self:
        """The section in which every fact that is not given is missing for *reason*."""
        return cls(**dict.fromkeys(cls.__struct_fields__, Missing(reason)) | facts)
