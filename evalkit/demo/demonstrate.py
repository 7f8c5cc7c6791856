"""The demonstration: the way of a checkpoint from DataParallel on a GPU to a report on the CPU."""

from __future__ import annotations

import secrets
import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from evalkit.data import open_data
from evalkit.demo.digits import CLASSES, SPLITS, file_names, load_digits, write_images
from evalkit.demo.net import DigitsNet, digits_net
from evalkit.errors import InputError
from evalkit.images.batches import Audit, batches
from evalkit.inference.loop import hidden_unless
from evalkit.report.tables import check_folder
from evalkit.run import evaluate
from evalkit.training import fit, seed_everything
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.evaluation import Evaluation

SEED = 0
EPOCHS = 8
BATCH_SIZE = 64
LEARNING_RATE = 0.01
CHECKPOINT = "checkpoint.pth"
MODEL = "evalkit.demo.net:digits_net"
MARKER = ".evalkit-demo"  # in a folder that may be replaced by the next demonstration
RESULTS = (
    "confusion_matrix.csv",
    "coverage_risk.csv",
    "per_class.csv",
    "predictions.parquet",
    "reliability.csv",
    "report.html",
    "summary.json",
    "summary.md",
    "thresholds.csv",
)


def run(out: Path | str, *, epochs: int = EPOCHS) -> Evaluation:
    """Train on handwritten digits, save as DataParallel does, load on the CPU, evaluate, report.

    Everything is made in a folder beside *out* and moved there when it is whole.

    Args:
        out: Folder for ``train/``, ``val/``, ``checkpoint.pth`` and the files of
            `Evaluation.save`. It must be new or empty, or hold only a former demonstration.
        epochs: How often training goes over the 1,438 training images.

    Raises:
        InputError: *out* holds files of somebody else's, or cannot be written to.
    """
    out = Path(out).absolute()
    _refuse_to_replace(out)
    with _one_thread(), _built_beside(out) as folder:
        write_images(folder, load_digits(), seed=SEED)
        _train(folder, epochs)
        evaluation = evaluate(
            folder / CHECKPOINT, folder / "val", model=MODEL, classes=CLASSES, device="cpu"
        )
        evaluation.summary["checkpoint"]["path"] = str(out / CHECKPOINT)
        if epochs == EPOCHS:
            evaluation.summary["command"] = shlex.join(["evalkit", "demo", "--out", str(out)])
        evaluation.save(folder)
    return evaluation


def _train(folder: Path, epochs: int) -> None:
    """Train on the images in *folder* and leave the checkpoint there."""
    seed_everything(SEED)
    train, validation = (_in_memory(folder / name) for name in SPLITS)
    loader = DataLoader(
        train, BATCH_SIZE, shuffle=True, generator=torch.Generator().manual_seed(SEED)
    )
    model = digits_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, epochs=epochs, steps_per_epoch=len(loader)
    )
    best = 0.0
    hidden = hidden_unless(True)  # noqa: FBT003 - as it is asked
    with tqdm(total=epochs, unit="epoch", desc="train", disable=hidden, leave=False) as bar:
        for record in fit(
            model,
            loader,
            validation=DataLoader(validation, BATCH_SIZE),
            optimizer=optimizer,
            epochs=epochs,
            schedule=schedule,
        ):
            best = max(best, record.validation_accuracy)
            bar.set_postfix(accuracy=f"{record.validation_accuracy:.3f}")
            bar.update()
    torch.save(
        {
            "epoch": epochs,
            "arch": "digits_net",
            "state_dict": nn.DataParallel(model).state_dict(),  # every key under "module."
            "best_acc1": 100 * best,
            "optimizer": optimizer.state_dict(),
        },
        folder / CHECKPOINT,
    )


def _in_memory(folder: Path) -> TensorDataset:
    """Return all images of a folder, as the net sees them, and their labels."""
    source = open_data(folder)
    outputs = {name: position for position, name in enumerate(CLASSES)}
    (batch,) = batches(
        source,
        DigitsNet.transform,
        outputs,
        batch_size=len(source),
        workers=1,
        audit=Audit(),
    )
    return TensorDataset(DigitsNet.transform.normalize(batch.pixels), batch.labels)


def _refuse_to_replace(out: Path) -> None:
    """Raise unless *out* is new, empty, or nothing but a former demonstration."""
    check_folder(out)
    present = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if MARKER in present:
        ours = {MARKER, CHECKPOINT, *RESULTS, *file_names(load_digits().labels, seed=SEED)}
        files = (path.relative_to(out) for path in out.rglob("*") if not path.is_dir())
        present = sorted({path.as_posix() for path in files} - ours)
    if present:
        raise InputError(
            f"out must be a new or empty folder, or hold only a former demonstration, got {out} "
            f"with {some(present)}: choose another"
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread, and as before afterwards.

    For so small a net more are of little use, and on a machine whose cores are busy they wait for
    each other: 42 s instead of 6 s on two cores with two other programs running.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _built_beside(out: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes *out* when all went well, and vanishes otherwise."""
    token = secrets.token_hex(4)
    unfinished = out.with_name(f".{out.name}.{token}.tmp")
    former = out.with_name(f".{out.name}.{token}.old")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        (unfinished / MARKER).write_text("Made by 'evalkit demo', which may replace this folder.\n")
        if out.exists():
            out.rename(former)
        unfinished.rename(out)
    finally:
        for leftover in (unfinished, former):
            shutil.rmtree(leftover, ignore_errors=True)
