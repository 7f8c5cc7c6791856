"""A training that was broken off: what there is to go on with, and whether it is the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.lock import LAST
from evalkit.report.tables import check_folder
from evalkit.training.checkpoints import BEST, Checkpoints
from evalkit.training.heads import replace_head
from evalkit.training.recipe import Recipe
from evalkit.training.records import LOG
from evalkit.training.start import Start, start
from evalkit.training.state import position_of
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REPORT = "report.html"  # the last file that a report consists of


def former_state(out: Path, *, resume: bool) -> dict[str, Any] | None:
    """What is to be gone on with, or None where training begins.

    Raises:
        InputError: *out* holds a training that is not to be gone on with, or cannot be.
    """
    check_folder(out)
    kept = Checkpoints(out).last() if resume else None
    # One that was killed in the middle of its first checkpoint may have left best.pth alone.
    telling = (LOG,) if resume else (LAST, BEST, LOG)
    ours = [name for name in telling if (out / name).exists()]
    if kept is None and ours:
        what = f"without {LAST} to go on from" if resume else "of a training: go on by resume=True"
        raise InputError(
            f"out must be another folder than that of a training, got {out} with {some(ours)} "
            f"{what}, or choose another"
        )
    return kept


def is_complete(kept: Mapping[str, Any] | None, out: Path, *, epochs: int) -> bool:
    """Whether nothing is left to do: all epochs are trained, and the report came after the last."""
    if kept is None:
        return False
    position = position_of(kept)
    report = out / REPORT
    if not report.exists() or not (position.is_over or position.epoch > epochs):
        return False
    return report.stat().st_mtime_ns >= (out / LAST).stat().st_mtime_ns


def shell(kept: Mapping[str, Any], spec: str | None, num_classes: int) -> Start:
    """The model that a checkpoint of ours is to be put back into."""
    begun = start(kept.get("model_spec") if spec is None else spec, num_classes=num_classes)
    if kept.get("new_head"):
        replace_head(begun.model, num_classes)
    return begun


def refuse_another_training(kept: Mapping[str, Any], noted: Mapping[str, Any], out: Path) -> None:
    """Raise unless the model, the data and the recipe are those that training began with.

    Args:
        kept: The checkpoint.
        noted: What a checkpoint would say now.
        out: Where it is.

    Raises:
        InputError: Something is another; the line names all of it.
    """
    before = Recipe.from_dict(kept.get("recipe", {}))
    differences = before.differences(Recipe.from_dict(noted["recipe"]))
    if kept.get("model_spec") != noted.get("model_spec"):
        differences.append(f"model {kept.get('model_spec')} (now {noted.get('model_spec')})")
    if kept.get("transform") != noted["transform"]:
        differences.append("transform")
    fingerprints = [one["data"]["fingerprint"] for one in (kept, noted) if "data" in one]
    if len(set(fingerprints)) > 1:
        differences.append(f"data {kept['data']['name']} (other files or labels now)")
    if differences:
        raise InputError(
            f"resume must have the options that the training in {out} began with, got another "
            f"{some(differences, 10)}"
        )
