"""How a model is trained: plain values that can be kept and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from evalkit.errors import InputError
from evalkit.transforms import TransformSpec, evaluation

OPTIMIZERS = ("adamw", "sgd")
BEST_BY = ("accuracy", "macro_f1", "loss")  # fields of `EpochRecord` after "validation_"
# How it is computed, not what: may be another when training goes on (on a smaller GPU, say).
MAY_CHANGE = ("accumulate", "precision", "channels_last", "compile")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Attributes:
        epochs: How often training goes over the samples, at most.
        batch_size: Samples per step, over all processes and parts.
        optimizer: "adamw", or "sgd" with momentum.
        learning_rate: Of the head, and of everything where *backbone_rate* is None.
        backbone_rate: Of everything but the head.
        weight_decay: Of weights; norms and biases have none.
        momentum: Of sgd (Nesterov's).
        schedule: A name of `evalkit.training.schedules.SCHEDULES`.
        warm_up: How many epochs the rate rises at first; may be a fraction.
        label_smoothing: See `classification_loss`.
        mixup: See `mixing`; 0 is off.
        cutmix: See `mixing`; 0 is off.
        clip_norm: Limit for the norm of all gradients; None is off.
        ema: Decay of the moving average of the weights; None is off.
        accumulate: Parts that a step is computed in, one after the other.
        precision: "fp32", "tf32", "bf16" or "fp16".
        patience: Epochs without a gain after which training ends; None is off.
        best_by: Validation score by which an epoch is the best.
        freeze_backbone: Train the head alone.
        image_size: Side in pixels of what the model sees; None leaves it to the model.
        random_area: Smallest share of an image that a random crop covers; None crops nothing.
        flip: Probability of swapping left and right.
        channels_last: See `fit`; None does it for convolutions of torchvision's and timm's models.
        compile: See torch.compile.
        sync_batch_norm: Take the statistics of batch norm over all GPUs.
        seed: Of everything random.
        deterministic: See `seed_everything`.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> recipe = Recipe(epochs=3, mixup=0.2)
        >>> Recipe.from_dict(recipe.as_dict()) == recipe
        True
        >>> recipe.differences(Recipe(epochs=4, mixup=0.2, accumulate=2))
        ['epochs 3 (now 4)']
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    backbone_rate: float | None = None
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: str = "cosine"
    warm_up: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    accumulate: int = 1
    precision: str = "fp32"
    patience: int | None = None
    best_by: str = "accuracy"
    freeze_backbone: bool = False
    image_size: int | None = None
    random_area: float | None = 0.08
    flip: float = 0.5
    channels_last: bool | None = None
    compile: bool = False
    sync_batch_norm: bool = False
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs must be at least 1, got {self.epochs}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, got '{self.optimizer}'"
            )
        if self.best_by not in BEST_BY:
            raise InputError(f"best_by must be one of {', '.join(BEST_BY)}, got '{self.best_by}'")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.warm_up < self.epochs:
            raise InputError(
                f"warm_up must be from 0 to below epochs, {self.epochs}, got {self.warm_up}"
            )
        if self.random_area is not None and not 0 < self.random_area <= 1:
            raise InputError(f"random_area must be in (0, 1], got {self.random_area}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read what `as_dict` wrote; what a newer version has added is as it was by default."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def differences(self, other: Recipe) -> list[str]:
        """What makes *other* another training than this one."""
        return [
            f"{field.name} {getattr(self, field.name)} (now {getattr(other, field.name)})"
            for field in fields(self)
            if field.name not in MAY_CHANGE
            and getattr(self, field.name) != getattr(other, field.name)
        ]

    def evaluation_transform(self, preset: TransformSpec | None) -> TransformSpec:
        """How images are prepared for validation: as the model's preset says, at this size."""
        usual = evaluation() if preset is None else preset
        if self.image_size is None:
            return usual
        resize = round(self.image_size * 256 / 224)  # the margin that the usual preset cuts off
        return replace(usual, resize=resize, crop=self.image_size)

    def training_transform(self, preset: TransformSpec) -> TransformSpec:
        """The same with the random crops and flips of training.

        Example:
            >>> Recipe(flip=0).training_transform(evaluation()).random_area
            (0.08, 1.0)
        """
        if self.random_area is None:
            return replace(preset, flip=self.flip)
        size = preset.resize if preset.crop is None else preset.crop
        return replace(
            preset, resize=None, crop=size, random_area=(self.random_area, 1.0), flip=self.flip
        )
