import numpy as np
import pandas as pd
import pytest
import torch

from evalkit.errors import InputError
from evalkit.output_names import contradict, names_given, names_in_order


def test_names_that_come_one_after_the_other():
    assert names_given({"cat": 0, "dog": 1}.keys()) == ("cat", "dog")
    assert names_given(name for name in ("cat", "dog")) == ("cat", "dog")


@pytest.mark.parametrize(
    "classes",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        [b"cat", b"dog"],
        np.array(["cat", "dog"]),
        np.array(["cat", "dog"], dtype=object),
        pd.Index(["cat", "dog"]),
        pd.Series(["cat", "dog"]),
        {"dog": 1, "cat": 0},
        {"dog": np.int64(1), "cat": np.int64(0)},
        {"dog": torch.tensor(1), "cat": torch.tensor(0)},
        {"dog": 1.0, "cat": 0.0},
        {"dog": "1", "cat": "0"},
        {1: "dog", 0: "cat"},
        {"1": "dog", "0": "cat"},
    ],
)
def test_names_in_usual_containers(classes):
    assert names_given(classes) == names_in_order(classes) == ("cat", "dog")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("cat,dog", "must be a list of names, .* got 'cat,dog'"),
        ({"cat"}, "must be a list of names, .* got {'cat'}"),
        (2, "must be a list of names, .* got 2"),
        (["cat", "dog", "cat"], "must differ from each other, got"),
        ([("tench", "n01440764")], r"must be names, got \('tench', 'n01440764'\) of tuple"),
        ({"cat": 1, "dog": 2}, "must name every output once, from 0 on, .* got {'cat': 1"),
        ({"cat": 0, "dog": 0}, "must name every output once, from 0 on"),
        ({2: 0, 0: 1, 1: 2}, "must name every output once, from 0 on"),
    ],
)
def test_what_names_no_outputs_is_refused(classes, said):
    with pytest.raises(InputError, match=said):
        names_given(classes)


@pytest.mark.parametrize("key", ["class_to_idx", "label2id", "class2index"])
def test_the_key_says_which_number_is_the_name(key):
    assert names_in_order({2: 0, 0: 1, 1: 2}, key) == ("2", "0", "1")


def test_the_other_keys_say_the_opposite():
    assert names_in_order({2: 0, 0: 1, 1: 2}, "idx_to_class") == ("1", "2", "0")
    assert names_in_order({"cat": 0, "dog": 1}, "idx_to_class") == ("cat", "dog")


def test_names_that_only_one_list_has_contradict_nothing():
    assert contradict(["cat", "dog"], ["cat", "eel"]) == []
    assert contradict(["cat", "dog"], ["eel", "cat"]) == ["cat"]
