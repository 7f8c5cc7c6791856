"""Training, as functions that can be used one by one."""

from evalkit.training.fit import EpochRecord, fit
from evalkit.training.seed import seed_everything

__all__ = ["EpochRecord", "fit", "seed_everything"]
