"""The evaluation loop beside timm's and beside the bare model, and what it costs as it grows.

Speed, on the CPU: resnet18 at 224 x 224 with random weights (what they are changes no time), the
same images for all sides, images per second of the loops alone: making the model, and our report,
are not in them. Rounds alternate in one process; a ratio is ours to theirs of the same round.

Growth: a data set of 10^4 to 10^7 samples that takes no memory itself, through a tiny net, into a
folder, each in a process of its own: the largest resident memory less that after model, data set
and one batch were there, and the seconds.

With a GPU as well: resnet50 in bf16, end to end against the slower of decoding alone and the model
alone, and against timm's loop.

Usage: python benchmarks/inference.py [speed|memory|gpu]…   (default: all that can be had here)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm.data
import timm.utils
import torch
import torchvision
from PIL import Image
from table import as_text
from torch import nn

from evalkit import evaluate
from evalkit.checkpoint import save_checkpoint
from evalkit.data import Loaded, Source, open_data
from evalkit.images.batches import Audit, batches
from evalkit.transforms import IMAGENET_MEAN, IMAGENET_STD, evaluation

HERE = Path(__file__).parent
ROUNDS = 5
IMAGES = 192  # on the CPU
IMAGES_ON_GPU = 20_000
BATCH = 32
BATCH_ON_GPU = 256
WORKERS_OF_TIMM = 2
CLASSES = ("cat", "dog", "eel", "fox")
SIZE = (500, 375)  # of a photo in ImageNet, more or less
SAMPLES = (10_000, 100_000, 1_000_000, 10_000_000)
PRESET = evaluation()
WITHIN = {
    "input_size": (3, 224, 224),
    "interpolation": "bilinear",
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "crop_pct": 224 / 256,
}

GROWTH = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from evalkit import evaluate
from evalkit.checkpoint import save_checkpoint
from evalkit.transforms import evaluation
from synthetic import net
checkpoint, out, samples = sys.argv[2] + "/net.pth", sys.argv[2] + "/out", sys.argv[3]
model = net()
transform = evaluation(resize=None, crop=None).as_dict()
save_checkpoint(checkpoint, model, transform=transform)
def run(number, out):
    os.environ["SYNTHETIC_SAMPLES"] = number
    evaluate(checkpoint, sys.argv[1] + "/synthetic.py:samples", model=model, device="cpu",
             batch_size=256, workers=2, out=out)
def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024
run("256", sys.argv[2] + "/first")  # one batch: all libraries are loaded, all is warm
before, start = memory("VmRSS"), time.perf_counter()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
run(samples, out)
print(memory("VmHWM") - before, time.perf_counter() - start)
"""


