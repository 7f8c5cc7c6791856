"""Whatever is wrapped around a small model, in whatever order: it loads to the last value."""

import tempfile
from pathlib import Path

import torch
from checkpoint_files import SmallNet, prefixed, same_weights, small_net
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.checkpoint import load_checkpoint
from evalkit.checkpoint.candidates import find_candidates
from evalkit.checkpoint.layout import match, shapes_of

STATE = small_net(seed=1).state_dict()
MODEL = shapes_of(STATE)
WRAPPERS = ["module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module"]
NAMES = ["model", "net", "backbone", "encoder", "student", "ema_model", "0", "inner_net", "fc"]
CONTAINERS = ["state_dict", "model", "net", "params", "checkpoint", "weights", "my own name"]
BESIDE = {
    "epoch": 3,
    "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 4)}}, "param_groups": [{"lr": 0.1}]},
    "best": torch.tensor(0.5),
    "history": [0.1, 0.2],
    "scaler": {"scale": torch.tensor(2.0)},
}

prefixes = st.lists(st.sampled_from(WRAPPERS + NAMES), max_size=4).map(
    lambda parts: "".join(f"{part}." for part in parts)
)


@st.composite
def wrapped_in_the_middle(draw):
    """Keys with wrappers around any of the net's own modules."""
    chosen = draw(
        st.dictionaries(
            st.sampled_from(["stem", "layer1", "0", "conv"]),
            st.sampled_from(["_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"]),
        )
    )

    def renamed(key):
        parts = (f"{part}.{chosen[part]}" if part in chosen else part for part in key.split("."))
        return ".".join(parts)

    return {renamed(key): value for key, value in STATE.items()}


@st.composite
def trees(draw):
    tree = prefixed(draw(prefixes), draw(wrapped_in_the_middle()))
    for name in draw(st.lists(st.sampled_from(CONTAINERS), max_size=3)):
        beside = draw(st.sets(st.sampled_from(sorted(BESIDE))))
        tree = {name: tree, **{key: BESIDE[key] for key in beside}}
    return tree


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees(), as_zip=st.booleans())
def test_any_nesting_of_containers_and_prefixes_loads_to_the_last_value(tree, as_zip):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        torch.save(tree, path, _use_new_zipfile_serialization=as_zip)

        loaded, report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert report.matched_fraction == 1
    assert report.unexpected == ()


@settings(max_examples=200, deadline=None)
@given(in_file=prefixes, in_model=prefixes)
def test_any_prefix_on_either_side(in_file, in_model):
    file = {in_file + key: shape for key, shape in MODEL.items()}
    model = {in_model + key: shape for key, shape in MODEL.items()}

    found = match(file, model)

    assert found.missing == ()
    assert found.pairs == {in_model + key: in_file + key for key in MODEL}


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=3), st.just(torch.ones(2))),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=20,
    )
)
def test_any_tree_can_be_searched(tree):
    for candidate in find_candidates(tree):
        assert candidate.tensors
