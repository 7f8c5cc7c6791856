import numpy as np
import pytest
import torch

from evalkit.checkpoint.candidates import find_candidates, is_averaged
from evalkit.checkpoint.layout import match, strip_wrappers
from evalkit.errors import InputError

MODEL = {"conv.weight": (4, 3), "submodule.bias": (4,), "fc.weight": (2, 4)}
TOTAL = 12 + 4 + 8


def tensors(*keys):
    return {key: torch.ones(2, 2) for key in keys}


def under(prefix, keys=MODEL):
    return {prefix + key: shape for key, shape in keys.items()}


def names(tree):
    return [candidate.name for candidate in find_candidates(tree)]


def test_bare_state_dict_is_the_file_itself():
    assert names(tensors("fc.weight")) == ["."]


def test_weights_beside_an_optimizer_with_tensors_of_its_own():
    tree = {
        "epoch": 3,
        "state_dict": tensors("fc.weight"),
        "state_dict_ema": tensors("fc.weight"),
        "optimizer": {"state": {0: tensors("exp_avg")}, "param_groups": [], "x": tensors("a")},
        "lr_scheduler": tensors("base"),
        "rng_state": tensors("cpu"),
    }

    assert names(tree) == ["state_dict", "state_dict_ema"]


def test_weights_to_depth_three_and_no_further():
    tree = {"a": {"b": {"c": tensors("w") | {"d": tensors("w")}}}}

    assert names(tree) == ["a.b.c"]


def test_entries_that_are_no_tensors_are_left_out():
    (candidate,) = find_candidates({"fc.weight": torch.ones(2, 2), "version": 2, 7: None})

    assert list(candidate.tensors) == ["fc.weight"]
    assert candidate.elements == 4


def test_lists_and_dicts_of_other_classes_are_looked_into():
    from evalkit.checkpoint.inert import Inert

    easy = Inert(path="easydict.EasyDict", entries={"net": tensors("w")})

    assert names([{"epoch": 3}, easy, tensors("a")]) == ["1.net", "2"]


def test_numpy_arrays_count_as_tensors():
    from evalkit.checkpoint.harmless import PlainArray

    array = PlainArray()
    array.value = np.ones((2, 2), dtype=">f4")

    (candidate,) = find_candidates({"w": array, "none": PlainArray()})

    assert candidate.tensors["w"].dtype is torch.float32
    assert list(candidate.tensors) == ["w"]


@pytest.mark.parametrize("tree", [None, [torch.ones(1)], torch.ones(1), {}, {"epoch": 3}])
def test_no_weights_no_candidates(tree):
    assert names(tree) == []


@pytest.mark.parametrize("name", ["ema", "model_ema", "params_ema", "shadow", "swa.model"])
def test_averages_are_known_by_name(name):
    assert is_averaged(name)


@pytest.mark.parametrize("name", ["state_dict", "model", "student", "schema", "emanuel.net"])
def test_other_names_are_no_averages(name):
    assert not is_averaged(name)


def test_without_a_model_only_wrappers_common_to_all_keys_go():
    stripped, prefix = strip_wrappers(tensors("module._orig_mod.a.w", "module._orig_mod.module.w"))
    assert (list(stripped), prefix) == (["a.w", "module.w"], "module._orig_mod.")

    stripped, prefix = strip_wrappers(tensors("module.a.w", "submodule.w"))
    assert (list(stripped), prefix) == (["module.a.w", "submodule.w"], "")

    assert strip_wrappers({}) == ({}, "")


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "_fsdp_wrapped_module.",
        "model.",
        "backbone.",
        "net.encoder.",
        "module.model.net.",
        "anything.at.all.",
        "0.",
    ],
)
def test_any_prefix_goes_when_the_model_fits_without_it(prefix):
    found = match(under(prefix), MODEL)

    assert found.prefixes == (prefix,)
    assert found.elements == TOTAL
    assert found.pairs == {key: prefix + key for key in MODEL}
    assert (found.missing, found.unexpected) == ((), ())


def test_names_that_only_contain_a_prefix_are_not_touched():
    found = match(MODEL, MODEL)

    assert found.prefixes == ()
    assert found.pairs["submodule.bias"] == "submodule.bias"


