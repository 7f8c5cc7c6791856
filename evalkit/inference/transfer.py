"""Batches to the device and results back, while the device goes on computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch

from evalkit.inference.layout import IMAGES
from evalkit.inference.outputs import Rows

Key = TypeVar("Key")
Key_contra = TypeVar("Key_contra", contravariant=True)
# Batches whose results are still on their way: one that is computed while another is prepared. It
# also bounds how far the program runs ahead of the device, and with it the memory.
IN_FLIGHT = 2


def uploaded(
    batches: Iterable[tuple[Key, torch.Tensor, torch.Tensor]], device: torch.device
) -> Iterator[tuple[Key, torch.Tensor, torch.Tensor]]:
    """Yield batches on the device.

    To CUDA they go through two pinned buffers in turn and a stream of their own, so that a copy
    goes on while the batch before it is computed; the current stream waits for the copy, the
    program does not.

    Args:
        batches: Key, inputs and labels of each.
        device: Where they are wanted.
    """
    if device.type != "cuda":
        for key, inputs, labels in batches:
            yield key, inputs.to(device), labels.to(device)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    slots = [_Slot(), _Slot()]
    for number, (key, inputs, labels) in enumerate(batches):
        if inputs.device.type != "cpu":  # decoded there
            yield key, inputs.to(device), labels.pin_memory().to(device, non_blocking=True)
            continue
        slot = slots[number % len(slots)]
        slot.copied.synchronize()  # two batches ago: the buffer is free again
        staged = [slot.stage(position, one) for position, one in enumerate((inputs, labels))]
        with torch.cuda.stream(copying):
            moved = [one.to(device, non_blocking=True) for one in staged]
            slot.copied.record(copying)
        computing = torch.cuda.current_stream(device)
        computing.wait_event(slot.copied)
        for one in moved:
            one.record_stream(computing)  # its memory is not the copying stream's to reuse yet
        yield key, moved[0], moved[1]


@dataclass(kw_only=True)
class _Slot:
    """Pinned memory for one batch, and the event after which it may be overwritten."""

    buffers: dict[int, torch.Tensor] = field(default_factory=dict)
    copied: torch.cuda.Event = field(default_factory=torch.cuda.Event)

    def stage(self, position: int, tensor: torch.Tensor) -> torch.Tensor:
        """Return a pinned copy, in memory that the batch before last had."""
        buffer = self.buffers.get(position)
        if buffer is None or buffer.dtype != tensor.dtype or buffer.numel() < tensor.numel():
            buffer = torch.empty(tensor.numel(), dtype=tensor.dtype, pin_memory=True)
            self.buffers[position] = buffer
        room = buffer[: tensor.numel()]
        if tensor.ndim == IMAGES and tensor.is_contiguous(memory_format=torch.channels_last):
            return room.as_strided(tensor.shape, tensor.stride()).copy_(tensor)
        return room.view(tensor.shape).copy_(tensor)


class Results(Protocol[Key_contra]):
    """Takes what is kept of batches and delivers it from the CPU, in order."""

    def add(self, key: Key_contra, packed: Sequence[torch.Tensor]) -> None:
        """Take what `evalkit.inference.outputs.per_sample` gives for a batch."""

    def finish(self) -> None:
        """Deliver the rest."""


def downloads(device: torch.device, deliver: Callable[[Key, Rows], None]) -> Results[Key]:
    """Return where results are added, for delivery as they arrive from the device."""
    return _Later(deliver) if device.type == "cuda" else _AtOnce(deliver)


@dataclass(frozen=True)
class _AtOnce(Generic[Key]):
    deliver: Callable[[Key, Rows], None]

    def add(self, key: Key, packed: Sequence[torch.Tensor]) -> None:
        self.deliver(key, Rows.of_tensors([one.cpu() for one in packed]))

    def finish(self) -> None:
        pass


@dataclass(frozen=True)
class _Later(Generic[Key]):
    """Copies to pinned memory without waiting; waits only for what is two batches old."""

    deliver: Callable[[Key, Rows], None]
    waiting: deque[tuple[Key, list[torch.Tensor], torch.cuda.Event]] = field(default_factory=deque)

    def add(self, key: Key, packed: Sequence[torch.Tensor]) -> None:
        arriving = []
        for one in packed:
            target = torch.empty(one.shape, dtype=one.dtype, pin_memory=True)
            arriving.append(target.copy_(one, non_blocking=True))
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(packed[0].device))
        self.waiting.append((key, arriving, arrived))
        if len(self.waiting) > IN_FLIGHT:
            self._deliver_one()

    def finish(self) -> None:
        while self.waiting:
            self._deliver_one()

    def _deliver_one(self) -> None:
        key, arriving, arrived = self.waiting.popleft()
        arrived.synchronize()
        # Out of pinned memory, which is scarce and would be kept with the results.
        self.deliver(key, Rows.of_tensors([one.clone() for one in arriving]))
