"""A part of the predictions: what the model said of some thousand samples, as one file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.errors import InputError
from evalkit.images.batches import Audit
from evalkit.inference.outputs import Integers, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evalkit.run.cut import Cut

KEY = b"evalkit"  # of what a file says of itself
FLAGS = ("finite", "masked", "tied", "like_probabilities", "within_one")
LISTS = ("top", "as_logits", "as_probabilities", "scores")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The samples at the positions of one shard: those that were scored, and what became of others.

    Attributes:
        number: Which one.
        indices: Positions of the scored samples, ascending, shape (B,).
        rows: What is kept of them; None where there are none.
        audit: What was noticed while they were read.
    """

    number: int
    indices: Integers
    rows: Rows | None
    audit: Audit

    def refuse_unless_whole(self, cut: Cut) -> None:
        """Prove that every position of the shard was counted once.

        Raises:
            InputError: One is missing or there twice.
        """
        left_out = [one.index for one in self.audit.unreadable]
        left_out += [one.index for one in self.audit.set_aside]
        found = np.sort(np.concatenate([self.indices, np.array(left_out, dtype=np.int64)]))
        expected = cut.positions(self.number)
        if not np.array_equal(found, np.arange(expected.start, expected.stop)):
            raise InputError(
                f"every sample from {expected.start} to {expected.stop - 1} must be counted once, "
                f"got {len(self.indices)} scored and {len(left_out)} left out in shard "
                f"{self.number}: remove that file and go on with resume=True"
            )


def to_bytes(shard: Shard, *, run: str) -> bytes:
    """The file of a shard.

    Args:
        shard: Its content.
        run: Name of the run that it belongs to.
    """
    columns: dict[str, Any] = {"index": pa.array(shard.indices, pa.int64())}
    gave_probabilities = True
    if shard.rows is not None:
        rows = shard.rows
        gave_probabilities = bool(rows.like_probabilities.all())
        columns["label"] = pa.array(rows.labels, pa.int32())
        columns |= {name: pa.array(getattr(rows, name)) for name in FLAGS}
        columns["top"] = _lists(rows.top.astype(np.int32))
        for name in LISTS[1:]:
            if (values := getattr(rows, name)) is not None:
                columns[name] = _lists(values)
    said = {
        "run": run,
        "shard": shard.number,
        "gave_probabilities": gave_probabilities,
        "audit": shard.audit.as_dict(),
    }
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(said)})
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
    return stream.getvalue()


def said_by(path: Path) -> dict[str, Any]:
    """What a file says of itself: the run, the number, and whether it may hold probabilities.

    Raises:
        InputError: It is no shard, or a damaged one.
    """
    try:
        metadata = pq.read_metadata(path).metadata or {}
        said: dict[str, Any] = json.loads(metadata[KEY])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(_damaged(path, error)) from error
    return said


def read_shard(path: Path) -> Shard:
    """Read a file, every page checked against its checksum.

    Raises:
        InputError: It is no shard, or a damaged one.
    """
    said = said_by(path)
    try:
        table = pq.read_table(path, page_checksum_verification=True, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(_damaged(path, error)) from error
    indices = table["index"].to_numpy()
    return Shard(
        number=said["shard"],
        indices=indices,
        rows=_rows(table) if len(indices) else None,
        audit=Audit.from_dict(said["audit"]),
    )


def join(shards: Sequence[Shard]) -> tuple[Integers, Rows | None]:
    """The scored samples of shards behind each other: their positions, and what is kept."""
    parts = [shard.rows for shard in shards if shard.rows is not None]
    indices = np.concatenate([shard.indices for shard in shards])
    return indices, Rows.joined(parts) if parts else None


def _rows(table: pa.Table) -> Rows:
    lists = {name: _array(table[name]) for name in LISTS if name in table.column_names}
    return Rows(
        labels=table["label"].to_numpy().astype(np.int64),
        top=lists["top"].astype(np.int64),
        finite=table["finite"].to_numpy(),
        masked=table["masked"].to_numpy(),
        tied=table["tied"].to_numpy(),
        like_probabilities=table["like_probabilities"].to_numpy(),
        within_one=table["within_one"].to_numpy(),
        as_logits=lists["as_logits"],
        as_probabilities=lists["as_probabilities"],
        scores=lists.get("scores"),
    )


def _lists(values: np.ndarray[Any, Any]) -> pa.FixedSizeListArray:
    """Rows of an array of shape (B, K), as lists."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _array(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Lists of one length as an array of shape (B, K)."""
    lists = column.combine_chunks()
    values: np.ndarray[Any, Any] = lists.flatten().to_numpy()
    return values.reshape(len(lists), -1)


def _damaged(path: Path, error: Exception) -> str:
    what = " ".join(str(error).split())
    return (
        f"predictions must be whole to go on with them, got {path}: {what}: remove this file and "
        "go on with resume=True"
    )
