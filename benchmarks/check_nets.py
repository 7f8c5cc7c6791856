"""How often the checks warn of runs in which nothing is wrong but the model's quality.

Small nets are trained on 40 to 240 pictures of four shapes, up to 40 % of their labels wrong, and
evaluated with the preparation that they were trained with. Every warning is printed. Ten minutes
on one core: ``python benchmarks/check_nets.py 100``.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from painted import CLASSES, RIGHT, PaintedNet, painted, write_painted

from evalkit.checks.examine import Choices, examine
from evalkit.checks.joined import joined_checks
from evalkit.checks.sample import Ran
from evalkit.data import open_data
from evalkit.images.batches import Audit, batches
from evalkit.inference.loop import predict
from evalkit.scoring.sparse import of_pairs

STEPS = 200


def weak_net(seed: int) -> PaintedNet:
    """Train a net on few pictures, some of them labelled wrong."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    each, wrong = int(random.integers(10, 60)), random.uniform(0, 0.4)
    pictures = [
        (painted(name, 10_000 + 1000 * seed + number), label)
        for number in range(each)
        for label, name in enumerate(CLASSES)
    ]
    inputs = torch.stack([RIGHT(image) for image, _ in pictures])
    labels = torch.tensor([label for _, label in pictures])
    drawn = torch.randint(len(CLASSES), labels.shape)
    labels = torch.where(torch.rand(len(labels)) < wrong, drawn, labels)
    net = PaintedNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    for _ in range(STEPS):
        batch = torch.randperm(len(labels))[:32]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs[batch]), labels[batch]).backward()
        optimizer.step()
    return net.eval()


def main(nets: int = 40) -> None:
    """Print the warnings, and how many images the checks asked about."""
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    source = open_data(write_painted(root / "val", each=75, first_seed=0))
    outputs = {name: position for position, name in enumerate(CLASSES)}
    read = list(batches(source, RIGHT, outputs, batch_size=64, workers=1, audit=Audit()))
    warned: Counter[str] = Counter()
    accuracies, images = [], []
    for seed in range(nets):
        net = weak_net(seed)
        scored = predict(
            net,
            [(batch.pixels, batch.labels) for batch in read],
            classes=CLASSES,
            device="cpu",
            prepare=RIGHT.normalize,
        )
        ran = Ran(
            model=net,
            source=source,
            classes=CLASSES,
            positions=np.concatenate([batch.indices.numpy() for batch in read]),
            labels=scored.labels,
            predictions=scored.predictions,
        )
        asked = [check.as_dict() for check in examine(ran, RIGHT, Choices())]
        cells = of_pairs(ran.labels, ran.predictions, pd.Index(CLASSES))
        checks, _ = joined_checks(cells, asked)
        accuracies.append(float((ran.labels == ran.predictions).mean()))
        images.append(max(check.get("images_run", 0) for check in checks))
        for check in checks:
            if check["verdict"] == "warning":
                warned[check["id"]] += 1
                print(f"{seed}: accuracy {accuracies[-1]:.3f}: {check['id']}: {check['evidence']}")
    print(f"{nets} nets, accuracy {np.percentile(accuracies, [0, 25, 50, 75, 100]).round(3)}")
    print(f"images asked about {np.percentile(images, [0, 50, 75, 100])} beside {len(source)}")
    print(dict(warned) or "no warnings")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
