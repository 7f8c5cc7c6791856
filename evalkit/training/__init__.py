"""Training, as functions that can be used one by one, each loaded when it is first used.

>>> from evalkit import training
>>> from torch import nn
>>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1000))
>>> training.replace_head(model, 3).names
('3',)
>>> training.freeze_backbone(model)
('1.weight', '1.bias')
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.training.averaging import averaged_model
    from evalkit.training.checkpoints import Checkpoints
    from evalkit.training.early_stopping import EarlyStopping
    from evalkit.training.fit import fit
    from evalkit.training.freezing import freeze_backbone, unfreeze
    from evalkit.training.groups import parameter_groups
    from evalkit.training.heads import Head, find_head, replace_head
    from evalkit.training.initialization import initialize
    from evalkit.training.job import Job, prepare
    from evalkit.training.losses import classification_loss, smoothing_for
    from evalkit.training.mixing import mixing
    from evalkit.training.recipe import Recipe
    from evalkit.training.records import EpochRecord
    from evalkit.training.schedules import schedule
    from evalkit.training.seed import seed_everything
    from evalkit.training.start import Start, start
    from evalkit.training.steps import apply_gradients, grad_scaler

__all__ = [
    "Checkpoints",
    "EarlyStopping",
    "EpochRecord",
    "Head",
    "Job",
    "Recipe",
    "Start",
    "apply_gradients",
    "averaged_model",
    "classification_loss",
    "find_head",
    "fit",
    "freeze_backbone",
    "grad_scaler",
    "initialize",
    "mixing",
    "parameter_groups",
    "prepare",
    "replace_head",
    "schedule",
    "seed_everything",
    "smoothing_for",
    "start",
    "unfreeze",
]

_HOME = {
    "Checkpoints": "checkpoints",
    "EarlyStopping": "early_stopping",
    "EpochRecord": "records",
    "Head": "heads",
    "Job": "job",
    "Recipe": "recipe",
    "Start": "start",
    "apply_gradients": "steps",
    "averaged_model": "averaging",
    "classification_loss": "losses",
    "find_head": "heads",
    "fit": "fit",
    "freeze_backbone": "freezing",
    "grad_scaler": "steps",
    "initialize": "initialization",
    "mixing": "mixing",
    "parameter_groups": "groups",
    "prepare": "job",
    "replace_head": "heads",
    "schedule": "schedules",
    "seed_everything": "seed",
    "smoothing_for": "losses",
    "start": "start",
    "unfreeze": "freezing",
}


class _Package(ModuleType):
    """A package in which no submodule takes the place of the function of the same name.

    Importing ``evalkit.training.fit`` would otherwise set ``evalkit.training.fit`` to the module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
