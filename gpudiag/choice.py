"""Which rules are asked: prefixes of ids from the command line and from the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from gpudiag.config import Config
from gpudiag.errors import InputError, close_ones
from gpudiag.finding import Rule
from gpudiag.rules import CATALOGUE, RULES

LENGTH = len("GD101")


def choose_rules(
    select: Sequence[str], ignore: Sequence[str], config: Config, *, measured: bool = False
) -> tuple[Rule, ...]:
    """The rules that are left when the command line and the configuration have spoken.

    A selection on the command line replaces both lists of the configuration; what is ignored
    there is ignored in addition.

    Args:
        select: Ids or prefixes as typed, each with commas; empty: what the configuration says.
        ignore: As *select*.
        config: The configuration.
        measured: Whether the rules on measurements (GD8) are among them.

    Raises:
        InputError: An id or prefix matches no rule, or no rule is left.

    Example:
        >>> [rule.id for rule in choose_rules(["gd101,GD7"], [], Config())][:2]
        ['GD101', 'GD701']
        >>> choose_rules(["GD1O3"], [], Config())
        Traceback (most recent call last):
        gpudiag.errors.InputError: expected the id of a rule, got GD1O3, close ones are ...
    """
    _check((*config.select, *config.ignore), source=f"{config.path}: ")
    typed_select, typed_ignore = _ids(select), _ids(ignore)
    if select and not typed_select:
        raise no_such_rule([""])  # as --select "$RULES" without such a variable
    _check((*typed_select, *typed_ignore))
    wanted = typed_select or config.select
    unwanted = typed_ignore if typed_select else (*typed_ignore, *config.ignore)
    chosen = tuple(
        rule
        for rule in (CATALOGUE if measured else RULES)
        if (not wanted or rule.id.startswith(wanted)) and not rule.id.startswith(unwanted)
    )
    if not chosen and not measured and all(one.startswith("GD8") for one in wanted):
        raise InputError(
            f"expected a rule on what a snapshot holds, got {', '.join(wanted)} on measurements: "
            "add --measure to diagnose"
        )
    if not chosen:
        raise InputError(
            f"expected a rule to be left, got all of {', '.join(wanted) or 'them'} ignored by "
            f"{', '.join(unwanted)}"
        )
    return chosen


def no_such_rule(ids: Sequence[str], *, source: str = "") -> InputError:
    """The error for ids that no rule has; its message begins with *source*, lists close ones."""
    known = [rule.id for rule in CATALOGUE]
    got = ", ".join(one or "an empty one" for one in ids)
    wrong = ids[0].upper()
    close = close_ones(wrong, known) or close_ones(wrong[:LENGTH], known)  # GD9999
    return InputError(
        f"{source}expected the id of a rule, got {got}{close}; 'gpudiag rules' lists them"
    )


def _check(ids: Sequence[str], *, source: str = "") -> None:
    known = [rule.id for rule in CATALOGUE]
    unknown = [one for one in ids if not one or not any(i.startswith(one) for i in known)]
    if unknown:
        raise no_such_rule(unknown, source=source)


def _ids(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        part.strip().upper() for text in options for part in text.split(",") if part.strip()
    )
