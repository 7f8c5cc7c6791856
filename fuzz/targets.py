"""What is fuzzed: functions of bytes that come back, or raise because something is wrong.

Each gives the bytes to a reader of files from anywhere, and returns the message by which these
were refused (an `InputError`), or nothing where they were read; any other exception, a hang or a
crash of the process is a fault.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import evalkit.errors
import gpudiag.errors
from evalkit.checkpoint.inspection import inspect_checkpoint
from evalkit.checkpoint.kind import sniff
from evalkit.checkpoint.read import read
from evalkit.data.manifest import manifest
from gpudiag.diagnose import diagnose
from gpudiag.host import Host
from gpudiag.probes import encodable
from gpudiag.probes.environment import environment
from gpudiag.rules import RULES
from gpudiag.snapshot import Snapshot

_KEPT = tempfile.TemporaryDirectory(prefix="fuzz-")  # until the process ends
FOLDER = Path(_KEPT.name)
READ = ""


def sniffer(data: bytes) -> str:
    """The kind of a checkpoint, from its bytes; the first chooses among the suffixes."""
    suffix = (".pth", ".safetensors", ".index.json", ".pt2", "")[data[0] % 5] if data else ""
    path = _file(f"checkpoint{suffix}", data[1:])
    try:
        sniff(path)
    except evalkit.errors.InputError as refusal:
        return str(refusal)
    return READ


def unpickler(data: bytes) -> str:
    """All of a checkpoint, as `evalkit inspect` reads it, without running what is in it."""
    path = _file("checkpoint.pth", data)
    try:
        read(path)
        inspect_checkpoint(path)
    except evalkit.errors.InputError as refusal:
        return str(refusal)
    return READ


def snapshot(data: bytes) -> str:
    """A saved snapshot, written again, read again, and asked all rules."""
    try:
        first = Snapshot.from_json(data)
    except gpudiag.errors.InputError as refusal:
        return str(refusal)
    _judge(first)
    return READ


def lint(data: bytes) -> str:
    """An environment: lines of NAME=value, of any bytes, and what the rules say of them."""
    pairs = (line.partition(b"=") for line in data.split(b"\n"))
    variables = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}
    host = Host(root=FOLDER, environment=variables)
    _judge(encodable(Snapshot(environment=environment(host, 1.0))))
    return READ


def table(data: bytes) -> str:
    """A manifest of images; the first byte chooses between CSV and Parquet."""
    suffix = ".parquet" if data[:1] == b"P" else ".csv"
    path = _file(f"manifest{suffix}", data)
    try:
        source = manifest(path)
    except evalkit.errors.InputError as refusal:
        return str(refusal)
    if len(source) != len(source.paths) or not source.classes:
        raise AssertionError(f"a manifest of {len(source)} samples and {source.classes!r}")
    return READ


TARGETS = {
    "sniffer": sniffer,
    "unpickler": unpickler,
    "snapshot": snapshot,
    "lint": lint,
    "manifest": table,
}


def _judge(first: Snapshot) -> None:
    written = first.to_json()
    if Snapshot.from_json(written).to_json() != written:
        raise AssertionError("a snapshot must be the same after it was written and read")
    report = diagnose(first, RULES)
    if report.crashed:
        raise AssertionError(f"rules must answer or skip, got crashed ones: {report.crashed}")


def _file(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path
