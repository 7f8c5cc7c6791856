"""Where the samples are: class folders, a manifest, tars, a library's data set or one's own."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import models
from evalkit.data import folders, huggingface, manifest, torch_dataset, webdataset
from evalkit.data.source import Loaded, Source
from evalkit.errors import InputError

if TYPE_CHECKING:
    from torch.utils.data import Dataset

__all__ = ["Loaded", "Source", "open_data"]


def open_data(data: str | Path | Source | Dataset[Any]) -> Source:
    """Find the samples that *data* names.

    Args:
        data: One of

            - a folder with one folder per class;
            - a manifest (CSV or Parquet) with the columns ``path``, relative to the manifest, and
              ``label``;
            - "huggingface:PATH" or "huggingface:PATH:SPLIT", a data set of the library datasets;
            - WebDataset tars, "shard.tar" or "shard-{000..012}.tar";
            - a torch Dataset of images and labels, with ``classes``, in memory or as
              "package.module:function" or "file.py:function", which returns one.

    Raises:
        InputError: There are no samples, or it is none of these.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "cat").mkdir(), (root / "dog").mkdir()
        (None, None)
        >>> Image.new("RGB", (8, 8)).save(root / "dog" / "rex.png")
        >>> source = open_data(root)
        >>> source.classes, source.paths
        (('cat', 'dog'), ('dog/rex.png',))
    """
    if isinstance(data, Source):
        return data
    if not isinstance(data, str | PathLike):
        return torch_dataset.in_memory(data)
    path, text = Path(data), str(data)
    if path.is_dir():
        return folders.class_folders(path)
    if path.is_file() and path.suffix.lower() in manifest.SUFFIXES:
        return manifest.manifest(path)
    if text.startswith(huggingface.PREFIX):
        return huggingface.huggingface(text)
    if webdataset.are_tars(text):
        return webdataset.tars(text)
    place, _, name = text.rpartition(":")
    if place and name and not path.exists():
        return torch_dataset.torch_dataset(text, models.load_object(place, name, what="data"))
    what = "a file of another kind" if path.exists() else "a path where there is nothing"
    raise InputError(
        "data must be a folder of class folders, a manifest (.csv or .parquet), WebDataset tars, "
        f"huggingface:PATH or package.module:function, got {path}: {what}"
    )
