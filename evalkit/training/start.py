"""The model that training starts from: fresh, pretrained by its library, or from a checkpoint."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit import models
from evalkit.checkpoint.choose import choose_model
from evalkit.checkpoint.fit import best_fit
from evalkit.checkpoint.load import load_contents
from evalkit.checkpoint.read import read
from evalkit.errors import InputError
from evalkit.output_names import names_given
from evalkit.presets import preset_of
from evalkit.run.plan import choose_transform
from evalkit.training.heads import find_head, replace_head
from evalkit.transforms import TransformSpec
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from evalkit.checkpoint.read import Contents
    from evalkit.checkpoint.report import LoadReport


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model that is ready to be trained, and where it comes from.

    Attributes:
        model: On the CPU, with as many outputs as were asked for.
        spec: What it was built from; None where a checkpoint's keys and shapes told.
        transform: For evaluation: the checkpoint's own or else the model's; None where neither
            has one.
        report: What was loaded from the checkpoint; None without one.
        new_head: Whether the last layer is a fresh one on weights that are not.
    """

    model: nn.Module
    spec: str | None
    transform: TransformSpec | None
    report: LoadReport | None
    new_head: bool


def start(
    spec: str | None,
    *,
    num_classes: int,
    pretrained: bool = False,
    init_from: str | Path | None = None,
    weights: str | None = None,
    classes: Sequence[str] | Mapping[str, int] | None = None,
    new_head: bool = False,
    head: str | None = None,
    allow_partial: float | None = None,
) -> Start:
    """Build the model to train.

    Args:
        spec: See `evalkit.models.build`. May be None with *init_from*, where the checkpoint tells.
        num_classes: How many outputs it is to have.
        pretrained: Take the library's own weights for ImageNet, which it downloads or has in its
            cache; for specs of torchvision (their newest ones) and timm. The head is replaced
            where *num_classes* is not theirs.
        init_from: Checkpoint to take the weights from instead, see `load_checkpoint`; all of
            them, head included.
        weights: Which set of weights in the checkpoint.
        classes: Names of the outputs in their order; those of a checkpoint that names its own
            must be the same, unless its head is replaced.
        new_head: Replace the last layer whatever its size, after the weights are loaded.
        head: Name of the last layer, where `find_head` cannot find it.
        allow_partial: The share of the model that the checkpoint must fill.

    Raises:
        InputError: Two origins are given, weights cannot be had or do not fit, or the head of the
            checkpoint has another size or other classes and *new_head* does not say to replace it.

    Example:
        >>> begun = start("torchvision:squeezenet1_1", num_classes=3)
        >>> find_head(begun.model)
        Head(names=('classifier.1',), num_classes=3, companions=())
        >>> begun.transform.resize, begun.new_head
        (256, False)
    """
    if pretrained and init_from is not None:
        raise InputError(f"pretrained or init_from must be given alone, got both ({init_from})")
    if init_from is not None:
        return _from_checkpoint(
            Path(init_from),
            spec,
            num_classes=num_classes,
            classes=None if classes is None else names_given(classes),
            weights=weights,
            new_head=new_head,
            head=head,
            allow_partial=allow_partial,
        )
    if spec is None:
        raise InputError("model must be given unless init_from is, got none")
    if not pretrained:
        model = models.build(spec, num_classes=num_classes)
        return Start(
            model=model,
            spec=spec,
            transform=preset_of(model, spec, in_training=True),
            report=None,
            new_head=False,
        )
    model = _pretrained(spec)
    transform = preset_of(model, spec, in_training=True)
    replaced = new_head or find_head(model, head=head).num_classes != num_classes
    if replaced:
        replace_head(model, num_classes, head=head)
    return Start(model=model, spec=spec, transform=transform, report=None, new_head=replaced)


def _pretrained(spec: str) -> nn.Module:
    """Ask the library for a model with its own weights."""
    library, _colon, name = spec.partition(":")
    if library not in models.LIBRARIES:
        raise InputError(
            f"pretrained needs a model of torchvision or timm, got '{spec}': give the weights by "
            "init_from"
        )
    if not _is_known(library, name):
        models.build(spec)  # says what is wrong
    try:
        model: nn.Module
        if library == "timm":
            import timm

            model = timm.create_model(name, pretrained=True)
        else:
            model = models.import_torchvision().models.get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such file, a broken one
        raise InputError(
            f"pretrained weights of '{spec}' must be in {library}'s cache or downloadable, got "
            f"'{' '.join(str(error).split())[:300]}': download them where there is a network and "
            "give the file by init_from"
        ) from error
    return model


def _is_known(library: str, name: str) -> bool:
    """Whether the library is there and has a model of that name."""
    if library == "torchvision":
        collection = models.import_torchvision().models
        return name in collection.list_models(module=collection)
    if importlib.util.find_spec(library) is None:
        return False
    import timm

    return bool(timm.is_model(name))


def _from_checkpoint(
    path: Path,
    spec: str | None,
    *,
    num_classes: int,
    classes: Sequence[str] | None,
    weights: str | None,
    new_head: bool,
    head: str | None,
    allow_partial: float | None,
) -> Start:
    contents = read(path)
    choice = choose_model(contents, spec, weights=weights)
    model = choice.model
    _give_the_head_its_size(contents, model, weights, head)
    report = load_contents(
        contents, model, weights=weights, allow_partial=allow_partial, guess=choice.guess
    )
    transform, chosen_by = choose_transform(None, report, model, choice.spec, in_training=True)
    if new_head:
        replace_head(model, num_classes, head=head)
    else:
        _require_same_classes(report, num_classes, classes)
    return Start(
        model=model,
        spec=choice.spec,
        transform=None if chosen_by == "default" else transform,
        report=report,
        new_head=new_head,
    )


def _give_the_head_its_size(
    contents: Contents, model: nn.Module, weights: str | None, head: str | None
) -> None:
    """Give a model as many outputs as the checkpoint has, where these can be told."""
    try:
        found = find_head(model, head=head)
    except InputError:
        return  # loading says what does not fit; only a new head needs to know where the old one is
    fit, _others = best_fit(contents, model, weights)
    in_file = {**fit.match.pairs, **fit.match.mismatched}.get(f"{found.names[0]}.weight")
    if in_file is None:
        return
    outputs = fit.candidate.tensors[in_file].shape[0]
    if outputs != found.num_classes:
        replace_head(model, outputs, head=head)


def _require_same_classes(
    report: LoadReport, num_classes: int, classes: Sequence[str] | None
) -> None:
    """Raise unless the head of a checkpoint means the classes that are to be learned."""
    if report.head_size not in {None, num_classes}:
        raise InputError(
            f"{report.path}: expected a head with {counted(num_classes, 'output')}, as there are "
            f"classes, got {report.head_size}: have it replaced (new_head=True)"
        )
    if classes is None or report.classes is None or tuple(classes) == report.classes:
        return
    differing = [
        f"{ours} for {theirs}"
        for ours, theirs in zip(classes, report.classes, strict=False)
        if ours != theirs
    ]
    raise InputError(
        f"{report.path}: expected a head for the classes of the data in their order, got "
        f"{some(differing)}: have the head replaced (new_head=True)"
    )
