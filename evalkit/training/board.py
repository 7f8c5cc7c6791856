"""The records of a training for TensorBoard, where it is installed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from evalkit.training.records import EpochRecord


@contextmanager
def board(
    folder: Path | None, former: Sequence[EpochRecord] = ()
) -> Iterator[Callable[[EpochRecord], None]]:
    """Give a function that writes records.

    Args:
        folder: For TensorBoard's files; None writes nothing.
        former: What was written before training was broken off; anything later is taken back.

    Raises:
        InputError: TensorBoard is not installed.

    Example:
        >>> with board(None) as add:
        ...     add("nobody looks at it")
    """
    if folder is None:
        yield lambda _record: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            f"tensorboard needs the package tensorboard, got '{error}': pip install tensorboard"
        ) from error
    with SummaryWriter(str(folder), purge_step=len(former) + 1) as writer:

        def add(record: EpochRecord) -> None:
            for name, value in asdict(record).items():
                if isinstance(value, int | float) and name != "epoch":
                    writer.add_scalar(name, value, record.epoch)
            writer.flush()

        yield add
