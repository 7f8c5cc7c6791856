"""Where an evaluation comes from, as groups of names and values to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.wording import some

GROUPS = {
    "checkpoint": "Checkpoint: what was loaded",
    "model": "Model",
    "transform": "From image to input",
    "precision_flags": "Precision",
    "throughput": "Speed",
    "environment": "Environment",
}
IN_ONE_LINE = 4
LISTED = 12  # of the keys of a checkpoint
UNDEFINED = "–"  # noqa: RUF001 - an en dash reads as "nothing here", a minus as a number


def origins(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of what is known of a run, and at the end what is not known, with the reasons.

    Example:
        >>> origins({"model": {"spec": "timm:vit", "parameters": 86567656}})
        [('Model', [('spec', 'timm:vit'), ('parameters', '86,567,656')])]
    """
    groups = [(title, _rows(summary[key])) for key, title in GROUPS.items() if summary.get(key)]
    groups += [
        (_words(name).capitalize(), _rows(inner))
        for key in GROUPS
        for name, inner in _nested(summary.get(key)).items()
    ]
    missing = summary.get("not_available") or {}
    if missing:
        groups.append(
            ("Not available", [(_words(key), _words(why)) for key, why in missing.items()])
        )
    rule = summary.get("absent_class_rule")
    return [*groups, ("Averages over classes", [("rule", str(rule))])] if rule else groups


def _rows(group: Any) -> list[tuple[str, str]]:
    if not isinstance(group, Mapping):
        return [("value", _value(group))]
    apart = _nested(group)
    return [(_words(key), _value(value)) for key, value in group.items() if key not in apart]


def _nested(group: Any) -> dict[str, Mapping[str, Any]]:
    """What inside a group is too long for one line: it becomes a group of its own."""
    if not isinstance(group, Mapping):
        return {}
    return {
        key: value
        for key, value in group.items()
        if isinstance(value, Mapping) and len(value) > IN_ONE_LINE
    }


def _words(key: object) -> str:
    return str(key).replace("_", " ")


def _value(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none" if value is not None else UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return some([_value(item) for item in value], LISTED)
    return str(value)
