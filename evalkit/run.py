"""The whole line: a checkpoint and data -> an Evaluation."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from evalkit.batches import Audit, batches
from evalkit.checkpoint.choose import choose_model
from evalkit.checkpoint.load import load_contents
from evalkit.checkpoint.read import Contents, read
from evalkit.checkpoint.report import LoadReport, found_classes
from evalkit.data import Source, natural_order, open_data
from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.hardware import choose_device, environment
from evalkit.inference import Inputs, Scored, predict
from evalkit.transforms import TransformSpec, evaluation, preset_of
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

ON_UNREADABLE = ("fail", "skip")
MOST_WORKERS = 8  # threads that decode; more wait for each other
LISTED_UNREADABLE = 20


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Everything that is decided before the first image is read."""

    source: Source
    classes: tuple[str, ...]
    model: nn.Module
    report: LoadReport
    transform: TransformSpec
    transform_origin: str
    spec: str | None
    batch_size: int
    workers: int
    warnings: tuple[str, ...]


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
    names, named_by = _choose_classes(classes, contents, source)
    choice = choose_model(contents, model, num_classes=len(names), weights=weights)
    net = choice.model
    report = load_contents(
        contents, net, weights=weights, allow_partial=allow_partial, guess=choice.guess
    )
    chosen, origin = _choose_transform(transform, report, net, choice.spec)
    plan = _Plan(
        source=source,
        classes=names,
        model=net,
        report=report,
        transform=chosen,
        transform_origin=origin,
        spec=choice.spec,
        batch_size=batch_size,
        workers=workers or min(os.cpu_count() or 1, MOST_WORKERS),
        warnings=(*report.warnings, *_guesses(source, names, named_by, origin)),
    )
    reading = _Reading()
    scored = predict(
        net,
        _feed(plan, reading, on_unreadable),
        classes=names,
        device=device,
        precision=precision,
        prepare=chosen.normalize,
        total=len(source),
    )
    return Evaluation.from_predictions(
        _table(plan, reading, scored),
        classes=names,
        run=_record(plan, reading, scored, device),
        images=_image_folder(source),
    )


def _image_folder(source: Source) -> Path | None:
    """Return what the paths of the samples are relative to; a Dataset of one's own has no files."""
    place = Path(source.name)
    if place.is_dir():
        return place
    return place.parent if place.is_file() else None


def _choose_classes(
    given: Sequence[str] | None, contents: Contents, source: Source
) -> tuple[tuple[str, ...], str]:
    """Return the names of the model's outputs, and who names them."""
    found = found_classes(contents.notes)
    if given is not None:
        names, named_by = tuple(str(name) for name in given), "option"
    elif found is not None:
        names, named_by = found, "checkpoint"
    else:
        names, named_by = source.classes, "data"
    unknown = [name for name in source.classes if name not in set(names)]
    if unknown:
        raise InputError(
            f"data must have only classes that the model knows by the {named_by}, "
            f"{counted(len(names), 'name')} such as {some(names)}, got "
            f"{counted(len(unknown), 'other')} in {source.name}: {some(unknown)}"
        )
    return names, named_by


def _choose_transform(
    given: TransformSpec | Mapping[str, Any] | None,
    report: LoadReport,
    model: nn.Module,
    spec: str | None,
) -> tuple[TransformSpec, str]:
    """Return the transform, and who chose it."""
    if given is not None:
        return given if isinstance(given, TransformSpec) else TransformSpec.from_dict(
            given
        ), "option"
    if report.transform is not None and (stored := _understood(report.transform)):
        return stored, "checkpoint"
    preset = preset_of(model, spec)
    return (preset, "model") if preset is not None else (evaluation(), "default")


def _understood(stored: Mapping[str, Any]) -> TransformSpec | None:
    """Return the transform in a checkpoint if evalkit wrote it; others mean something else."""
    try:
        return TransformSpec.from_dict(stored)
    except (InputError, TypeError):
        return None


def _guesses(
    source: Source, names: Sequence[str], named_by: str, transform_origin: str
) -> Iterator[str]:
    """Say what was assumed because nobody said it."""
    if named_by == "data" and source.order_is_a_guess:
        yield (
            "the checkpoint does not name its classes: outputs were taken in the order "
            f"{some(names, shown=3)}; programs that count naturally have "
            f"{some(natural_order(names), shown=3)}: if the model was trained so, name the classes"
        )
    if transform_origin == "default":
        yield (
            "nobody said how images are prepared for this model: they were resized to 256, "
            "cropped to 224 and normalised as for ImageNet"
        )


def _feed(plan: _Plan, reading: _Reading, on_unreadable: str) -> Iterator[Inputs]:
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
        if unreadable and on_unreadable == "fail":
            continue  # the run is lost: only the list of them is still wanted
        reading.positions.append(batch.indices)
        yield batch.pixels, batch.labels
    if unreadable and (on_unreadable == "fail" or not reading.positions):
        listed = some([f"{one.path} ({one.reason})" for one in unreadable], LISTED_UNREADABLE)
        raise InputError(
            f"data must have images that can be read, got {len(unreadable)} of "
            f"{len(plan.source)} in {plan.source.name} that cannot: {listed}: mend them, or leave "
            "them out with on-unreadable skip"
        )


def _table(plan: _Plan, reading: _Reading, scored: Scored) -> pd.DataFrame:
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


def _record(plan: _Plan, reading: _Reading, scored: Scored, device: str) -> dict[str, Any]:
    """Return how the predictions were made, for the summary."""
    scores = {"nll": float(scored.loss.mean()), "brier": float(scored.brier.mean())}
    return {
        "unreadable": [asdict(one) for one in reading.audit.unreadable],
        "checkpoint": plan.report.summary(),
        "model": {
            "spec": plan.spec,
            "class": type(plan.model).__name__,
            "parameters": sum(parameter.numel() for parameter in plan.model.parameters()),
        },
        "transform": {"origin": plan.transform_origin, **plan.transform.as_dict()},
        "precision_flags": dict(scored.precision_flags),
        "environment": environment(choose_device(device)),
        "throughput": {
            "samples_per_second": len(scored) / scored.seconds,
            "seconds": scored.seconds,
            "batch_size": plan.batch_size,
            "workers": plan.workers,
        },
        "warnings": [*plan.warnings, *_observations(plan, reading.audit, scored)],
        "scores": {name: value for name, value in scores.items() if np.isfinite(value)},
    }


def _observations(plan: _Plan, audit: Audit, scored: Scored) -> Iterator[str]:
    """Say what the run noticed in the images and in the scores."""
    if audit.unreadable:
        yield (
            f"{len(audit.unreadable)} of {counted(len(plan.source), 'image')} could not be read "
            "and are not counted"
        )
    for oddity, count in audit.oddities.items():
        yield f"{counted(count, 'image')} {'was' if count == 1 else 'were'} {oddity}"
    if scored.not_finite:
        yield (
            f"{scored.not_finite} of {counted(len(scored), 'sample')} got NaN or infinite scores: "
            "their predictions mean nothing"
        )
    if scored.gave_probabilities:
        yield "the model gives probabilities, not logits: they were taken as they are"
