"""The checkpoints of a run: whole or not there, with everything that is needed to go on."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.save import write_checkpoint
from evalkit.distributed import rank
from evalkit.errors import InputError
from evalkit.lock import LAST, OF_EVALUATION, OF_TRAINING, locked, refuse_company
from evalkit.whole_file import written_beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from evalkit.training.state import State

BEST = "best.pth"
OF_AN_EPOCH = re.compile(r"epoch_(\d+)\.pth")
UNFINISHED = re.compile(r"\.((last|best|epoch_\d+)\.pth|log\.csv|manifest\.csv)\.[0-9a-f]{8}\.tmp")


class Checkpoints:
    """The folder that a run keeps its checkpoints in.

    ``last.pth`` is as far as training has come, ``best.pth`` the epoch that validated best, and
    ``epoch_0007.pth`` the newest epochs. Each is a file that plain ``torch.load(path,
    weights_only=True)`` reads, with ``state_dict``, what `State.as_dict` gives, and the notes.
    Under torchrun rank 0 writes, all read.

    Args:
        folder: Made where it does not exist.
        keep: How many epochs to keep beside best and last.
        every_steps: Also write ``last.pth`` within an epoch, after every so many steps. None
            writes it at the end of epochs alone, and when training is asked to stop.
        notes: What else a checkpoint is to say, such as ``classes`` and ``model_spec``.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from evalkit.training.state import State
        >>> model = nn.Linear(2, 2)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> folder = Path(tempfile.mkdtemp())
        >>> Checkpoints(folder, notes={"classes": ["cat", "dog"]}).save(
        ...     State(model=model, optimizer=sgd), best=True
        ... )
        >>> sorted(path.name for path in folder.iterdir())
        ['best.pth', 'last.pth']
        >>> sorted(torch.load(folder / "last.pth", weights_only=True))
        ['classes', 'epoch', 'loss_sums', 'optimizer', 'position', 'rng', 'scaler', 'state_dict']
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        keep: int = 2,
        every_steps: int | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        if keep < 0 or (every_steps is not None and every_steps < 1):
            raise InputError(
                f"keep must be 0 or more and every_steps at least 1, got {keep} and {every_steps}"
            )
        self.folder, self.keep, self.every_steps = Path(folder), keep, every_steps
        self.notes = dict(notes or {})
        self._hold: ExitStack | None = None
        self._lock: os.stat_result | None = None  # the file, while it is held

    def is_due(self, step: int) -> bool:
        """Whether to write after so many steps of an epoch."""
        return self.every_steps is not None and step % self.every_steps == 0

    def last(self) -> dict[str, Any] | None:
        """What ``last.pth`` holds, or None where there is none.

        Raises:
            InputError: It cannot be read.
        """
        path = self.folder / LAST
        if not path.exists():
            return None
        try:
            kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, LookupError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path}: expected a checkpoint to go on from, got '{reason}': copy one of "
                "epoch_*.pth over it"
            ) from error
        if not {"position", "optimizer", "rng"} <= kept.keys():
            raise InputError(
                f"{path}: expected a checkpoint to go on from, got one without the state of "
                "training: start from it with init_from"
            )
        return kept

    def save(self, state: State, *, best: bool = False, epoch: int | None = None) -> None:
        """Write ``last.pth``, and the same under other names.

        Args:
            state: Of the training.
            best: Whether it is also the best epoch so far.
            epoch: The epoch that it closes, if it does; kept until newer ones take its place.

        Raises:
            InputError: The folder cannot be written to.
        """
        kept = _on_cpu({**self.notes, **state.as_dict()})
        if rank():
            return
        tensors = {key: t.detach().cpu() for key, t in state.model.state_dict().items()}
        names = [BEST] if best else []
        names += [f"epoch_{epoch:04}.pth"] if epoch is not None and self.keep else []
        names += [LAST]  # by which a run goes on: when it is there, the others are
        if self._hold is not None:
            self._refuse_another_folder()
        self._make_folder()
        write_checkpoint(self.folder / names[0], tensors, kept)
        for name in names[1:]:
            _same_file(self.folder / names[0], self.folder / name)
        self._drop_old()

    def clean(self) -> None:
        """Remove what a run that was killed left half-written."""
        if rank() or not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def hold(self) -> None:
        """Hold the folder, which is made, against other runs, until `let_go` or the process ends.

        Raises:
            InputError: Another one is at work there, or it cannot be written to.
        """
        if rank() or self._hold is not None:
            return
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        with ExitStack() as stack:
            stack.callback(_remove_empty, made)
            refuse_company(self.folder, OF_EVALUATION)
            self._make_folder()
            lock = self.folder / OF_TRAINING
            with self._written_to():
                stack.enter_context(locked(lock, out=self.folder))
                self._lock = lock.stat()
            stack.callback(lock.unlink, missing_ok=True)
            self._hold = stack.pop_all()

    def let_go(self) -> None:
        """Hold the folder no longer; one that was made and has nothing in it is removed."""
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def _refuse_another_folder(self) -> None:
        """Raise if the folder that is held is not the one that is there now.

        Raises:
            InputError: It was removed, or exchanged.
        """
        try:
            found = (self.folder / OF_TRAINING).stat()
            is_there = self._lock is not None and os.path.samestat(found, self._lock)
        except OSError:
            is_there = False
        if not is_there:
            raise InputError(
                f"{self.folder}: expected the folder that this training began in, got none or "
                "another: it was removed meanwhile, and what was in it is lost; begin anew"
            )

    def _make_folder(self) -> None:
        """Make the folder, and see that it can be written to."""
        probe = self.folder / f".{LAST}.{secrets.token_hex(4)}.tmp"
        with self._written_to():
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch(exist_ok=False)
            probe.unlink()

    @contextmanager
    def _written_to(self) -> Iterator[None]:
        """Say in one line that the folder cannot be written to.

        Raises:
            InputError: It cannot.
        """
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.folder}: expected a folder to write to, got '{error.strerror}'"
            ) from error

    def _drop_old(self) -> None:
        found = {
            int(match[1]): path
            for path in self.folder.iterdir()
            if (match := OF_AN_EPOCH.fullmatch(path.name))
        }
        for epoch in sorted(found)[: max(0, len(found) - self.keep)]:
            found[epoch].unlink(missing_ok=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that have nothing in them, the innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something is
            return


def _same_file(source: Path, target: Path) -> None:
    """Give a file another name, at once; where names cannot share a file, copy it."""
    with written_beside(target) as unfinished:
        try:
            os.link(source, unfinished)
        except OSError:  # the file system has no links
            shutil.copyfile(source, unfinished)


def _on_cpu(value: Any) -> Any:
    """Return the same with all tensors on the CPU, where every machine can read them."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(one) for one in value)
    return value
