"""Several models on the same samples. Nothing here imports torch.

>>> import pandas as pd
>>> labels = pd.DataFrame({"path": list("abcd"), "label": ["cat", "cat", "dog", "dog"]})
>>> runs = {"old": labels.assign(prediction="cat"), "new": labels.assign(prediction=labels.label)}
>>> found = compare(runs)
>>> found.pairs[0].flips["wrong to right"], found.pairs[0].p_value
(2, 0.5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evalkit.comparison.join import (
    Joined,
    RecordedData,
    as_names,
    join,
    model_names,
    read_run,
    recorded_data,
)
from evalkit.comparison.pair import Pair, compare_pair
from evalkit.comparison.paired import cochran_q, holm
from evalkit.errors import InputError
from evalkit.scoring.method import USUAL, Method
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

__all__ = ["Comparison", "Pair", "compare"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Two or more models on the same samples.

    Attributes:
        names: Of the models.
        key: Column that names the samples.
        samples: How many all models were given.
        unmatched: How many samples of every model are not among these.
        accuracy: Of every model, a fraction in [0, 1].
        pairs: Every two of them, the earlier one first.
        p_values_holm: McNemar's p-values of the pairs, corrected for their number.
        cochran_q: Cochran's Q and its p-value; None for two models.
        warnings: What a reader must know, a sentence each.
        margin: The difference in accuracy that matters, as it was given.
        level: Nominal coverage of the intervals.
        seed: Start of the random numbers.
    """

    names: tuple[str, ...]
    key: str
    samples: int
    unmatched: Mapping[str, int]
    accuracy: Mapping[str, float]
    pairs: tuple[Pair, ...]
    p_values_holm: tuple[float, ...]
    cochran_q: tuple[float, float] | None
    warnings: tuple[str, ...]
    margin: float | None
    level: float
    seed: int

    def __str__(self) -> str:
        from evalkit.comparison.render import as_text

        return as_text(self)


def compare(
    runs: Sequence[Path | str] | Mapping[str, pd.DataFrame],
    *,
    key: str | None = None,
    label_column: str = "label",
    prediction_column: str = "prediction",
    on_unmatched: str = "fail",
    margin: float | None = None,
    method: Method = USUAL,
) -> Comparison:
    """Compare models that were given the same samples.

    Args:
        runs: Folders that `evalkit.Evaluation.save` wrote or tables of predictions, at least two;
            or frames by name of the model.
        key: Column that names the samples; otherwise ``path`` where all have it, else ``index``.
        label_column: True class.
        prediction_column: Given class.
        on_unmatched: "fail" or "skip": what to do about samples that not all models were given.
        margin: The smallest difference in accuracy that matters, for a test of equivalence.
        method: Replicates, seed and level of the intervals, and the rule of averages.

    Raises:
        InputError: There are fewer than two runs, a file cannot be read, or the runs do not go
            together.
    """
    if len(runs) < 2:  # noqa: PLR2004
        raise InputError(f"compare needs at least two runs, got {len(runs)}")
    if method.group_column is not None or method.class_balanced:
        raise InputError(
            "compare draws single samples, got a method with group_column or class_balanced: "
            "leave these out"
        )
    recorded: list[RecordedData | None] = []
    if isinstance(runs, Mapping):
        columns = {label_column: "label", prediction_column: "prediction"}
        tables = {name: frame.rename(columns=columns) for name, frame in runs.items()}
        present = [set(map(str, frame.columns)) for frame in tables.values()]
        chosen = _key(key, present)
        tables = {name: as_names(frame, [chosen], of=name) for name, frame in tables.items()}
    else:
        options = {"label_column": label_column, "prediction_column": prediction_column}
        read = [read_run(place, key=key, **options) for place in runs]
        tables = {
            name: frame.rename(columns=lambda column: column.removeprefix("kept "))
            for name, (frame, _) in zip(model_names(runs), read, strict=True)
        }
        present = [set(keys) for _, keys in read]
        recorded = [recorded_data(place) for place in runs]
    joined = join(tables, key=_key(key, present), on_unmatched=on_unmatched)
    return _compared(joined, method, margin, tuple(_warnings(joined, recorded)))


def _key(key: str | None, present: Sequence[set[str]]) -> str:
    shared = set.intersection(*present)
    wanted = (key,) if key is not None else ("path", "index")
    for name in wanted:
        if name in shared:
            return name
    raise InputError(
        f"runs must share a column that names the samples, got none of {', '.join(wanted)} in all "
        "of them: name one with key='COLUMN'"
    )


def _warnings(joined: Joined, recorded: Sequence[RecordedData | None]) -> Iterator[str]:
    """Say what makes samples or classes look alike, or unlike, that are not."""
    known = [one for one in recorded if one is not None]
    are_others = len({one.sha256 for one in known}) > 1
    if are_others and len(known) == len(recorded) and not any(joined.unmatched.values()):
        places = some(list(dict.fromkeys(one.name for one in known)))
        yield (
            f"the runs read other data ({places}) under the same {joined.key}: labels, columns or "
            "images differ, so that samples of one name need not be the same"
        )
    without = ~np.isin(joined.predictions, joined.labels)
    for name, number, given in zip(
        joined.names, without.sum(axis=0).tolist(), joined.predictions.T, strict=True
    ):
        if number:
            names = sorted({joined.classes[code] for code in given[~np.isin(given, joined.labels)]})
            yield (
                f"{counted(number, 'prediction')} of {name} {'is' if number == 1 else 'are'} of "
                f"classes without samples: {some(names)}"
            )


def _compared(
    joined: Joined, method: Method, margin: float | None, warnings: tuple[str, ...]
) -> Comparison:
    right = joined.predictions == joined.labels[:, None]
    pairs = tuple(
        compare_pair(joined, first, second, method=method, margin=margin)
        for first, second in combinations(range(len(joined.names)), 2)
    )
    return Comparison(
        names=joined.names,
        key=joined.key,
        samples=len(joined.labels),
        unmatched=dict(joined.unmatched),
        accuracy=dict(zip(joined.names, right.mean(axis=0).tolist(), strict=True)),
        pairs=pairs,
        p_values_holm=tuple(holm([pair.p_value for pair in pairs]).tolist()),
        cochran_q=cochran_q(right) if len(joined.names) > 2 else None,  # noqa: PLR2004
        warnings=warnings,
        margin=margin,
        level=method.level,
        seed=method.seed,
    )
