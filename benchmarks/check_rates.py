"""How often the check of the label order is wrong, and how often it sees what is planted.

Every row is many simulated runs: models that are right for a share of the samples and spread
their mistakes, on classes of unequal size; models that guess; models whose classes change places.
Seeded; a minute on one core: ``python benchmarks/check_rates.py``.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from evalkit.checks.labels import find_order
from evalkit.scoring.intervals import wilson
from evalkit.scoring.sparse import of_pairs

RUNS = 200
SIZES = ((2, 50), (2, 1000), (3, 100), (10, 100), (10, 1000), (100, 1000))
COLLAPSED = 0.95  # share of the samples that get the one class
PLANTED = ("nothing", "guessing", "one class", "permuted", "shifted", "pair swapped")


def simulated(planted: str, classes: int, samples: int, accuracy: float, seed: int) -> bool:
    """Return whether the check speaks up in one run."""
    random = np.random.default_rng([seed, classes, samples, PLANTED.index(planted)])
    labels = random.choice(classes, samples, p=random.dirichlet(np.full(classes, 2.0)))
    mistakes = random.dirichlet(np.full(classes, 0.5), classes)  # each class has its favourites
    given = np.array([random.choice(classes, p=mistakes[label]) for label in labels])
    recall = np.clip(random.normal(accuracy, 0.1, classes), 0, 1)
    given = np.where(random.random(samples) < recall[labels], labels, given)
    if planted == "guessing":
        given = random.choice(classes, samples, p=random.dirichlet(np.full(classes, 0.5)))
    elif planted == "one class":
        given = np.where(random.random(samples) < COLLAPSED, random.integers(classes), given)
    elif planted == "permuted":
        given = random.permutation(classes)[given]
    elif planted == "shifted":
        given = (given + 1) % classes
    elif planted == "pair swapped":
        meaning = np.arange(classes)
        one, other = np.argsort(-np.bincount(labels, minlength=classes))[:2]
        meaning[[one, other]] = [other, one]
        given = meaning[given]
    return find_order(of_pairs(labels, given, pd.RangeIndex(classes))) is not None


def main(runs: int = RUNS) -> pd.DataFrame:
    """Print the table."""
    rows = []
    for planted in PLANTED:
        for classes, samples in SIZES:
            for accuracy in (0.5, 0.9):
                seen = sum(
                    simulated(planted, classes, samples, accuracy, seed) for seed in range(runs)
                )
                low, high = (float(side) for side in wilson(seen, runs))
                rows.append((planted, classes, samples, accuracy, seen, runs, low, high))
                print(*rows[-1][:6], f"{low:.3f}-{high:.3f}", flush=True)
    names = ["planted", "classes", "samples", "accuracy", "warned", "runs", "low", "high"]
    return pd.DataFrame(rows, columns=names)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
