"""The training loop beside a bare one, and its loader and step beside timm's.

Both sides of a comparison have their own copy of one model and see as many images; epochs
alternate in one process, and a ratio is ours to theirs in images per second of the same round.
Ours is everything that a user of `evalkit.training.fit` gets: sums of losses, checks of labels
and losses, and the validation of two images at the end of every epoch, which counts against it.

With a GPU: resnet50 in bf16 and channels_last on batches that are on the device already, with
what `gpudiag record` saw meanwhile.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm.data
import torch
import torchvision
from PIL import Image
from tabulate import tabulate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gpudiag
from evalkit.data import open_data
from evalkit.demo.net import digits_net
from evalkit.training import fit
from evalkit.training.loader import TrainingBatches
from evalkit.training.order import Order
from evalkit.transforms import IMAGENET_MEAN, IMAGENET_STD, train

ROUNDS = 11
MORE_ROUNDS = (
    31  # of the short epochs in memory, which whatever else the machine does disturbs most
)
CLASSES = 4
BATCH = 32
STEPS = 200  # in memory
IMAGES = 512  # JPEG files, 320 x 240
SIDE = 96  # of what the model sees: on a CPU, loading and computing are then both felt
WORKERS = 2
GPU_BATCH = 256
GPU_STEPS = 50

Batch = tuple[torch.Tensor, torch.Tensor]
Epoch = Callable[[], None]


def bare(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    autocast: torch.dtype | None = None,
    layout: torch.memory_format = torch.contiguous_format,
) -> None:
    """One epoch as everybody writes it, with nothing added."""
    model.train()
    device = next(model.parameters()).device
    for images, labels in batches:
        inputs, targets = images.to(device).contiguous(memory_format=layout), labels.to(device)
        if prepare is not None:
            inputs = prepare(inputs)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()


def run(*, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measure; one row per comparison.

    Args:
        rounds: Epochs of each side, alternating, after one of each that does not count; of those
            in memory there are more.

    Returns:
        Rows with ``comparison``, ``ours_s`` and ``peer_s`` (median seconds of an epoch), ``ratio``
        (of images per second, ours to the peer's), ``spread`` (least and largest ratio of a round)
        and ``target``.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        rows = [
            in_memory(max(rounds, MORE_ROUNDS)),
            from_files(Path(folder), rounds),
            beside_timm(folder, rounds),
        ]
        if torch.cuda.is_available():
            rows.append(on_a_gpu(rounds))
    return rows


def in_memory(rounds: int) -> dict[str, Any]:
    """The net of the demonstration on tensors: short steps, in which every extra line shows."""
    generator = torch.Generator().manual_seed(0)
    samples = STEPS * BATCH
    data = TensorDataset(
        torch.randn(samples, 1, 8, 8, generator=generator), torch.arange(samples) % 10
    )
    loaders = [DataLoader(data, BATCH, shuffle=True) for _ in range(2)]
    ours, theirs = _twins(digits_net().to(memory_format=torch.channels_last))
    records = _fit(*ours, loaders[0], rounds, data[:2])
    return _compare(
        f"fit / bare loop: digits net, batches of {BATCH} in memory",
        lambda: _next(records),
        lambda: bare(theirs[0], loaders[1], theirs[1], layout=torch.channels_last),
        images=samples,
        rounds=rounds,
        target="at least 0.97",
    )


def from_files(folder: Path, rounds: int) -> dict[str, Any]:
    """resnet18 on JPEG files, by the same loader."""
    loaders = [_batches(folder) for _ in range(2)]
    transform = train(crop=SIDE)
    model = torchvision.models.resnet18(num_classes=CLASSES)
    ours, theirs = _twins(model.to(memory_format=torch.channels_last))
    records = _fit(*ours, loaders[0], rounds, _two_images(), prepare=transform.normalize)
    epochs = iter(range(1, rounds + 2))

    def peer() -> None:
        steps = loaders[1].steps(next(epochs))
        batches = ((part.inputs, part.labels) for step in steps for part in step.parts)
        bare(
            *(theirs[0], batches, theirs[1]),
            prepare=transform.normalize,
            layout=torch.channels_last,
        )

    return _compare(
        f"fit / bare loop: resnet18, {SIDE} px, JPEG files, {WORKERS} workers",
        lambda: _next(records),
        peer,
        images=IMAGES,
        rounds=rounds,
        target="at least 0.97",
    )


def beside_timm(folder: str, rounds: int) -> dict[str, Any]:
    """resnet18 on JPEG files: evalkit's loader and step, and timm's.

    timm's loader is made as its training script makes it, with the same crops and flips as ours
    and no colour jitter; its step is that of the script without its meters and logs.
    """
    transform = train(crop=SIDE)
    ours, theirs = _twins(torchvision.models.resnet18(num_classes=CLASSES))
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=folder),
        input_size=(3, SIDE, SIDE),
        batch_size=BATCH,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        num_workers=WORKERS,
        device=torch.device("cpu"),
        pin_memory=False,
    )
    records = _fit(
        *ours, _batches(Path(folder)), rounds, _two_images(), prepare=transform.normalize
    )
    return _compare(
        f"evalkit / timm, loader and step: resnet18, {SIDE} px, JPEG files, {WORKERS} workers",
        lambda: _next(records),
        lambda: bare(theirs[0], loader, theirs[1]),
        images=IMAGES,
        rounds=rounds,
        target="at least 1.0",
    )


def on_a_gpu(rounds: int, device: str = "cuda") -> dict[str, Any]:
    """resnet50, bf16, channels_last, images on the device; with what the GPU did meanwhile."""
    images = torch.randn(GPU_BATCH, 3, 224, 224, device=device)
    labels = torch.arange(GPU_BATCH) % 1000  # on the CPU, as a loader gives them
    batches = [(images.contiguous(memory_format=torch.channels_last), labels)] * GPU_STEPS
    model = torchvision.models.resnet50().to(device, memory_format=torch.channels_last)
    ours, theirs = _twins(model)
    records = _fit(*ours, batches, rounds, (images[:2], labels[:2]), precision="bf16")

    def finished() -> None:
        if device != "cpu":
            torch.accelerator.synchronize()

    def own() -> None:
        _next(records)
        finished()

    def peer() -> None:
        bare(theirs[0], batches, theirs[1], autocast=torch.bfloat16)
        finished()

    name = torch.cuda.get_device_name() if device == "cuda" else device
    with gpudiag.record(interval_s=0.5) as recording:
        row = _compare(
            f"fit / bare loop: resnet50, 224 px, bf16, channels_last, batches of {GPU_BATCH} on "
            f"{name}",
            own,
            peer,
            images=GPU_STEPS * GPU_BATCH,
            rounds=rounds,
            target="at least 0.97",
        )
    print(recording.verdict)
    return row


def write_images(folder: Path) -> None:
    """Write JPEG files of smooth noise, which compress about as photos do."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        place = folder / f"class_{number % CLASSES}"
        place.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-12, 13, smooth.shape, dtype=np.int16)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:04}.jpg", quality=90)


