"""Training samples to steps: decoded and augmented by worker processes, the same every time."""

from __future__ import annotations

import os
import random
import signal
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from evalkit.distributed import ranks
from evalkit.errors import InputError
from evalkit.images.audit import unreadable_error
from evalkit.images.decoding import Decoder, Waiting
from evalkit.images.reading import UnreadableError
from evalkit.output_names import names_given
from evalkit.training.classes import require_known_classes
from evalkit.training.order import Key, Order
from evalkit.training.readable import find_unreadable
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from evalkit.data import Source
    from evalkit.transforms import TransformSpec


class Part(NamedTuple):
    """What goes through the model at once."""

    inputs: torch.Tensor  # shape (B, …); pixels are uint8
    labels: torch.Tensor  # int64, shape (B,)
    positions: tuple[int, ...] = ()  # of the samples, where they are known


_Sample = tuple[torch.Tensor, int, int] | UnreadableError | InputError


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step of the optimizer is made of."""

    parts: Iterable[Part]
    count: int  # of the parts
    samples: int  # over all parts and ranks
    samples_per_rank: float  # by which this rank divides the sum of its losses


class TrainingBatches:
    """Samples of a `Source` as steps, to be gone through once per epoch.

    What the model sees of a sample depends on the seed, the epoch and the sample, whichever
    worker reads it: Python, NumPy and torch are seeded anew for every one. So training that was
    broken off goes on with exactly what it would have seen.

    Args:
        source: The samples.
        transform: With its random parts, such as `evalkit.transforms.train`.
        classes: Names of the model's outputs, in their order.
        order: Which samples make up which step.
        workers: Processes that decode; 0 does it here.
        positions: Which samples of the source to take. None takes all.
        pin_memory: Put batches where a GPU can fetch them by itself.

    Raises:
        InputError: The data has classes that the model does not know.
    """

    def __init__(
        self,
        source: Source,
        transform: TransformSpec,
        classes: Sequence[str] | Mapping[str, int],
        *,
        order: Order,
        workers: int = 0,
        positions: Sequence[int] | None = None,
        pin_memory: bool = False,
    ) -> None:
        names = names_given(classes)
        require_known_classes(source, names)
        self.order = order
        self._source, self._transform = source, transform
        self._wanted = range(len(source)) if positions is None else positions
        self._keys = _Keys(order)
        with _any_number_of_workers():
            self._loader: DataLoader[Any] = DataLoader(
                _Samples(source, transform, names, self._wanted, order.seed),
                batch_sampler=self._keys,
                num_workers=workers,
                collate_fn=_together,
                pin_memory=pin_memory,
                persistent_workers=workers > 0,
                worker_init_fn=_leave_signals_to_the_parent,
                multiprocessing_context="fork" if workers else None,  # sources are not picklable
                generator=torch.Generator().manual_seed(order.seed),  # leaves torch's own alone
            )

    def steps(self, epoch: int, *, first_step: int = 0) -> Iterator[Step]:
        """Yield the steps of an epoch.

        Args:
            epoch: From 1.
            first_step: Steps that are left out because they were done before.

        Raises:
            InputError: Images of a batch have different sizes or an image cannot be read.
        """
        self._keys.epoch, self._keys.first_step = epoch, first_step
        with _any_number_of_workers():
            loaded = iter(self._loader)
        parts = (self._sound(part) for part in loaded)
        for number in range(first_step, self.order.steps):
            samples = self.order.size(number)
            yield Step(
                parts=islice(parts, self.order.parts),
                count=self.order.parts,
                samples=samples,
                samples_per_rank=samples / self.order.ranks,
            )

    def _sound(self, part: Part | UnreadableError | InputError) -> Part:
        if isinstance(part, InputError):
            raise part
        if isinstance(part, UnreadableError):
            found = find_unreadable(self._source, self._wanted, self._transform.mode)
            raise unreadable_error(found, samples=len(self._wanted), name=self._source.name)
        return part

    def names(self, positions: Iterable[int]) -> list[str]:
        """Paths of the samples of a part."""
        return [self._source.paths[self._wanted[position]] for position in positions]


def steps_of(
    train: TrainingBatches | Iterable[Sequence[torch.Tensor]],
    epoch: int,
    *,
    first_step: int = 0,
    parts: int = 1,
) -> Iterator[Step]:
    """Yield the steps of an epoch, of `TrainingBatches` or of any iterable of batches.

    Args:
        train: Batches of inputs and labels.
        epoch: From 1.
        first_step: Steps that are left out because they were done before.
        parts: How many batches of an iterable make up a step; the last may have fewer.
    """
    if isinstance(train, TrainingBatches):
        yield from train.steps(epoch, first_step=first_step)
        return
    batches = (Part(inputs, labels) for inputs, labels in islice(train, first_step * parts, None))
    while together := list(islice(batches, parts)):
        samples = sum(len(part.labels) for part in together)
        yield Step(
            parts=together,
            count=len(together),
            samples=samples * ranks(),
            samples_per_rank=samples,
        )


class _Keys:
    """What a DataLoader asks for batches of keys."""

    def __init__(self, order: Order) -> None:
        self.order, self.epoch, self.first_step = order, 1, 0

    def __iter__(self) -> Iterator[list[Key]]:
        return self.order.keys(self.epoch, first_step=self.first_step)

    def __len__(self) -> int:
        return (self.order.steps - self.first_step) * self.order.parts


class _Samples(Dataset[Any]):
    """Samples by epoch and position."""

    def __init__(
        self,
        source: Source,
        transform: TransformSpec,
        classes: Sequence[str],
        positions: Sequence[int],
        seed: int,
    ) -> None:
        self._source, self._transform, self._seed = source, transform, seed
        self._outputs = {name: output for output, name in enumerate(classes)}
        self._positions = positions
        self._decoder = Decoder(transform)

    def __getitems__(self, keys: list[Key]) -> list[_Sample]:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        try:
            return [self._drawn(*key) for key in keys]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch.set_rng_state(before[2])

    def _drawn(self, epoch: int, position: int) -> _Sample:
        seed_sample(self._seed, epoch, position)
        place = self._positions[position]
        try:
            image, label, _ = self._source.fetch(place, self._transform.mode)
            decoded, _ = self._decoder.decode(image)
            assert not isinstance(decoded, Waiting)  # noqa: S101 - of a GPU alone
            return self._transform.pixels(decoded), self._outputs[label], position
        except (UnreadableError, InputError) as error:
            return error  # a worker that raises says so in thirty lines


def seed_sample(seed: int, epoch: int, position: int) -> None:
    """Seed Python, NumPy and torch on the CPU for one sample of one epoch.

    Example:
        >>> before = torch.get_rng_state()
        >>> seed_sample(0, 1, 5); first = torch.rand(()).item()
        >>> seed_sample(0, 1, 6); other = torch.rand(()).item()
        >>> seed_sample(0, 1, 5); first == torch.rand(()).item(), first == other
        (True, False)
        >>> torch.set_rng_state(before)
    """
    words = np.random.SeedSequence((seed, epoch, position)).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(words[0])  # noqa: NPY002 - the generator that other people's code draws from
    # Of the CPU alone: torch.manual_seed would seed GPUs as well, which workers must not touch.
    torch.default_generator.manual_seed(int(words[1]))


def _together(samples: list[_Sample]) -> Part | UnreadableError | InputError:
    """Make a part of samples, or return what is wrong with them."""
    faults = [sample for sample in samples if isinstance(sample, Exception)]
    if faults:
        return faults[0]
    sound = [sample for sample in samples if not isinstance(sample, Exception)]
    pixels, labels, positions = zip(*sound, strict=True)
    sizes = sorted({tuple(image.shape[1:]) for image in pixels})
    if len(sizes) > 1:
        return InputError(
            "images must have one size after the transform, got "
            f"{counted(len(sizes), 'size')}: {some(sizes)}: give a transform with crop"
        )
    return Part(torch.stack(pixels), torch.tensor(labels), positions)


@contextmanager
def _any_number_of_workers() -> Iterator[None]:
    """Let whoever asks for more workers than there are cores have them without a lecture."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Ctrl-C and SIGTERM reach a whole process group, but the step is to be finished.

    SIGTERM itself still ends a worker: it is how the parent ends those that are left when it exits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
