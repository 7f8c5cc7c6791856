"""Evaluate any classification checkpoint, or anyone's predictions, honestly.

Names are loaded when they are first used: importing evalkit imports neither torch nor pandas, and
whatever needs only tables works where torch is not installed.

>>> import evalkit
>>> counts = evalkit.confusion_matrix(["cat", "cat"], ["cat", "dog"], ["cat", "dog"])
>>> evalkit.per_class_scores(counts).loc["cat", "recall"].item()
0.5
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit import training, transforms
    from evalkit.checkpoint import LoadReport, load_checkpoint, save_checkpoint
    from evalkit.checkpoint.convert import convert_checkpoint
    from evalkit.checkpoint.inspection import inspect_checkpoint
    from evalkit.comparison import compare
    from evalkit.errors import InputError
    from evalkit.evaluation import Evaluation
    from evalkit.inference.loop import predict
    from evalkit.run import evaluate
    from evalkit.scoring.confusion import confusion_matrix
    from evalkit.scoring.scores import accuracy, per_class_scores
    from evalkit.training import seed_everything

__all__ = [
    "Evaluation",
    "InputError",
    "LoadReport",
    "accuracy",
    "compare",
    "confusion_matrix",
    "convert_checkpoint",
    "evaluate",
    "inspect_checkpoint",
    "load_checkpoint",
    "per_class_scores",
    "predict",
    "save_checkpoint",
    "seed_everything",
    "training",
    "transforms",
]

_HOME = {
    "Evaluation": "evalkit.evaluation",
    "InputError": "evalkit.errors",
    "LoadReport": "evalkit.checkpoint",
    "accuracy": "evalkit.scoring.scores",
    "compare": "evalkit.comparison",
    "confusion_matrix": "evalkit.scoring.confusion",
    "convert_checkpoint": "evalkit.checkpoint.convert",
    "evaluate": "evalkit.run",
    "inspect_checkpoint": "evalkit.checkpoint.inspection",
    "load_checkpoint": "evalkit.checkpoint",
    "per_class_scores": "evalkit.scoring.scores",
    "predict": "evalkit.inference.loop",
    "save_checkpoint": "evalkit.checkpoint",
    "seed_everything": "evalkit.training",
    "training": "evalkit.training",  # the package itself
    "transforms": "evalkit.transforms",  # the module itself
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
