"""The training loop: one record per epoch, read from top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from evalkit.distributed import gathered, is_running, rank
from evalkit.errors import InputError
from evalkit.inference.hardware import choose_device
from evalkit.inference.layout import Layout
from evalkit.inference.loop import hidden_unless
from evalkit.inference.outputs import refuse_strange_labels, scores_of
from evalkit.output_names import names_given
from evalkit.training.faults import (
    LossWatch,
    memory_explained,
    peak_memory_bytes,
    run_model,
    start_peak,
    workers_explained,
)
from evalkit.training.loader import TrainingBatches, steps_of
from evalkit.training.losses import classification_loss
from evalkit.training.parallel import (
    casting,
    exact_flags,
    in_parallel,
    partners_explained,
    synchronised,
)
from evalkit.training.records import EpochRecord, is_better
from evalkit.training.state import Position, State
from evalkit.training.steps import apply_gradients, grad_scaler
from evalkit.training.stopping import StoppedError, StopRequest
from evalkit.training.validate import ValidationScores, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.optim.swa_utils import AveragedModel

    from evalkit.inference.loop import Inputs
    from evalkit.training.checkpoints import Checkpoints
    from evalkit.training.early_stopping import EarlyStopping
    from evalkit.training.loader import Part, Step
    from evalkit.training.mixing import Mixing

STEPS_BETWEEN_QUESTIONS = 10  # ranks ask each other whether to stop; that costs a message


@dataclass(frozen=True, kw_only=True)
class _How:
    """What stays the same from the first step to the last."""

    model: nn.Module  # as it is called: DDP under torchrun
    train: TrainingBatches | Iterable[Inputs]
    validation: Iterable[Inputs]
    device: torch.device
    precision: str
    loss: nn.Module
    mix: Mixing | None
    max_norm: float | None
    accumulate: int
    layout: Layout
    prepare: Callable[[torch.Tensor], torch.Tensor] | None
    classes: Sequence[str] | None
    checkpoints: Checkpoints | None
    stop: StopRequest
    progress: bool


def fit(
    model: nn.Module,
    train: TrainingBatches | Iterable[Inputs],
    *,
    validation: Iterable[Inputs],
    optimizer: Optimizer,
    epochs: int,
    schedule: LRScheduler | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    loss: nn.Module | None = None,
    mix: Mixing | None = None,
    max_norm: float | None = None,
    accumulate: int = 1,
    average: AveragedModel | None = None,
    early_stopping: EarlyStopping | None = None,
    best_by: str = "validation_accuracy",
    channels_last: bool = False,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    classes: Sequence[str] | Mapping[str, int] | None = None,
    checkpoints: Checkpoints | None = None,
    stop: StopRequest | None = None,
    progress: bool = False,
) -> Iterator[EpochRecord]:
    """Train *model*, in place, and yield a record after every epoch.

    The loop runs as far as its records are asked for: stop asking, and it has stopped. With
    *checkpoints* it goes on where the last one was written, and yields what comes after that.

    Args:
        model: Returns logits of shape (B, C).
        train: Batches of inputs, shape (B, …), and labels, int64, shape (B,); gone through once
            per epoch. A DataLoader that shuffles gives another order every time; only
            `TrainingBatches` give the same order again when training goes on within an epoch.
        validation: Batches of the same kind; under torchrun this rank's share of them.
        optimizer: Over the parameters of *model*.
        epochs: How many.
        schedule: Changes the learning rate after every step.
        device: See `evalkit.inference.hardware.choose_device`.
        precision: "fp32", "tf32" (CUDA), or by automatic casting "bf16" or "fp16", the latter with
            a scaled loss.
        loss: From logits and labels to their mean. None takes the cross entropy.
        mix: See `mixing`; inputs and labels of every batch go through it.
        max_norm: Limit for the norm of all gradients, see `apply_gradients`.
        accumulate: How many batches make up one step; `TrainingBatches` know it themselves.
        average: Moving average of *model*, see `averaged_model`; updated after every step, and
            what is validated.
        early_stopping: Ends training when the score of *best_by* does not get better any more.
        best_by: Field of `EpochRecord` by which an epoch is the best; the first of equals.
        channels_last: Whether the model, in place, and its images get their channels innermost:
            faster with most convolutions, and not for models that call ``view`` on what those give.
        prepare: Applied to inputs on the device, such as ``TransformSpec.normalize``.
        classes: Names of the outputs; the model must give as many scores.
        checkpoints: Where to keep the state of training.
        stop: Asks to end after the step that is being done.
        progress: Whether a terminal sees a bar for every epoch.

    Raises:
        InputError: There are no samples, *classes* are no names, a label is none of the model's
            outputs, the loss is not finite, an image cannot be read, or memory or a worker does
            not suffice.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 2)
        >>> batch = torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> records = list(fit(model, [batch], validation=[batch], optimizer=sgd, epochs=20))
        >>> len(records), records[-1].validation_accuracy
        (20, 1.0)
    """
    if classes is not None:
        classes = names_given(classes)
    where = choose_device(device)
    model.to(where)
    layout = Layout(*(one for one in (model, average) if one is not None))
    if channels_last:
        layout.turn()
    state = State(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        scaler=grad_scaler(precision, where),
        average=average,
        early_stopping=early_stopping,
    )
    how = _How(
        model=in_parallel(model, where),
        train=train,
        validation=validation,
        device=where,
        precision=precision,
        loss=classification_loss() if loss is None else loss,
        mix=mix,
        max_norm=max_norm,
        accumulate=accumulate,
        layout=layout,
        prepare=prepare,
        classes=classes,
        checkpoints=checkpoints,
        stop=StopRequest() if stop is None else stop,
        progress=progress and rank() == 0,
    )
    if checkpoints is not None and (kept := checkpoints.last()) is not None:
        state.restore(kept)
    position = state.position
    while position.epoch <= epochs and not position.is_over:
        try:
            _train(how, state)
            trained = time.perf_counter()
            scores = _validate(how, state)
        except StoppedError:
            if checkpoints is not None:
                checkpoints.save(state)
            return
        record = _record(how, state, scores, time.perf_counter() - trained)
        best = all(
            is_better(getattr(record, best_by), getattr(former, best_by), metric=best_by)
            for former in position.records
        )
        score = getattr(record, best_by)
        position.next_epoch(record)
        if early_stopping is not None:
            position.is_over = early_stopping.is_over(-score if "loss" in best_by else score)
        if checkpoints is not None:
            checkpoints.save(state, best=best, epoch=record.epoch)
        yield record
        if _agreed(how.stop, 0):
            return


def _train(how: _How, state: State) -> None:
    """Do the steps of this epoch that are not done yet.

    Raises:
        StoppedError: Somebody asked to stop; the step that was being done is finished.
    """
    position = state.position
    names = how.train.names if isinstance(how.train, TrainingBatches) else None
    watch = LossWatch(how.device, names, total=position.loss_sum)
    spent, began = position.seconds, time.perf_counter()
    how.model.train()
    start_peak(how.device)
    with (
        exact_flags(how.device, how.precision),
        workers_explained(),
        partners_explained(),
        _bar(how, position) as bar,
    ):
        for step in steps_of(
            how.train, position.epoch, first_step=position.step, parts=how.accumulate
        ):
            with memory_explained(state, math.ceil(step.samples_per_rank / step.count)):
                _step(how, state, step, watch)
            position.step += 1
            position.samples += step.samples
            position.seconds = spent + time.perf_counter() - began
            bar.update()
            stopping = _agreed(how.stop, position.step)
            if stopping or (how.checkpoints is not None and how.checkpoints.is_due(position.step)):
                watch.check()
                position.loss_sum = watch.total
                if stopping:
                    raise StoppedError
                if how.checkpoints is not None:
                    how.checkpoints.save(state)
    watch.check()
    position.loss_sum = watch.total
    position.seconds = spent + time.perf_counter() - began
    if not position.samples:
        raise InputError(f"training must have samples, got none in epoch {position.epoch}")


def _step(how: _How, state: State, step: Step, watch: LossWatch) -> None:
    """Update the weights once; let *watch* have the losses of this rank's samples."""
    for number, part in enumerate(step.parts, 1):
        size = len(part.labels)
        with synchronised(how.model, number == step.count):
            loss = _loss(how, part)
            is_all = size == step.samples_per_rank
            share = loss if is_all else loss * (size / step.samples_per_rank)
            shared = state.scaler.scale(share)
            shared.backward()  # type: ignore[no-untyped-call]
        place = f"epoch {state.position.epoch}, step {state.position.step + 1}"
        watch.add(loss.detach(), size, part.positions, place)
    scale = state.scaler.get_scale()
    apply_gradients(state.optimizer, scaler=state.scaler, max_norm=how.max_norm)
    if state.scaler.get_scale() < scale:
        return  # fp16: a gradient was infinite, and the step was left out
    if state.schedule is not None:
        state.schedule.step()
    if state.average is not None:
        state.average.update_parameters(state.model)


