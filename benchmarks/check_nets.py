"""How often the checks warn of wrong pixels, where nothing is wrong, and where something is.

Small nets are trained on 40 to 240 pictures of four shapes, up to 40 % of their labels wrong, and
evaluated with the preparation that they were trained with: every warning is false. As many are
trained with another usual preparation, more or less hardened by random contrast and brightness, and
evaluated with ImageNet's: what they lose by it, and how many of those are warned of. Ten minutes on
one core: ``python benchmarks/check_nets.py 60``; a second number is how many pictures of each shape
are evaluated.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from painted import CLASSES, RIGHT, PaintedNet, painted, write_painted

from evalkit.checks.examine import Choices, examine
from evalkit.checks.joined import joined_checks
from evalkit.checks.sample import Ran
from evalkit.data import Source, open_data
from evalkit.images.batches import Audit, Batch, batches
from evalkit.inference.loop import predict
from evalkit.scoring.sparse import of_pairs
from evalkit.transforms import TransformSpec

STEPS = 200
KINDS = {"channel-order", "normalisation", "preset", "batch-norm"}
WRONG = (  # words, mean, standard deviation, red and blue exchanged
    ("BGR", RIGHT.mean, RIGHT.std, True),
    ("0 to 1", (0.0,) * 3, (1.0,) * 3, False),
    ("-1 to 1", (0.5,) * 3, (0.5,) * 3, False),
)


def weak_net(
    seed: int, spec: TransformSpec = RIGHT, *, swapped: bool = False, jitter: float = 0.0
) -> PaintedNet:
    """Train a net on few pictures, some of them labelled wrong, prepared by *spec*."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    each, wrong = int(random.integers(10, 60)), random.uniform(0, 0.4)
    pictures = [
        (painted(name, 10_000 + 1000 * seed + number), label)
        for number in range(each)
        for label, name in enumerate(CLASSES)
    ]
    inputs = torch.stack([spec(image) for image, _ in pictures])
    inputs = inputs.flip(1) if swapped else inputs
    labels = torch.tensor([label for _, label in pictures])
    drawn = torch.randint(len(CLASSES), labels.shape)
    labels = torch.where(torch.rand(len(labels)) < wrong, drawn, labels)
    net = PaintedNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    for _ in range(STEPS):
        batch = torch.randperm(len(labels))[:32]
        contrast, brightness = 1 + jitter * torch.randn(2, len(batch), 1, 1, 1)
        shown = inputs[batch] * contrast + brightness - 1
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(shown), labels[batch]).backward()
        optimizer.step()
    return net.eval()


def ran(net: PaintedNet, source: Source, read: Sequence[Batch]) -> Ran:
    """Evaluate a net on all pictures, as `evaluate` does."""
    scored = predict(
        net,
        [(batch.pixels, batch.labels) for batch in read],
        classes=CLASSES,
        device="cpu",
        prepare=RIGHT.normalize,
    )
    return Ran(
        model=net,
        source=source,
        classes=CLASSES,
        positions=np.concatenate([batch.indices.numpy() for batch in read]),
        labels=scored.labels,
        predictions=scored.predictions,
    )


def warnings_of(run: Ran) -> tuple[dict[str, str], int]:
    """Return the warnings by check, and how many images the checks asked about."""
    asked = [check.as_dict() for check in examine(run, RIGHT, Choices())]
    cells = of_pairs(run.labels, run.predictions, pd.Index(CLASSES))
    checks, _ = joined_checks(cells, asked)
    warned = {one["id"]: one["evidence"] for one in checks if one["verdict"] == "warning"}
    return warned, max(check.get("images_run", 0) for check in checks)


def accuracy(run: Ran) -> float:
    """Share of the pictures that the net is right about."""
    return float((run.labels == run.predictions).mean())


def right_ones(nets: int, source: Source, read: Sequence[Batch]) -> None:
    """Nets that were evaluated as they were trained."""
    warned: Counter[str] = Counter()
    accuracies, images = [], []
    for seed in range(nets):
        run = ran(weak_net(seed), source, read)
        said, asked = warnings_of(run)
        accuracies.append(accuracy(run))
        images.append(asked)
        warned.update(said.keys())
        for check, evidence in said.items():
            print(f"{seed}: accuracy {accuracies[-1]:.3f}: {check}: {evidence}")
    print(f"{nets} nets, accuracy {np.percentile(accuracies, [0, 25, 50, 75, 100]).round(3)}")
    print(f"images asked about {np.percentile(images, [0, 50, 75, 100])} beside {len(source)}")
    print(dict(warned) or "no warnings")


def wrong_ones(nets: int, source: Source, read: Sequence[Batch]) -> None:
    """Nets that were evaluated with other pixels than those they were trained with."""
    lost, seen, images = [], [], []
    for seed in range(nets):
        words, mean, std, swapped = WRONG[seed % len(WRONG)]
        spec = replace(RIGHT, mean=mean, std=std)
        jitter = np.random.default_rng(seed).uniform(0, 0.6)
        net = weak_net(seed, spec, swapped=swapped, jitter=jitter)
        inputs = torch.cat([batch.pixels for batch in read])
        labels = torch.cat([batch.labels for batch in read])
        with torch.inference_mode():
            shown = spec.normalize(inputs.flip(1) if swapped else inputs)
            trained_as = float((net(shown).argmax(1) == labels).float().mean())
        run = ran(net, source, read)
        said, asked = warnings_of(run)
        lost.append(trained_as - accuracy(run))
        seen.append(bool(said.keys() & KINDS))
        images.append(asked)
        print(f"{seed}: {words}: {trained_as:.3f}, {accuracy(run):.3f} here: {list(said)}")
    points, found = np.array(lost), np.array(seen)
    for low, high in pairwise((0.01, 0.03, 0.06, 0.1, 0.2, 1.0)):
        these = found[(points > low) & (points <= high)]
        print(f"{low:.0%} to {high:.0%} lost: {these.sum()} of {these.size} seen")
    print(f"images asked about {np.percentile(images, [0, 50, 75, 100])} beside {len(source)}")


def main(nets: int = 40, each: int = 75) -> None:
    """Print the false warnings, then which of the true ones came."""
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    source = open_data(write_painted(root / "val", each=each, first_seed=0))
    outputs = {name: position for position, name in enumerate(CLASSES)}
    read = list(batches(source, RIGHT, outputs, batch_size=64, workers=1, audit=Audit()))
    right_ones(nets, source, read)
    wrong_ones(nets, source, read)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
