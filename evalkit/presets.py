"""The transform that a model brings along, as the library that it comes from keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit.models import import_torchvision
from evalkit.transforms import INTERPOLATIONS, TransformSpec, evaluation

if TYPE_CHECKING:
    import torch


def preset_of(model: torch.nn.Module, spec: str | None) -> TransformSpec | None:
    """Return the transform for evaluation that a model brings along, or None.

    Args:
        model: With an attribute ``transform`` that holds a `TransformSpec`, or with timm's
            ``pretrained_cfg``.
        spec: What it was built from; torchvision keeps the presets under the model's name.
    """
    own = getattr(model, "transform", None)
    if isinstance(own, TransformSpec):
        return own
    config = getattr(model, "pretrained_cfg", None)
    if isinstance(config, Mapping) and "crop_pct" in config:
        return _of_timm(config)
    library, _, name = (spec or "").partition(":")
    return _of_torchvision(name) if library == "torchvision" else None


def _of_timm(config: Mapping[str, Any]) -> TransformSpec:
    _channels, height, width = config["input_size"]
    interpolation = config.get("interpolation", "bicubic")
    return evaluation(
        resize=int(min(height, width) / config["crop_pct"]),
        crop=(height, width),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _of_torchvision(name: str) -> TransformSpec:
    preset = import_torchvision().models.get_model_weights(name).DEFAULT.transforms()
    return evaluation(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
