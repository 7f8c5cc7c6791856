"""A whole training: data, a model and a recipe -> checkpoints, a log, and a report on the best."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evalkit import models
from evalkit.data import Source
from evalkit.data.folders import refuse_within
from evalkit.distributed import processes, rank, ranks
from evalkit.errors import InputError
from evalkit.inference.hardware import choose_device, environment
from evalkit.inference.layout import pays_channels_last
from evalkit.run import evaluate
from evalkit.training.averaging import averaged_model
from evalkit.training.checkpoints import BEST, Checkpoints
from evalkit.training.early_stopping import EarlyStopping
from evalkit.training.fit import fit
from evalkit.training.former import former_state, is_complete, refuse_another_training, shell
from evalkit.training.learner import optimizer_of, shape
from evalkit.training.loader import TrainingBatches
from evalkit.training.losses import classification_loss
from evalkit.training.mixing import mixing
from evalkit.training.order import Order
from evalkit.training.readable import about_left_out, without_unreadable
from evalkit.training.recipe import Recipe
from evalkit.training.records import EpochRecord, write_log, write_record
from evalkit.training.schedules import schedule
from evalkit.training.seed import seed_everything
from evalkit.training.splits import MANIFEST, Split, open_split
from evalkit.training.start import Start, start
from evalkit.training.state import AVERAGED, position_of
from evalkit.training.stopping import StopRequest
from evalkit.training.validate import ValidationBatches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.evaluation import Evaluation
    from evalkit.transforms import TransformSpec

MOST_WORKERS = 8
ON_UNREADABLE = ("fail", "skip")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that is ready to begin, or to go on; see `prepare`.

    Attributes:
        split: The samples.
        recipe: How the model is trained.
        out: Folder of everything that is written.
        begun: The model, and what it starts from.
        evaluation_transform: How images are prepared for validation.
        checkpoints: In *out*.
        device: Where the model is.
        workers: Processes that load images, for this process.
        former: What was done before and is gone on with.
        warnings: What is worth knowing before it begins.
        is_complete: Whether it is one to go on with that has nothing left to do, with its report.
    """

    split: Split
    recipe: Recipe
    out: Path
    begun: Start
    evaluation_transform: TransformSpec
    checkpoints: Checkpoints
    device: torch.device
    workers: int
    former: tuple[EpochRecord, ...]
    warnings: tuple[str, ...]
    is_complete: bool = False

    def epochs(
        self, *, stop: StopRequest | None = None, progress: bool = False
    ) -> Iterator[EpochRecord]:
        """Train; yield the record of every epoch that is done now, after ``log.csv`` has it.

        Args:
            stop: Asks to end after the step that is being done.
            progress: Whether a terminal sees a bar for every epoch.

        Raises:
            InputError: Another run is at work in *out*, or see `evalkit.training.fit`.
        """
        processes().agreed(self.checkpoints.hold)
        try:
            yield from self._epochs(stop, progress=progress)
        finally:
            self.checkpoints.let_go()

    def _epochs(self, stop: StopRequest | None, *, progress: bool) -> Iterator[EpochRecord]:
        recipe, classes, model = self.recipe, self.split.classes, self.begun.model
        order = self._order()
        optimizer = optimizer_of(model, recipe)
        steps = order.steps * recipe.epochs
        records = list(self.former)
        training = fit(
            model,
            TrainingBatches(
                self.split.train,
                recipe.training_transform(self.evaluation_transform),
                classes,
                order=order,
                workers=self.workers,
                pin_memory=self.device.type == "cuda",
            ),
            validation=ValidationBatches(
                self.split.validation,
                self.evaluation_transform,
                classes,
                batch_size=recipe.batch_size,
                workers=max(1, self.workers),
                rank=rank(),
                ranks=ranks(),
            ),
            optimizer=optimizer,
            epochs=recipe.epochs,
            schedule=schedule(
                optimizer,
                recipe.schedule,
                steps=steps,
                warm_up=round(recipe.warm_up * order.steps),
            ),
            device=str(self.device),
            precision=recipe.precision,
            loss=classification_loss(label_smoothing=recipe.label_smoothing),
            mix=mixing(len(classes), mixup=recipe.mixup, cutmix=recipe.cutmix),
            max_norm=recipe.clip_norm,
            average=None if recipe.ema is None else averaged_model(model, decay=recipe.ema),
            early_stopping=(
                None if recipe.patience is None else EarlyStopping(patience=recipe.patience)
            ),
            best_by=f"validation_{recipe.best_by}",
            channels_last=self._channels_last(),
            prepare=self.evaluation_transform.normalize,
            classes=classes,
            checkpoints=self.checkpoints,
            stop=stop,
            progress=progress,
        )
        if records:  # killed between checkpoint and log
            self._log(records)
        for record in training:
            records.append(record)
            self._log(records)
            yield record

    def report(self) -> Evaluation:
        """Evaluate the best checkpoint on the validation samples; write nothing.

        Raises:
            InputError: There is none, or see `evalkit.evaluate`.
        """
        spec = self.begun.spec
        by_name = spec is not None and models.is_library_spec(spec)
        return evaluate(
            self.out / BEST,
            self.split.validation,
            model=None if by_name else self.begun.model,
            weights="state_dict" if self.recipe.ema is None else AVERAGED,
            device=str(self.device),
            batch_size=self.recipe.batch_size,
            precision=self.recipe.precision,
            workers=max(1, self.workers),
        )

    def _order(self) -> Order:
        return Order(
            samples=len(self.split.train),
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            parts=self.recipe.accumulate,
            rank=rank(),
            ranks=ranks(),
        )

    def _channels_last(self) -> bool:
        """As the recipe says, or where it pays; models of one's own may not take it."""
        chosen = self.recipe.channels_last
        if chosen is None:
            spec = self.begun.spec
            known = spec is not None and models.is_library_spec(spec)
            return known and pays_channels_last(self.begun.model, self.device)
        return chosen

    def _log(self, records: list[EpochRecord]) -> None:
        if rank() == 0:
            write_log(self.out, records)


