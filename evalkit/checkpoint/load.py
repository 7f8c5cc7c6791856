"""A checkpoint into a model: all of it, provably, or an error that says what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.checkpoint.candidates import THE_FILE_ITSELF
from evalkit.checkpoint.choose import choose_model
from evalkit.checkpoint.danger import warnings_of
from evalkit.checkpoint.fill import fill, others_for
from evalkit.checkpoint.fit import Fit, best_fit, head_size_of, named_tensors
from evalkit.checkpoint.peculiar import why_peculiar
from evalkit.checkpoint.read import Contents, read
from evalkit.checkpoint.refusal import why_refused
from evalkit.checkpoint.report import LoadReport, found_value, plain_dict_of
from evalkit.checkpoint.stored_classes import stored_classes
from evalkit.errors import InputError
from evalkit.wording import counted, share, some

if TYPE_CHECKING:
    import torch
    from torch import nn


def load_checkpoint(
    path: str | Path,
    model: nn.Module | str | None = None,
    *,
    weights: str | None = None,
    allow_partial: float | None = None,
    device: str | torch.device = "cpu",
    trust: bool = False,
) -> tuple[nn.Module, LoadReport]:
    """Load weights into a model.

    The file may have been written on a GPU that is not here, by DataParallel, torch.compile, FSDP
    or an average of weights, with its weights in a dict beside an optimizer. Nothing in it is run.

    Args:
        path: File of torch.save, torch.jit.save, torch.export.save or safetensors, the index of
            sharded weights, or a directory of torch.distributed.checkpoint.
        model: The model to fill, in place, or a spec such as "torchvision:resnet18". None takes
            the spec that `save_checkpoint` wrote into the file, or else the only architecture of
            torchvision and timm that has these keys and shapes.
        weights: Name of a set of weights in the file, such as "teacher" or "state_dict_ema". None
            takes the one that fits the model best, and raw weights before averaged ones.
        allow_partial: Share of the model's values, in (0, 1], that is enough. None asks for all of
            them, and for nothing beyond them that looks like a deeper model. Layers without
            weights in the file keep those they have.
        device: Where the model goes before it is filled; weights go straight there.
        trust: Import the file's own classes and run their code; with no *model*, a module that
            was pickled whole, or a TorchScript program, is the model.

    Returns:
        The model, and a report of what was found, removed and matched.

    Raises:
        InputError: The file is no checkpoint, holds no such set of weights or not enough that
            fits, or there is no model to fill.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> path = Path(tempfile.mkdtemp()) / "checkpoint.pth"
        >>> trained = nn.DataParallel(nn.Linear(4, 2))
        >>> torch.save({"epoch": 9, "state_dict": trained.state_dict()}, path)
        >>> model, report = load_checkpoint(path, nn.Linear(4, 2))
        >>> report.weights, report.prefixes, report.matched_fraction
        ('state_dict', ('module.',), 1.0)
        >>> bool((model.weight == trained.module.weight).all())
        True
    """
    contents = read(Path(path), trust=trust)
    choice = choose_model(contents, model, weights=weights)
    report = load_contents(
        contents,
        choice.model.to(device),
        weights=weights,
        allow_partial=allow_partial,
        guess=choice.guess,
    )
    return choice.model, report


def load_contents(
    contents: Contents,
    model: nn.Module,
    *,
    weights: str | None = None,
    allow_partial: float | None = None,
    guess: str | None = None,
) -> LoadReport:
    """Fill *model*, in place, with what `read` returned; see `load_checkpoint`.

    Args:
        contents: What `read` returned.
        model: Where it goes, on the device and of the type that its weights are to have.
        weights: Name of a set of weights.
        allow_partial: Share of the model's values that is enough.
        guess: Why this model was chosen, where nobody named it; for the report.
    """
    if allow_partial is not None and not 0 < allow_partial <= 1:
        raise InputError(f"allow_partial must be in (0, 1], got {allow_partial}")
    fit, fits = best_fit(contents, model, weights)
    refusal = why_refused(fit, model, allow_partial)
    if refusal:
        raise InputError(f"{contents.path}: {why_peculiar(contents, fit, model) or refusal}")
    before = {key: tensor.dtype for key, tensor in named_tensors(model).items()}
    tensors = {key: fit.candidate.tensors[name] for key, name in fit.match.pairs.items()}
    fill(contents, model, tensors, others_for(model, fit))
    return _report(contents, fit, fits, _dtype_changes(tensors, before), guess)


def _dtype_changes(
    tensors: Mapping[str, torch.Tensor], before: Mapping[str, torch.dtype]
) -> dict[str, int]:
    changes = Counter(
        f"{tensor.dtype} -> {before[key]}".replace("torch.", "")
        for key, tensor in tensors.items()
        if tensor.dtype != before[key]
    )
    return dict(changes)


def _report(
    contents: Contents,
    fit: Fit,
    fits: list[Fit],
    dtype_changes: Mapping[str, int],
    guess: str | None,
) -> LoadReport:
    notes = contents.notes
    spec = found_value(notes, "model_spec")
    stored, head_size = stored_classes(notes), head_size_of(fit)
    container = () if fit.candidate.name == THE_FILE_ITSELF else tuple(map(str, notes))
    return LoadReport(
        path=str(contents.path),
        sha256=contents.sha256,
        kind=contents.kind.value,
        container=container,
        weights=fit.candidate.name,
        candidates={one.candidate.name: one.fraction for one in fits},
        prefixes=fit.match.prefixes,
        model_prefixes=fit.match.model_prefixes,
        matched=tuple(fit.match.pairs),
        missing=fit.missing,
        mismatched=fit.mismatched_shapes,
        unexpected=fit.match.unexpected,
        matched_fraction=fit.fraction,
        dtype_changes=dtype_changes,
        head_size=head_size,
        classes=stored.names,
        transform=plain_dict_of(found_value(notes, "transform")),
        model_spec=spec if isinstance(spec, str) else None,
        unknown_classes=contents.unknown,
        guess=guess,
        warnings=(
            *([f"nobody named the model: {guess}"] if guess else []),
            *_warnings(fit, fits),
            *warnings_of(contents),
            *_about_classes(stored.names, head_size),
            *stored.doubts,
        ),
    )


def _warnings(fit: Fit, fits: list[Fit]) -> Iterator[str]:
    rivals = [
        one.candidate.name
        for one in fits
        if one is not fit and one.match.elements == fit.match.elements
    ]
    if rivals:
        yield (
            f"the checkpoint holds several sets of weights that fit the model: "
            f"'{fit.candidate.name}' was taken, not {some(rivals)}"
        )
    if fit.fraction < 1:
        yield (
            f"only {share(fit.fraction)} of the model's values came from the checkpoint; without "
            f"weights: {some([*fit.mismatched_shapes, *fit.missing])}"
        )
    if fit.unplaced:
        yield (
            f"the checkpoint holds {counted(len(fit.unplaced), 'tensor')} that the model has no "
            f"place for: {some(fit.unplaced)}"
        )


def _about_classes(classes: tuple[str, ...] | None, head_size: int | None) -> Iterator[str]:
    if classes is not None and head_size is not None and len(classes) != head_size:
        yield (
            f"the checkpoint names {counted(len(classes), 'class', 'classes')} but its last layer "
            f"has {counted(head_size, 'output')}: names and outputs may not belong together"
        )
