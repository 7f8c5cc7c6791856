"""What may be said about a run, with its usual values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.images.decoding import EXACT, Decoding
from evalkit.scoring.method import USUAL, Method

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset

    from evalkit.transforms import TransformSpec

AUTO = "auto"
ON_UNREADABLE = ("fail", "skip")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `evalkit.evaluate`, which explains them.

    Raises:
        InputError: A value is out of range, or two exclude each other.
    """

    model: nn.Module | str | None = None
    classes: Sequence[str] | Mapping[str, int] | None = None
    weights: str | None = None
    transform: TransformSpec | Mapping[str, Any] | None = None
    allow_partial: float | None = None
    trust: bool = False
    device: str = AUTO
    precision: str = "fp32"
    compiled: bool = False
    batch_size: int | str = 64
    workers: int | None = None
    on_unreadable: str = "fail"
    on_unknown_class: str = "fail"
    decoding: Decoding = EXACT
    checks: int | None = None
    verify: int = 0
    train_data: str | Path | Dataset[Any] | None = None
    out: Path | None = None
    resume: bool = False
    save_probabilities: bool = False
    thumbnails: bool = True
    plots: bool = False
    command: str | None = None
    method: Method = USUAL
    group_by: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.on_unreadable not in ON_UNREADABLE:
            raise InputError(f"on_unreadable must be fail or skip, got '{self.on_unreadable}'")
        if isinstance(self.batch_size, str) and self.batch_size != AUTO:
            raise InputError(f"batch_size must be a number or auto, got '{self.batch_size}'")
        if (self.batch_size != AUTO and int(self.batch_size) < 1) or (
            self.workers is not None and self.workers < 1
        ):
            raise InputError(
                f"batch_size and workers must be at least 1, got {self.batch_size} and "
                f"{self.workers}"
            )
        if (self.checks or 0) < 0 or self.verify < 0:
            raise InputError(
                f"checks and verify must be 0 or more, got {self.checks} and {self.verify}"
            )
        if self.resume and self.out is None:
            raise InputError("resume must come with out, a folder with an unfinished run, got none")
