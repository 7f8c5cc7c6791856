"""What makes two runs the same: checkpoint, data, transform and options, as fingerprints."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit.errors import InputError
from evalkit.user_code import code_digest
from evalkit.wording import some
from gpudiag.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pandas as pd
    from torch import nn

    from evalkit.data import Source
    from evalkit.run.plan import Plan

FORMAT = 1  # of the files of an unfinished run
AT_ONCE = 65_536  # names that are hashed together
DIGEST_LENGTH = 64  # of a SHA-256 in hexadecimal
ASKING = 16  # threads that ask for the sizes of files, which wait for the disk or the network
OF_SAMPLES = ("paths", "labels", "sizes", "version")  # of the data
Identity = dict[str, dict[str, Any]]


def identity(plan: Plan) -> Identity:
    """Everything that predictions depend on, in values for JSON.

    Of the model these are its class, what it was built from, its code and its values, of the data
    the paths, labels, columns and the sizes of the files. Which device it is does not count, only
    its kind.
    """
    how = plan.computation
    return {
        "evalkit": {"version": __version__, "format": FORMAT, "torch": str(torch.__version__)},
        "checkpoint": {"sha256": plan.report.sha256, "weights": plan.report.weights},
        "model": {
            "class": type(plan.model).__name__,
            "spec": plan.spec,
            "code": code_of(plan.model, plan.spec),
            "values": values_of(plan.model),
        },
        "classes": {"number": len(plan.classes), "names": _digest(plan.classes)},
        "data": {"samples": len(plan.source), **_data(plan.source)},
        "transform": plan.transform.as_dict(),
        "options": {
            "batch_size": plan.batch_size,
            "precision": how.precision,
            "device": torch.device(how.device).type,
            "channels_last": how.channels_last,
            "compile": how.compiled,
            "save_probabilities": how.scores,
            **plan.reading,
        },
    }


def refuse_differences(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """Raise unless two identities are the same.

    Args:
        before: Of the run that is to be gone on with.
        now: Of this one.
        where: What holds the former.

    Raises:
        InputError: They are not; all differences are named.
    """
    found = list(_differences(before, now))
    if found:
        raise InputError(
            f"resume must go on with the same checkpoint, data, transform and options, got other "
            f"ones than {where} began with: {some(found, 8)}: give those, or remove that folder "
            "and begin anew"
        )


def values_of(model: nn.Module) -> str:
    """A fingerprint of all values of a model, under their names.

    Example:
        >>> from torch import nn
        >>> values_of(nn.Identity()) == values_of(nn.Identity())
        True
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            kind = f"{name} {value.dtype} {tuple(value.shape)}"
            values = value.detach().cpu().contiguous()
            if not values.is_quantized:
                digest.update(kind.encode())
                digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
                continue
        digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()


def code_of(model: nn.Module, spec: str | None) -> str:
    """A fingerprint of the files that a model is written in, but for those of libraries.

    Example:
        >>> from torch import nn
        >>> code_of(nn.Identity(), "torchvision:resnet18") == code_of(nn.Linear(1, 1), None)
        True
    """
    return code_digest({type(one) for one in model.modules()}, spec=spec)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for section in dict.fromkeys([*before, *now]):
        old, new = before.get(section, {}), now.get(section, {})
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                yield f"{section} {name} {_short(new.get(name))} instead of {_short(old.get(name))}"


def _short(value: object) -> str:
    is_digest = isinstance(value, str) and len(value) == DIGEST_LENGTH
    return f"{str(value)[:8]}…" if is_digest else str(value)


def data_of(found: Identity) -> str:
    """A fingerprint of the samples alone, wherever they lie and whatever else is known of them."""
    return _digest([f"{name}={found['data'][name]}" for name in OF_SAMPLES])


def _data(source: Source) -> dict[str, str | None]:
    labels = getattr(source, "labels", None)
    return {
        "paths": _digest(source.paths),
        "labels": None if labels is None else _digest(labels),
        "classes": _digest(source.classes),
        "columns": None if source.columns is None else _digest(_lines(source.columns)),
        "sizes": _sizes(source),
        "version": source.version,
        "code": source.code,
    }


def _digest(names: Iterable[object]) -> str:
    digest, rest = hashlib.sha256(), iter(names)
    while part := list(islice(rest, AT_ONCE)):
        lines = [f"{len(text)}:{text}" for text in map(str, part)]  # no name is two others together
        digest.update("".join(lines).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _lines(columns: pd.DataFrame) -> Iterator[str]:
    yield ",".join(map(str, columns.columns))
    for start in range(0, len(columns), AT_ONCE):
        yield columns.iloc[start : start + AT_ONCE].to_csv(header=False, index=False)


def _sizes(source: Source) -> str | None:
    """A fingerprint of the sizes of all files, where the samples are files.

    Not of their times, which a copy does not keep: a file that was replaced by another one of the
    same size is not noticed.
    """
    root = image_folder(source)
    if root is None:
        return None

    def size(path: str) -> int:
        try:
            return (root / path).stat().st_size
        except (OSError, ValueError):  # the latter for a name that no file can have
            return -1

    digest, rest = hashlib.sha256(), iter(source.paths)
    with ThreadPoolExecutor(ASKING, thread_name_prefix="size") as pool:
        while part := list(islice(rest, AT_ONCE)):
            digest.update(",".join(map(str, pool.map(size, part))).encode() + b",")
    return digest.hexdigest()


def image_folder(source: Source) -> Path | None:
    """Return what the paths of the samples are relative to; a Dataset of one's own has no files."""
    place = Path(source.name)
    if place.is_dir():
        return place
    return place.parent if place.is_file() else None
