"""Parts of the predictions: how they are cut, written, proven and put together."""

import fcntl
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InputError
from evalkit.images.batches import Audit, Unreadable
from evalkit.inference.outputs import Rows, per_sample
from evalkit.lock import locked
from evalkit.run import line
from evalkit.run.cut import LARGEST, MOST_SCORES, MOST_SHARDS, SMALLEST, Cut, cut
from evalkit.run.merge import _probabilities, _proven
from evalkit.run.shard import Shard, read_shard, to_bytes
from evalkit.run.work import in_background

CUT = Cut(samples=10, batch_size=2, shard_size=4)


def rows(samples, *, classes=7, scores=False):
    generator = torch.Generator().manual_seed(samples)
    given = torch.randn(samples, classes, generator=generator)
    packed = per_sample(given, torch.arange(samples) % classes, with_scores=scores)
    return Rows.of_tensors(packed)


def shard(number, indices=None, unreadable=()):
    indices = list(CUT.positions(number)) if indices is None else indices
    return Shard(
        number=number,
        indices=np.array(indices, dtype=np.int64),
        rows=rows(len(indices)) if len(indices) else None,
        audit=Audit(
            unreadable=[Unreadable(index=one, path="x", reason="is empty") for one in unreadable],
            oddities=Counter({"a palette": number}),
        ),
    )


@given(
    samples=st.integers(1, 10**10), batch_size=st.integers(1, 5_000), scores=st.integers(0, 30_000)
)
def test_every_position_is_in_one_shard_whatever_the_sizes(samples, batch_size, scores):
    found = cut(samples, batch_size=batch_size, scores=scores)

    assert found.shard_size % batch_size == 0
    assert found.positions(0).start == 0
    assert found.positions(len(found.shards) - 1).stop == samples
    assert found.shard_size >= min(samples, SMALLEST, MOST_SCORES // max(scores, 1))
    if not scores:
        assert found.shard_size < max(LARGEST, samples / MOST_SHARDS + 1) + batch_size


@given(
    samples=st.integers(1, 300),
    batch_size=st.integers(1, 9),
    per_shard=st.integers(1, 5),
    processes=st.integers(1, 5),
)
def test_shares_are_disjoint_unpadded_and_cut_into_the_same_batches(
    samples, batch_size, per_shard, processes
):
    whole = Cut(samples=samples, batch_size=batch_size, shard_size=per_shard * batch_size)
    shares = [list(whole.shards)[rank::processes] for rank in range(processes)]

    counted, made = [], []
    for share in shares:
        positions = whole.of_shards(share)
        counted += positions
        starts = range(0, len(positions), batch_size)
        made += [positions[start : start + batch_size] for start in starts]
        assert len(starts) == len(list(whole.batches(share)))

    assert sorted(counted) == list(range(samples))
    assert sorted(made) == [
        list(range(start, min(start + batch_size, samples)))
        for start in range(0, samples, batch_size)
    ]


@pytest.mark.parametrize("scores", [False, True])
def test_a_file_holds_everything_of_its_shard(tmp_path, scores):
    given = Shard(
        number=1,
        indices=np.array([4, 6, 7]),
        rows=rows(3, scores=scores),
        audit=shard(1, unreadable=[5]).audit,
    )
    path = tmp_path / "shard.parquet"
    path.write_bytes(to_bytes(given, run="abc"))

    found = read_shard(path)

    assert (found.number, found.audit) == (1, given.audit)
    np.testing.assert_array_equal(found.indices, given.indices)
    for name, values in vars(given.rows).items():
        np.testing.assert_array_equal(getattr(found.rows, name), values)
    assert to_bytes(found, run="abc") == path.read_bytes()


def test_a_shard_of_which_nothing_could_be_read(tmp_path):
    path = tmp_path / "shard.parquet"
    path.write_bytes(to_bytes(shard(2, indices=[], unreadable=[8, 9]), run="abc"))

    found = read_shard(path)

    assert found.rows is None
    found.refuse_unless_whole(CUT)


@pytest.mark.parametrize(
    ("indices", "unreadable"),
    [
        ([0, 1, 2], []),  # one is missing
        ([0, 1, 2, 3, 3], []),  # one is there twice
        ([0, 1, 2, 3], [3]),  # scored and left out
        ([0, 1, 2, 4], []),  # one of another shard
    ],
)
def test_a_sample_that_is_not_counted_once_is_never_passed_over(indices, unreadable):
    with pytest.raises(InputError) as error:
        shard(0, indices, unreadable).refuse_unless_whole(CUT)

    assert str(error.value) == (
        f"every sample from 0 to 3 must be counted once, got {len(indices)} scored and "
        f"{len(unreadable)} left out in shard 0: remove that file and go on with resume=True"
    )


@pytest.mark.parametrize("numbers", [[0, 1], [0, 2], [1, 0, 2], [0, 1, 1, 2], [0, 1, 2, 2]])
def test_shards_that_are_missing_or_twice_are_found(numbers):
    with pytest.raises(InputError, match="must be counted once"):
        list(_proven(CUT, map(shard, numbers), Audit()))


def test_all_shards_in_their_order_pass():
    audit = Audit()

    passed = list(_proven(CUT, map(shard, [0, 1, 2]), audit))

    assert [one.number for one in passed] == [0, 1, 2]
    assert audit.oddities == {"a palette": 3}


def test_probabilities_of_logits_and_of_probabilities():
    logits = np.array([[0.0, 1.0, 3.0], [1e30, 0.0, 0.0]], dtype=np.float32)

    found = _probabilities(logits, given=False)

    np.testing.assert_allclose(found[0], torch.tensor(logits[0]).softmax(0), rtol=1e-6)
    np.testing.assert_array_equal(found[1], [1, 0, 0])
    kept = np.array([[0.25, 0.75]], dtype=np.float32)
    np.testing.assert_array_equal(_probabilities(kept, given=True), kept)


def test_what_goes_wrong_in_the_writing_thread_is_raised_where_shards_are_given():
    def write(_shard):
        raise InputError("full")

    def give_three():
        with in_background(write) as take:
            for number in range(3):
                take(shard(number))

    with pytest.raises(InputError, match="full"):
        give_three()


def test_where_nothing_can_be_locked_the_run_goes_on_and_says_so(tmp_path, monkeypatch):
    def no_locks(*_arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)

    with locked(tmp_path / "lock", out=tmp_path) as held:
        assert held is False
    assert "knows no locks" in line.NO_LOCKS
