"""Everything that is decided before the first image is read."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.checkpoint.choose import choose_model
from evalkit.checkpoint.fit import best_fit
from evalkit.checkpoint.load import load_contents
from evalkit.checkpoint.read import read
from evalkit.checkpoint.refusal import head_mismatch
from evalkit.checkpoint.report import LoadReport
from evalkit.checkpoint.stored_classes import stored_classes
from evalkit.checks.examine import Choices
from evalkit.classes import join
from evalkit.data import Source, open_data
from evalkit.data.steady import changing
from evalkit.errors import InputError
from evalkit.images.decoding import EXACT, Decoder, Decoding
from evalkit.inference.hardware import choose_device
from evalkit.inference.loop import Computation
from evalkit.output_names import names_given
from evalkit.presets import preset_of
from evalkit.run.options import AUTO
from evalkit.transforms import TransformSpec, evaluation
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.utils.data import Dataset

    from evalkit.checkpoint.read import Contents
    from evalkit.run.options import Options

USUAL_STEPS = "they were resized to 256, cropped to 224 and normalised as for ImageNet"
GUESSED_TRANSFORM = f"nobody said how images are prepared for this model: {USUAL_STEPS}"
MOST_WORKERS = 8  # threads that decode; more wait for each other


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is evaluated, on what, and how."""

    source: Source
    classes: tuple[str, ...]  # of the model's outputs, in their order
    model: nn.Module
    report: LoadReport
    transform: TransformSpec
    transform_origin: str  # who chose it: option, checkpoint, model or default
    spec: str | None  # of the model, see `evalkit.models.build`
    computation: Computation
    batch_size: int
    workers: int  # threads that decode
    on_unreadable: str  # fail or skip
    outputs: Mapping[str, int]  # from the labels of the data to positions in *classes*
    decoding: Decoding = EXACT
    stored_classes: tuple[str, ...] | None = None  # as the checkpoint names them
    choices: Choices  # what is checked after the run
    warnings: tuple[str, ...]
    reading: Mapping[str, Any] = field(default_factory=dict)  # what else decides the pixels
    data_sha256: str | None = None  # a fingerprint of the data, once it was taken


def make_plan(
    checkpoint: str | Path, data: str | Path | Source | Dataset[Any], options: Options
) -> Plan:
    """Open the checkpoint and the data, and decide how the one is evaluated on the other.

    Raises:
        InputError: Something of this is not there, does not fit, or cannot be read.
    """
    device = choose_device(options.device)
    contents, source = read(Path(checkpoint), trust=options.trust), open_data(data)
    told = stored_classes(contents.notes)
    stored = told.names
    given = names_given(options.classes) if options.classes is not None else None
    if given is None and told.fault:
        raise InputError(
            f"{contents.path}: expected a name for every output, from 0 on and each once, got "
            f"{told.fault}: name them in their order with classes (--classes FILE)"
        )
    joined = join(
        source,
        given=given,
        stored=stored,
        on_unknown=options.on_unknown_class,
    )
    choice = choose_model(
        contents, options.model, num_classes=len(joined.names), weights=options.weights
    )
    try:
        report = load_contents(
            contents,
            choice.model,
            weights=options.weights,
            allow_partial=options.allow_partial,
            guess=choice.guess,
        )
    except InputError as error:
        if options.classes is None and stored is None and isinstance(options.model, str):
            about = _about_head(contents, choice.model, options.weights, source)
            raise InputError(about or str(error)) from error
        raise
    chosen, origin = choose_transform(options.transform, report, choice.model, choice.spec)
    if chosen.is_random:
        raise InputError(
            "transform must be the same for every look at an image, got a random one from the "
            f"{origin} (flip {chosen.flip}, random_area {chosen.random_area}), as for training: "
            "give the one for evaluation with transform (--transform FILE)"
        )
    guesses = (GUESSED_TRANSFORM,) if origin == "default" else ()
    if report.transform is not None and origin in ("model", "default"):
        guesses = (_about_other_transform(report.transform, origin),)
    random = changing(source, chosen.mode)
    Decoder(chosen, options.decoding)  # if there is none, that is said before any work
    return Plan(
        source=source,
        classes=joined.names,
        outputs=joined.outputs,
        model=choice.model,
        report=report,
        transform=chosen,
        transform_origin=origin,
        spec=choice.spec,
        computation=Computation(
            device=str(device),
            precision=options.precision,
            compiled=options.compiled,
            scores=options.save_probabilities,
        ),
        batch_size=0 if options.batch_size == AUTO else int(options.batch_size),
        workers=options.workers or min(os.cpu_count() or 1, MOST_WORKERS),
        on_unreadable=options.on_unreadable,
        decoding=options.decoding,
        stored_classes=stored,
        choices=Choices(
            sample=options.checks,
            verify=options.verify if random is None else 0,
            train=open_data(options.train_data) if options.train_data is not None else None,
        ),
        warnings=(
            *report.warnings,
            *joined.warnings,
            *source.doubts,
            *guesses,
            *_about_random(random),
        ),
        reading={
            "decode": options.decoding.place,
            "fast_decode": options.decoding.fast,
            "on_unknown_class": options.on_unknown_class,
        },
    )


