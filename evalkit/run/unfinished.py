"""The folder of a run that is under way: its shards, and what they belong to."""

from __future__ import annotations

import json
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.lock import OF_EVALUATION, OF_TRAINING, is_begun, locked, refuse_company
from evalkit.run.identity import refuse_differences
from evalkit.run.shard import Shard, read_shard, said_by, to_bytes
from evalkit.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from evalkit.run.cut import Cut

NAME, LOCK = OF_EVALUATION.split("/")  # beside the results, and gone once they are there
RUN = "run.json"
SHARD = "shard-{:07}.parquet"
NOTHING_YET = "no prediction was written yet"


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Shards on the disk, each written whole or not at all.

    Attributes:
        folder: Where they are.
        run: Name of the run, in every one of its files.
        is_locked: Whether a second run would be refused; False where the file system cannot.
    """

    folder: Path
    run: str
    is_locked: bool = True

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / SHARD.format(number)

    def write(self, shard: Shard) -> None:
        """Write a shard.

        Raises:
            InputError: The disk is full, or nothing can be written there.
        """
        with writing(self.folder):
            write_whole(self.path(shard.number), to_bytes(shard, run=self.run))

    def read(self, number: int) -> Shard:
        """Read a shard.

        Raises:
            InputError: It is damaged.
        """
        return read_shard(self.path(number))

    def gave_probabilities(self, number: int) -> bool:
        """Whether all scores of a shard could be probabilities."""
        return bool(said_by(self.path(number))["gave_probabilities"])

    def present(self, cut: Cut) -> list[int]:
        """The shards that need not be made again.

        Raises:
            InputError: A file is damaged, or of another run.
        """
        found = [number for number in cut.shards if self.path(number).exists()]
        for number in found:
            said = said_by(self.path(number))
            if said.get("run") != self.run or said.get("shard") != number:
                raise InputError(
                    f"unfinished predictions must be of one run, got {self.path(number)} of "
                    "another: remove this file and go on with resume=True"
                )
        return found

    def refuse_absent(self, cut: Cut) -> None:
        """Raise if a shard that some process made cannot be seen from here.

        Raises:
            InputError: One is not there.
        """
        absent = [number for number in cut.shards if not self.path(number).exists()]
        if absent:
            raise InputError(
                f"out must be a folder that all processes see, got {self.folder} without "
                f"{len(absent)} of {len(cut.shards)} parts, the first {self.path(absent[0]).name}: "
                "choose one on a file system that they share"
            )

    def remove(self) -> None:
        """Remove everything: the results are where they belong."""
        shutil.rmtree(self.folder)


def refuse_leftovers(out: Path) -> None:
    """Raise if an unfinished run is in a folder that is not to go on with it.

    Raises:
        InputError: There is one, with predictions.
    """
    folder = out / NAME
    if not (folder / RUN).exists():
        return
    with locked(folder / LOCK, out=out):  # a run at work is the more important news
        shards = len(list(folder.glob(SHARD.format(0).replace("0000000", "*"))))
        if not shards:
            return  # nothing is lost with it
        raise InputError(
            f"out must be free of unfinished runs, got {folder} with {shards} finished parts of "
            "one: go on with it by resume=True, or remove that folder"
        )


@contextmanager
def begun(out: Path, identity: Mapping[str, Any], *, resume: bool) -> Iterator[Unfinished]:
    """Begin a run in a folder, or go on with the one there, and hold it against others.

    A run that ends in an error leaves its shards for another one to go on with; without any, it
    leaves nothing.

    Args:
        out: Folder of the results; made where it does not exist.
        identity: What the predictions depend on, see `evalkit.run.identity`.
        resume: Whether to go on with an unfinished run; where there is none, one is begun.

    Raises:
        InputError: Another run is at work there, an unfinished one is there and not wanted or of
            something else, or nothing can be written.
    """
    refuse_company(out, OF_TRAINING)
    if not resume:
        refuse_leftovers(out)
    identity = json.loads(json.dumps(identity))  # as a former run's is read
    folder = out / NAME
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    is_ours = False
    try:
        with locked(folder / LOCK, out=out) as held:
            is_ours = True
            is_there = resume and (folder / RUN).exists()
            run = _went_on(folder, identity) if is_there else _new(folder, identity)
            yield Unfinished(folder=folder, run=run, is_locked=held)
    except BaseException:
        if is_ours:  # another run may have come between
            _leave_nothing_empty(folder, made)
        raise


def options_of(out: Path) -> Mapping[str, Any]:
    """What an unfinished run was begun with, see `evalkit.run.identity`; else nothing."""
    try:
        found = dict(json.loads((out / NAME / RUN).read_bytes())["identity"]["options"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or `begun` says what is wrong
        return {}
    kinds = {"batch_size": int, "channels_last": bool}
    return found if all(type(found.get(name)) is kind for name, kind in kinds.items()) else {}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one line that the disk is full, or that nothing can be written.

    Raises:
        InputError: Either is so.
    """
    try:
        yield
    except OSError as error:
        kept = "what is written there stays valid, resume=True goes on with it"
        raise InputError(
            f"out must be a folder with room that can be written to, got {folder.parent}: "
            f"{error.strerror}: {kept if is_begun(folder.parent) else NOTHING_YET}"
        ) from error


def _new(folder: Path, identity: Mapping[str, Any]) -> str:
    run = secrets.token_hex(8)
    content = json.dumps({"run": run, "identity": identity}, ensure_ascii=False, indent=2)
    with writing(folder):
        write_whole(folder / RUN, content.encode(errors="surrogatepass"))
    return run


def _went_on(folder: Path, identity: Mapping[str, Any]) -> str:
    path = folder / RUN
    try:
        before = json.loads(path.read_bytes())
        run, former = str(before["run"]), dict(before["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"resume must find what the run was in {path}, got {type(error).__name__}: remove "
            f"{folder} and begin anew"
        ) from error
    refuse_differences(former, identity, where=str(folder))
    for part in folder.glob(".*.tmp"):  # what a killed process was about to write
        part.unlink(missing_ok=True)
    return run


def _leave_nothing_empty(folder: Path, made: list[Path]) -> None:
    """Remove what this run made, if no shard of any run is in it."""
    if folder not in made or any(folder.glob(SHARD.format(0).replace("0000000", "*"))):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for path in made[1:]:
        try:
            path.rmdir()
        except OSError:  # something else is in it by now
            return
