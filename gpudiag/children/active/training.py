"""What training does: a convolution, one step of ResNet-18, many small launches, allocations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from . import devices
from .clock import latency, rate, synchronize
from .products import SEED, random
from .said import Unavailable, sound

if TYPE_CHECKING:
    from .effort import Effort

LAUNCHES, BATCHES, ALLOCATIONS = 100, 20, 10


def convolution(device: torch.device, effort: Effort) -> None:
    """A 3x3 convolution (cuDNN on a GPU) as in the middle of a ResNet, (N, 64, H, W) -> same.

    In torch's own setting, which allows TF32 on a GPU that has it.
    """
    batch, side = effort.sizes.images, effort.sizes.convolution_side
    torch.manual_seed(SEED)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(device)
    images = random(device, batch, 64, side, side)
    with torch.no_grad():
        sound("convolution", device, layer(images))
        work = 2 * batch * side * side * 64 * 64 * 9 / 1e12
        more: dict[str, Any] = {"effort": effort, "detail": "3x3"}
        rate("convolution", device, lambda: layer(images), work, "TFLOP/s", **more)


def training_step(device: torch.device, effort: Effort) -> None:
    """Steps of ResNet-18: forward, loss, backward, update."""
    try:
        from torchvision.models import resnet18
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise Unavailable(f"torchvision cannot be imported: {error}") from error
    batch, side = effort.sizes.images, effort.sizes.image_side
    torch.manual_seed(SEED)
    model = resnet18().to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = random(device, batch, 3, side, side)
    labels = torch.arange(batch, device=device)

    def step() -> Any:
        optimizer.zero_grad()
        loss: Any = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    sound("training step", device, step().detach())
    rate("training step", device, step, batch, "images/s", effort=effort, detail="resnet18")


def launch(device: torch.device, _: Effort) -> None:
    """What launching a kernel costs when many follow each other."""
    small = torch.zeros(1, device=device)

    def batch_s() -> float:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(LAUNCHES):
            small.add_(1)
        synchronize(device)
        return (time.perf_counter() - started) / LAUNCHES

    batch_s()
    latency("launch", device, [batch_s() for _ in range(BATCHES)])


def allocation(device: torch.device, effort: Effort) -> None:
    """What memory costs that the cache does not hold."""
    if not devices.is_gpu(device):
        raise Unavailable("memory of the host is handed out when it is first written")

    def once_s() -> float:
        torch.cuda.empty_cache()
        synchronize(device)
        started = time.perf_counter()
        torch.empty(effort.sizes.allocation_bytes, dtype=torch.uint8, device=device)
        synchronize(device)
        return time.perf_counter() - started

    once_s()
    latency("allocation", device, [once_s() for _ in range(ALLOCATIONS)])
