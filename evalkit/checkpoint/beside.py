"""Whole checkpoints of the same training beside a damaged one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from evalkit.checkpoint.kind import READABLE, sniff
from evalkit.wording import natural_order

if TYPE_CHECKING:
    from pathlib import Path

_OF_A_TRAINING = re.compile(r"(last|latest|best|epoch|checkpoint|ckpt|step|iter)([^a-z]|$)")
_NUMBERED = re.compile(r"(epoch|checkpoint|ckpt|step|iter)[^a-z]*\d")


def whole_ones_beside(path: Path) -> str:
    """Return what else to take, the best and the newest numbered checkpoint there, or "".

    Example:
        >>> import tempfile, pathlib, torch
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("best.pth", "epoch_9.pth", "epoch_10.pth"):
        ...     torch.save({"a": torch.ones(1)}, folder / name)
        >>> whole_ones_beside(folder / "last.pth")
        '; best.pth and epoch_10.pth beside it look whole: take one of these'
    """
    if not _OF_A_TRAINING.match(path.name):
        return ""
    try:
        others = [
            one.name
            for one in path.parent.iterdir()
            if one.suffix == path.suffix and one.is_file() and one.name != path.name
        ]
        best = [name for name in natural_order(others) if name.startswith("best")]
        numbered = [name for name in others if _NUMBERED.match(name)]
        whole = [
            name
            for names in (best, natural_order(numbered)[::-1])
            for name in [one for one in names if sniff(path.parent / one) in READABLE][:1]
        ]
    except (OSError, ValueError):  # nothing that could be advised
        return ""
    if not whole:
        return ""
    if len(whole) == 1:
        return f"; {whole[0]} beside it looks whole: take that"
    return f"; {' and '.join(whole)} beside it look whole: take one of these"