def _loss(how: _How, part: Part) -> torch.Tensor:
    """The mean loss of a batch."""
    inputs = part.inputs.to(how.device, non_blocking=True)
    if how.layout.channels_last:
        inputs = how.layout.of(inputs)
    labels = part.labels.to(how.device, non_blocking=True)
    if how.prepare is not None:
        inputs = how.prepare(inputs)
    if how.mix is not None:
        inputs, labels = how.mix(inputs, labels)
    with casting(how.device, how.precision):
        scores = scores_of(run_model(how.model, inputs), rows=len(inputs), classes=how.classes)
        refuse_strange_labels(part.labels, outputs=scores.shape[1])
        loss: torch.Tensor = how.loss(scores, labels)
    return loss


def _validate(how: _How, state: State) -> ValidationScores:
    model = state.model if state.average is None else state.average.module
    alone = not is_running()  # ranks cannot leave one by one
    try:
        return validate(
            model,
            how.stop.until_made(how.validation) if alone else how.validation,
            classes=how.classes,
            device=str(how.device),
            precision=how.precision,
            prepare=how.prepare,
            channels_last=how.layout.channels_last,
        )
    except InputError:
        if alone and how.checkpoints is not None:
            how.checkpoints.save(state)  # the steps are done: mend the image, and go on from here
        raise


