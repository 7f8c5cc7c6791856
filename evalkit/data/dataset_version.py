"""What tells a torch Dataset from another one of the same length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch.utils.data import ConcatDataset, Subset

# Where Datasets keep which files they read, and the classes of their samples.
TELLING = ("indices", "samples", "imgs", "files", "paths", "targets", "labels")


def parts_of(dataset: Any) -> Iterator[Any]:
    """Yield a Dataset and all those that it takes its samples from."""
    yield dataset
    inner = [dataset.dataset] if isinstance(dataset, Subset) else []
    inner = [*dataset.datasets] if isinstance(dataset, ConcatDataset) else inner
    for one in inner:
        yield from parts_of(one)


def version_of(dataset: Any) -> str:
    """A fingerprint of what a Dataset says of its samples: which of others, files, labels.

    Pixels are not looked at: other ones under the same names are not noticed.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> import torch
        >>> whole = TensorDataset(torch.arange(9))
        >>> version_of(Subset(whole, [1, 2])) == version_of(Subset(whole, [1, 3]))
        False
    """
    digest = hashlib.sha256()
    for part in parts_of(dataset):
        digest.update(f"{len(part)} samples\n".encode())
        for name in TELLING:
            value = getattr(part, name, None)
            if value is not None and hasattr(value, "tolist"):
                value = value.tolist()
            if isinstance(value, list | tuple | range):
                digest.update(f"{name}: ".encode())
                for one in value:
                    digest.update(f"{one}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()
