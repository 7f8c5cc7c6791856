"""Libraries that decode JPEG files: which there are, and which give the very pixels of Pillow."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image

from evalkit.errors import InputError
from evalkit.images.geometry import as_tensor
from evalkit.images.reading import finished, opened

COLOURS = {"RGB": "RGB", "L": "GRAY"}  # Pillow's names -> those of the libraries


@dataclass(frozen=True, kw_only=True)
class Jpegs:
    """A library that decodes JPEG files into tensors.

    Attributes:
        name: With its version.
        decode: From files and "RGB" or "GRAY" and a device to pixels, uint8, shape (C, H, W) each,
            the colours side by side in memory. Raises RuntimeError.
    """

    name: str
    decode: Callable[[Sequence[torch.Tensor], str, str], list[torch.Tensor]]


@functools.cache
def exact_jpegs() -> Jpegs | None:
    """Return the first library that is installed and gives the very pixels of Pillow, or None."""
    found = (load() for load in CANDIDATES.values())
    return next((one for one in found if one is not None and equals_pillow(one)), None)


def gpu_jpegs() -> Jpegs:
    """Return the library that decodes on a GPU.

    Raises:
        InputError: There is no GPU, or no such library.
    """
    if not torch.cuda.is_available():
        raise InputError(
            "decode must be cpu where torch sees no CUDA device, got 'gpu': run 'gpudiag diagnose' "
            "to see why"
        )
    library = next(filter(None, (CANDIDATES[name]() for name in ON_A_GPU)), None)
    if library is None:
        raise InputError(
            "decode must be cpu where neither torchcodec nor torchvision's decoders can be loaded, "
            "got 'gpu': pip install torchcodec"
        )
    return Jpegs(name=f"nvJPEG by {library.name}", decode=library.decode)


def equals_pillow(library: Jpegs) -> bool:
    """Whether a library decodes a few JPEG files of every kind into the very pixels of Pillow.

    Both contain a libjpeg; which one, and how it rounds, depends on who built them.
    """
    options: tuple[dict[str, Any], ...] = (
        {},
        {"progressive": True},
        {"subsampling": 0, "quality": 95},
    )
    return all(
        _decodes_as_pillow(library, _jpeg(mode, **each), mode)
        for mode in ("RGB", "L")
        for each in options
    )


@functools.cache
def fills_in_as_pillow(library: Jpegs) -> bool:
    """Whether a progressive file that lacks its last scans, too, gives the very pixels of Pillow.

    What stands in their place changed in libjpeg-turbo 2.1; torchvision before 0.27 brings 2.0.
    """
    for mode in ("RGB", "L"):
        encoded = _jpeg(mode, progressive=True)
        while (scan := encoded.rindex(b"\xff\xda")) != encoded.index(b"\xff\xda"):
            encoded = encoded[:scan]
            if not _decodes_as_pillow(library, encoded + b"\xff\xd9", mode):
                return False
    return True


def _jpeg(mode: str, **options: Any) -> bytes:
    """A small picture of waves and noise, encoded."""
    rows, columns = np.mgrid[0:83, 0:61]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin(rows * columns / 900)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 10, waves.shape)
    picture = Image.fromarray((waves * 90 + 127 + noise).clip(0, 255).astype(np.uint8))
    stream = io.BytesIO()
    picture.convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def _decodes_as_pillow(library: Jpegs, encoded: bytes, mode: str) -> bool:
    with opened(encoded) as image:
        expected = as_tensor(finished(image, mode)[0])
    data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    try:
        (given,) = library.decode([data], COLOURS[mode], "cpu")
    except RuntimeError:  # built without libjpeg
        return False
    return torch.equal(given, expected)


def _simplejpeg() -> Jpegs | None:
    try:
        import simplejpeg
    except ImportError:  # not there, or for another NumPy
        return None

    def decode(encoded: Sequence[torch.Tensor], colours: str, _device: str) -> list[torch.Tensor]:
        try:
            # strict: what libjpeg warns of is Pillow's to judge
            images = [simplejpeg.decode_jpeg(one.numpy(), colours, strict=True) for one in encoded]
        except ValueError as error:
            raise RuntimeError(str(error)) from error
        return [torch.from_numpy(one).permute(2, 0, 1) for one in images]

    return Jpegs(name=f"simplejpeg {version('simplejpeg')}", decode=decode)


def _torchcodec() -> Jpegs | None:
    try:
        from torchcodec import decoders
    except (ImportError, OSError, RuntimeError):  # not there, or for another torch
        return None
    read: Any = getattr(decoders, "decode_jpeg", None)  # since 0.16
    if read is None:
        return None

    def decode(encoded: Sequence[torch.Tensor], colours: str, device: str) -> list[torch.Tensor]:
        found: list[torch.Tensor] = read(list(encoded), mode=colours, device=device)
        return found

    return Jpegs(name=f"torchcodec {version('torchcodec')}", decode=decode)


def _torchvision() -> Jpegs | None:
    try:
        from torchvision import io as torchvision_io
    except (ImportError, AttributeError, RuntimeError):  # without its native part, or without any
        return None
    read: Any = getattr(torchvision_io, "decode_jpeg", None)  # deprecated since 0.29
    if read is None:
        return None

    def decode(encoded: Sequence[torch.Tensor], colours: str, device: str) -> list[torch.Tensor]:
        mode = torchvision_io.ImageReadMode[colours]
        found: list[torch.Tensor] = read(list(encoded), mode=mode, device=device)
        return found

    return Jpegs(name=f"torchvision {version('torchvision')}", decode=decode)


# The best one first: it needs no torch, the second is made for this torch, the third is deprecated.
CANDIDATES = {"simplejpeg": _simplejpeg, "torchcodec": _torchcodec, "torchvision": _torchvision}
ON_A_GPU = ("torchcodec", "torchvision")
