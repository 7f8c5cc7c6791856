"""The numbers of an evaluation, and for each that is missing the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.checks.joined import joined_checks
from evalkit.scoring.averages import AVERAGED
from evalkit.scoring.calibration import calibration_interval
from evalkit.scoring.clusters import FEW_GROUPS
from evalkit.scoring.intervals import effective_wilson, simultaneous_level, wilson
from evalkit.scoring.method import USUAL
from evalkit.scoring.resampling import resampled_intervals
from evalkit.scoring.scores import margins, overall_scores
from evalkit.scoring.selective import area_under_risk
from evalkit.scoring.sparse import SparseConfusion, as_sparse
from evalkit.wording import counted, some

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from evalkit.scoring.bootstrap import Resampled
    from evalkit.scoring.method import Method
    from evalkit.scoring.resampling import Groups
    from evalkit.scoring.tally import Tally

TOP_K = 5
FEW_SAMPLES = 10  # below, 1,000 replicates agree too little from seed to seed (docs/statistics.md)
FIGURES = (
    "nll",
    "nll_low",
    "nll_high",
    "brier",
    "brier_low",
    "brier_high",
    "ece",
    "ece_low",
    "ece_high",
    "aurc",  # area under the risk-coverage curve
    "auroc",  # these two: means over the classes, each against the others
    "average_precision",
)
OF_BRIER = ("brier_low", "brier_high")
RECORDED_BY_THE_RUN = (
    "unreadable",
    "checkpoint",
    "model",
    "transform",
    "data",
    "reading",
    "precision_flags",
    "environment",
    "throughput",
)
UNKNOWN_RUN = "made from a table of predictions: how these were made is not known"
NOT_RECORDED = "the run did not record it"
NOT_BY_GROUP = "hits among the first k were not counted by group"


def summarize(
    confusion: pd.DataFrame | SparseConfusion,
    tally: Tally,
    run: Mapping[str, Any] | None,
    *,
    method: Method = USUAL,
    effective: Mapping[str, npt.NDArray[np.float64]] | None = None,
    groups: Groups | None = None,
    probable: tuple[Mapping[str, float], Mapping[str, str]] = ({}, {}),
) -> dict[str, Any]:
    """Everything of ``summary.json``, in its order.

    Args:
        confusion: Counts, shape (C, C), rows true and columns given classes.
        tally: The samples behind them, for what counts of classes cannot tell.
        run: How the predictions were made, see `Evaluation.from_predictions`; None when nobody
            knows.
        method: How scores are averaged, and how their intervals are made.
        effective: How many independent samples the accuracy is worth, where there are groups.
        groups: The samples of the cells by group, where there are any.
        probable: What `evalkit.scoring.probabilities.Probabilities.scores` found.

    Returns:
        Fractions in [0, 1], all values as JSON knows them; None for what is undefined or unknown,
        and for each of these the reason in ``not_available``.
    """
    overall = overall_scores(confusion, average_rule=method.average_rule, level=method.level)
    if effective is not None:
        bounds = effective_wilson([overall["accuracy"]], effective["accuracy"], level=method.level)
        overall["accuracy_low"], overall["accuracy_high"] = (side[0] for side in bounds)
    resampled = resampled_intervals(as_sparse(confusion), method=method, groups=groups)
    figures, reasons = tally.figures()
    reasons["top_k.5"] = reasons.pop("top5", "")
    figures = {**probable[0], **figures}
    reasons |= {name: reason for name, reason in probable[1].items() if name not in figures}
    figures |= _from_confidences(tally, method, in_groups=groups is not None)
    reasons |= dict.fromkeys(("ece_low", "ece_high", "aurc"), reasons.get("ece", ""))
    if groups is not None:
        reasons |= dict.fromkeys(("ece_low", "ece_high"), "confidences were not kept by group")
    top_k = {"1": overall["accuracy"]}
    if len(confusion) <= TOP_K:
        reasons["top_k.5"] = (
            f"with {counted(len(confusion), 'class', 'classes')} it is 1 for any predictions"
        )
    elif "top5" in figures:
        top_k[str(TOP_K)] = figures["top5"]
    known = dict((run or {}).get("scores", {}))
    top_k |= {str(k): float(value) for k, value in known.pop("top_k", {}).items()}
    figures |= known
    figures, why = _of_losses(figures, tally, method, in_groups=groups is not None)
    reasons |= {
        name: reasons.get(name.partition("_")[0], "") or reason for name, reason in why.items()
    }
    reasons["mcc"] = reasons["kappa"] = (
        "undefined: only one class occurs among the labels or among the predictions"
    )
    reasons |= dict.fromkeys(RECORDED_BY_THE_RUN, UNKNOWN_RUN if run is None else NOT_RECORDED)

    in_groups = effective is not None
    top_k_bounds = {
        k: _bounds(value, overall, method) if k == "1" or not in_groups else (None, None)
        for k, value in top_k.items()
    }
    if in_groups:
        top_k_bounds["1"] = (overall["accuracy_low"], overall["accuracy_high"])
    summary = {
        "samples": overall["samples"],
        "classes": overall["classes"],
        "unreadable": None,
        **_with_intervals(overall, resampled),
        "interval": _in_words(method, confusion, groups),
        "resampling": _recorded(method, resampled, groups),
        "top_k": top_k,
        "top_k_low": {k: low for k, (low, _) in top_k_bounds.items()},
        "top_k_high": {k: high for k, (_, high) in top_k_bounds.items()},
        **{name: figures.get(name) for name in FIGURES},
        **{name: (run or {}).get(name) for name in RECORDED_BY_THE_RUN},
    }
    summary = {name: _plain(value) for name, value in summary.items()}
    for name, reason in resampled.reasons.items():
        reasons |= {f"{name}_low": reason, f"{name}_high": reason}
    missing = [name for name, value in summary.items() if value is None]
    missing += [f"{name}_{side}" for name in resampled.reasons for side in ("low", "high")]
    missing += ["top_k.5"] if str(TOP_K) not in top_k else []
    for k, (low, _) in top_k_bounds.items():
        if low is None:
            reasons |= dict.fromkeys((f"top_k_low.{k}", f"top_k_high.{k}"), NOT_BY_GROUP)
            missing += [f"top_k_low.{k}", f"top_k_high.{k}"]
    summary["not_available"] = {name: reasons.get(name, "undefined") for name in missing}
    checks, doubts = joined_checks(as_sparse(confusion), (run or {}).get("checks", ()))
    summary["checks"] = checks
    summary["warnings"] = [*doubts, *(run or {}).get("warnings", ()), *_warnings(confusion, tally)]
    summary["warnings"] += _warnings_of_groups(method, groups)
    summary["warnings"] += _warnings_of_few(resampled, tally.samples, groups)
    return summary


def _from_confidences(tally: Tally, method: Method, *, in_groups: bool) -> dict[str, float]:
    cells = tally.confidences()
    if cells is None:
        return {}
    found = {"aurc": area_under_risk(cells)}
    if not in_groups:
        low, high = calibration_interval(
            cells, replicates=method.replicates, seed=method.seed, level=method.level
        )
        found |= {"ece_low": low, "ece_high": high}
    return found


def _of_losses(
    figures: dict[str, float], tally: Tally, method: Method, *, in_groups: bool
) -> tuple[dict[str, float], dict[str, str]]:
    """The figures with the intervals of mean losses, and why some have none."""
    found = dict(figures)
    if "nll" in figures and not in_groups and "nll" in tally.figures()[0]:
        low, high = tally.log_loss_interval(method.level)
        if math.isfinite(low):
            found |= {"nll_low": min(low, figures["nll"]), "nll_high": max(high, figures["nll"])}
    reason = "the losses of the samples were not recorded"
    if in_groups:
        reason = "losses were not kept by group"
        found = {name: value for name, value in found.items() if name not in OF_BRIER}
    missing = [name for name in ("nll_low", "nll_high", *OF_BRIER) if name not in found]
    return found, dict.fromkeys(missing, reason)


def _bounds(fraction: float, overall: Mapping[str, Any], method: Method) -> tuple[float, float]:
    samples = overall["samples"]
    low, high = wilson(round(fraction * samples), samples, level=method.level)
    return float(low), float(high)


def _with_intervals(overall: Mapping[str, Any], resampled: Resampled) -> dict[str, Any]:
    """The overall scores, each followed by the ends of its interval."""
    found: dict[str, Any] = {}
    for name, value in overall.items():
        if name in {"samples", "classes"}:
            continue
        found[name] = value
        if name in {"macro", "weighted"}:
            found[name] = {
                key: item
                for score in AVERAGED
                for key, item in {
                    score: value[score],
                    f"{score}_low": resampled.low[f"{name}.{score}"],
                    f"{score}_high": resampled.high[f"{name}.{score}"],
                }.items()
            }
        elif name in resampled.low:
            found |= {f"{name}_low": resampled.low[name], f"{name}_high": resampled.high[name]}
    return found


def _in_words(
    method: Method, confusion: pd.DataFrame | SparseConfusion, groups: Groups | None
) -> str:
    """How the intervals of accuracy and of the classes are made."""
    words = f"Wilson's score interval, {method.level:.0%}"
    if groups is not None:
        words += f", of the effective sample size by {method.group_column} (Rao & Scott)"
    if method.simultaneous:
        _, support, predicted = margins(confusion)
        occurring = int((support + predicted > 0).sum())
        each = simultaneous_level(method.level, occurring)
        words += (
            f"; those of the classes hold together (Šidák over {occurring:,} classes: "
            f"{each:.6%} each)"
        )
    return words


def _recorded(method: Method, resampled: Resampled, groups: Groups | None) -> dict[str, Any]:
    """How the intervals of averages, MCC and kappa are made."""
    return {
        "method": resampled.method,
        "level": method.level,
        "replicates": method.replicates,
        "seed": method.seed,
        "class_balanced": method.class_balanced,
        "group_column": method.group_column,
        "groups": groups.number if groups is not None else None,
        "undefined": resampled.undefined,
        "replicates_that_lost_a_class": resampled.lost_classes,
    }


def _warnings_of_groups(method: Method, groups: Groups | None) -> list[str]:
    if groups is None or groups.number >= FEW_GROUPS:
        return []
    return [
        f"only {counted(groups.number, 'group')} of {method.group_column}: intervals from fewer "
        f"than {FEW_GROUPS} are too narrow"
    ]


def _warnings_of_few(resampled: Resampled, samples: int, groups: Groups | None) -> list[str]:
    has_none = all(map(math.isnan, resampled.low.values()))
    if groups is not None or samples >= FEW_SAMPLES or has_none:
        return []
    return [
        f"only {counted(samples, 'sample')}: below {FEW_SAMPLES} the intervals of averages, MCC "
        "and kappa change with the seed and miss too often; that of the accuracy holds"
    ]


def _warnings(confusion: pd.DataFrame | SparseConfusion, tally: Tally) -> list[str]:
    _, support, predicted = margins(confusion)
    names = confusion.classes if isinstance(confusion, SparseConfusion) else confusion.index
    without = names[support == 0].tolist()
    found = []
    if without:
        found.append(
            f"no samples of {len(without)} of {len(confusion)} classes ({some(without)}): "
            "their recall is undefined"
        )
    lured = int(predicted[support == 0].sum())
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
