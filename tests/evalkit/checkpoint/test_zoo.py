"""Every kind of checkpoint in the wild: loaded, and compared with the original tensor by tensor."""

from pathlib import Path

import pytest
import torch
from checkpoint_files import SmallNet
from checkpoint_zoo import ZOO, is_installed, original_of, trained_net

from evalkit.checkpoint import convert_checkpoint, inspect_checkpoint, load_checkpoint

# Without a model nobody knows that these names are none of its own.
AMBIGUOUS = ("wrapped by nn.Sequential", "Lightning: criterion with weights beside the model")


def assert_equal(state, animal):
    for key, value in original_of(animal).items():
        if not key.endswith("num_batches_tracked"):  # files before torch 0.4.1 have none
            assert torch.equal(state[key], value), key


@pytest.mark.parametrize("name", ZOO)
def test_every_tensor_comes_out(tmp_path, name):
    animal = ZOO[name]
    if not is_installed(animal.needs):
        pytest.skip(f"{animal.needs} is not installed")
    path = animal.write(tmp_path, trained_net())

    model, report = load_checkpoint(path, SmallNet(), weights=animal.weights)

    assert_equal(model.state_dict(), animal)
    assert report.matched_fraction == 1
    assert report.missing == ()
    assert report.mismatched == {}

    found = inspect_checkpoint(path)

    assert report.weights in {one.name for one in found.weights}
    assert found.sha256 == report.sha256

    convert_checkpoint(path, tmp_path / "clean.safetensors", weights=animal.weights)

    clean, report = load_checkpoint(tmp_path / "clean.safetensors", SmallNet())
    assert_equal(clean.state_dict(), animal)
    if name not in AMBIGUOUS:
        assert report.prefixes == ()


def test_the_zoo_is_large():
    assert len(ZOO) >= 60


def test_the_table_of_loaders_is_about_this_zoo():
    """Run ``python benchmarks/checkpoint_zoo.py`` where this fails."""
    page = (Path(__file__).parents[3] / "docs" / "comparison.md").read_text(encoding="utf-8")
    table = page[page.index("| File ") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]

    files = [row for row in rows if not row[0].startswith("**")]
    assert [row[0] for row in files] == list(ZOO)
    assert {row[1] for row in files} == {"all"}
    assert rows[-2][0] == f"**all, of {len(ZOO)}**"
