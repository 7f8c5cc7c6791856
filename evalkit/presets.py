"""The transform that a model brings along, as the library that it comes from keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.models import import_torchvision
from evalkit.transforms import INTERPOLATIONS, Size, TransformSpec, evaluation

if TYPE_CHECKING:
    import torch

CROPS = ("center", "squash")  # ways of timm to come to the middle of an image


def preset_of(
    model: torch.nn.Module, spec: str | None, *, in_training: bool = False
) -> TransformSpec | None:
    """Return the transform for evaluation that a model brings along, or None.

    Args:
        model: With an attribute ``transform`` that holds a `TransformSpec`, or with timm's
            ``pretrained_cfg``.
        spec: What it was built from; torchvision keeps the presets under the model's name.
        in_training: Whether the model is to be trained: timm's script that validates takes some
            models at a larger size than they are trained at.

    Raises:
        InputError: It frames images, which no transform of ours does; a model that is to be trained
            will learn without.
    """
    own = getattr(model, "transform", None)
    if isinstance(own, TransformSpec):
        return own
    config = getattr(model, "pretrained_cfg", None)
    if isinstance(config, Mapping) and "crop_pct" in config:
        return _of_timm(config, in_training=in_training)
    library, _, name = (spec or "").partition(":")
    return _of_torchvision(name) if library == "torchvision" else None


def _of_timm(config: Mapping[str, Any], *, in_training: bool) -> TransformSpec:
    import timm.data

    library: Any = timm.data
    told = library.resolve_data_config(pretrained_cfg=dict(config), use_test_size=not in_training)
    _channels, height, width = told["input_size"]
    if told["crop_mode"] not in CROPS and not in_training:
        raise InputError(
            f"transform must be given for this model, got timm's for {config.get('architecture')} "
            f"with crop_mode '{told['crop_mode']}', which frames images: write another into a file "
            "(--transform FILE)"
        )
    whole: Size = int(min(height, width) / told["crop_pct"])
    if told["crop_mode"] == "squash":  # each side by itself, so that nothing is cut off
        whole = (int(height / told["crop_pct"]), int(width / told["crop_pct"]))
    interpolation = told["interpolation"]
    return evaluation(
        resize=whole,
        crop=(height, width),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
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
