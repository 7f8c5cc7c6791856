"""A whole training: data, a model and a recipe -> checkpoints, a log, and a report on the best."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit import models
from evalkit.data import Source
from evalkit.distributed import gathered, rank, ranks
from evalkit.errors import InputError
from evalkit.hardware import choose_device, environment
from evalkit.report.tables import check_folder
from evalkit.run import evaluate
from evalkit.training.averaging import averaged_model
from evalkit.training.checkpoints import BEST, LAST, Checkpoints
from evalkit.training.early_stopping import EarlyStopping
from evalkit.training.fit import fit
from evalkit.training.freezing import freeze_backbone
from evalkit.training.groups import parameter_groups
from evalkit.training.heads import replace_head
from evalkit.training.loader import TrainingBatches
from evalkit.training.losses import classification_loss
from evalkit.training.mixing import mixing
from evalkit.training.order import Order
from evalkit.training.readable import find_unreadable
from evalkit.training.recipe import Recipe
from evalkit.training.records import LOG, EpochRecord, is_empty_log, write_log, write_whole
from evalkit.training.schedules import schedule
from evalkit.training.seed import seed_everything
from evalkit.training.splits import MANIFEST, Split, open_split, subset
from evalkit.training.start import Start, start
from evalkit.training.state import AVERAGED, position_of
from evalkit.training.stopping import StopRequest
from evalkit.training.validate import ValidationBatches
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

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

    def epochs(
        self, *, stop: StopRequest | None = None, progress: bool = False
    ) -> Iterator[EpochRecord]:
        """Train; yield the record of every epoch that is done now, after ``log.csv`` has it.

        Args:
            stop: Asks to end after the step that is being done.
            progress: Whether a terminal sees a bar for every epoch.

        Raises:
            InputError: See `evalkit.training.fit`.
        """
        recipe, classes, model = self.recipe, self.split.classes, self.begun.model
        order = self._order()
        optimizer = _optimizer(model, recipe)
        steps = order.steps * recipe.epochs
        records = list(self.former)
        self._log(records)
        for record in fit(
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
            prepare=self._prepare,
            classes=classes,
            checkpoints=self.checkpoints,
            stop=stop,
            progress=progress,
        ):
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

    def _prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        inputs = self.evaluation_transform.normalize(pixels)
        if self.recipe.channels_last:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs

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
            is to go on began with.
    """
    recipe = recipe or Recipe()
    out, where = Path(out), choose_device(device)
    if on_unreadable not in ON_UNREADABLE:
        raise InputError(f"on_unreadable must be fail or skip, got '{on_unreadable}'")
    if workers is not None and workers < 0:
        raise InputError(f"workers must be 0 or more, got {workers}")
    kept = _former(out, resume=resume)
    split = open_split(data, val_fraction=val_fraction, seed=recipe.seed)
    checkpoints = Checkpoints(out, keep=keep, every_steps=checkpoint_every)
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
        else _shell(kept, model, len(split.classes))
    )
    preset = recipe.evaluation_transform(begun.transform)
    split, left_out = _readable(split, preset.mode, kept, skip=on_unreadable == "skip")
    noted = {
        "classes": list(split.classes),
        "transform": preset.as_dict(),
        "recipe": recipe.as_dict(),
        "data": {"name": str(split.train.name), "fingerprint": split.fingerprint()},
        "left_out": left_out,
        "new_head": begun.new_head if kept is None else kept["new_head"],
    }
    if begun.spec is not None:
        noted["model_spec"] = begun.spec
    if kept is not None:
        _refuse_another_training(kept, noted, out)
    _shape(begun.model, recipe, where)
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
        warnings=(*_about_left_out(left_out), *split.warnings),
    )
    job._order()  # noqa: SLF001 - says what is wrong with the sizes of steps
    checkpoints.notes = {**noted, "command": command, "environment": environment(where)}
    checkpoints.clean()
    torch.manual_seed(recipe.seed + rank())  # each rank drops out others
    if split.drawn and rank() == 0:
        write_whole(out / MANIFEST, split.manifest())
    return job