def _record(how: _How, state: State, scores: ValidationScores, validating_s: float) -> EpochRecord:
    position, groups = state.position, state.optimizer.param_groups
    peaks = gathered(peak_memory_bytes(how.device))
    return EpochRecord(
        epoch=position.epoch,
        learning_rate=float(groups[0]["lr"]),
        train_loss=sum(gathered(position.loss_sum)) / position.samples,
        validation_loss=scores.loss,
        validation_accuracy=scores.accuracy,
        validation_macro_f1=scores.macro_f1,
        samples_per_second=position.samples / position.seconds,
        peak_memory_bytes=max(peaks),
        seconds=position.seconds + validating_s,
        learning_rates=tuple(float(group["lr"]) for group in groups),
    )


def _agreed(stop: StopRequest, step: int) -> bool:
    """Whether all ranks stop here: each of them may have been asked at another moment."""
    if not is_running():
        return stop.is_made
    if step % STEPS_BETWEEN_QUESTIONS:
        return False
    asked = max(gathered(stop.signal))
    if asked:  # or else a signal that came meanwhile would be forgotten
        stop.signal = asked
    return bool(asked)


def _bar(how: _How, position: Position) -> tqdm[NoReturn]:
    steps = how.train.order.steps if isinstance(how.train, TrainingBatches) else None
    return tqdm(
        total=steps,
        initial=position.step,
        desc=f"epoch {position.epoch}",
        unit="step",
        leave=False,
        disable=hidden_unless(how.progress),
    )
