"""Labels that may be wrong: confident learning, from what a table of predictions holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evalkit.scoring.label_errors import LabelErrors


def label_suspects(rows: pd.DataFrame, self_confidence: Mapping[str, float]) -> pd.DataFrame:
    """Samples whose label looks like a mistake, the most suspicious first.

    A sample is suspected when the model gives another class and is as sure of it as it usually is
    of samples that do carry that label. This allows for classes that a model is sure or unsure of.

    Args:
        rows: Columns ``label``, ``prediction``, ``confidence`` and ``label_probability``, one row
            per sample.
        self_confidence: For every class the mean ``label_probability`` of its samples, see
            `evalkit.report.samples.Samples.self_confidence`. A class that is not there is never
            what a label should have been.

    Returns:
        Those rows, by the margin of the given class over the label; none where a column is missing.

    Source:
        Northcutt, Jiang & Chuang, JAIR 70 (2021) 1373: off the diagonal of the confident joint,
        ranked by the normalized margin. Their full method looks at all probabilities of a sample;
        here the given class stands for the most probable one, which it is.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame(
        ...     {
        ...         "label": ["cat", "cat", "dog"],
        ...         "prediction": ["dog", "dog", "dog"],
        ...         "confidence": [0.95, 0.6, 0.9],
        ...         "label_probability": [0.01, 0.4, 0.9],
        ...     }
        ... )
        >>> label_suspects(rows, {"cat": 0.7, "dog": 0.9}).index.tolist()
        [0]
    """
    if not {"confidence", "label_probability"} <= set(rows.columns):
        return rows.iloc[:0]
    usual = rows["prediction"].map(lambda name: self_confidence.get(str(name), np.inf))
    different = rows["label"].astype(object) != rows["prediction"].astype(object)
    sure = rows["confidence"] >= usual.astype(float)
    margin = rows["confidence"] - rows["label_probability"]
    suspects = rows[different & sure & (margin > 0)]
    return suspects.loc[margin[suspects.index].sort_values(ascending=False, kind="stable").index]


def found_again(rows: pd.DataFrame, label_errors: LabelErrors) -> pd.DataFrame:
    """Those of *rows* that are suspected by the probabilities of all classes, in that order.

    Args:
        rows: Column ``row``, the position of a sample in the table.
        label_errors: Positions of the suspects. Those that *rows* lack are left out.

    Example:
        >>> import pandas as pd
        >>> from evalkit.scoring.label_errors import LabelErrors
        >>> rows = pd.DataFrame({"row": [3, 5, 8]})
        >>> found = LabelErrors(rows=np.array([8, 4, 3]), method="by hand")
        >>> found_again(rows, found)["row"].tolist()
        [8, 3]
    """
    places = pd.Index(rows["row"]).get_indexer(pd.Index(label_errors.rows))
    found: pd.DataFrame = rows.iloc[places[places >= 0]]
    return found
