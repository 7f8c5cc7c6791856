"""What an evaluation found: the tables, the numbers, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.csv_faults import twins
from evalkit.errors import InputError
from evalkit.output_names import names_given
from evalkit.predictions import arrange, read_batches, recorded_classes
from evalkit.report.headline import level_of
from evalkit.report.html import as_html
from evalkit.report.markdown import as_markdown
from evalkit.report.plots import plots as draw_plots
from evalkit.report.samples import Samples
from evalkit.report.tables import write_tables
from evalkit.report.text import as_html_table, one_line
from evalkit.scoring.calibration import reliability
from evalkit.scoring.method import USUAL
from evalkit.scoring.repeats import Repeats
from evalkit.scoring.selective import coverage_risk, thresholds
from evalkit.scoring.sparse import DENSE_CLASSES
from evalkit.scoring.study import Study
from evalkit.summary import RECORDED_BY_THE_RUN
from evalkit.wording import counted, some

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.scoring.calibration import Cells
    from evalkit.scoring.label_errors import LabelErrors
    from evalkit.scoring.method import Method
    from evalkit.scoring.sparse import SparseConfusion


ORDER_UNKNOWN = (
    "the lists in probabilities have one number for each class, in an order that nobody named: "
    "name the classes with classes (--classes FILE)"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The result of an evaluation; a notebook shows its table.

    Attributes:
        confusion: Counts, shape (C, C), rows true and columns given classes; above 10,000 classes
            one row per cell that is not 0 instead, with the columns true, predicted and count.
        cells: The cells that are not 0.
        per_class: One row per class, see `evalkit.per_class_scores`.
        summary: What ``summary.json`` holds: fractions in [0, 1], ``None`` for what is undefined
            or unknown, and for each of these the reason in ``not_available``.
        predictions: One row per sample, or nothing where they came from a table that exists.
        slices: One row per slice, see `evalkit.scoring.slices.Slices.table`; nothing where none
            were asked for.
        ranking: AUROC and average precision of every class against the others, see
            `evalkit.scoring.ranking.ranking_table`; nothing without the probabilities of all
            classes.
        confidences: Samples by confidence, see `evalkit.scoring.calibration.confidence_cells`;
            nothing without the column.
        label_errors: Samples whose label is suspected, by the probabilities of all classes;
            nothing without these.
        record: How the predictions were made, as it was given.
        samples: Those of them that the report shows.
        images: Folder that their paths are relative to, where there is one.

    Example:
        >>> import pandas as pd
        >>> predictions = pd.DataFrame({"label": ["cat", "dog"], "prediction": ["cat", "cat"]})
        >>> Evaluation.from_predictions(predictions, classes=["cat", "dog"]).summary["accuracy"]
        0.5
    """

    confusion: pd.DataFrame
    cells: SparseConfusion
    per_class: pd.DataFrame
    summary: dict[str, Any]
    predictions: pd.DataFrame | None = None
    slices: pd.DataFrame | None = None
    ranking: pd.DataFrame | None = None
    confidences: Cells | None = None
    label_errors: LabelErrors | None = None
    record: Mapping[str, Any] | None = None
    samples: Samples | None = None
    images: Path | None = None

    @classmethod
    def from_predictions(
        cls,
        predictions: pd.DataFrame,
        *,
        classes: Sequence[str] | Mapping[str, int],
        run: Mapping[str, Any] | None = None,
        method: Method = USUAL,
        group_by: Sequence[str] = (),
        images: Path | None = None,
    ) -> Evaluation:
        """Score predictions.

        Args:
            predictions: One row per sample with the columns ``label`` and ``prediction`` (class
                names, text or categorical), any others of `evalkit.predictions.COLUMNS`, and
                whatever else is known of a sample. Values of ``index`` differ from each other.
            classes: Names of the C classes, in class order, or a dict from name to position.
            run: How the predictions were made: any of ``unreadable``, ``checkpoint``, ``model``,
                ``transform``, ``precision_flags``, ``environment``, ``throughput``, the lists
                ``checks`` (as `evalkit.checks.Check.as_dict` gives them) and ``warnings``, and in
                ``scores`` the figures that only the run could know (``nll``, ``brier``, ``ece``,
                and ``top_k`` from k to fraction); these take precedence over what the columns
                tell.
            method: How scores are averaged, and how their intervals are made.
            group_by: Columns whose values make slices.
            images: Folder that the column ``path`` is relative to, for thumbnails in the report.

        Raises:
            InputError: There are no rows, a column is missing, a sample is there twice, a class
                is missing or not among *classes*, or *run* holds an unknown key.
        """
        _refuse_unusable(predictions, run or {})
        study, samples = Study(method=method, group_by=group_by), Samples()
        study.add(predictions)
        samples.add(predictions)
        return cls(
            **study.results(names_given(classes), run=run),
            predictions=arrange(predictions),
            record=run,
            samples=samples,
            images=images,
        )

    @classmethod
    def from_table(
        cls,
        table: Path | str,
        *,
        label_column: str = "label",
        prediction_column: str = "prediction",
        confidence_column: str | None = None,
        classes: Sequence[str] | Mapping[str, int] | None = None,
        method: Method = USUAL,
        group_by: Sequence[str] = (),
        images: Path | None = None,
    ) -> Evaluation:
        """Score anyone's table of predictions, which may be larger than memory.

        Args:
            table: CSV or Parquet file with one row per sample, see
                `evalkit.predictions.read_batches`.
            label_column: True class.
            prediction_column: Given class.
            confidence_column: Probability of the given class; ``confidence`` where there is one.
            classes: Names of the classes in their order, or a dict from name to position; otherwise
                those of a ``predictions.parquet`` of ours, or those that occur, sorted.
            method: How scores are averaged, and how their intervals are made.
            group_by: Columns whose values make slices.
            images: Folder that the column ``path`` is relative to, for thumbnails in the report.

        Raises:
            InputError: The file cannot be read, lacks a column or rows, a class is missing or not
                among *classes*, or *confidence_column* holds anything but probabilities.
        """
        study, samples, repeats = Study(method=method, group_by=group_by), Samples(), Repeats()
        for batch in read_batches(
            Path(table),
            label_column=label_column,
            prediction_column=prediction_column,
            confidence_column=confidence_column,
            keep=study.columns,
        ):
            study.add(batch)
            samples.add(batch)
            repeats.add(batch)
        tally = study.tally
        if not tally.samples:
            raise InputError(
                f"table must have a header and at least one row, got {table} with no rows"
            )
        if classes is None and (alike := twins(tally.classes())):
            raise InputError(
                f"table must have classes that more than blanks tell apart, got {alike} in "
                f"{table}: remove the blanks"
            )
        names: Sequence[str] | None = None if classes is None else names_given(classes)
        if names is None:
            names = _in_order(tally.classes(), recorded_classes(Path(table)))
        if names is None:
            study.probabilities.refuse_lists(ORDER_UNKNOWN)
        results = study.results(names if names is not None else tally.classes())
        results["summary"]["warnings"] += filter(None, [repeats.warning()])
        if confidence_column is not None and tally.invalid("confidence"):
            raise InputError(tally.invalid("confidence").replace("confidence", confidence_column))
        return cls(**results, samples=samples, images=images)

    def scored_by(self, method: Method, *, group_by: Sequence[str] = ()) -> Evaluation:
        """The same predictions, scored another way.

        Args:
            method: How scores are averaged, and how their intervals are made.
            group_by: Columns whose values make slices.

        Raises:
            InputError: There are no predictions, or as for `from_predictions`.
        """
        if self.predictions is None:
            raise InputError(
                "only an evaluation with its predictions can be scored another way, got one of a "
                "table: give method and group_by to from_table"
            )
        study = Study(method=method, group_by=group_by)
        study.add(self.predictions)
        return replace(self, **study.results(list(self.per_class.index), run=self.record))

    def save(
        self, folder: Path | str, *, thumbnails: bool = True, plots: bool = False
    ) -> list[Path]:
        """Write the report, all files whole or none; others in *folder* stay as they are.

        Args:
            folder: Made where it does not exist.
            thumbnails: Whether ``report.html`` shows the images of samples, where there are any.
            plots: Whether to draw the matrix and the diagrams as PNG and SVG files as well.

        Returns:
            ``per_class.csv``, ``confusion_matrix.csv``, ``summary.json``, ``report.html``,
            ``summary.md``, where there are predictions ``predictions.parquet``, and the plots.

        Raises:
            InputError: *folder* has no name, is a file, cannot be written to or holds files of
                somebody else's under these names, the predictions hold what Parquet cannot, or a
                library that the report needs is not installed.
        """
        if folder == "":  # it would be the current folder, which nobody named
            raise InputError("folder must be named, got an empty name: '.' is the current folder")
        return write_tables(
            Path(folder),
            per_class=self.per_class,
            confusion=self.confusion if self._is_square else self.cells,
            summary=self.summary,
            predictions=self.predictions,
            further={
                "slices.csv": self.slices,
                "ranking.csv": self.ranking.reset_index() if self.ranking is not None else None,
                "reliability.csv": self.reliability,
                "coverage_risk.csv": self.coverage_risk,
                "thresholds.csv": self.thresholds,
            },
            documents=self._documents(thumbnails, plots),
        )

    @cached_property
    def reliability(self) -> pd.DataFrame | None:
        """See `evalkit.scoring.calibration.reliability`; nothing without confidences."""
        cells = self.confidences
        return None if cells is None else reliability(cells, level=level_of(self))

    @cached_property
    def coverage_risk(self) -> pd.DataFrame | None:
        """See `evalkit.scoring.selective.coverage_risk`; nothing without confidences."""
        cells = self.confidences
        return None if cells is None else coverage_risk(cells, level=level_of(self))

    @cached_property
    def thresholds(self) -> pd.DataFrame | None:
        """See `evalkit.scoring.selective.thresholds`; nothing without confidences."""
        return None if self.confidences is None else thresholds(self.confidences)

    @property
    def _is_square(self) -> bool:
        return len(self.cells) <= DENSE_CLASSES

    def _documents(self, thumbnails: bool, plots: bool) -> dict[str, bytes]:  # noqa: FBT001
        page = as_html(self, images=self.images if thumbnails else None)
        return {
            "report.html": page.encode(errors="xmlcharrefreplace"),
            "summary.md": as_markdown(self).encode(errors="backslashreplace"),
            **(draw_plots(self) if plots else {}),
        }

    def _repr_html_(self) -> str:
        return as_html_table(self)

    def __str__(self) -> str:
        return one_line(self)

    def __repr__(self) -> str:  # the tables themselves would fill screens
        return f"<Evaluation: {one_line(self)}>"


