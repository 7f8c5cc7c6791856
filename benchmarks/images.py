"""A folder of 1,000 JPEG photos (500 x 375) through a tiny model: what reading them costs.

Ours, timm's loader and the loop of the tutorials (ImageFolder, DataLoader) run alternately, each in
a process of its own and in the environment that it has in practice (the ``evalkit`` command tells
OpenMP how long to spin), on two cores, with two threads or two worker processes. All see the same
pixels, within 1 of 255, count the same hits, and are warm: the files are in the page cache. The
photos are cut from those that come with scikit-learn and matplotlib, turned a little, in the
qualities and sizes that photo collections have; noise would decode more slowly, and drawings
faster.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from tabulate import tabulate
from timm.data import create_dataset, create_loader
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from evalkit import predict
from evalkit.cli import spin_briefly
from evalkit.data import open_data
from evalkit.images.batches import Audit, batches
from evalkit.images.decoding import EXACT, Decoding
from evalkit.inference.normalizer import Normalizer
from evalkit.transforms import IMAGENET_MEAN, IMAGENET_STD, TransformSpec, evaluation

PHOTOS = 1_000
SIZE = (500, 375)  # what the photos of ImageNet have on average
LARGE_PHOTOS = 60
LARGE = (3_000, 2_250)
CLASSES = 10
CORES = 2
BATCH_SIZE = 64
QUALITIES = (75, 96)  # of the JPEG files, from and to
SAME = 0.99  # share of predictions that must agree, or something else than speed is compared

BILINEAR = evaluation()
BICUBIC = evaluation(interpolation="bicubic")
Loop = Callable[[], "tuple[torch.Tensor, float, float]"]  # predictions, seconds, of all cores


def write_photos(root: Path, *, count: int, size: tuple[int, int]) -> float:
    """Write photos into class folders; return the mean size of the files in KiB."""
    generator = np.random.default_rng(0)
    originals = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    with (
        matplotlib.cbook.get_sample_data("grace_hopper.jpg") as stream,
        Image.open(stream) as image,
    ):
        originals.append(image.convert("RGB"))
    total = 0
    for number in range(count):
        original = originals[number % len(originals)]
        width = int(generator.integers(original.width * 3 // 4, original.width))
        height = min(width * size[1] // size[0], original.height)
        width = height * size[0] // size[1]
        left = int(generator.integers(0, original.width - width + 1))
        top = int(generator.integers(0, original.height - height + 1))
        box = (left, top, left + width, top + height)
        photo = original.resize(size, Image.Resampling.LANCZOS, box=box)
        photo = photo.rotate(float(generator.uniform(-3, 3)), Image.Resampling.BICUBIC)
        path = root / f"class{number % CLASSES}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path, quality=int(generator.integers(*QUALITIES)))
        total += path.stat().st_size
    return total / count / 1024


def tiny_model() -> nn.Module:
    """A net that costs next to nothing, and gives different photos different classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, CLASSES),
    ).eval()  # fmt: skip


def ours(root: Path, model: nn.Module, spec: TransformSpec, decoding: Decoding) -> torch.Tensor:
    """Read and predict; everything that evalkit notes of images and scores is noted."""
    source = open_data(root)
    outputs = {name: position for position, name in enumerate(source.classes)}

    def feed() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in batches(
            source,
            spec,
            outputs,
            batch_size=BATCH_SIZE,
            workers=CORES,
            audit=Audit(),
            decoding=decoding,
        ):
            yield batch.pixels, batch.labels

    scored = predict(model, feed(), device="cpu", prepare=Normalizer(spec))
    return torch.from_numpy(scored.predictions.copy())


def cookbook(root: Path, model: nn.Module, spec: TransformSpec) -> torch.Tensor:
    """The loop of the tutorials, with as many workers."""
    transform = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode(spec.interpolation)),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    data = ImageFolder(str(root), transform)
    loader = DataLoader(data, batch_size=BATCH_SIZE, num_workers=CORES)
    return _predictions(loader, model)


