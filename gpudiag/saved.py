"""Saved snapshots: one file, or files and folders of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpudiag.errors import InputError
from gpudiag.snapshot import Snapshot


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in a file, as ``gpudiag snapshot`` or ``diagnose --format json`` writes it.

    Raises:
        InputError: The file cannot be read or holds no snapshot; the message names the file.
    """
    try:
        return Snapshot.from_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"expected a snapshot file, got {path}: {error.strerror}; "
            "record one with 'gpudiag snapshot --output FILE'"
        ) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


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
