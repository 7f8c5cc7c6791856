"""What models return, read as scores, and what is kept of them for every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from evalkit.errors import InputError
from evalkit.wording import some

TOP_K = 5
SCORE_KEYS = ("logits", "scores", "output", "out", "prediction", "predictions")
# How far the sum of probabilities that a model gives may be from 1, after half precision.
PROBABILITY_TOLERANCE = 1e-2


def scores_of(output: object, *, rows: int, classes: Sequence[str] | None) -> torch.Tensor:
    """Return the scores in what a model returned, shape (B, C).

    Args:
        output: A tensor; a tuple or list that begins with one; a dict with one under a usual name
            such as "logits".
        rows: B, the number of samples in the batch.
        classes: Names of the C outputs, or None to take any number.

    Raises:
        InputError: There are no such scores in it.

    Example:
        >>> scores_of({"logits": torch.ones(2, 3, 1, 1)}, rows=2, classes=None).shape
        torch.Size([2, 3])
    """
    found = output
    if isinstance(found, Mapping):
        found = next((found[key] for key in SCORE_KEYS if key in found), None)
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, torch.Tensor):
        raise InputError(
            "model must return a tensor of scores, a tuple that begins with one, or a dict with "
            f"one of {', '.join(SCORE_KEYS)}, got {_described(output)}"
        )
    extra = found.shape[2:]  # of length 1 each, where a convolution is the head
    scores = found.flatten(1) if extra and extra.numel() == 1 else found
    if scores.ndim != 2 or len(scores) != rows or scores.shape[1] < 2:  # noqa: PLR2004
        raise InputError(
            f"model must return scores of shape ({rows}, number of classes), "
            f"got {tuple(found.shape)}"
        )
    if classes is not None and scores.shape[1] != len(classes):
        raise InputError(
            f"model must give one score for each of {len(classes)} classes ({some(classes)}), got "
            f"{scores.shape[1]}: name the classes of all its outputs, in their order, with classes"
        )
    return scores


def _described(output: object) -> str:
    if isinstance(output, Mapping):
        return f"a dict with {some(list(output)) or 'nothing in it'}"
    if isinstance(output, tuple | list) and output:
        return f"a {type(output).__name__} that begins with {type(output[0]).__name__}"
    return type(output).__name__


def per_sample(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Reduce scores of shape (B, C) to what is kept of every sample, without a synchronisation.

    Scores are read both ways, as logits and as probabilities; which it was, the whole run tells.
    """
    scores = scores.to(torch.float32 if scores.device.type == "mps" else torch.float64)
    finite = scores.isfinite().all(1)  # (B,)
    ranked = scores.masked_fill(scores.isnan(), -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)  # ties: the first class, as argmax
    top = order[:, :TOP_K]  # (B, K)
    within = (scores >= -PROBABILITY_TOLERANCE) & (scores <= 1 + PROBABILITY_TOLERANCE)
    sums_to_one = (scores.sum(1) - 1).abs() < PROBABILITY_TOLERANCE
    log_softmax = scores.log_softmax(1)
    as_logits = _read_as(log_softmax.exp(), log_softmax, top, labels)  # (B, 4)
    probabilities = scores.clamp(0, 1)
    as_probabilities = _read_as(probabilities, probabilities.log(), top, labels)  # (B, 4)
    return labels, top, finite, within.all(1) & sums_to_one, as_logits, as_probabilities


def _read_as(
    probabilities: torch.Tensor, logarithms: torch.Tensor, top: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return confidence, probability of the label, loss and Brier score, shape (B, 4)."""
    label = labels.unsqueeze(1)  # (B, 1)
    confidence = probabilities.gather(1, top[:, :1])
    label_probability = probabilities.gather(1, label)
    loss = -logarithms.gather(1, label)
    brier = probabilities.square().sum(1, keepdim=True) - 2 * label_probability + 1
    return torch.cat([confidence, label_probability, loss, brier], dim=1)