def _batches(folder: Path) -> TrainingBatches:
    source = open_data(folder)
    return TrainingBatches(
        source,
        train(crop=SIDE),
        source.classes,
        order=Order(samples=len(source), batch_size=BATCH, seed=0),
        workers=WORKERS,
    )


def _two_images() -> Batch:
    return torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), torch.tensor([0, 1])


def _twins(model: nn.Module) -> list[tuple[nn.Module, torch.optim.Optimizer]]:
    """Two copies of a model, each with an optimizer."""
    copies = [model, copy.deepcopy(model)]
    return [(one, torch.optim.SGD(one.parameters(), lr=0.01, momentum=0.9)) for one in copies]


def _fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Any,
    rounds: int,
    validation: Any,
    **options: Any,
) -> Iterator[Any]:
    device = next(model.parameters()).device.type
    return fit(
        model,
        batches,
        validation=[tuple(validation)],
        optimizer=optimizer,
        epochs=rounds + 1,
        device=device,
        channels_last=True,  # as `evalkit train` does for models of torchvision and timm
        **options,
    )


def _next(records: Iterator[Any]) -> None:
    next(records)


def _compare(
    name: str, ours: Epoch, theirs: Epoch, *, images: int, rounds: int, target: str
) -> dict[str, Any]:
    """Alternate; the first of each only warms up."""
    for epoch in (ours, theirs):
        epoch()
    pairs = []
    for number in range(rounds):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        times = {epoch: _seconds(epoch) for epoch in order}
        pairs.append((times[ours], times[theirs]))
    ratios = [peer / own for own, peer in pairs]
    own_s, peer_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "comparison": f"{name} ({images / own_s:,.0f} and {images / peer_s:,.0f} images/s)",
        "ours_s": own_s,
        "peer_s": peer_s,
        "ratio": statistics.median(ratios),
        "spread": (min(ratios), max(ratios)),
        "target": target,
    }


def _seconds(epoch: Epoch) -> float:
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start


if __name__ == "__main__":
    table = [{**row, "spread": "{:.3f} to {:.3f}".format(*row["spread"])} for row in run()]
    print(tabulate(table, headers="keys", floatfmt=".3f"))
