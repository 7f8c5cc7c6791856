"""What an epoch came to, and the table of all epochs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pandas as pd

from evalkit.errors import InputError
from evalkit.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOG = "log.csv"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one pass over the training samples came to."""

    epoch: int  # from 1
    learning_rate: float  # of the first parameter group, at the end of the epoch
    train_loss: float  # mean over samples, while the weights were changing
    validation_loss: float  # mean over samples
    validation_accuracy: float  # fraction in [0, 1]
    validation_macro_f1: float  # mean over the classes that occur, in [0, 1]
    samples_per_second: float  # of training alone, over all processes
    peak_memory_bytes: int  # of tensors on the GPU in this epoch; else of this process so far
    seconds: float  # training and validation
    learning_rates: tuple[float, ...] = ()  # of all parameter groups, in their order


def write_log(folder: Path, records: Sequence[EpochRecord]) -> None:
    """Write ``log.csv`` with one row per epoch, whole or not at all.

    Raises:
        InputError: *folder* cannot be written to.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> values = dict(learning_rate=0.1, train_loss=1.5, validation_loss=1.25, seconds=2.0)
        >>> scores = dict(validation_accuracy=0.5, validation_macro_f1=0.5)
        >>> costs = dict(samples_per_second=100.0, peak_memory_bytes=2048)
        >>> write_log(folder, [EpochRecord(epoch=1, **values, **scores, **costs)])
        >>> pd.read_csv(folder / "log.csv").loc[0, ["epoch", "train_loss"]].tolist()
        [1.0, 1.5]
    """
    rows = [asdict(record) for record in records]
    for row in rows:
        row["learning_rates"] = " ".join(f"{rate:.8g}" for rate in row["learning_rates"])
    columns = list(EpochRecord.__dataclass_fields__)
    table = pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")
    write_record(folder / LOG, table.encode())


def write_record(path: Path, content: bytes) -> None:
    """Write a file whole, in a folder that is made if need be.

    Raises:
        InputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise InputError(
            f"{path}: expected a place to write to, got '{error.strerror or error}': choose another"
        ) from error


def is_better(value: float, than: float, *, metric: str) -> bool:
    """Whether a validation score beats another one; NaN beats nothing.

    Args:
        value: The newer one.
        than: The older one; NaN where there is none.
        metric: A field of `EpochRecord`; a loss is better when it is smaller.

    Example:
        >>> is_better(0.5, 0.5, metric="validation_accuracy")
        False
        >>> is_better(0.4, 0.5, metric="validation_loss")
        True
    """
    if math.isnan(value) or math.isnan(than):
        return math.isnan(than) and not math.isnan(value)
    return value < than if metric.endswith("loss") else value > than
