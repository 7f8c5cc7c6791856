"""Any readable checkpoint into a clean file: one set of weights under plain names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.candidates import Candidate, find_candidates
from evalkit.checkpoint.danger import warnings_of
from evalkit.checkpoint.fit import named_candidate, no_candidates
from evalkit.checkpoint.guess import guess_model
from evalkit.checkpoint.layout import AVERAGE_COUNTER, unwrapped_keys
from evalkit.checkpoint.peculiar import peculiarity
from evalkit.checkpoint.read import read
from evalkit.checkpoint.report import found_value, plain_dict_of
from evalkit.checkpoint.save import write_checkpoint
from evalkit.checkpoint.scattered import whole
from evalkit.checkpoint.stored_classes import found_classes
from evalkit.errors import InputError

if TYPE_CHECKING:
    from evalkit.checkpoint.read import Contents

WRITTEN = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Attributes under which people keep the one module that counts.
HOLDERS = frozenset(
    ("model", "net", "network", "backbone", "student", "teacher", "ema_model", "model_ema", "ema")
)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a clean file was made of."""

    weights: str  # the set that was taken
    others: tuple[str, ...]  # the sets that were not
    prefixes: tuple[str, ...]  # removed from keys
    tensors: int
    values: int
    dropped: tuple[str, ...]  # keys that were left out: not part of the architecture
    spec: str | None  # the architecture that the keys tell
    warnings: tuple[str, ...] = ()  # what the file would have run, had it been unpickled


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    weights: str | None = None,
    dtype: str | None = None,
) -> Conversion:
    """Write one set of weights of any readable checkpoint into a clean file.

    Wrappers and known prefixes are taken off the keys; optimizer, schedules and other sets are
    left out. Class names, transform and model are kept where the file names them.

    Args:
        source: As `load_checkpoint` takes it.
        target: File to write: safetensors if it ends in ".safetensors", one that
            ``torch.load(weights_only=True)`` reads if it ends in ".pth", ".pt", ".ckpt", ".bin" or
            ".pth.tar".
        weights: Name of the set. None takes the largest, raw before averaged.
        dtype: "float32", "float16" or "bfloat16" for all floating point tensors. None keeps
            each as it is.

    Raises:
        InputError: There are no such weights, the target cannot be written, or has another suffix.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> state = {"module.fc.weight": torch.ones(2, 4)}
        >>> torch.save({"state_dict": state, "optimizer": {}}, folder / "last.pth")
        >>> convert_checkpoint(folder / "last.pth", folder / "clean.pth").prefixes
        ('module.',)
        >>> list(torch.load(folder / "clean.pth")["state_dict"])
        ['fc.weight']
    """
    source, target = Path(source), Path(target)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target}: expected another file to write to, got the one to read")
    if not target.name.lower().endswith(WRITTEN):
        got = f"'{target.suffix}'" if target.suffix else "none"
        raise InputError(
            f"{target}: expected one of the suffixes that are written, {', '.join(WRITTEN)}, got "
            f"{got}: choose one of these"
        )
    contents = read(source)
    chosen, rest = _chosen(contents, weights)
    guess = guess_model(contents.tree, weights=chosen.name)
    names, prefixes = _clean_names(chosen, guess.prefix)
    kind = DTYPES.get(dtype or "")
    tensors = {name: _as(chosen.tensors[key], kind) for name, key in names.items()}
    write_checkpoint(target, tensors, _kept(contents))
    kept = set(names.values())
    return Conversion(
        weights=chosen.name,
        others=tuple(one.name for one in rest),
        prefixes=prefixes,
        tensors=len(tensors),
        values=sum(tensor.numel() for tensor in tensors.values()),
        dropped=tuple(key for key in chosen.tensors if key not in kept),
        spec=guess.spec,
        warnings=tuple(warnings_of(contents)),
    )


def _chosen(contents: Contents, weights: str | None) -> tuple[Candidate, list[Candidate]]:
    found = find_candidates(contents.tree)
    if not found or not any(one.elements for one in found):
        raise no_candidates(contents)
    said = peculiarity(contents)
    if said:
        raise InputError(f"{contents.path}: {said}")
    if weights is not None:
        chosen = named_candidate(contents, found, weights)
    else:
        chosen = max(found, key=lambda one: (not one.is_former, not one.is_averaged, one.weight))
    return chosen, [one for one in found if one is not chosen]


def _clean_names(chosen: Candidate, prefix: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return clean name -> key in the file, and what was taken off.

    Args:
        chosen: The set of weights.
        prefix: Below which the tensors of a known architecture are; None where it is unknown.
    """
    names = unwrapped_keys(chosen.tensors)
    removed = {
        f"{part}.": None
        for name, key in names.items()
        for part in key.split(".")
        if part not in name.split(".")
    }
    if prefix is None:
        prefix = _holders([name for name in names if name != AVERAGE_COUNTER])
    below = {
        name.removeprefix(prefix): key
        for name, key in names.items()
        if name.startswith(prefix) and name != AVERAGE_COUNTER
    }
    return below, (*removed, *([prefix] if prefix else []))


def _holders(names: list[str]) -> str:
    """Return the names of holders that all keys begin with."""
    prefix = ""
    while True:
        heads = {name.removeprefix(prefix).partition(".")[0] for name in names}
        if len(heads) != 1 or not heads <= HOLDERS:
            return prefix
        prefix += f"{heads.pop()}."


def _as(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return whole(tensor).to(wanted).contiguous()


def _kept(contents: Contents) -> dict[str, Any]:
    notes = contents.notes
    classes = found_classes(notes)
    known = {
        "classes": list(classes) if classes else None,
        "transform": plain_dict_of(found_value(notes, "transform")),
        "model_spec": found_value(notes, "model_spec"),
        "source_sha256": contents.sha256,
    }
    return {key: value for key, value in known.items() if isinstance(value, str | list | dict)}