def test_wrappers_in_the_middle_of_keys_go():
    file = {
        "_orig_mod.conv.weight": (4, 3),
        "_orig_mod.submodule._checkpoint_wrapped_module.bias": (4,),
        "_orig_mod._fsdp_wrapped_module.fc.weight": (2, 4),
    }

    found = match(file, MODEL)

    assert found.elements == TOTAL
    assert found.prefixes == ("_checkpoint_wrapped_module.", "_fsdp_wrapped_module.", "_orig_mod.")
    assert found.unexpected == ()


def test_a_wrapped_model_takes_plain_keys_and_other_wrappers():
    assert match(MODEL, under("module.")).elements == TOTAL
    assert match(under("_orig_mod."), under("module.")).elements == TOTAL
    assert match(under("module."), under("module.")).prefixes == ()


@pytest.mark.parametrize("prefix", ["model.", "net.encoder.", "0."])
def test_a_prefix_that_only_the_model_has(prefix):
    found = match(MODEL, under(prefix))

    assert found.elements == TOTAL
    assert found.pairs == {prefix + key: key for key in MODEL}
    assert found.model_prefixes == (prefix,)
    assert (found.prefixes, found.missing, found.unexpected) == ((), (), ())


def test_different_prefixes_on_both_sides():
    found = match(under("module.net."), under("model."))

    assert found.elements == TOTAL
    assert found.prefixes == ("module.", "net.")
    assert found.model_prefixes == ("model.",)


def test_a_model_with_a_head_beside_the_plain_backbone():
    """All of the file has a place, and what has none in it is missing."""
    model = under("backbone.") | {"head.weight": (7, 7)}

    found = match(MODEL, model)

    assert found.elements == TOTAL
    assert found.model_prefixes == ("backbone.",)
    assert found.missing == ("head.weight",)


def test_a_real_module_named_module_keeps_its_name():
    model = {"module.weight": (2, 2), "head.module.bias": (2,)}

    assert match(model, model).prefixes == ()
    assert match(under("module.", model), model).prefixes == ("module.",)
    assert match(under("module.", model), model).elements == 6


def test_backbone_and_head_under_two_prefixes():
    file = {
        "backbone.conv.weight": (4, 3),
        "backbone.submodule.bias": (4,),
        "head.fc.weight": (2, 4),
    }

    found = match(file, MODEL)

    assert found.elements == TOTAL
    assert found.prefixes == ("backbone.", "head.")


def test_a_head_of_another_copy_is_not_borrowed():
    teacher = under("teacher.", {"conv.weight": (4, 3), "submodule.bias": (4,)})
    student = under("student.", {"conv.weight": (9, 3), "fc.weight": (2, 4)})

    found = match(teacher | student, MODEL)

    assert found.prefixes == ("teacher.",)
    assert found.missing == ("fc.weight",)


def test_key_that_exists_with_and_without_prefix_is_taken_as_the_model_names_it():
    file = MODEL | under("module.")

    found = match(file, MODEL)

    assert found.prefixes == ()
    assert found.pairs == {key: key for key in MODEL}
    assert found.unexpected == tuple(under("module."))


def test_two_keys_that_would_become_one_are_not_merged():
    file = {"module.conv.weight": (4, 3), "_orig_mod.conv.weight": (4, 3), "x.fc.weight": (2, 4)}

    with pytest.raises(InputError) as error:
        match(file, {"conv.weight": (4, 3)})

    assert str(error.value) == (
        "expected one set of weights that fits the model, got several that fit equally well, "
        "under the keys module., _orig_mod.: save the one you mean by itself"
    )


def test_raw_before_averaged_under_equal_prefixes():
    assert match(under("ema.") | under("net."), MODEL).prefixes == ("net.",)
    assert match(under("student.") | under("teacher."), MODEL).prefixes == ("student.",)


def test_other_shapes_are_told_from_missing_names():
    found = match({"module.conv.weight": (4, 3), "module.fc.weight": (9, 4)}, MODEL)

    assert found.mismatched == {"fc.weight": "module.fc.weight"}
    assert found.missing == ("submodule.bias",)
    assert found.elements == 12


def test_names_agree_and_no_shape_does():
    found = match({"module.fc.weight": (9, 9)}, MODEL)

    assert found.pairs == {}
    assert found.mismatched == {"fc.weight": "module.fc.weight"}
