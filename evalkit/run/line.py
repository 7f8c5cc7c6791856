"""The line itself: plan, shards, table, evaluation."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from evalkit.data.folders import refuse_within
from evalkit.distributed import ALONE, Processes, processes
from evalkit.errors import InputError
from evalkit.evaluation import Evaluation
from evalkit.images.batches import Audit
from evalkit.images.decoding import Decoding
from evalkit.inference.loop import progress
from evalkit.predictions import arrange
from evalkit.report.tables import OF_ANY_EVALUATION, check_folder
from evalkit.run import refusals
from evalkit.run.cut import Cut, cut
from evalkit.run.identity import Identity, data_of, identity, image_folder, refuse_differences
from evalkit.run.memory import InMemory
from evalkit.run.merge import merge
from evalkit.run.options import AUTO, Options
from evalkit.run.plan import Plan, make_plan
from evalkit.run.record import Pace, record
from evalkit.run.table import parquet
from evalkit.run.trial import choose_batch_size, choose_layout
from evalkit.run.unfinished import NAME, Unfinished, begun, options_of, refuse_leftovers, writing
from evalkit.run.work import Worked, in_background, make_shards
from evalkit.scoring.method import USUAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn
    from torch.utils.data import Dataset

    from evalkit.data import Source
    from evalkit.scoring.method import Method
    from evalkit.transforms import TransformSpec

PREDICTIONS = "predictions.parquet"
NO_LOCKS = (
    "the file system of out knows no locks: nothing would have kept a second run from writing there"
)
Store = Unfinished | InMemory


def evaluate(
    checkpoint: str | Path,
    data: str | Path | Source | Dataset[Any],
    *,
    model: nn.Module | str | None = None,
    classes: Sequence[str] | Mapping[str, int] | None = None,
    weights: str | None = None,
    transform: TransformSpec | Mapping[str, Any] | None = None,
    device: str = AUTO,
    batch_size: int | str = 64,
    precision: str = "fp32",
    compiled: bool = False,
    workers: int | None = None,
    on_unreadable: str = "fail",
    on_unknown_class: str = "fail",
    decode: str = "cpu",
    fast_decode: bool = False,
    checks: int | None = None,
    verify: int = 0,
    train_data: str | Path | Dataset[Any] | None = None,
    allow_partial: float | None = None,
    trust: bool = False,
    save_probabilities: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    method: Method = USUAL,
    group_by: Sequence[str] = (),
) -> Evaluation:
    """Evaluate a checkpoint on labelled images.

    Classes are joined by name: the data may know fewer of them than the model, in any order.

    Args:
        checkpoint: File with the weights, see `load_checkpoint`.
        data: Class folders, a manifest, a data set of a library, tars, or a Dataset of one's own,
            see `evalkit.data.open_data`.
        model: The model to load into, or its spec, see `evalkit.models.build`. None takes the
            one that the checkpoint names, or the one that its keys and shapes tell.
        classes: Names of the model's outputs in their order, or a dict from name to output. None
            takes those in the checkpoint, and without any there those of the data.
        weights: Which set of weights in the checkpoint, see `load_checkpoint`.
        transform: From image to input. None takes that of the checkpoint, else the model's own,
            else the usual one of ImageNet.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or "xpu".
        batch_size: Images per batch, or "auto" for as many as the device has the memory for.
        precision: "fp32", "tf32", "bf16" or "fp16".
        compiled: Whether `torch.compile` compiles the model first.
        workers: Threads that decode. None takes one per core, at most 8.
        on_unreadable: "fail" or "skip". Both look at all images and list those that cannot be
            read; there is never a substitute.
        on_unknown_class: "fail", or "skip" to set the samples of classes aside that the model does
            not know; they are counted.
        decode: "cpu", or "gpu" to decode JPEG files there, see `evalkit.images.decoding.Decoding`.
        fast_decode: Decode large JPEG files at reduced size; what that changes is measured.
        checks: Images to run again in other ways, to look for silent errors, see docs/checks.md; 0
            for none. None takes 16 mistakes of the run, and up to 1024 images for what mends these.
        verify: Samples to run again, each alone and in fp32, to count predictions that change.
        train_data: The data of the training, as *data*, to look for the same images in both.
        allow_partial: The share of the model that the checkpoint must fill, see
            `load_checkpoint`.
        trust: Import the checkpoint's own classes and run their code, see `load_checkpoint`.
        save_probabilities: Keep those of all classes, in the column ``probabilities``.
        out: Folder for everything that `Evaluation.save` writes. Predictions are written there as
            they come, so that memory does not grow with the data; those of the result are then
            None: they are in its ``predictions.parquet``. None keeps them in memory.
        resume: Go on with a run in *out* that was killed.
        method: How scores are averaged, and how their intervals are made.
        group_by: Columns of the data whose values make slices.

    Raises:
        InputError: Something of this is not there, does not fit, or cannot be read.
    """
    options = Options(
        model=model,
        classes=classes,
        weights=weights,
        transform=transform,
        allow_partial=allow_partial,
        trust=trust,
        device=device,
        precision=precision,
        compiled=compiled,
        batch_size=batch_size,
        workers=workers,
        on_unreadable=on_unreadable,
        on_unknown_class=on_unknown_class,
        decoding=Decoding(place=decode, fast=fast_decode),
        checks=checks,
        verify=verify,
        train_data=train_data,
        out=Path(out) if out is not None else None,
        resume=resume,
        save_probabilities=save_probabilities,
        method=method,
        group_by=group_by,
    )
    evaluation = _run(checkpoint, data, options, ALONE)
    return cast("Evaluation", evaluation)  # only the others of several processes have none


def evaluate_together(
    checkpoint: str | Path, data: str | Path | Source | Dataset[Any], options: Options
) -> Evaluation | None:
    """Evaluate a share of the data in every process that torchrun started; all must call it.

    Args:
        checkpoint: As for `evaluate`.
        data: As for `evaluate`.
        options: With *out*, on a file system that all processes see, unless there is only one.

    Returns:
        The result in the process of rank 0, None in the others.

    Raises:
        InputError: As for `evaluate`; in all processes, if in any.
    """
    return _run(checkpoint, data, options, processes())


def _run(
    checkpoint: str | Path,
    data: str | Path | Source | Dataset[Any],
    options: Options,
    us: Processes,
) -> Evaluation | None:
    if options.out is None and us.size > 1:
        raise InputError(
            "out must be a folder that all processes see, to put their predictions together, got "
            f"none for {us.size} processes"
        )
    us.agreed(lambda: _refuse_occupied(options, data) if us.is_first else None)
    plan = us.agreed(lambda: make_plan(checkpoint, data, options))
    plan = _tried(plan, options, us)
    scores = len(plan.classes) if plan.computation.scores else 0
    parts = cut(len(plan.source), batch_size=plan.batch_size, scores=scores)
    with ExitStack() as stack:
        store: Store = InMemory()
        present: list[int] = []
        if options.out is not None:
            mine = us.agreed(lambda: identity(plan))
            store = _shared_folder(stack, mine, options.out, us, resume=options.resume)
            present = _present(store, parts, us)
            plan = replace(plan, data_sha256=data_of(mine))
        pace = _work(plan, parts, store, present, us)
        return _result(plan, parts, store, pace, options) if us.is_first else None


def _refuse_occupied(options: Options, data: object) -> None:
    """Find out before any work whether results can be written."""
    if options.out is not None:
        if isinstance(data, str | Path):
            refuse_within(Path(options.out), Path(data))
        check_folder(options.out, names=(*OF_ANY_EVALUATION, PREDICTIONS))
        if not options.resume:
            refuse_leftovers(options.out)


def _tried(plan: Plan, options: Options, us: Processes) -> Plan:
    """Complete a plan by what all processes find by running the model, or the former run found."""
    former = options_of(options.out) if options.resume and options.out is not None else {}
    layout = us.agreed(lambda: former["channels_last"] if former else choose_layout(plan))
    how = replace(plan.computation, channels_last=all(us.gathered(layout)))
    plan = replace(plan, computation=how)
    if options.batch_size != AUTO:
        return plan
    size = us.agreed(lambda: former["batch_size"] if former else choose_batch_size(plan))
    return replace(plan, batch_size=min(us.gathered(size)))


def _shared_folder(
    stack: ExitStack, mine: Identity, out: Path, us: Processes, *, resume: bool
) -> Unfinished:
    """Begin the run, or go on with it, and let all processes know its name."""
    firsts = us.gathered(mine)[0]
    us.agreed(lambda: refuse_differences(firsts, mine, where="the process of rank 0"))
    first = us.agreed(
        lambda: stack.enter_context(begun(out, mine, resume=resume)) if us.is_first else None
    )
    run = us.gathered(first.run if first is not None else "")[0]
    return first if first is not None else Unfinished(folder=out / NAME, run=run)


def _present(store: Unfinished, parts: Cut, us: Processes) -> list[int]:
    """The shards that were there before, as the first process sees them."""
    mine = us.agreed(lambda: store.present(parts) if us.is_first else [])
    return us.gathered(mine)[0]


def _work(plan: Plan, parts: Cut, store: Store, present: list[int], us: Processes) -> Pace:
    """Make the shards that are missing, each process its share of them."""
    missing = sorted(set(parts.shards) - set(present))
    mine = missing[us.rank :: us.size]
    todo = sum(len(parts.positions(shard)) for shard in mine)
    done = parts.samples - todo if us.size == 1 else 0
    started = time.perf_counter()

    def work() -> Worked:
        with (
            progress(
                done + todo if us.is_first else None,
                done=done,
                what="evaluate" if us.size == 1 else f"evaluate 1/{us.size}",
            ) as advance,
            in_background(store.write) as deliver,
        ):
            return make_shards(plan, parts, mine, deliver=deliver, advance=advance)

    worked = us.agreed(work)
    seconds = time.perf_counter() - started
    lost = Audit()
    for audit in us.gathered(worked.lost):
        lost.add(audit)
    if lost.unreadable:
        raise refusals.unreadable(
            plan, lost, kept=isinstance(store, Unfinished) and bool(store.present(parts))
        )
    return Pace(
        samples=sum(us.gathered(worked.samples)),
        seconds=max(us.gathered(seconds)),
        processes=us.size,
        flags=worked.flags,
    )


def _result(plan: Plan, parts: Cut, store: Store, pace: Pace, options: Options) -> Evaluation:
    """Merge the shards, score them, and write the results where a folder is given."""
    if isinstance(store, Unfinished):
        store.refuse_absent(parts)
    gave_probabilities = all(store.gave_probabilities(number) for number in parts.shards)
    frames: list[pd.DataFrame] = []
    with ExitStack() as stack:
        keep: Callable[[pd.DataFrame], None] = frames.append
        if isinstance(store, Unfinished):
            stack.enter_context(writing(store.folder))
            table = store.folder / PREDICTIONS
            keep = stack.enter_context(parquet(table, plan.source.columns))
        merged = merge(
            plan,
            parts,
            (store.read(number) for number in parts.shards),
            gave_probabilities=gave_probabilities,
            keep=keep,
            method=options.method,
            group_by=options.group_by,
        )
        if merged.audit.unreadable and plan.on_unreadable == "fail":  # left by a run that skipped
            raise refusals.unreadable(plan, merged.audit)
        if not merged.scored:
            raise refusals.nothing_left(plan, merged.audit)
    if merged.without_probability == merged.scored:
        if isinstance(store, Unfinished):
            store.remove()
        raise InputError(refusals.no_numbers(plan, merged.scored))
    run = record(plan, merged, pace)
    if isinstance(store, Unfinished) and not store.is_locked:
        run["warnings"].append(NO_LOCKS)
    evaluation = Evaluation(
        **merged.study.results(plan.classes, run=run),
        record=run,
        samples=merged.samples,
        images=image_folder(plan.source),
        predictions=arrange(pd.concat(frames, ignore_index=True)) if frames else None,
    )
    if options.command is not None:
        evaluation.summary["command"] = options.command
    if isinstance(store, Unfinished) and options.out is not None:
        evaluation.save(options.out, thumbnails=options.thumbnails, plots=options.plots)
        with writing(store.folder):
            (store.folder / PREDICTIONS).replace(options.out / PREDICTIONS)
            store.remove()
    return evaluation
