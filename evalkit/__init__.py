"""Evaluate any classification checkpoint, or anyone's predictions, honestly.

Names are loaded when they are first used: importing evalkit imports neither torch nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.confusion import confusion_matrix
    from evalkit.errors import InputError
    from evalkit.evaluation import Evaluation
    from evalkit.scores import accuracy, per_class_scores

__all__ = [
    "Evaluation",
    "InputError",
    "accuracy",
    "confusion_matrix",
    "per_class_scores",
]

_HOME = {
    "Evaluation": "evalkit.evaluation",
    "InputError": "evalkit.errors",
    "accuracy": "evalkit.scores",
    "confusion_matrix": "evalkit.confusion",
    "per_class_scores": "evalkit.scores",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
