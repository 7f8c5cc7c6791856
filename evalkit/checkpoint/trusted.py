"""What only runs on request: files that import their own classes and run their code."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit.errors import InputError
from evalkit.user_code import told

if TYPE_CHECKING:
    from collections.abc import Iterator


# What code in a file may raise that is not a missing class.


def read_trusted(path: Path, *, is_script: bool) -> Any:
    """Return what a file holds, with its own classes; modules in the current directory are found.

    Args:
        path: The file. Whoever wrote it decides what runs here.
        is_script: It is a TorchScript archive.

    Raises:
        InputError: A class that it needs cannot be imported, or its code fails.
    """
    try:
        with _modules_of(Path.cwd()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch would rather have another format
            if is_script:
                return torch.jit.load(  # type: ignore[no-untyped-call]
                    path, map_location="cpu"
                )
            return torch.load(path, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{path}: expected the file's own classes to be importable, got "
            f"'{' '.join(str(error).split())}': run this in the folder of the project that wrote "
            "the file, or read the weights alone, without trust=True"
        ) from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{path}: expected the file's own code to rebuild its objects, got "
            f"{told(error)}: read the weights alone, without trust=True"
        ) from error


@contextmanager
def _modules_of(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