def _in_order(occurring: Sequence[str], stored: Sequence[str] | None) -> Sequence[str] | None:
    """Return the classes that a table names in their order, if they are those of its columns."""
    return stored if stored is not None and set(occurring) <= set(stored) else None


def _refuse_unusable(predictions: pd.DataFrame, run: Mapping[str, Any]) -> None:
    absent = [name for name in ("label", "prediction") if name not in predictions]
    if absent:
        raise InputError(
            "predictions must have the columns label and prediction, "
            f"got no {' and no '.join(absent)} among {', '.join(map(str, predictions.columns))}"
        )
    if predictions.columns.has_duplicates:
        doubled = predictions.columns[predictions.columns.duplicated()].unique().tolist()
        raise InputError(
            f"predictions must have every column once, got {some(doubled)} more than once: "
            "rename the others"
        )
    if predictions.empty:
        raise InputError("predictions must have at least one row, got none")
    if "index" in predictions and predictions["index"].duplicated().any():
        twice = predictions["index"][predictions["index"].duplicated()].unique()
        raise InputError(
            f"predictions must have every sample once, got {counted(len(twice), 'value')} of "
            f"index more than once, the first {twice[0]}"
        )
    unknown = sorted(set(run) - {*RECORDED_BY_THE_RUN, "checks", "warnings", "scores"})
    if unknown:
        raise InputError(
            f"run must hold only {', '.join(RECORDED_BY_THE_RUN)}, checks, warnings and scores, "
            f"got {', '.join(unknown)}"
        )
