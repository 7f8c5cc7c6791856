import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from packaging.version import Version
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2.functional import pil_to_tensor

from evalkit.images.geometry import as_tensor, cropped, middle, resized
from evalkit.transforms import evaluation

SIZES = [
    (500, 375),
    (375, 500),
    (999, 1333),
    (32, 32),
    (640, 97),
    (9, 300),
    (256, 256),
    (257, 300),
]


def picture(size, mode="RGB", seed=0):
    """Smooth and noisy parts, and edges from black to white."""
    width, height = size
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 7), np.cos(columns / 5), np.sin(rows * columns / 500)]
    pixels = np.stack(waves, -1) * 127 + 127 + generator.normal(0, 30, (height, width, 3))
    pixels[: height // 4] = generator.choice([0, 255], (height // 4, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def differences(image, wanted, interpolation):
    """By how much each pixel differs from Pillow's."""
    ours = resized(as_tensor(image), wanted, interpolation)
    how = InterpolationMode(interpolation)
    expected = pil_to_tensor(v2.Resize(wanted, interpolation=how, antialias=True)(image))
    assert ours.shape == expected.shape
    return (ours.int() - expected.int()).abs()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", SIZES)
def test_resizing_is_within_one_of_pillows(size, mode):
    image = picture(size, mode)

    for wanted in (256, 64, (50, 90)):
        assert differences(image, wanted, "bilinear").max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_bicubic_is_off_by_two_in_few_pixels_of_a_million(size):
    """Which is why Pillow resizes them, unless speed is asked for."""
    found = differences(picture(size), 256, "bicubic")

    assert found.max() <= 2
    assert (found > 1).float().mean() < 2e-5


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest-exact"])
def test_tensors_of_ones_own_are_resized_as_by_torchvision(interpolation):
    pixels = as_tensor(picture((300, 200)))

    expected = v2.Resize(64, interpolation=InterpolationMode(interpolation), antialias=True)(pixels)

    off = (resized(pixels, 64, interpolation).int() - expected.int()).abs()
    # torchvision before 0.24 computes the bilinear ones in floats on processors with AVX-512
    in_floats = interpolation == "bilinear" and Version(torchvision.__version__) < Version("0.24")
    assert off.max() <= (1 if in_floats else 0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest-exact"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_middle_of_an_image_is_the_same_whether_the_rest_was_resized_or_not(
    mode, interpolation
):
    generator = np.random.default_rng(0)
    for number in range(60):
        size = (int(generator.integers(20, 700)), int(generator.integers(20, 700)))
        resize, crop = sorted(generator.integers(16, 300, size=2).tolist(), reverse=True)
        if number % 3 == 0:
            resize, crop = crop, resize  # framed in black
        elif number % 3 == 1:
            resize, crop = (resize, resize + 7), (crop, crop // 2 + 1)
        pixels = as_tensor(picture(size, mode, number))

        found = middle(pixels, resize, crop, interpolation)

        expected = cropped(resized(pixels, resize, interpolation), crop)
        assert torch.equal(found, expected), (size, resize, crop)


@pytest.mark.parametrize(
    ("short", "resize", "crop"),
    [
        *((short, 256, 224) for short in (250, 254, 255, 256, 257, 258, 511, 512, 513)),
        *((short, 256, 224) for short in range(1022, 1092, 6)),
        *((short, 64, 56) for short in range(255, 279)),
        (145, 146, 128),
        (234, 235, 224),
        (336, 79, 41),
        (300, 300, 299),
    ],
)
def test_the_middle_is_the_same_where_scales_are_near_one_or_a_power_of_two(short, resize, crop):
    generator = np.random.default_rng(short)
    for long in (short, short + 1, short * 4 // 3):
        image = generator.integers(0, 256, (short, long, 3), dtype=np.uint8)
        pixels = as_tensor(Image.fromarray(image))

        found = middle(pixels, resize, crop, "bilinear")

        assert torch.equal(found, cropped(resized(pixels, resize, "bilinear"), crop))


def test_only_a_few_pixels_in_a_thousand_differ():
    image = picture((500, 375))

    ours = evaluation().pixels(as_tensor(image)).int()

    differs = ours != evaluation().pixels(image).int()
    assert differs.float().mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_processors_without_special_instructions_agree(capability):
    """torch has several ways to do the same, chosen by the processor when it is loaded."""
    program = (
        "import sys; sys.path.insert(0, 'tests/evalkit')\n"
        "from test_geometry import *\n"
        "for size in ((500, 375), (9, 300)):\n"
        "    test_resizing_is_within_one_of_pillows(size, 'RGB')\n"
        "print(torch.backends.cpu.get_cpu_capability())"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout in {"DEFAULT\n", "NO AVX\n", f"{capability.upper()}\n"}


@pytest.mark.parametrize("crop", [224, 7, (10, 300), (301, 12), 400])
@pytest.mark.parametrize("size", [(500, 375), (20, 21), (224, 225)])
def test_cropping_is_torchvisions(size, crop):
    pixels = as_tensor(picture(size))

    assert torch.equal(cropped(pixels, crop), v2.CenterCrop(crop)(pixels))


def test_pixels_that_are_not_channels_last():
    image = picture((120, 90))
    planes = pil_to_tensor(image).contiguous()

    assert torch.equal(resized(planes, 40, "bilinear"), resized(as_tensor(image), 40, "bilinear"))
