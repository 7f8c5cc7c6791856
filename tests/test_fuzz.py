"""The inputs kept in fuzz/corpus, and mutations of them, given to everything that reads files."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parent.parent / "fuzz"
LARGEST_CORPUS_BYTES = 500_000


def _targets():
    spec = importlib.util.spec_from_file_location("fuzz_targets", FUZZ / "targets.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.TARGETS


TARGETS = _targets()
CORPUS = sorted(path for path in (FUZZ / "corpus").glob("*/*"))
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def mutated(data, seed):
    """Return bytes with a few of them changed, cut out, repeated or inserted."""
    chance = random.Random(seed)
    found = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(found) + 1)
        kind = chance.randrange(4)
        if kind == 0 and at < len(found):
            found[at] = chance.randrange(256)
        elif kind == 1:
            del found[at : at + chance.randint(1, 40)]
        elif kind == 2:
            found[at:at] = found[at : at + chance.randint(1, 40)]
        else:
            found[at:at] = chance.randbytes(chance.randint(1, 4))
    return bytes(found)


def is_an_answer(refusal):
    """Whether something was read (no refusal), or refused in one line that says what it got."""
    return refusal == "" or (refusal.count("\n") == 0 and "got" in refusal)


def test_every_target_has_a_corpus_and_it_is_small():
    assert {path.parent.name for path in CORPUS} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS) < LARGEST_CORPUS_BYTES


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_is_in_the_corpus_is_read_or_refused(path):
    assert is_an_answer(TARGETS[path.parent.name](path.read_bytes()))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_of_every_corpus_something_is_read(name):
    answers = [TARGETS[name](path.read_bytes()) for path in CORPUS if path.parent.name == name]

    assert "" in answers


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_mutations_are_read_or_refused(name):
    seeds = [path.read_bytes() for path in CORPUS if path.parent.name == name]

    @QUICK
    @given(st.sampled_from(seeds), st.integers(0, 2**32))
    def read_or_refused(data, seed):
        assert is_an_answer(TARGETS[name](mutated(data, seed)))

    read_or_refused()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_any_bytes_are_read_or_refused(name):
    @QUICK
    @given(st.binary(max_size=300))
    def read_or_refused(data):
        assert is_an_answer(TARGETS[name](data))

    read_or_refused()


@pytest.mark.parametrize("name", sorted(TARGETS))
@pytest.mark.slow
def test_ten_thousand_mutations_are_read_or_refused(name):
    seeds = [path.read_bytes() for path in CORPUS if path.parent.name == name]

    for seed in range(10_000):
        assert is_an_answer(TARGETS[name](mutated(seeds[seed % len(seeds)], seed)))
