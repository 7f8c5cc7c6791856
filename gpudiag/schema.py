"""JSON Schemas of the two files that gpudiag writes, derived from the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from gpudiag.render.as_json import Document
from gpudiag.snapshot import SCHEMA_VERSION, Snapshot

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOCUMENTS: dict[str, type[msgspec.Struct]] = {"snapshot": Snapshot, "report": Document}


def json_schema(document: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a snapshot or of a report.

    Args:
        document: "snapshot" (``gpudiag snapshot``) or "report" (``gpudiag diagnose --format
            json``).

    Example:
        >>> json_schema("report")["title"]
        'gpudiag report, schema version 1'
    """
    return {
        "$schema": DIALECT,
        "title": f"gpudiag {document}, schema version {SCHEMA_VERSION}",
        **msgspec.json.schema(DOCUMENTS[document]),
    }
