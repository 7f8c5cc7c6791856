"""The line itself: plan, predictions, evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from evalkit.batches import Audit, batches
from evalkit.checkpoint.choose import choose_model
from evalkit.checkpoint.load import load_contents
from evalkit.checkpoint.read import read
from evalkit.data import Source, open_data
from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.hardware import choose_device
from evalkit.inference import Inputs, Scored, predict
from evalkit.run.plan import Plan, choose_classes, choose_transform, guesses
from evalkit.run.record import record
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from evalkit.transforms import TransformSpec

ON_UNREADABLE = ("fail", "skip")
MOST_WORKERS = 8  # threads that decode; more wait for each other
LISTED_UNREADABLE = 20


@dataclass(kw_only=True)
class _Reading:
    """What is known of the samples once they have been read."""

    audit: Audit = field(default_factory=Audit)
    positions: list[torch.Tensor] = field(default_factory=list)


def evaluate(
    checkpoint: str | Path,
    data: str | Path | Source,
    *,
    model: nn.Module | str | None = None,
    classes: Sequence[str] | None = None,
    weights: str | None = None,
    transform: TransformSpec | Mapping[str, Any] | None = None,
    device: str = "auto",
    batch_size: int = 64,
    precision: str = "fp32",
    workers: int | None = None,
    on_unreadable: str = "fail",
    allow_partial: float | None = None,
    trust: bool = False,
) -> Evaluation:
    """Evaluate a checkpoint on labelled images.

    Classes are joined by name: the data may know fewer of them than the model, in any order.

    Args:
        checkpoint: File with the weights, see `load_checkpoint`.
        data: Folder of class folders, manifest or "package.module:function", see
            `evalkit.data.open_data`.
        model: The model to load into, or its spec, see `evalkit.models.build`. None takes the
            one that the checkpoint names, or the one that its keys and shapes tell.
        classes: Names of the model's outputs in their order. None takes those in the checkpoint,
            and without any there those of the data.
        weights: Which set of weights in the checkpoint, see `load_checkpoint`.
        transform: From image to input. None takes that of the checkpoint, else the model's own,
            else the usual one of ImageNet.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or "xpu".
        batch_size: Images per batch.
        precision: "fp32", "tf32", "bf16" or "fp16".
        workers: Threads that decode. None takes one per core, at most 8.
        on_unreadable: "fail" or "skip". Both look at all images and list those that cannot be
            read; there is never a substitute.
        allow_partial: The share of the model that the checkpoint must fill, see
            `load_checkpoint`.
        trust: Import the checkpoint's own classes and run their code, see `load_checkpoint`.

    Raises:
        InputError: Something of this is not there, does not fit, or cannot be read.
    """
    if on_unreadable not in ON_UNREADABLE:
        raise InputError(f"on_unreadable must be fail or skip, got '{on_unreadable}'")
    if batch_size < 1 or (workers is not None and workers < 1):
        raise InputError(
            f"batch_size and workers must be at least 1, got {batch_size} and {workers}"
        )
    choose_device(device)
    contents, source = read(Path(checkpoint), trust=trust), open_data(data)
    names, named_by = choose_classes(classes, contents, source)
    choice = choose_model(contents, model, num_classes=len(names), weights=weights)
    net = choice.model
    report = load_contents(
        contents, net, weights=weights, allow_partial=allow_partial, guess=choice.guess
    )
    chosen, origin = choose_transform(transform, report, net, choice.spec)
    plan = Plan(
        source=source,
        classes=names,
        model=net,
        report=report,
        transform=chosen,
        transform_origin=origin,
        spec=choice.spec,
        device=device,
        precision=precision,
        on_unreadable=on_unreadable,
        batch_size=batch_size,
        workers=workers or min(os.cpu_count() or 1, MOST_WORKERS),
        warnings=(*report.warnings, *guesses(source, names, named_by, origin)),
    )
    reading = _Reading()
    scored = predict(
        net,
        _feed(plan, reading),
        classes=names,
        device=device,
        precision=precision,
        prepare=chosen.normalize,
        total=len(source),
    )
    return Evaluation.from_predictions(
        _table(plan, reading, scored),
        classes=names,
        run=record(plan, reading.audit, scored),
        images=_image_folder(source),
    )


def _image_folder(source: Source) -> Path | None:
    """Return what the paths of the samples are relative to; a Dataset of one's own has no files."""
    place = Path(source.name)
    if place.is_dir():
        return place
    return place.parent if place.is_file() else None


def _feed(plan: Plan, reading: _Reading) -> Iterator[Inputs]:
    """Yield pixels and labels; note what was read.

    Raises:
        InputError: Images cannot be read and that is not to be skipped; after all were looked at.
    """
    outputs = {name: position for position, name in enumerate(plan.classes)}
    unreadable = reading.audit.unreadable
    for batch in batches(
        plan.source,
        plan.transform,
        outputs,
        batch_size=plan.batch_size,
        workers=plan.workers,
        audit=reading.audit,
    ):
        if unreadable and plan.on_unreadable == "fail":
            continue  # the run is lost: only the list of them is still wanted
        if not len(batch.indices):
            continue
        reading.positions.append(batch.indices)
        yield batch.pixels, batch.labels
    if unreadable and (plan.on_unreadable == "fail" or not reading.positions):
        listed = some([f"{one.path} ({one.reason})" for one in unreadable], LISTED_UNREADABLE)
        raise InputError(
            f"data must have images that can be read, got {len(unreadable)} of "
            f"{len(plan.source)} in {plan.source.name} that cannot: {listed}: mend them, or leave "
            "them out with on-unreadable skip"
        )


def _table(plan: Plan, reading: _Reading, scored: Scored) -> pd.DataFrame:
    positions = torch.cat(reading.positions).numpy()
    categories = pd.Index(plan.classes)
    names = np.array(plan.classes, dtype=object)
    frame = pd.DataFrame(
        {
            "index": positions,
            "path": [plan.source.paths[position] for position in positions],
            "label": pd.Categorical.from_codes(scored.labels, categories=categories),
            "prediction": pd.Categorical.from_codes(scored.predictions, categories=categories),
            "confidence": scored.confidence,
            "label_probability": scored.label_probability,
            "loss": scored.loss,
            "top5": names[scored.top].tolist(),
        }
    )
    if plan.source.columns is None:
        return frame
    return pd.concat([frame, plan.source.columns.iloc[positions].reset_index(drop=True)], axis=1)
