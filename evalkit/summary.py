"""The numbers of an evaluation, and for each that is missing the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.intervals import CONFIDENCE_LEVEL, wilson
from evalkit.scores import overall_scores
from evalkit.wording import counted, some

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.tally import Tally

TOP_K = 5
RECORDED_BY_THE_RUN = (
    "unreadable",
    "checkpoint",
    "model",
    "transform",
    "precision_flags",
    "environment",
    "throughput",
)
UNKNOWN_RUN = "made from a table of predictions: how these were made is not known"
NOT_RECORDED = "the run did not record it"


def summarize(
    confusion: pd.DataFrame, tally: Tally, run: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Everything of ``summary.json``, in its order.

    Args:
        confusion: Counts, shape (C, C), rows true and columns given classes.
        tally: The samples behind them, for what counts of classes cannot tell.
        run: How the predictions were made, see `Evaluation.from_predictions`; None when nobody
            knows.

    Returns:
        Fractions in [0, 1], all values as JSON knows them; None for what is undefined or unknown,
        and for each of these the reason in ``not_available``.
    """
    overall = overall_scores(confusion)
    figures, reasons = tally.figures()
    reasons["top_k.5"] = reasons.pop("top5", "")
    reasons["brier"] = "it needs the probability of every class"
    top_k = {"1": overall["accuracy"]}
    if len(confusion) <= TOP_K:
        reasons["top_k.5"] = f"with {len(confusion)} classes it is 1 for any predictions"
    elif "top5" in figures:
        top_k[str(TOP_K)] = figures["top5"]
    known = dict((run or {}).get("scores", {}))
    top_k |= {str(k): float(value) for k, value in known.pop("top_k", {}).items()}
    figures |= known
    reasons["mcc"] = reasons["kappa"] = (
        "undefined: only one class occurs among the labels or among the predictions"
    )
    reasons |= dict.fromkeys(RECORDED_BY_THE_RUN, UNKNOWN_RUN if run is None else NOT_RECORDED)

    summary = {
        "samples": overall["samples"],
        "classes": overall["classes"],
        "unreadable": None,
        **{name: value for name, value in overall.items() if name not in {"samples", "classes"}},
        "interval": f"Wilson's score interval, {CONFIDENCE_LEVEL:.0%}",
        "top_k": top_k,
        "top_k_low": {k: _bound(value, overall["samples"], 0) for k, value in top_k.items()},
        "top_k_high": {k: _bound(value, overall["samples"], 1) for k, value in top_k.items()},
        **{name: figures.get(name) for name in ("nll", "brier", "ece")},
        **{name: (run or {}).get(name) for name in RECORDED_BY_THE_RUN},
    }
    summary = {name: _plain(value) for name, value in summary.items()}
    missing = [name for name, value in summary.items() if value is None]
    missing += ["top_k.5"] if str(TOP_K) not in top_k else []
    summary["not_available"] = {name: reasons.get(name, "undefined") for name in missing}
    summary["warnings"] = [*(run or {}).get("warnings", ()), *_warnings(confusion, tally)]
    return summary


def _bound(fraction: float, samples: int, side: int) -> float:
    return float(wilson(round(fraction * samples), samples)[side])


def _warnings(confusion: pd.DataFrame, tally: Tally) -> list[str]:
    counts = confusion.to_numpy()
    without = confusion.index[counts.sum(axis=1) == 0].tolist()
    found = []
    if without:
        found.append(
            f"no samples of {len(without)} of {len(confusion)} classes ({some(without)}): "
            "their recall is undefined"
        )
    lured = int(counts[:, counts.sum(axis=1) == 0].sum())
    if lured:
        found.append(
            f"{counted(lured, 'prediction')} of a class without samples: macro recall counts it "
            "as 0, balanced accuracy leaves it out"
        )
    found += [
        fault for name in ("confidence", "label_probability") if (fault := tally.invalid(name))
    ]
    return found


def _plain(value: Any) -> Any:
    """As JSON knows it: NumPy's numbers as Python's, and None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