def timm_loop(root: Path, model: nn.Module, spec: TransformSpec) -> torch.Tensor:
    """The loader of timm's validation script: bytes from the workers, normalised afterwards."""
    loader = create_loader(
        create_dataset("", str(root)),
        (3, 224, 224),
        BATCH_SIZE,
        interpolation=spec.interpolation,
        crop_pct=0.875,
        num_workers=CORES,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    return _predictions(loader, model)


def _predictions(loader: Any, model: nn.Module) -> torch.Tensor:
    """Predict, and count hits as everybody does."""
    found, hits = [], 0
    with torch.inference_mode():
        for images, labels in loader:
            found.append(model(images).argmax(1))
            hits += int((found[-1] == labels).sum())
    return torch.cat(found)


def run(*, rounds: int = 5) -> list[dict[str, Any]]:
    """Measure; one row per comparison, keys as in ``benchmarks/counts.py``.

    Seconds are those of 1,000 photos (60 for the large ones); a ratio is how many times as many
    images per second ours reads.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    try:
        with tempfile.TemporaryDirectory() as folder:
            usual, large = Path(folder, "usual"), Path(folder, "large")
            size = f"{write_photos(usual, count=PHOTOS, size=SIZE):.0f} KiB each"
            write_photos(large, count=LARGE_PHOTOS, size=LARGE)
            with ExitStack() as runners:
                return [
                    row
                    for name, mine, peers in _comparisons(usual, large, size, runners)
                    for row in _compare(name, mine, peers, rounds=rounds)
                ]
    finally:
        os.sched_setaffinity(0, before)


def _comparisons(
    usual: Path, large: Path, size: str, runners: ExitStack
) -> Iterator[tuple[str, Loop, dict[str, tuple[Loop, str]]]]:
    def loop(function: Callable[..., torch.Tensor], *arguments: Any) -> Loop:
        return runners.enter_context(_InItsProcess(function, *arguments))

    fast = Decoding(fast=True)
    yield (
        f"bilinear, {size}",
        loop(ours, usual, BILINEAR, EXACT),
        {
            "timm": (loop(timm_loop, usual, BILINEAR), "2.5x"),
            "cookbook": (loop(cookbook, usual, BILINEAR), "2.5x"),
        },
    )
    yield (
        "bicubic",
        loop(ours, usual, BICUBIC, EXACT),
        {
            "timm": (loop(timm_loop, usual, BICUBIC), "none"),
            "cookbook": (loop(cookbook, usual, BICUBIC), "none"),
        },
    )
    yield (
        "bicubic, --fast-decode",
        loop(ours, usual, BICUBIC, fast),
        {"timm": (loop(timm_loop, usual, BICUBIC), "none")},
    )
    yield (
        f"photos of {LARGE[0]} x {LARGE[1]}, --fast-decode",
        loop(ours, large, BILINEAR, fast),
        {
            "ours, exact": (loop(ours, large, BILINEAR, EXACT), "none"),
            "cookbook": (loop(cookbook, large, BILINEAR), "none"),
        },
    )


class _InItsProcess:
    """A loop in a fresh process, which waits between its runs."""

    def __init__(self, function: Callable[..., torch.Tensor], root: Path, *how: Any) -> None:
        self._call = (function, root, *how)

    def __enter__(self) -> Loop:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        environment = dict(os.environ)
        if self._call[0] is ours:
            spin_briefly(os.environ)
        self._process = context.Process(target=_serve, args=(theirs, *self._call))
        self._process.start()
        os.environ.clear()
        os.environ.update(environment)
        return self._run

    def _run(self) -> tuple[torch.Tensor, float, float]:
        self._ours.send("run")
        predictions, seconds, cores = self._ours.recv()
        return torch.from_numpy(predictions), seconds, cores

    def __exit__(self, *_error: object) -> None:
        self._ours.close()
        self._process.join()


def _serve(asked: Connection, function: Callable[..., torch.Tensor], root: Path, *how: Any) -> None:
    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork", force=True)  # for the workers, as in a usual program
    torch.set_num_threads(CORES)
    model = tiny_model()
    while True:
        try:
            asked.recv()
        except EOFError:
            return
        started, used = time.perf_counter(), os.times()
        predictions = function(root, model, *how)
        now, elapsed = os.times(), time.perf_counter() - started
        asked.send((predictions.numpy(), elapsed, sum(now[:4]) - sum(used[:4])))


def _compare(
    name: str, mine: Loop, peers: dict[str, tuple[Loop, str]], *, rounds: int
) -> Iterator[dict[str, Any]]:
    """Run ours and the peers alternately; check first that they do the same."""
    expected, *_times = mine()
    for peer, (loop, _target) in peers.items():
        agreement = float((loop()[0] == expected).float().mean())
        if agreement < SAME:
            raise RuntimeError(
                f"{peer} agrees with ours in {agreement:.1%} of the predictions alone"
            )
    own: list[tuple[float, ...]] = []
    others: dict[str, list[tuple[float, ...]]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        own.append(mine()[1:])
        for peer, (loop, _target) in peers.items():
            others[peer].append(loop()[1:])
    for peer, times in others.items():
        for place, unit, target in ((0, "", peers[peer][1]), (1, ", CPU seconds", "none")):
            ratios = [b[place] / a[place] for a, b in zip(own, times, strict=True)]
            yield {
                "comparison": f"{name} / {peer}{unit}",
                "ours_s": statistics.median(one[place] for one in own),
                "peer_s": statistics.median(one[place] for one in times),
                "ratio": statistics.median(ratios),
                "spread": (min(ratios), max(ratios)),
                "target": target,
            }


if __name__ == "__main__":
    print(tabulate(run(), headers="keys", floatfmt=".3g"))