def run(parts: Sequence[str] = ("speed", "memory", "gpu")) -> list[dict[str, Any]]:
    """Measure; one row per comparison, ``ours_s`` and ``peer_s`` per image or per sample.

    Args:
        parts: What to measure; "gpu" is left out where there is none.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if "speed" in parts:
            rows += _speed(place)
        if "gpu" in parts and torch.cuda.is_available():
            rows += _gpu(place)
        if "memory" in parts:
            rows += _growth(place)
    return rows


def _speed(place: Path) -> Iterator[dict[str, Any]]:
    files = _write_jpegs(place / "jpegs", IMAGES)
    model = torchvision.models.resnet18(num_classes=len(CLASSES))
    checkpoint = place / "resnet18.pth"
    save_checkpoint(checkpoint, model, classes=CLASSES, transform=PRESET.as_dict())
    pixels = [one for batch in _decoded(files, workers=2) for one in batch.pixels]
    ready = _in_memory(pixels)

    def ours(data: Path | Source) -> Callable[[], float]:
        return lambda: _our_seconds(checkpoint, model, data, device="cpu", batch_size=BATCH)

    yield from _compared(
        {
            "resnet18, JPEG files, against timm's loop": (
                ours(files), lambda: _timms_seconds(model, files, "cpu"), "at least 1.0"
            ),
            "resnet18, images in memory, against the bare model": (
                ours(ready), lambda: _bare_seconds(model, pixels), "at least 0.97"
            ),
            "the same, bare model with channels last": (
                ours(ready),
                lambda: _bare_seconds(model, pixels, memory_format=torch.channels_last),
                "none",
            ),
            "resnet18, JPEG files, against the bare model": (
                ours(files), lambda: _bare_seconds(model, pixels), "none"
            ),
        },
        images=IMAGES,
        rounds=ROUNDS,
    )  # fmt: skip


def _gpu(place: Path) -> Iterator[dict[str, Any]]:
    files = _write_jpegs(place / "many", 1_000, repeated=IMAGES_ON_GPU // 1_000)
    model = torchvision.models.resnet50(num_classes=len(CLASSES))
    checkpoint = place / "resnet50.pth"
    save_checkpoint(checkpoint, model, classes=CLASSES, transform=PRESET.as_dict())
    workers = os.cpu_count() or 1
    options = {"device": "cuda", "batch_size": BATCH_ON_GPU, "precision": "bf16"}

    def ours() -> float:
        return _our_seconds(checkpoint, model, files, workers=workers, **options)

    ours()  # warm: cuDNN chooses, memory is pinned
    alone = {
        "decoding alone": lambda: _decoding_seconds(files, workers),
        "the model alone": lambda: _bare_seconds_on_gpu(model),
    }
    slower = max(alone, key=lambda name: alone[name]())
    name = f"{torch.cuda.get_device_name()}: resnet50 bf16"
    yield from _compared(
        {
            f"{name}, against {slower}, the slower of the two": (
                ours, alone[slower], "at least 0.9"
            ),
            f"{name}, against timm's loop": (
                ours, lambda: _timms_seconds(model, files, "cuda", workers), "at least 2"
            ),
        },
        images=IMAGES_ON_GPU,
        rounds=3,
    )  # fmt: skip


def _compared(
    pairs: dict[str, tuple[Callable[[], float], Callable[[], float], str]],
    *,
    images: int,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    for name, (ours, theirs, target) in pairs.items():
        ours(), theirs()  # warm
        times = [(ours(), theirs()) for _ in range(rounds)]
        ratios = [their / own for own, their in times]
        yield {
            "comparison": f"{name} (seconds per image)",
            "ours_s": statistics.median(own for own, _ in times) / images,
            "peer_s": statistics.median(their for _, their in times) / images,
            "ratio": statistics.median(ratios),
            "spread": (min(ratios), max(ratios)),
            "target": target,
        }


def _our_seconds(checkpoint: Path, model: nn.Module, data: Path | Source, **options: Any) -> float:
    """Seconds of the loop, as the run itself measured them."""
    found = evaluate(checkpoint, data, model=model, **options)
    seconds: float = found.summary["throughput"]["seconds"]
    return seconds


def _timms_seconds(
    model: nn.Module, files: Path, device: str, workers: int = WORKERS_OF_TIMM
) -> float:
    """Seconds of timm's validate.py: its data set, loader, meters and accuracy, a batch at a time.

    With CUDA its loader prefetches on a stream of its own, and the model runs in bf16 with
    channels last, as its options have it at their fastest without compiling.
    """
    on_gpu = device == "cuda"
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=str(files)),
        batch_size=BATCH_ON_GPU if on_gpu else BATCH,
        use_prefetcher=on_gpu,
        num_workers=workers,
        device=torch.device(device),
        pin_memory=on_gpu,
        **WITHIN,
    )
    model = model.eval().to(device)
    if on_gpu:
        model = model.to(memory_format=torch.channels_last)
    losses, top1, top5 = (timm.utils.AverageMeter() for _ in range(3))
    criterion = nn.CrossEntropyLoss().to(device)
    start = time.perf_counter()
    with torch.inference_mode():
        for pixels, labels in loader:
            given = pixels.contiguous(memory_format=torch.channels_last) if on_gpu else pixels
            with torch.autocast(device, dtype=torch.bfloat16, enabled=on_gpu):
                output = model(given)
                loss = criterion(output, labels)
            right, right5 = timm.utils.accuracy(output.detach(), labels, topk=(1, len(CLASSES)))
            if on_gpu:
                torch.cuda.synchronize()
            losses.update(loss.item(), len(pixels))
            top1.update(right.item(), len(pixels))
            top5.update(right5.item(), len(pixels))
    seconds = time.perf_counter() - start
    model.to("cpu", memory_format=torch.contiguous_format)
    return seconds


def _bare_seconds(
    model: nn.Module,
    pixels: list[torch.Tensor],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> float:
    """Seconds of the model on batches of floats that are there already, on the CPU."""
    given = [
        PRESET.normalize(torch.stack(pixels[start : start + BATCH])).contiguous(
            memory_format=memory_format
        )
        for start in range(0, len(pixels), BATCH)
    ]
    model = model.eval().to("cpu", memory_format=memory_format)
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in given:
            model(batch)
    seconds = time.perf_counter() - start
    model.to(memory_format=torch.contiguous_format)
    return seconds


def _bare_seconds_on_gpu(model: nn.Module) -> float:
    """Seconds of the model on a batch of pixels that stays on the device, again and again."""
    model = model.eval().to("cuda", memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (BATCH_ON_GPU, 3, 224, 224), dtype=torch.uint8, device="cuda")
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16):
        model(PRESET.normalize(pixels))
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(IMAGES_ON_GPU // BATCH_ON_GPU):
            model(PRESET.normalize(pixels))
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    model.to("cpu", memory_format=torch.contiguous_format)
    return seconds


def _decoding_seconds(files: Path, workers: int) -> float:
    start = time.perf_counter()
    for _ in _decoded(files, workers=workers, batch_size=BATCH_ON_GPU):
        pass
    return time.perf_counter() - start


def _decoded(files: Path, *, workers: int, batch_size: int = BATCH) -> Iterator[Any]:
    source = open_data(files)
    outputs = {name: position for position, name in enumerate(source.classes)}
    return batches(source, PRESET, outputs, batch_size=batch_size, workers=workers, audit=Audit())


def _in_memory(pixels: list[torch.Tensor]) -> Source:
    """Images that are decoded, resized and cropped already: nothing but the loop is left."""
    return Source(
        name="images in memory",
        paths=tuple(map(str, range(len(pixels)))),
        classes=CLASSES,
        load=lambda position, _mode: Loaded(
            image=pixels[position], label=CLASSES[position % len(CLASSES)]
        ),
    )


def _write_jpegs(folder: Path, images: int, *, repeated: int = 1) -> Path:
    """Write smooth random photos into class folders; each as often as asked, by hard links."""
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        grain = rng.normal(0, 8, (SIZE[1], SIZE[0], 3))
        smooth = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
        photo = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        place = folder / CLASSES[number % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number:05}.jpg"
        photo.save(path, quality=90)
        for copy in range(1, repeated):
            path.with_name(f"{number:05}-{copy}.jpg").hardlink_to(path)
    return folder


def _growth(place: Path) -> Iterator[dict[str, Any]]:
    per_sample: list[float] = []
    for samples in SAMPLES:
        folder = place / str(samples)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, str(HERE), str(folder), str(samples)],
            capture_output=True,
            text=True,
            check=True,
        )
        mib, seconds = map(float, done.stdout.split())
        per_sample.append(seconds / samples)
        yield {
            "comparison": f"{samples:,} samples into a folder: {mib:.0f} MiB above model and one "
            "batch (seconds per sample; ratio to those of the first row)",
            "ours_s": per_sample[-1],
            "ratio": per_sample[-1] / per_sample[0],
            "target": "under 150 MiB, time linear",
        }


if __name__ == "__main__":
    print(as_text(run(sys.argv[1:] or ("speed", "memory", "gpu"))))
