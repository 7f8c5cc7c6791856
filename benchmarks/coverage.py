"""How often the intervals hold the truth: the table of docs/statistics.md.

Test sets are drawn from known probabilities, scored, and their 95 % intervals held against the
scores of these probabilities. ``python benchmarks/coverage.py --write`` renews the table, with
``--design "groups of 8"`` the rows of that design alone.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tabulate import tabulate

from evalkit.comparison import compare
from evalkit.scoring.averages import averages
from evalkit.scoring.clusters import effective_counts
from evalkit.scoring.intervals import effective_wilson
from evalkit.scoring.method import Method
from evalkit.scoring.resampling import Groups, resampled_intervals
from evalkit.scoring.scores import per_class_scores
from evalkit.scoring.sparse import of_cells, sparse_confusion

PAGE = Path(__file__).parent.parent / "docs" / "statistics.md"
START, END = "<!-- coverage -->", "<!-- end of coverage -->"
REPLICATES = 500  # of every drawn test set; the tool itself takes 1,000
PROMISED = (0.93, 0.97)
REPEATED = 0.75  # of the samples of a group are like its first
SHARED = 0.5  # of the samples get the same answer from both models

Shares = npt.NDArray[np.float64]
Hits = Iterator[tuple[str, bool, float]]  # score, whether the truth was held, width

SETTINGS = {
    "5 classes, 50 samples": (5, 50, 0.90, 0.5),
    "3 classes, 100 samples": (3, 100, 0.80, 0.0),
    "10 classes, imbalanced, 500 samples": (10, 500, 0.80, 1.0),
    "10 classes, 97 % right, 300 samples": (10, 300, 0.97, 0.0),
    "40 classes, imbalanced, 400 samples": (40, 400, 0.90, 1.0),
    "100 classes, 1,000 samples": (100, 1_000, 0.75, 0.5),
    "1,000 classes, 10,000 samples": (1_000, 10_000, 0.76, 0.0),
}


def shares_of(classes: int, right: float, imbalance: float) -> Shares:
    """Probabilities of label and prediction, shape (C, C): every class has its own confusions."""
    rng = np.random.default_rng(0)
    prior = np.arange(1.0, classes + 1) ** -imbalance
    shares = np.zeros((classes, classes))
    for label in range(classes):
        others = rng.permutation(np.delete(np.arange(classes), label))[:7]
        own = np.clip(rng.beta(right * 10, (1 - right) * 10), 0.02, 0.995)
        shares[label, label] = own
        shares[label, others] = (1 - own) * rng.dirichlet(np.full(others.size, 0.5))
    return np.asarray(shares * (prior / prior.sum())[:, None])


def single(shares: Shares, samples: int, rng: np.random.Generator) -> Hits:
    """One test set of samples that are drawn one by one."""
    yield from _scored(shares, _drawn(shares, samples, rng), Method(replicates=REPLICATES))


def balanced(shares: Shares, samples: int, rng: np.random.Generator) -> Hits:
    """One test set with as many samples of every class."""
    per_class = samples // len(shares)
    rows = [rng.multinomial(per_class, row / row.sum()) for row in shares]
    even = shares / shares.sum(axis=1, keepdims=True) / len(shares)
    method = Method(replicates=REPLICATES, class_balanced=True)
    yield from _scored(even, np.array(rows), method)


def grouped(shares: Shares, samples: int, rng: np.random.Generator) -> Hits:
    """One test set of groups of eight, in which three of four samples repeat the first."""
    size = 8
    classes = len(shares)
    flat = shares.ravel()
    groups = samples // size
    own = rng.choice(flat.size, size=(groups, size), p=flat)
    cells = np.where(rng.random((groups, size)) < REPEATED, own[:, :1], own)
    labels, given = np.divmod(cells.ravel(), classes)
    counts = sparse_confusion(labels, given, classes)
    group = np.repeat(np.arange(groups), size)
    place = np.searchsorted(counts.labels * classes + counts.predictions, cells.ravel())
    keys, number = np.unique(place * groups + group, return_counts=True)
    parts = Groups(keys % groups, keys // groups, number, groups)
    method = Method(replicates=REPLICATES, group_column="group")
    truth = _truth(shares)
    worth = effective_counts(counts, parts)
    right = counts.hits.sum() / counts.samples
    low, high = effective_wilson([right], worth["accuracy"])
    exact = float(np.trace(shares))
    yield "accuracy", bool(low[0] <= exact <= high[0]), float(high[0] - low[0])
    yield from _per_class(shares, per_class_scores(counts, effective=worth))
    yield from _averaged(truth, resampled_intervals(counts, method=method, groups=parts))


def two_models(shares: Shares, samples: int, rng: np.random.Generator) -> Hits:
    """One test set given to two models that share half of their mistakes."""
    classes = len(shares)
    first = rng.choice(shares.size, size=samples, p=shares.ravel())
    labels, given = np.divmod(first, classes)
    again = np.array([rng.choice(classes, p=shares[k] / shares[k].sum()) for k in labels])
    second = np.where(
        rng.random(samples) < SHARED, given, again
    )  # the same confusions: no difference
    names = np.arange(samples)
    runs = {
        name: pd.DataFrame({"path": names, "label": labels, "prediction": predicted})
        for name, predicted in (("first", given), ("second", second))
    }
    scores = compare(runs, method=Method(replicates=REPLICATES)).pairs[0].scores
    for name in ("accuracy", "macro.f1", "mcc"):
        row = scores.loc[name]
        low, high = row["difference_low"], row["difference_high"]
        if not math.isnan(low):
            yield f"difference in {name}", bool(low <= 0 <= high), high - low


DESIGNS: dict[str, tuple[Callable[..., Hits], tuple[str, ...]]] = {
    "samples": (single, tuple(SETTINGS)),
    "samples, classes balanced by design": (
        balanced,
        ("3 classes, 100 samples", "10 classes, 97 % right, 300 samples"),
    ),
    "groups of 8": (grouped, ("3 classes, 100 samples", "10 classes, imbalanced, 500 samples")),
    "two models": (
        two_models,
        ("3 classes, 100 samples", "10 classes, imbalanced, 500 samples"),
    ),
}


def simulate(
    *,
    draws: int = 2_000,
    settings: tuple[str, ...] | None = None,
    designs: tuple[str, ...] = tuple(DESIGNS),
) -> list[dict[str, Any]]:
    """Measure.

    Args:
        draws: Test sets per row; a tenth of them from 1,000 classes on.
        settings: Keys of `SETTINGS`, otherwise all.
        designs: Keys of `DESIGNS`.

    Returns:
        Rows with ``drawn``, ``setting``, ``score``, ``coverage``, ``width`` (mean), ``draws``.
    """
    rows = []
    for drawn in designs:
        design, of_design = DESIGNS[drawn]
        for name in of_design:
            if settings is not None and name not in settings:
                continue
            classes, samples, right, imbalance = SETTINGS[name]
            number = draws if classes < 1_000 else draws // 10  # noqa: PLR2004
            if design is grouped:
                samples *= 4
            rng = np.random.default_rng(1)
            shares = shares_of(classes, right, imbalance)
            held: dict[str, list[tuple[bool, float]]] = defaultdict(list)
            for _ in range(number):
                for score, hit, width in design(shares, samples, rng):
                    held[score].append((hit, width))
            rows += [
                {
                    "drawn": drawn,
                    "setting": name if design is not grouped else f"{name} x 4",
                    "score": score,
                    "coverage": float(np.mean([hit for hit, _ in found])),
                    "width": float(np.mean([width for _, width in found])),
                    "draws": number,
                }
                for score, found in held.items()
            ]
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table; what is outside the promise is bold."""
    low, high = PROMISED
    shown = [
        {
            **row,
            "coverage": f"{row['coverage']:.3f}"
            if low <= row["coverage"] <= high
            else f"**{row['coverage']:.3f}**",
            "width": f"{row['width']:.3f}",
            "draws": f"{row['draws']:,}",
        }
        for row in rows
    ]
    return str(tabulate(shown, headers="keys", tablefmt="github", disable_numparse=True))


