"""What models return, read as scores, and what is kept of them for every sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from evalkit.errors import InputError
from evalkit.wording import counted, some

TOP_K = 5
SCORE_KEYS = (
    *("logits", "scores", "output", "out", "prediction", "predictions"),
    *("probs", "probabilities"),
)
# How far the sum of probabilities that a model gives may be from 1, after half precision.
PROBABILITY_TOLERANCE = 1e-2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def scores_of(output: object, *, rows: int, classes: Sequence[str] | None) -> torch.Tensor:
    """Return the scores in what a model returned, shape (B, C).

    Args:
        output: A tensor; a tuple or list that begins with one; a dict with one under a usual name
            such as "logits", or an object that has one.
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
    elif not isinstance(found, torch.Tensor):
        found = next((getattr(found, key) for key in SCORE_KEYS if hasattr(found, key)), None)
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
            f"got {tuple(found.shape)}{_way_out(scores, rows)}"
        )
    if classes is not None and scores.shape[1] != len(classes):
        raise InputError(
            f"model must give one score for each of {len(classes)} classes ({some(classes)}), got "
            f"{scores.shape[1]}: name the classes of all its outputs, in their order, with classes"
        )
    return scores


def _way_out(scores: torch.Tensor, rows: int) -> str:
    """Say how one score for two classes becomes two, or ""."""
    if tuple(scores.shape) not in {(rows,), (rows, 1)}:
        return ""
    return (
        ": where one output x tells two classes apart, return both scores, "
        "torch.stack([-x, x], 1) / 2, whose softmax is the sigmoid of x"
    )


def require_names(classes: object) -> None:
    """Refuse what cannot be the names of a model's outputs, in their order.

    Raises:
        InputError: It is a number, one name, or a set.

    Example:
        >>> require_names(["cat", "dog"])
    """
    if isinstance(classes, str | bytes | AbstractSet) or not isinstance(classes, Collection):
        raise InputError(
            "classes must be a list of names, one for each output of the model, in their order, "
            f"got {classes!r}"
        )


def refuse_strange_labels(labels: torch.Tensor, *, outputs: int) -> None:
    """Raise unless labels name outputs of the model; on the CPU alone, where that is free.

    Raises:
        InputError: A label is none of them.

    Example:
        >>> refuse_strange_labels(torch.tensor([0, 7]), outputs=3)
        Traceback (most recent call last):
        evalkit.errors.InputError: labels must be from 0 to 2, one for each of 3 outputs of the
        model, got 7
    """
    if labels.device.type != "cpu" or not len(labels):
        return
    smallest, largest = torch.aminmax(labels)
    if smallest.item() < 0 or largest.item() >= outputs:
        strange = sorted(set(labels[(labels < 0) | (labels >= outputs)].tolist()))
        raise InputError(
            f"labels must be from 0 to {outputs - 1}, one for each of "
            f"{counted(outputs, 'output')} of the model, got {some(strange)}"
        )


def _described(output: object) -> str:
    if isinstance(output, Mapping):
        return f"a dict with {some(list(output)) or 'nothing in it'}"
    if isinstance(output, tuple | list) and output:
        return f"a {type(output).__name__} that begins with {type(output[0]).__name__}"
    return type(output).__name__


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What is kept of B samples, in the order they came.

    Scores are read both ways, as logits and as probabilities; which it was, the whole run tells.
    """

    labels: Integers  # as given, shape (B,)
    top: Integers  # the most probable classes, best first, shape (B, min(5, C))
    # Whether the scores are numbers, or minus infinity beside a number, which says "none of it"
    finite: Flags  # shape (B,)
    masked: Flags  # whether some score is minus infinity though, shape (B,)
    tied: Flags  # whether a second class has the score of the best one, shape (B,)
    # Whether the scores could be probabilities, as far as they are numbers, shape (B,)
    like_probabilities: Flags
    within_one: Flags  # whether all scores lie in [0, 1], as far as they are numbers, shape (B,)
    as_logits: Floats  # confidence, probability of the label, loss and Brier score, shape (B, 4)
    as_probabilities: Floats  # the same, shape (B, 4)
    scores: npt.NDArray[np.float32] | None = None  # shape (B, C), where they were asked for

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Put parts, at least one, behind each other."""
        first = vars(parts[0])
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name, value in first.items()
                if value is not None
            }
        )

    @classmethod
    def of_tensors(cls, packed: Sequence[torch.Tensor]) -> Rows:
        """Read what `per_sample` packed, on the CPU."""
        integers, numbers = packed[0].numpy(), packed[1].double().numpy()
        flags = integers[:, 1:6].astype(bool)
        return cls(
            labels=integers[:, 0],
            top=integers[:, 6:],
            finite=flags[:, 0],
            tied=flags[:, 1],
            like_probabilities=flags[:, 2],
            within_one=flags[:, 3],
            masked=flags[:, 4],
            as_logits=numbers[:, :4],
            as_probabilities=numbers[:, 4:],
            scores=packed[2].numpy() if len(packed) > 2 else None,  # noqa: PLR2004
        )


def per_sample(
    scores: torch.Tensor, labels: torch.Tensor, *, with_scores: bool = False
) -> tuple[torch.Tensor, ...]:
    """Reduce scores of shape (B, C) to what is kept of every sample, without a synchronisation.

    Returns:
        What `Rows.of_tensors` reads once it is on the CPU: integers of shape (B, 6 + K), numbers
        of shape (B, 8) and, with *with_scores*, the scores in single precision; few tensors,
        because each of them is a copy of its own from the device.
    """
    given = scores
    scores = scores.to(torch.float32 if scores.device.type == "mps" else torch.float64)
    missing = scores.isnan()  # and so without a vote
    ranked = scores.masked_fill(missing, -torch.inf)
    none_of_it = scores.isneginf().any(1)  # (B,)
    finite = ~missing.any(1) & ranked.amax(1).isfinite()  # (B,)
    order = ranked.argsort(dim=1, descending=True, stable=True)  # ties: the first class, as argmax
    top = order[:, :TOP_K]  # (B, K)
    best = ranked.gather(1, top[:, :2])  # (B, 2)
    tied = best[:, 0] == best[:, 1]
    within = (scores >= -PROBABILITY_TOLERANCE) & (scores <= 1 + PROBABILITY_TOLERANCE)
    within_one = (within | missing).all(1)
    sums_to_one = ((scores.sum(1) - 1).abs() < PROBABILITY_TOLERANCE) | missing.any(1)
    log_softmax = scores.log_softmax(1)
    as_logits = _read_as(log_softmax.exp(), log_softmax, top, labels)  # (B, 4)
    probabilities = scores.clamp(0, 1)
    as_probabilities = _read_as(probabilities, probabilities.log(), top, labels)  # (B, 4)
    like_probabilities = within_one & sums_to_one
    flags = torch.stack(
        [finite, tied, like_probabilities, within_one, finite & none_of_it], dim=1
    )  # (B, 5)
    integers = torch.cat([labels.unsqueeze(1), flags.to(labels.dtype), top], dim=1)
    numbers = torch.cat([as_logits, as_probabilities], dim=1)
    return (integers, numbers, given.float()) if with_scores else (integers, numbers)


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
