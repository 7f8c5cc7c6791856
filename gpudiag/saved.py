"""Saved snapshots: one file, or files and folders of them."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from gpudiag.errors import InputError
from gpudiag.snapshot import Snapshot

LARGEST_BYTES = 64 * 2**20  # of 64 GPUs less than 2 MiB
RECORD_ONE = "record one with 'gpudiag snapshot --output FILE'"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # how some shells write what they redirect


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in a file, as ``gpudiag snapshot`` or ``diagnose --format json`` writes it.

    A pipe that a shell has opened (``/dev/stdin``, ``<(ssh node gpudiag snapshot)``) is read, too.

    Raises:
        InputError: The file cannot be read or holds no snapshot; the message names the file.
    """
    try:
        data = _read(path)
    except OSError as error:
        raise InputError(
            f"expected a snapshot file, got {path}: {error.strerror}; {RECORD_ONE}"
        ) from error
    if not data.strip():
        raise InputError(f"{path}: expected a snapshot in JSON, got an empty file; {RECORD_ONE}")
    try:
        return Snapshot.from_json(_decoded(data))
    except InputError as error:
        told = "; " in str(error)
        raise InputError(f"{path}: {error}{'' if told else f'; {RECORD_ONE}'}") from error


def read_snapshots(paths: Sequence[Path]) -> tuple[dict[str, Snapshot], dict[str, str]]:
    """The snapshots in files, and in ``*.json`` of folders and of folders within them.

    Returns:
        The snapshots by machine and the reasons by file that could not be read. A machine is
        called as its file without ``.json``, with the folders where two files have one name.
    """
    files, failures = _files(paths)
    stems = [file.stem for file in files]
    unique = len(set(stems)) == len(stems)
    snapshots = {}
    for file, stem in zip(files, stems, strict=True):
        try:
            snapshots[stem if unique else str(file.with_suffix(""))] = read_snapshot(file)
        except InputError as error:
            failures[str(file)] = str(error).removeprefix(f"{file}: ")
    return snapshots, failures


def _read(path: Path) -> bytes:
    """The bytes of a file or of a pipe that a shell has opened, never more than the limit."""
    mode = path.stat().st_mode
    opened_by_a_shell = stat.S_ISFIFO(mode) and os.path.realpath(path).startswith("/proc/")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or opened_by_a_shell):
        raise InputError(f"expected a snapshot file, got {path}, which is none; {RECORD_ONE}")
    with path.open("rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise InputError(
            f"expected a snapshot file, got {path} of more than {LARGEST_BYTES // 2**20} MiB; "
            f"{RECORD_ONE}"
        )
    return data


def _decoded(data: bytes) -> bytes:
    """The text in UTF-8, without the mark that some editors and shells put in front."""
    if data.startswith(UTF_16):
        return data.decode("utf-16", errors="replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _files(paths: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    files: dict[Path, None] = {}  # each once, in order
    failures = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*.json") if file.is_file())
            files |= dict.fromkeys(inside)
            if not inside:
                failures[str(path)] = "expected *.json in this folder, got none"
        else:
            files[path] = None
    return list(files), failures
