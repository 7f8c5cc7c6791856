"""The architecture of a checkpoint that names none, told from its keys and shapes."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.checkpoint.candidates import Candidate, find_candidates
from evalkit.checkpoint.fingerprint import Architecture, Shapes, architectures, names_hash, sketch
from evalkit.checkpoint.layout import unwrapped_keys
from evalkit.checkpoint.report import found_value
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator

HINTS = ("arch", "model_name", "model", "architecture", "backbone", "network", "net")
MAX_PREFIXES = 6
MOST = 0.5  # share of the tensors below one name that makes it a prefix
SIMILAR = 0.5  # share of a sketch that is worth a mention
GIVE_IT = "give the model, such as torchvision:resnet18"


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A model that has exactly the tensors of a file, or why there is no such guess."""

    reason: str
    spec: str | None = None  # such as "torchvision:resnet18"
    num_classes: int | None = None
    is_named: bool = False  # whether the file names the model in passing
    others: tuple[str, ...] = ()  # models with the same tensors that may compute differently
    prefix: str | None = None  # below which they are, wrappers aside; None where none was found


def guess_model(tree: object, *, weights: str | None = None) -> Guess:
    """Find the architectures of torchvision and timm whose tensors are those of a file.

    Names of tensors must be equal, and so must all shapes but those of the head, which give the
    number of classes. Models with the same tensors may still compute differently (another
    activation, another padding): then torchvision's is taken, or the one that the file names in
    passing ("arch"), or none.

    Args:
        tree: What `read` found in the file.
        weights: The only set of weights to look at, by name.

    Example:
        >>> import torch, torchvision
        >>> with torch.device("meta"):
        ...     state = torchvision.models.resnet18(num_classes=7).state_dict()
        >>> guess = guess_model({"state_dict": state})
        >>> guess.spec, guess.num_classes
        ('torchvision:resnet18', 7)
    """
    found = [one for one in find_candidates(tree) if weights in (None, one.name)]
    raw_first = sorted(found, key=lambda one: (one.is_former, one.is_averaged, -one.weight))
    for candidate in raw_first:
        for prefix, shapes in _views(candidate):
            known = _found(shapes)
            if known is not None:
                return _chosen(tree, candidate, prefix, shapes, known)
    return Guess(reason=_nearest(raw_first))


def _found(shapes: Shapes) -> Architecture | None:
    names = names_hash(shapes)
    same_names = (known for known in architectures() if known.names == names)
    return next((known for known in same_names if known.fits(shapes)), None)


def _views(candidate: Candidate) -> Iterator[tuple[str, Shapes]]:
    """Yield a set of weights as it is, without wrappers, and below what most of its keys share."""
    names = unwrapped_keys(candidate.tensors)
    shapes: Shapes = {name: tuple(candidate.tensors[key].shape) for name, key in names.items()}
    prefix = ""
    for _step in range(MAX_PREFIXES):
        yield prefix, shapes
        heads = Counter(key.partition(".")[0] for key in shapes if "." in key)
        if not heads:
            return
        head, count = heads.most_common(1)[0]
        if count < MOST * len(shapes):
            return
        prefix += f"{head}."
        shapes = {
            key.removeprefix(f"{head}."): shape
            for key, shape in shapes.items()
            if key.startswith(f"{head}.")
        }


def _chosen(
    tree: object, candidate: Candidate, prefix: str, shapes: Shapes, known: Architecture
) -> Guess:
    available = [spec for spec in known.specs if _is_installed(spec)]
    below = f" below '{prefix}'" if prefix else ""
    what = f"the {counted(len(shapes), 'tensor')} of '{candidate.name}'{below}"
    if not available:
        return Guess(
            reason=f"{what} have the names and shapes of {some(known.specs)}: pip install timm",
            prefix=prefix,
        )
    hinted = [spec for spec in available if spec.partition(":")[2] in _hints(tree)]
    ours = [spec for spec in available if spec.startswith("torchvision:")]
    groups = [group for group in known.groups if set(group) & set(available)]
    choice = (hinted or ours or available)[0]
    if len(groups) > 1 and not hinted and not ours:
        return Guess(
            reason=f"{what} have the names and shapes of several models that may compute "
            f"differently, {some([group[0] for group in groups])}: give the one that was trained",
            prefix=prefix,
        )
    same = next(group for group in groups if choice in group)
    others = tuple(spec for spec in available if spec not in same)
    reason = f"{what} have exactly the names and shapes of {choice}"
    if hinted and len(groups) > 1:
        reason += ", which the file names"
    elif others:
        reason += f" (and of {some(others, shown=3)}, which may compute differently)"
    return Guess(
        spec=choice,
        num_classes=known.num_classes(shapes),
        is_named=bool(hinted),
        reason=reason,
        others=others,
        prefix=prefix,
    )


def _hints(tree: object) -> set[str]:
    """Return the names that a file gives its model in passing."""
    found = (found_value(tree, key) for key in HINTS)
    return {value.partition(".")[0] for value in found if isinstance(value, str)}


def _is_installed(spec: str) -> bool:
    return importlib.util.find_spec(spec.partition(":")[0]) is not None


def _nearest(candidates: list[Candidate]) -> str:
    """Say what to do, with the architectures that share the most tensors with a file."""
    likeness: Counter[str] = Counter()
    for candidate in candidates[:1]:
        for _prefix, shapes in _views(candidate):
            held = set(sketch(shapes))
            for known in architectures():
                shared = len(held & set(known.sketch)) / len(known.sketch)
                likeness[known.specs[0]] = max(likeness[known.specs[0]], int(shared * 100))
    close = [spec for spec, percent in likeness.most_common(3) if percent >= SIMILAR * 100]
    return f"{GIVE_IT}; it resembles {some(close)}" if close else GIVE_IT
