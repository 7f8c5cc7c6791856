"""What goes wrong while a model is trained, said with what was measured."""

from __future__ import annotations

import resource
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

import gpudiag
from evalkit.errors import InputError
from evalkit.user_code import told
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn
    from torch.optim import Optimizer

    from evalkit.training.state import State

UNCHECKED_PARTS = 50  # on a GPU, where looking at a loss means waiting for it
DEAD_WORKER = "DataLoader worker"  # how torch's message begins
NO_VIEW = "view size is not compatible"  # what torch says of a layout that `view` does not take
LISTED_FILES = 8
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - through which workers hand batches over
GIB = 2**30


class LossWatch:
    """Adds up losses and finds the first that is not finite, without waiting for every batch.

    Args:
        device: Where the losses are; on a GPU they are looked at together, now and then.
        names: From positions of samples to their files, where there are any.
        total: What to begin with.

    Attributes:
        total: Sum of the losses of all samples in the batches that have been looked at.

    Example:
        >>> cpu = torch.device("cpu")
        >>> watch = LossWatch(cpu, lambda positions: [f"{number}.png" for number in positions])
        >>> watch.add(torch.tensor(0.5), 2, (1, 2), "step 1")
        >>> watch.total
        1.0
        >>> watch.add(torch.tensor(torch.nan), 2, (3, 4), "step 2")
        Traceback (most recent call last):
        evalkit.errors.InputError: loss must be a finite number, got nan in step 2 for 3.png, 4.png:
        lower the learning rate, limit the gradients (clip_norm), or look at these images
    """

    def __init__(
        self,
        device: torch.device,
        names: Callable[[Sequence[int]], list[str]] | None = None,
        *,
        total: float = 0.0,
    ) -> None:
        self.total = total
        self._names = names
        self._losses: list[torch.Tensor] = []
        self._seen: list[tuple[int, Sequence[int], str]] = []
        self._patience = 1 if device.type == "cpu" else UNCHECKED_PARTS

    def add(self, loss: torch.Tensor, size: int, positions: Sequence[int], where: str) -> None:
        """Note the loss of a batch.

        Args:
            loss: Mean over the batch, 0-dimensional, detached.
            size: Samples in the batch.
            positions: Theirs, where they are known.
            where: In which epoch and step.

        Raises:
            InputError: This one, or one before it, is not finite.
        """
        self._losses.append(loss)
        self._seen.append((size, positions, where))
        if len(self._losses) >= self._patience:
            self.check()

    def check(self) -> None:
        """Look at what has been noted so far.

        Raises:
            InputError: A loss is not finite; the line names the files of the first such batch.
        """
        if not self._losses:
            return
        one = len(self._losses) == 1
        losses = [self._losses[0].item()] if one else torch.stack(self._losses).tolist()
        seen, self._losses, self._seen = self._seen, [], []
        for loss, (size, positions, where) in zip(losses, seen, strict=True):
            self.total += loss * size
            if not abs(loss) < float("inf"):
                files = self._names(positions) if self._names and positions else []
                of_what = f" for {some(files, LISTED_FILES)}" if files else ""
                raise InputError(
                    f"loss must be a finite number, got {loss} in {where}{of_what}: lower the "
                    "learning rate, limit the gradients (clip_norm), or look at these images"
                )


@contextmanager
def memory_explained(state: State, samples: int) -> Iterator[None]:
    """Say what a lack of memory comes from.

    Args:
        state: Of the training.
        samples: In the batch that is computed.

    Raises:
        InputError: Instead of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(out_of_memory(state.model, state.optimizer, samples)) from error


@contextmanager
def workers_explained() -> Iterator[None]:
    """Say what the death of a worker may come from.

    Raises:
        InputError: Instead of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(DEAD_WORKER):
            raise
        raise InputError(dead_worker(str(error))) from error


def run_model(model: nn.Module, inputs: torch.Tensor) -> object:
    """Return what the model gives for a batch.

    Raises:
        InputError: It does not take such inputs.
    """
    try:
        return model(inputs)
    except torch.OutOfMemoryError:
        raise
    except InputError:
        raise
    except Exception as error:
        is_turned = inputs.is_contiguous(memory_format=torch.channels_last)
        way_out = ": leave channels_last out" if is_turned and NO_VIEW in str(error) else ""
        raise InputError(
            f"model {type(model).__name__} must accept inputs of shape {tuple(inputs.shape)} in "
            f"training, got {told(error)}{way_out}"
        ) from error


def out_of_memory(model: nn.Module, optimizer: Optimizer, samples: int) -> str:
    """Say what takes the memory of the device, and what takes less."""
    device = next(model.parameters()).device
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    states = sum(
        value.numel() * value.element_size()
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, torch.Tensor)
    )
    seen = [f"weights {_gib(weights)}, optimizer {_gib(states)}, batches of {samples}"]
    seen.append(f"at its peak {_gib(peak_memory_bytes(device))} in this process")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        seen.append(f"{_gib(free)} of {_gib(total)} free")
    return (
        f"training must fit into the memory of {device}, got {'; '.join(seen)}; {_holders()}: "
        "divide every step (accumulate 2, with the same result), use precision bf16, or lower "
        "batch-size"
    )


def dead_worker(message: str) -> str:
    """Say why a process that loads images may have died."""
    system = gpudiag.snapshot(torch=False).system
    total, used = system.shm_total_bytes, system.shm_used_bytes
    if isinstance(total, int) and isinstance(used, int):
        shared = f"{SHARED_MEMORY} holds {_gib(total)}, {_gib(used)} of it in use"
    else:
        shared = f"gpudiag cannot tell the size of {SHARED_MEMORY} ({total})"
    first = " ".join(message.partition("\n")[0].split())
    return (
        f"workers must live as long as training, got '{first}'; {shared}: start the container "
        "with --shm-size=8g or --ipc=host, take fewer workers, or workers 0 to see the error itself"
    )


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory that tensors took on a GPU since `start_peak`; else that this process ever took.

    Example:
        >>> peak_memory_bytes(torch.device("cpu")) > 2**20
        True
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def start_peak(device: torch.device) -> None:
    """Begin to measure the peak anew, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _holders() -> str:
    """Who holds GPU memory, as gpudiag sees it."""
    processes = gpudiag.processes()
    if processes.empty:
        return "gpudiag sees no process that holds GPU memory"
    rows = processes.sort_values("used_bytes", ascending=False).to_dict("records")
    held = [
        f"{row['name']} (pid {row['pid']}, GPU {row['index']}) {_gib(row['used_bytes'])}"
        for row in rows
    ]
    return f"gpudiag sees GPU memory held by {some(held)}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
