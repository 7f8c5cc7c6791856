"""Libraries that decode JPEG files, beside Pillow."""

import pytest
import torch
from image_files import brighter

from evalkit.images.jpegs import CANDIDATES, Jpegs, equals_pillow, exact_jpegs


@pytest.mark.parametrize("name", CANDIDATES)
def test_libraries_that_are_installed_decode_as_pillow_does(name):
    if name == "torchcodec" and not (torch.version.cuda or "").startswith("13."):
        pytest.skip(f"torchcodec's wheels need a torch for CUDA 13, got {torch.__version__}")
    library = CANDIDATES[name]()

    assert library is not None
    assert library.name.startswith(f"{name} ")
    assert equals_pillow(library)


def test_a_library_that_rounds_otherwise_is_not_taken():
    def broken(_files, _colours, _device):
        raise RuntimeError("built without libjpeg")

    assert not equals_pillow(Jpegs(name="brighter", decode=brighter))
    assert not equals_pillow(Jpegs(name="broken", decode=broken))


def test_the_first_that_is_there_and_exact_is_taken(monkeypatch):
    loaded = []

    def candidate(name, library):
        return lambda: (loaded.append(name), library)[1]

    exact = CANDIDATES["torchvision"]()
    monkeypatch.setattr(
        "evalkit.images.jpegs.CANDIDATES",
        {
            "absent": candidate("absent", None),
            "brighter": candidate("brighter", Jpegs(name="brighter", decode=brighter)),
            "exact": candidate("exact", exact),
            "later": candidate("later", exact),
        },
    )

    assert exact_jpegs.__wrapped__() is exact
    assert loaded == ["absent", "brighter", "exact"]