def _drawn(shares: Shares, samples: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rng.multinomial(samples, shares.ravel()).reshape(shares.shape)


def _truth(shares: Shares) -> dict[str, float]:
    margins = (shares.diagonal(), shares.sum(axis=1), shares.sum(axis=0))
    return {name: float(value) for name, value in averages(*margins, rule="scikit-learn").items()}


def _scored(shares: Shares, counts: npt.NDArray[np.int64], method: Method) -> Hits:
    labels, given = np.nonzero(counts)
    sparse = of_cells(labels, given, counts[labels, given], pd.RangeIndex(len(shares)))
    right = sparse.hits.sum() / sparse.samples
    low, high = effective_wilson([right], [sparse.samples])
    yield (
        "accuracy",
        bool(low[0] <= float(np.trace(shares)) <= high[0]),
        float(high[0] - low[0]),
    )
    yield from _per_class(shares, per_class_scores(sparse))
    yield from _averaged(_truth(shares), resampled_intervals(sparse, method=method))


def _per_class(shares: Shares, table: pd.DataFrame) -> Hits:
    hits, support, predicted = shares.diagonal(), shares.sum(axis=1), shares.sum(axis=0)
    truth = {
        "precision": hits / predicted,
        "recall": hits / support,
        "f1": 2 * hits / (support + predicted),
    }
    for name, exact in truth.items():
        low, high = (table[f"{name}_{side}"].to_numpy() for side in ("low", "high"))
        for position in np.flatnonzero(~np.isnan(low))[:10]:  # the first ten classes
            held = bool(low[position] <= exact[position] <= high[position])
            yield f"{name} of a class", held, float(high[position] - low[position])


def _averaged(truth: dict[str, float], found: Any) -> Hits:
    for name, exact in truth.items():
        if name in {"macro.recall", "weighted.recall"}:  # balanced accuracy and accuracy
            continue
        low, high = found.low[name], found.high[name]
        if not math.isnan(low):
            yield name, bool(low <= exact <= high), high - low


def renewed(page: str, rows: list[dict[str, Any]]) -> str:
    """The page with these rows in the places of those it has; rows of all designs make it anew."""
    before, _, rest = page.partition(START)
    former, _, after = rest.partition(END)
    table = as_markdown(rows)
    if {row["drawn"] for row in rows} != set(DESIGNS):
        new = {_names_of(line): line for line in table.splitlines()[2:]}
        cells = [
            [cell.strip() for cell in new.get(_names_of(line), line).split("|")[1:-1]]
            for line in former.strip().splitlines()[2:]
        ]
        header = [cell.strip() for cell in table.splitlines()[0].split("|")[1:-1]]
        table = str(tabulate(cells, headers=header, tablefmt="github", disable_numparse=True))
    return f"{before}{START}\n{table}\n{END}{after}"


def _names_of(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.split("|")[1:4])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--design", choices=tuple(DESIGNS), help="measure this one alone")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    options = parser.parse_args()
    chosen = (options.design,) if options.design else tuple(DESIGNS)
    measured = simulate(draws=options.draws, designs=chosen)
    print(as_markdown(measured))
    if options.write:
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