def _about_other_transform(stored: Mapping[str, Any], origin: str) -> str:
    """Say that a transform in the checkpoint was not followed, and what was done instead."""
    library = "they were prepared as the model's library says"
    return (
        "the checkpoint says how images are prepared, but not as evalkit writes it, "
        f"{reprlib.repr(dict(stored))}: {USUAL_STEPS if origin == 'default' else library}; give "
        "the right one with transform"
    )


def _about_random(path: str | None) -> Iterator[str]:
    """Say that a Dataset gives other pixels every time."""
    if path is not None:
        yield (
            f"the data give other pixels when a sample is asked for again ({path}), as those for "
            "training do: the scores are those of altered images, no two runs give the same, and "
            "nothing can be verified: evaluate on data without random transforms"
        )


def _about_head(
    contents: Contents, model: nn.Module, weights: str | None, source: Source
) -> str | None:
    """Return what is wrong where only the data told how many classes there are, or None."""
    fit, _all = best_fit(contents, model, weights)
    head = head_mismatch(fit.mismatched_shapes)
    if head is None:
        return None
    _modules, in_file, in_data = head
    return (
        f"{contents.path}: expected the names of its {counted(in_file, 'class', 'classes')}, got "
        f"none, and {counted(in_data, 'class', 'classes')} in {source.name} "
        f"({some(source.classes)}): name all {in_file:,}, in the order of the outputs, with "
        "classes (--classes FILE)"
    )


def choose_transform(
    given: TransformSpec | Mapping[str, Any] | None,
    report: LoadReport,
    model: nn.Module,
    spec: str | None,
    *,
    in_training: bool = False,
) -> tuple[TransformSpec, str]:
    """Return the transform, and who chose it."""
    if isinstance(given, Mapping):
        return TransformSpec.from_dict(given), "option"
    if given is not None:
        if not isinstance(given, TransformSpec):
            raise InputError(
                "transform must be made by evalkit.transforms, or a dict of its names, got "
                f"{type(given).__name__}: what other libraries do to images belongs into a Dataset"
            )
        return given, "option"
    if report.transform is not None and (stored := _understood(report.transform)):
        return stored, "checkpoint"
    preset = preset_of(model, spec, in_training=in_training)
    return (preset, "model") if preset is not None else (evaluation(), "default")


def _understood(stored: Mapping[str, Any]) -> TransformSpec | None:
    """Return the transform in a checkpoint if evalkit wrote it; others mean something else."""
    try:
        spec = TransformSpec.from_dict(stored)
    except (InputError, TypeError):
        return None
    if stored.keys() >= spec.as_dict().keys():
        return spec
    names_size = not stored.keys().isdisjoint(("resize", "crop"))  # else any size is as good
    return spec if names_size and max(spec.mean) <= 1 else None