def _former(out: Path, *, resume: bool) -> dict[str, Any] | None:
    """What is to be gone on with, or None."""
    check_folder(out)
    kept = Checkpoints(out).last() if resume else None
    # A training that was killed early has left a log without rows at most.
    ours = [name for name in (LAST, BEST) if (out / name).exists()] if not resume else []
    ours += [LOG] if (out / LOG).exists() and not (resume and is_empty_log(out)) else []
    if kept is None and ours:
        what = f"without {LAST} to go on from" if resume else "of a training: go on by resume"
        raise InputError(
            f"out must be another folder than that of a training, got {out} with {some(ours)} "
            f"{what}, or choose another"
        )
    return kept


def _shell(kept: Mapping[str, Any], spec: str | None, num_classes: int) -> Start:
    """The model that a checkpoint of ours is to be put back into."""
    begun = start(kept.get("model_spec") if spec is None else spec, num_classes=num_classes)
    if kept["new_head"]:
        replace_head(begun.model, num_classes)
    return begun


def _readable(
    split: Split,
    mode: str,
    kept: Mapping[str, Any] | None,
    *,
    skip: bool,
) -> tuple[Split, list[list[str]]]:
    """Leave out what cannot be read, where that is wanted; say what that was."""
    parts = {"train": split.train, "val": split.validation}
    if kept is not None:
        left_out = [list(one) for one in kept.get("left_out", [])]
    elif skip:
        mine = [
            [name, one.path, one.reason]
            for name, source in (parts.items() if rank() == 0 else ())
            for one in find_unreadable(source, range(len(source)), mode)
        ]
        left_out = gathered(mine)[0]
    else:
        left_out = []
    if not left_out:
        return split, []
    for name, source in parts.items():
        unreadable = {path for part, path, _reason in left_out if part == name}
        wanted = [at for at, path in enumerate(source.paths) if path not in unreadable]
        if not wanted:
            raise InputError(
                f"{name} must have an image that can be read, got none in {source.name}"
            )
        parts[name] = subset(source, wanted)
    return replace(split, train=parts["train"], validation=parts["val"]), left_out


def _about_left_out(left_out: list[list[str]]) -> tuple[str, ...]:
    if not left_out:
        return ()
    listed = some([f"{path} ({reason})" for _name, path, reason in left_out], 20)
    return (f"{counted(len(left_out), 'image')} left out that cannot be read: {listed}",)


def _refuse_another_training(kept: Mapping[str, Any], noted: Mapping[str, Any], out: Path) -> None:
    before = Recipe.from_dict(kept.get("recipe", {}))
    differences = before.differences(Recipe.from_dict(noted["recipe"]))
    if kept.get("model_spec") != noted.get("model_spec"):
        differences.append(f"model {kept.get('model_spec')} (now {noted.get('model_spec')})")
    if kept.get("transform") != noted["transform"]:
        differences.append("transform")
    fingerprints = [one["data"]["fingerprint"] for one in (kept, noted) if "data" in one]
    if len(set(fingerprints)) > 1:
        differences.append(f"data {kept['data']['name']} (other files or labels now)")
    if differences:
        raise InputError(
            f"resume must have the options that the training in {out} began with, got another "
            f"{some(differences, 10)}"
        )


def _shape(model: nn.Module, recipe: Recipe, device: torch.device) -> None:
    """Make of the model what is trained, in place."""
    if recipe.sync_batch_norm:
        if device.type == "cpu":
            raise InputError("sync_batch_norm needs GPUs, got cpu: leave it out")
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if recipe.freeze_backbone:
        freeze_backbone(model)
    model.to(device)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)
    if recipe.compile:
        model.compile()


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    backbone = recipe.learning_rate if recipe.backbone_rate is None else recipe.backbone_rate
    groups = parameter_groups(
        model,
        head_lr=recipe.learning_rate,
        backbone_lr=backbone,
        weight_decay=recipe.weight_decay,
        head="" if recipe.backbone_rate is None else None,  # all of it: nothing to be found
    )
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups)


def _default_workers() -> int:
    """One process per core that this one may use, shared among the ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min((cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), MOST_WORKERS))
