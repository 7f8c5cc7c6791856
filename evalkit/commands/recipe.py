"""Options of ``evalkit train`` that make up `evalkit.training.recipe.Recipe`."""

from __future__ import annotations

from collections.abc import Callable

import click

from evalkit.commands import options

# Without loading torch for --help; a test compares them with `Recipe` and `SCHEDULES`.
SCHEDULES = ("constant", "cosine", "linear", "step")
_RECIPE = (
    click.option("--epochs", default=10, show_default=True, type=int, help="At most."),
    click.option(
        "--batch-size",
        default=64,
        show_default=True,
        type=click.IntRange(1),
        help="Images per step, over all processes and parts.",
    ),
    click.option(
        "--optimizer",
        default="adamw",
        show_default=True,
        type=click.Choice(["adamw", "sgd"]),
        help="AdamW, or stochastic gradient descent with Nesterov's momentum.",
    ),
    click.option(
        "--learning-rate", default=1e-3, show_default=True, type=float, help="The highest one."
    ),
    click.option(
        "--backbone-rate",
        type=float,
        help="Of all layers but the last. [default: the same]",
    ),
    click.option(
        "--weight-decay",
        default=0.01,
        show_default=True,
        type=click.FloatRange(0),
        help="Of weights; norms and biases have none.",
    ),
    click.option("--momentum", default=0.9, show_default=True, type=float, help="Of sgd."),
    click.option(
        "--schedule",
        default="cosine",
        show_default=True,
        type=click.Choice(SCHEDULES),
        help="How the rate goes down.",
    ),
    click.option(
        "--warm-up",
        default=0.0,
        show_default=True,
        type=float,
        metavar="EPOCHS",
        help="How long it rises first; may be a fraction.",
    ),
    click.option(
        "--label-smoothing",
        default=0.0,
        show_default=True,
        type=float,
        help="Share of every target that is spread over all classes.",
    ),
    click.option(
        "--mixup",
        default=0.0,
        show_default=True,
        type=float,
        metavar="ALPHA",
        help="Blend the images of a batch; 0.2 is usual, 0 is off.",
    ),
    click.option(
        "--cutmix",
        default=0.0,
        show_default=True,
        type=float,
        metavar="ALPHA",
        help="Paste parts of images into others; 1 is usual, 0 is off.",
    ),
    click.option(
        "--clip-norm", type=float, help="Limit for the norm of all gradients. [default: none]"
    ),
    click.option(
        "--ema",
        type=float,
        metavar="DECAY",
        help="Also keep, and score by, a moving average of the weights. [default: none]",
    ),
    click.option(
        "--accumulate",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Parts that every step is computed in, to save memory.",
    ),
    options.precision,
    click.option(
        "--patience",
        type=click.IntRange(1),
        metavar="EPOCHS",
        help="End after so many without a better score. [default: never]",
    ),
    click.option(
        "--best-by",
        default="accuracy",
        show_default=True,
        type=click.Choice(["accuracy", "macro_f1", "loss"]),
        help="Validation score by which an epoch is the best.",
    ),
    click.option("--freeze-backbone", is_flag=True, help="Train the last layer alone."),
    click.option(
        "--image-size",
        type=click.IntRange(1),
        help="Side in pixels of what the model sees. [default: the model's own, or 224]",
    ),
    click.option(
        "--random-area",
        default=0.08,
        show_default=True,
        type=click.FloatRange(0, 1),
        help="Smallest share of an image that random crops cover; 0 crops nothing.",
    ),
    click.option(
        "--flip",
        default=0.5,
        show_default=True,
        type=click.FloatRange(0, 1),
        help="Probability of swapping left and right.",
    ),
    click.option(
        "--channels-last/--no-channels-last",
        default=None,
        help="Keep channels innermost in memory. [default: for models of torchvision and timm]",
    ),
    click.option("--compile", is_flag=True, help="Use torch.compile."),
    click.option(
        "--sync-batch-norm", is_flag=True, help="Take batch norm's statistics over all GPUs."
    ),
    click.option("--seed", default=0, show_default=True, type=int, help="Of everything random."),
    click.option(
        "--deterministic",
        is_flag=True,
        help="Refuse operations whose results vary from run to run; slower.",
    ),
)


def recipe_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that say how a model is trained."""
    for option in reversed(_RECIPE):
        command = option(command)
    return command
