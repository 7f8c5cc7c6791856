"""A checkpoint into a model: all of it, provably, or an error that says what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from evalkit import models
from evalkit.checkpoint.fit import Fit, best_fit, named_tensors
from evalkit.checkpoint.layout import find_candidates, strip_wrappers
from evalkit.checkpoint.read import Contents, read
from evalkit.checkpoint.refusal import why_refused
from evalkit.checkpoint.report import LoadReport, found_classes, found_value
from evalkit.errors import InputError
from evalkit.wording import counted, share, some


def load_checkpoint(
    path: str | Path,
    model: nn.Module | str | None = None,
    *,
    weights: str | None = None,
    allow_partial: float | None = None,
    device: str | torch.device = "cpu",
) -> tuple[nn.Module, LoadReport]:
    """Load weights into a model.

    The file may have been written on a GPU that is not here, by DataParallel, torch.compile, FSDP
    or an average of weights, with its weights in a dict beside an optimizer. Nothing in it is run.

    Args:
        path: File of torch.save or safetensors.
        model: The model to fill, in place, or a spec such as "torchvision:resnet18". None takes
            the spec that `save_checkpoint` wrote into the file.
        weights: Name of a set of weights in the file, such as "teacher" or "state_dict_ema". None
            takes the one that fits the model best, and raw weights before averaged ones.
        allow_partial: Share of the model's values, in (0, 1], that is enough. None asks for all of
            them, and for nothing beyond them that looks like a deeper model. Layers without
            weights in the file keep those they have.
        device: Where the model goes after it is filled.

    Returns:
        The model, and a report of what was found, removed and matched.

    Raises:
        InputError: The file is no checkpoint, holds no such set of weights or not enough that
            fits, or there is no model to fill.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "checkpoint.pth"
        >>> trained = nn.DataParallel(nn.Linear(4, 2))
        >>> torch.save({"epoch": 9, "state_dict": trained.state_dict()}, path)
        >>> model, report = load_checkpoint(path, nn.Linear(4, 2))
        >>> report.weights, report.prefixes, report.matched_fraction
        ('state_dict', ('module.',), 1.0)
        >>> bool((model.weight == trained.module.weight).all())
        True
    """
    contents = read(Path(path))
    if model is None:
        model = model_named_in(contents)
    elif isinstance(model, str):
        model = models.build(model, num_classes=_number_of_classes(contents))
    report = load_contents(contents, model, weights=weights, allow_partial=allow_partial)
    return model.to(device), report


def load_contents(
    contents: Contents,
    model: nn.Module,
    *,
    weights: str | None = None,
    allow_partial: float | None = None,
) -> LoadReport:
    """Fill *model*, in place, with what `read` returned; see `load_checkpoint`."""
    if allow_partial is not None and not 0 < allow_partial <= 1:
        raise InputError(f"allow_partial must be in (0, 1], got {allow_partial}")
    fit, fits = best_fit(contents, model, weights)
    refusal = why_refused(fit, model, allow_partial)
    if refusal:
        raise InputError(f"{contents.path}: {refusal}")
    before = {key: tensor.dtype for key, tensor in named_tensors(model).items()}
    tensors = {key: fit.candidate.tensors[name] for key, name in fit.match.pairs.items()}
    model.load_state_dict(tensors, strict=False)
    _prove(contents, model, tensors)
    return _report(contents, fit, fits, _dtype_changes(tensors, before))


def model_named_in(contents: Contents) -> nn.Module:
    """Build the model that a checkpoint names, if building it runs nothing but libraries.

    Raises:
        InputError: The checkpoint names no model, or one that is not torchvision's or timm's.
    """
    spec = found_value(contents.tree, "model_spec")
    if not isinstance(spec, str):
        raise InputError(
            f"{contents.path}: expected a model to load into, got none, and the file names none "
            f"({_inventory(contents)}): give the model, such as torchvision:resnet18"
        )
    if not models.is_library_spec(spec):
        raise InputError(
            f"{contents.path}: expected a model to load into, got none; the file asks for "
            f"'{spec}', which would run code that the file chose: give that model yourself if you "
            "trust it"
        )
    return models.build(spec, num_classes=_number_of_classes(contents))


def _number_of_classes(contents: Contents) -> int | None:
    classes = found_classes(contents.tree)
    return len(classes) if classes else None


def _inventory(contents: Contents) -> str:
    candidates = find_candidates(contents.tree)
    if not candidates:
        return "no tensors either"
    largest = max(candidates, key=lambda candidate: candidate.elements)
    tensors, prefix = strip_wrappers(largest.tensors)
    without = f", without '{prefix}'" if prefix else ""
    held = f"{counted(len(tensors), 'tensor')} in '{largest.name}'"
    return f"{held}: {some(list(tensors), shown=3)}{without}"


def _prove(contents: Contents, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Compare what the model holds now with the file, value by value."""
    held = named_tensors(model)
    wrong = [
        key
        for key, tensor in tensors.items()
        if not _same(held[key].cpu(), tensor.to(held[key].dtype))
    ]
    if wrong:
        raise InputError(
            f"{contents.path}: expected the model to hold the file's values after the load, got "
            f"others in {some(wrong)}: the model changes what it loads, or ties these to others"
        )


def _same(held: torch.Tensor, given: torch.Tensor) -> bool:
    if torch.equal(held, given):
        return True
    both_nan = held.isnan() & given.isnan()
    return bool((both_nan | (held == given)).all())


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
    contents: Contents, fit: Fit, fits: list[Fit], dtype_changes: Mapping[str, int]
) -> LoadReport:
    transform = found_value(contents.tree, "transform")
    spec = found_value(contents.tree, "model_spec")
    at_top = list(contents.tree) if isinstance(contents.tree, Mapping) else []
    return LoadReport(
        path=str(contents.path),
        sha256=contents.sha256,
        kind=contents.kind.value,
        container=() if fit.candidate.name == "." else tuple(str(name) for name in at_top),
        weights=fit.candidate.name,
        candidates={one.candidate.name: one.fraction for one in fits},
        prefixes=fit.match.prefixes,
        matched=tuple(fit.match.pairs),
        missing=fit.missing,
        mismatched=fit.mismatched_shapes,
        unexpected=fit.match.unexpected,
        matched_fraction=fit.fraction,
        dtype_changes=dtype_changes,
        classes=found_classes(contents.tree),
        transform=transform if isinstance(transform, dict) else None,
        model_spec=spec if isinstance(spec, str) else None,
        warnings=tuple(_warnings(fit, fits)),
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
