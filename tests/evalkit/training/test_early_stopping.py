import json
import math

import pytest

from evalkit.errors import InputError
from evalkit.training import EarlyStopping


def over_at(scores, **options):
    """The number of the epoch, from 1, after which training is over."""
    stopping = EarlyStopping(**options)
    return next((n for n, score in enumerate(scores, 1) if stopping.is_over(score)), None)


@pytest.mark.parametrize(
    ("scores", "options", "epoch"),
    [
        ([0.1, 0.2, 0.3, 0.4], {"patience": 1}, None),
        ([0.5, 0.5], {"patience": 1}, 2),  # as good is not better
        ([0.5, 0.4, 0.4, 0.4], {"patience": 3}, 4),
        ([0.5, 0.4, 0.6, 0.4, 0.4], {"patience": 2}, 5),  # a gain starts the count anew
        ([0.5, 0.505, 0.51], {"patience": 2, "least_gain": 0.02}, 3),
        ([0.5, 0.505, 0.53], {"patience": 2, "least_gain": 0.02}, None),
        ([math.nan, math.nan], {"patience": 2}, 2),
        ([math.nan, 0.1], {"patience": 2}, None),
        ([-3.0, -2.0, -2.5], {"patience": 1}, 3),  # minus a loss
    ],
)
def test_over_after_that_many_epochs_without_a_gain(scores, options, epoch):
    assert over_at(scores, **options) == epoch


def test_goes_on_counting_after_a_resume():
    stopping = EarlyStopping(patience=3)
    for score in (0.5, 0.4):
        stopping.is_over(score)

    resumed = EarlyStopping(patience=3)
    resumed.load_state_dict(json.loads(json.dumps(stopping.state_dict())))

    assert resumed == stopping
    assert [resumed.is_over(0.4), resumed.is_over(0.4)] == [False, True]


def test_a_longer_patience_given_at_the_resume_counts():
    stopping = EarlyStopping(patience=1)
    stopping.is_over(0.5)

    resumed = EarlyStopping(patience=5)
    resumed.load_state_dict(stopping.state_dict())

    assert resumed.patience == 5
    assert not resumed.is_over(0.1)


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"patience": 0}, "0 and 0.0"),
        ({"patience": 1, "least_gain": -0.1}, "1 and -0.1"),
        ({"patience": 1, "least_gain": math.nan}, "1 and nan"),
    ],
)
def test_values_out_of_range(options, got):
    with pytest.raises(InputError) as error:
        EarlyStopping(**options)

    assert str(error.value) == (f"patience must be at least 1 and least_gain 0 or more, got {got}")
