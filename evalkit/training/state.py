"""All that changes while a model is trained, taken down and put back exactly."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.amp import GradScaler

from evalkit.distributed import gathered, rank, ranks
from evalkit.training.records import EpochRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.optim.swa_utils import AveragedModel

    from evalkit.training.early_stopping import EarlyStopping

AVERAGED = "state_dict_ema"  # beside "state_dict"; `evalkit.load_checkpoint` knows the name


@dataclass(kw_only=True)
class Position:
    """How far training has come.

    Attributes:
        epoch: The one that is being worked on, from 1.
        step: Steps that are done in it.
        loss_sum: Over the samples of this epoch that this rank has computed.
        samples: Of this epoch, over all ranks.
        seconds: Spent on training in this epoch.
        records: One per finished epoch.
        is_over: Whether the score has stopped getting better.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    records: list[EpochRecord] = field(default_factory=list)
    is_over: bool = False

    def next_epoch(self, record: EpochRecord) -> None:
        """Close an epoch."""
        self.records.append(record)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.samples, self.seconds = 0.0, 0, 0.0


@dataclass(kw_only=True)
class State:
    """What has to be kept to go on as if nothing had happened."""

    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler = field(default_factory=lambda: GradScaler("cpu", enabled=False))
    schedule: LRScheduler | None = None
    average: AveragedModel | None = None
    early_stopping: EarlyStopping | None = None
    position: Position = field(default_factory=Position)

    def as_dict(self) -> dict[str, Any]:
        """Return everything except the model's weights, as plain values and tensors."""
        kept: dict[str, Any] = {
            "epoch": self.position.epoch,
            "position": asdict(self.position),
            "loss_sums": gathered(self.position.loss_sum),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": gathered(random_states(self._device())),
        }
        if self.schedule is not None:
            kept["scheduler"] = self.schedule.state_dict()
        if self.average is not None:
            kept[AVERAGED] = dict(self.average.module.state_dict())
            kept["ema_updates"] = int(self.average.n_averaged)
        if self.early_stopping is not None:
            kept["early_stopping"] = self.early_stopping.state_dict()
        return kept

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Put back what `as_dict` gave and ``state_dict``, in place."""
        self.model.load_state_dict(kept["state_dict"])
        self.optimizer.load_state_dict(kept["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(kept["scheduler"])
        if kept["scaler"] and self.scaler.is_enabled():  # else another precision than then
            self.scaler.load_state_dict(kept["scaler"])
        if self.average is not None:
            self.average.module.load_state_dict(kept[AVERAGED])
            self.average.n_averaged.fill_(kept["ema_updates"])
        if self.early_stopping is not None:
            self.early_stopping.load_state_dict(kept["early_stopping"])
        self.position = position_of(kept)
        sums, generators = kept["loss_sums"], kept["rng"]
        if len(sums) == ranks():
            self.position.loss_sum = sums[rank()]
            set_random_states(generators[rank()], self._device())
        else:  # other processes than then: nobody can go on with the numbers of another
            self.position.loss_sum = sum(sums) if rank() == 0 else 0.0
            set_random_states(generators[0], self._device())
            torch.manual_seed(torch.initial_seed() + rank())

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def position_of(kept: Mapping[str, Any]) -> Position:
    """How far training had come in what `State.as_dict` gave."""
    values = dict(kept["position"])
    values["records"] = [
        EpochRecord(**{**record, "learning_rates": tuple(record["learning_rates"])})
        for record in values["records"]
    ]
    return Position(**values)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of the generators of Python, NumPy and torch, there and on *device*.

    Example:
        >>> before = random_states(torch.device("cpu"))
        >>> first = random.random(), np.random.rand(), torch.rand(()).item()
        >>> set_random_states(before, torch.device("cpu"))
        >>> first == (random.random(), np.random.rand(), torch.rand(()).item())
        True
    """
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    name, keys, place, has_gauss, gauss = state
    version, words, next_gauss = random.getstate()
    states: dict[str, Any] = {
        "python": (version, torch.tensor(words), next_gauss),  # 625 numbers: slow to read as such
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), place, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device.type).get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Put back what `random_states` gave; a device of another kind than then keeps its own."""
    version, words, next_gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), next_gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type in states:
        torch.get_device_module(device.type).set_rng_state(states[device.type])
