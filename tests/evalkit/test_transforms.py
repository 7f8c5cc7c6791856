import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from evalkit.errors import InputError
from evalkit.images.geometry import as_tensor
from evalkit.training import seed_everything
from evalkit.transforms import TransformSpec, evaluation, train


def photo(size=(301, 207)):
    x, y = np.meshgrid(np.linspace(0, 9, size[0]), np.linspace(0, 7, size[1]))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x * y)], axis=-1)
    return Image.fromarray(((waves + 1) * 127).astype(np.uint8))


def test_equals_the_preset_that_torchvisions_accuracies_were_measured_with():
    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()

    torch.testing.assert_close(evaluation()(photo()), preset(photo()), rtol=0, atol=1e-6)


def test_bicubic_equals_torchvisions_too():
    preset = torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1.transforms()

    ours = evaluation(interpolation="bicubic")(photo())

    torch.testing.assert_close(ours, preset(photo()), rtol=0, atol=1e-6)


def test_pixels_as_a_tensor_come_out_nearly_as_those_of_an_image():
    spec = evaluation(resize=64, crop=56)

    from_image = spec.pixels(photo()).float()
    from_tensor = spec.pixels(pil_to_tensor(photo())).float()

    assert (from_image - from_tensor).abs().mean() < 0.5  # of 255; without antialiasing about 10


def test_normalising_a_batch_equals_normalising_its_images():
    spec = evaluation(resize=32, crop=28)

    batch = spec.normalize(torch.stack([spec.pixels(photo()), spec.pixels(photo((90, 80)))]))

    assert batch.shape == (2, 3, 28, 28)
    assert torch.equal(batch[0], spec(photo()))


def test_grey_models_and_grey_images():
    grey = evaluation(mode="L", resize=8, crop=8, mean=(0.5,), std=(0.5,))

    assert grey(photo()).shape == (1, 8, 8)
    assert grey(pil_to_tensor(photo())).shape == (1, 8, 8)
    assert evaluation(resize=8, crop=8)(photo().convert("L")).shape == (3, 8, 8)
    assert evaluation(resize=8, crop=8)(torch.zeros(1, 9, 9, dtype=torch.uint8)).shape == (3, 8, 8)


def test_size_may_be_left_alone_or_given_both_ways():
    assert evaluation(resize=None, crop=None)(photo()).shape == (3, 207, 301)
    assert evaluation(resize=(20, 30), crop=None)(photo()).shape == (3, 20, 30)
    assert evaluation(resize=None, crop=(20, 30))(photo()).shape == (3, 20, 30)


@pytest.mark.parametrize("spec", [evaluation(), evaluation(resize=(8, 9), crop=None), train()])
def test_survives_json(spec):
    assert TransformSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


def test_training_is_random_and_repeatable():
    spec = train(crop=32)

    seed_everything(1)
    first, second = spec(photo()), spec(photo())
    seed_everything(1)
    again = spec(photo())

    assert first.shape == (3, 32, 32)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


@pytest.mark.parametrize("crop", [32, (48, 20)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_training_sees_the_same_of_a_tensor_as_of_an_image(crop, mode):
    spec = train(crop=crop, mode=mode, mean=(0.5,) * len(mode), std=(0.5,) * len(mode))
    image = photo().convert(mode)

    for seed in range(20):  # crops and flips of every kind
        seed_everything(seed)
        of_image = spec.pixels(image)
        seed_everything(seed)
        of_tensor = spec.pixels(as_tensor(image))
        assert of_tensor.shape == of_image.shape
        assert (of_tensor.int() - of_image.int()).abs().max() <= 1


def test_flip_swaps_left_and_right():
    always = train(crop=(207, 301), random_area=(1.0, 1.0), flip=1.0).pixels(photo())

    assert always.shape == (3, 207, 301)
    assert (
        evaluation(resize=None, crop=None).pixels(photo()).float().flip(2).sub(always).abs().mean()
        < 40
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "RGBA"}, "mode must be one of RGB, L, got 'RGBA'"),
        (
            {"interpolation": "cubic"},
            "interpolation must be one of bilinear, bicubic, nearest-exact, got 'cubic'",
        ),
        (
            {"mean": (0.5,)},
            "mean and std must have 3 values each for mode RGB, std above 0, got (0.5,) and "
            "(0.229, 0.224, 0.225)",
        ),
        (
            {"std": (0.5, 0.5, 0.0)},
            "mean and std must have 3 values each for mode RGB, std above 0, got "
            "(0.485, 0.456, 0.406) and (0.5, 0.5, 0.0)",
        ),
        (
            {"random_area": (0.1, 1.0), "crop": None},
            "random_area must come with crop, the size of its result, got none",
        ),
    ],
)
def test_values_that_contradict_each_other(options, message):
    with pytest.raises(InputError) as error:
        TransformSpec(**options)

    assert str(error.value) == message


def test_names_that_are_unknown():
    with pytest.raises(InputError) as error:
        TransformSpec.from_dict({"resize": 256, "crop_pct": 0.875})

    assert str(error.value) == (
        "transform must have only the names crop, flip, interpolation, mean, mode, random_area, "
        "resize, std, got crop_pct"
    )


def test_pixels_that_are_floats_already():
    with pytest.raises(InputError) as error:
        evaluation()(torch.zeros(3, 8, 8))

    assert str(error.value) == (
        "an image must be a PIL image or a tensor of shape (1 or 3, H, W) and dtype uint8, got "
        "shape (3, 8, 8) and dtype torch.float32"
    )