def prepare(
    data: str | Path | Source,
    model: str | None,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    val_fraction: float | None = None,
    pretrained: bool = False,
    init_from: str | Path | None = None,
    weights: str | None = None,
    new_head: bool = False,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    keep: int = 2,
    checkpoint_every: int | None = None,
    on_unreadable: str = "fail",
    command: str = "",
) -> Job:
    """Look at everything that a training needs, before the first step.

    The folder is held against other runs from now on, until `Job.epochs` ends; whoever does without
    these lets it go with ``job.checkpoints.let_go()``.

    Args:
        data: See `evalkit.training.splits.open_split`.
        model: See `evalkit.models.build`; may be None with *init_from*.
        out: Folder to write to: new, empty, or with *resume* that of the training to go on with.
        recipe: How the model is trained.
        val_fraction: Share of the samples to validate with, where the data is not split.
        pretrained: See `evalkit.training.start`.
        init_from: See `evalkit.training.start`.
        weights: See `evalkit.training.start`.
        new_head: See `evalkit.training.start`.
        resume: Go on where the training in *out* was broken off; begin where there is none.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or "xpu".
        workers: Processes that load images. None takes one per core, at most 8; 0 loads here.
        keep: How many epochs to keep beside ``best.pth`` and ``last.pth``.
        checkpoint_every: Steps after which ``last.pth`` is written within an epoch.
        on_unreadable: "fail" ends training at the first image that cannot be read, and lists all;
            "skip" reads all before training begins, and leaves those out.
        command: The command line, for the checkpoints.

    Raises:
        InputError: Something of this is not there, does not fit, or is not what the training that
            is to go on began with; or another run is at work in *out*.
    """
    recipe = recipe or Recipe()
    out, where = Path(out), choose_device(device)
    if on_unreadable not in ON_UNREADABLE:
        raise InputError(f"on_unreadable must be fail or skip, got '{on_unreadable}'")
    if workers is not None and workers < 0:
        raise InputError(f"workers must be 0 or more, got {workers}")
    if isinstance(data, str | Path):
        refuse_within(out, Path(data))
    checkpoints = Checkpoints(out, keep=keep, every_steps=checkpoint_every)
    with ExitStack() as stack:
        checkpoints.hold()  # until its epochs are over, or something is wrong
        stack.callback(checkpoints.let_go)
        kept = former_state(out, resume=resume)
        split = open_split(data, val_fraction=val_fraction, seed=recipe.seed)
        seed_everything(recipe.seed, deterministic=recipe.deterministic)
        begun = (
            start(
                model,
                num_classes=len(split.classes),
                pretrained=pretrained,
                init_from=init_from,
                weights=weights,
                classes=split.classes,
                new_head=new_head,
            )
            if kept is None
            else shell(kept, model, len(split.classes))
        )
        preset = recipe.evaluation_transform(begun.transform)
        split, left_out = without_unreadable(split, preset.mode, kept, skip=on_unreadable == "skip")
        noted = {
            "classes": list(split.classes),
            "transform": preset.as_dict(),
            "recipe": recipe.as_dict(),
            "data": {"name": str(split.train.name), "fingerprint": split.fingerprint()},
            "left_out": left_out,
            "new_head": begun.new_head if kept is None else kept.get("new_head", False),
        }
        if begun.spec is not None:
            noted["model_spec"] = begun.spec
        if kept is not None:
            refuse_another_training(kept, noted, out)
        shape(begun.model, recipe, where)
        job = Job(
            split=split,
            recipe=recipe,
            out=out,
            begun=begun,
            evaluation_transform=preset,
            checkpoints=checkpoints,
            device=where,
            workers=_default_workers() if workers is None else workers,
            former=() if kept is None else tuple(position_of(kept).records),
            warnings=(*about_left_out(left_out), *split.warnings),
            is_complete=is_complete(kept, out, epochs=recipe.epochs),
        )
        job._order()  # noqa: SLF001 - says what is wrong with the sizes of steps
        checkpoints.notes = {**noted, "command": command, "environment": environment(where)}
        torch.manual_seed(recipe.seed + rank())  # each rank drops out others
        if job.is_complete:
            return job
        checkpoints.clean()
        if split.drawn and rank() == 0:
            write_record(out / MANIFEST, split.manifest())
        stack.pop_all()
        return job


def _default_workers() -> int:
    """One process per core that this one may use, shared among the ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min((cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), MOST_WORKERS))
