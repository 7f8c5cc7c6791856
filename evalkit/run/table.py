"""The table of predictions as it grows: in a Parquet file, or in memory."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.errors import InputError
from evalkit.predictions import arrange, with_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd


@contextmanager
def parquet(path: Path, columns: pd.DataFrame | None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write a Parquet file part by part; it is on the disk when the block ends well.

    Args:
        path: The file; replaced where it exists.
        columns: What the data say of their samples besides: all rows, which tell their types
            where a part has only gaps.

    Yields:
        What takes a part of the table. All parts have the same columns.

    Raises:
        InputError: A column holds what Parquet cannot.
    """
    with path.open("wb") as stream:
        writer: pq.ParquetWriter | None = None

        def take(part: pd.DataFrame) -> None:
            nonlocal writer
            part = arrange(part)
            try:
                if writer is None:
                    schema = with_classes(_schema(part, columns), part["label"].cat.categories)
                    writer = pq.ParquetWriter(stream, schema, compression="zstd")
                writer.write_table(
                    pa.Table.from_pandas(part, schema=writer.schema, preserve_index=False)
                )
            except (pa.ArrowException, UnicodeEncodeError) as error:
                what = " ".join(str(error).split())
                raise InputError(
                    "predictions must have columns of one type each to be written as Parquet, "
                    f"got {what}"
                ) from error

        try:
            yield take
        finally:
            if writer is not None:
                writer.close()
        stream.flush()
        os.fsync(stream.fileno())


def _schema(part: pd.DataFrame, columns: pd.DataFrame | None) -> pa.Schema:
    schema = pa.Schema.from_pandas(part, preserve_index=False)
    if columns is None:
        return schema
    for name in columns:
        kind = pa.Schema.from_pandas(columns[[name]], preserve_index=False).field(0).type
        schema = schema.set(schema.get_field_index(name), pa.field(name, kind))
    return schema
