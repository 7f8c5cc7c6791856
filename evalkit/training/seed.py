"""One seed for every source of randomness."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from evalkit.errors import InputError

LARGEST = 2**32 - 1  # what NumPy's global generator takes


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed Python, NumPy's global generator, and torch on the CPU and on every GPU.

    Workers of a DataLoader are seeded by torch from these seeds, NumPy and Python in them too
    (torch 1.9 and later); the order of a shuffling DataLoader is repeatable by itself only with a
    generator of its own: ``DataLoader(…, generator=torch.Generator().manual_seed(seed))``. The
    order of Python's sets of text is decided before any program runs, by PYTHONHASHSEED.

    Args:
        seed: From 0 to 2**32 - 1.
        deterministic: Also refuse operations whose results vary from run to run, and let cuDNN
            not choose algorithms by speed. Slower. For cuBLAS the variable
            CUBLAS_WORKSPACE_CONFIG is set, which works until CUDA is first used. False changes
            none of these settings.

    Raises:
        InputError: *seed* is out of range.

    Example:
        >>> seed_everything(7)
        >>> first = random.random(), np.random.rand(), torch.rand(()).item()
        >>> seed_everything(7)
        >>> first == (random.random(), np.random.rand(), torch.rand(()).item())
        True
    """
    if not 0 <= seed <= LARGEST:
        raise InputError(f"seed must be from 0 to {LARGEST}, got {seed}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that other people's code draws from
    torch.manual_seed(seed)  # every device, those initialised later as well
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
