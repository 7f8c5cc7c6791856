import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.checkpoint.scattered import Scattered, scattered, whole


@st.composite
def cut(draw):
    """A tensor, and the parts that a grid of cuts makes of it, in any order."""
    size = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    ends = [sorted({0, length, *draw(st.sets(st.integers(0, length)))}) for length in size]
    spans = [list(itertools.pairwise(one)) for one in ends]
    boxes = draw(st.permutations(list(itertools.product(*spans))))
    tensor = torch.arange(torch.Size(size).numel(), dtype=torch.float64).reshape(size)
    parts = [
        (tuple(begin for begin, _end in box), tensor[tuple(slice(*span) for span in box)])
        for box in boxes
    ]
    return tensor, parts


@given(cut())
def test_parts_of_any_grid_become_the_whole(given):
    tensor, parts = given

    found = scattered(tensor.shape, parts)

    assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
    assert torch.equal(whole(found), tensor)


HALF = torch.zeros(2, 4)
FAULTS = {
    "parts with 8 of the 16 values": [((0, 0), HALF)],
    "that overlap": [((0, 0), HALF), ((1, 0), HALF)],
    "reaches beyond": [((0, 0), HALF), ((3, 0), HALF)],
    "of other dimensions": [((0,), torch.zeros(8)), ((2, 0), HALF)],
    "of 2 types": [((0, 0), HALF), ((2, 0), HALF.half())],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_parts_that_do_not_fill_a_tensor_once_are_refused(fault):
    """Memory that nobody filled would otherwise pass for weights."""
    with pytest.raises(ValueError, match=fault):
        scattered((4, 4), FAULTS[fault])


def test_nothing_can_be_computed_without_the_values():
    found = scattered((4, 4), [((0, 0), HALF), ((2, 0), HALF + 1)])

    assert isinstance(found, Scattered)
    assert found.numel() == 16
    with pytest.raises(NotImplementedError, match="meta tensor"):
        found.to("cpu")
    assert whole(found).sum() == 8


def test_one_part_that_is_all_is_not_copied():
    assert scattered((2, 4), [((0, 0), HALF)]) is HALF
