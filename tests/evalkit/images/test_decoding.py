import random
import re

import pytest
import torch
from image_files import brighter, encoded, picture
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from evalkit.errors import InputError
from evalkit.images import decoding
from evalkit.images.decoding import Decoder, Decoding
from evalkit.images.geometry import as_tensor
from evalkit.images.jpegs import Jpegs, exact_jpegs
from evalkit.images.reading import GREY, INKS, ROTATED, UnreadableError, decode_image
from evalkit.transforms import evaluation

GREY_TRANSFORM = evaluation(mode="L", mean=(0.5,), std=(0.5,))
JPEG_KINDS = {
    "usual": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "all colours": {"subsampling": 0, "quality": 98},
    "colours halved sideways": {"subsampling": 1},
    "coarse": {"quality": 5},
    "restarts": {"restart_marker_blocks": 4},
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("size", [(123, 77), (64, 64), (17, 200), (1, 1), (1200, 900)])
def test_pixels_are_those_of_pillow(kind, size):
    file = encoded(picture(*size), **JPEG_KINDS[kind])

    found, oddities = Decoder(evaluation()).decode(file)

    assert torch.equal(found, pil_to_tensor(decode_image(file, "RGB")[0]))
    assert oddities == ()


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
@pytest.mark.parametrize("transform", [evaluation(), GREY_TRANSFORM], ids=["RGB", "L"])
def test_other_colours_end_up_as_pillow_has_them(mode, transform):
    file = encoded(picture().convert(mode))

    found, oddities = Decoder(transform).decode(file)

    expected, noticed = decode_image(file, transform.mode)
    assert torch.equal(found.expand(len(expected.getbands()), -1, -1), pil_to_tensor(expected))
    assert oddities == noticed == {"L": (GREY,), "CMYK": (INKS,), "YCbCr": ()}[mode]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_lacks_of_a_progressive_file_is_filled_in_as_pillow_does(mode):
    file = encoded(picture().convert(mode), progressive=True)
    scans = [place.start() for place in re.finditer(rb"\xff\xda", file)]

    for start in scans[1:]:
        shortened = file[:start] + b"\xff\xd9"
        found, _oddities = Decoder(evaluation()).decode(shortened)

        expected = pil_to_tensor(decode_image(shortened, "RGB")[0])
        assert torch.equal(found.expand(3, -1, -1), expected)
    assert len(scans) > 5


def test_a_library_that_fills_in_otherwise_gets_no_progressive_files(monkeypatch):
    monkeypatch.setattr(decoding, "exact_jpegs", lambda: Jpegs(name="brighter", decode=brighter))
    usual, progressive = encoded(picture()), encoded(picture(), progressive=True)

    found = [Decoder(evaluation()).decode(file)[0] for file in (usual, progressive)]

    expected = [pil_to_tensor(decode_image(file, "RGB")[0]) for file in (usual, progressive)]
    assert [torch.equal(*pair) for pair in zip(found, expected, strict=True)] == [False, True]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(picture(), exif=exif)

    found, oddities = Decoder(evaluation()).decode(file)

    assert torch.equal(found, pil_to_tensor(decode_image(file, "RGB")[0]))
    assert tuple(found.shape[1:]) == ((77, 123) if orientation < 5 else (123, 77))
    assert oddities == ((ROTATED,) if orientation > 1 else ())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_are_left_to_pillow(kind):
    file = encoded(picture(), kind)

    found, _oddities = Decoder(evaluation()).decode(file)

    assert torch.equal(found, pil_to_tensor(decode_image(file, "RGB")[0]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_damage_ends_exactly_as_with_pillow(mode):
    """No grey tail, no other reason, no other pixel."""
    generator = random.Random(mode)
    wholes = [encoded(picture(45, 37).convert(mode), **options) for options in JPEG_KINDS.values()]
    decoder = Decoder(evaluation())
    outcomes = {"image": 0, "reason": 0}
    for _ in range(600):
        damaged = bytearray(generator.choice(wholes))
        for _ in range(generator.choice([0, 1, 10])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        file = bytes(damaged[: generator.choice([len(damaged), generator.randrange(len(damaged))])])
        try:
            expected = pil_to_tensor(decode_image(file, "RGB")[0])
        except UnreadableError as reason:
            with pytest.raises(UnreadableError, match=re.escape(str(reason))):
                decoder.decode(file)
            outcomes["reason"] += 1
        else:
            found, _oddities = decoder.decode(file)
            assert torch.equal(found.expand(3, -1, -1), expected)
            outcomes["image"] += 1

    assert min(outcomes.values()) > 100


def test_images_that_are_decoded_already():
    grey = Image.new("LA", (4, 3), (0, 0))
    decoder = Decoder(evaluation())
    tensor = torch.zeros(3, 5, 6, dtype=torch.uint8)

    found, oddities = decoder.decode(grey)

    assert found.tolist() == [[[255] * 4] * 3] * 3  # transparent, so the paper is seen
    assert oddities == ("transparent, laid on white", "grey")
    assert decoder.decode(tensor) == (tensor, ())


def test_large_photos_are_reduced_when_asked():
    file = encoded(picture(1600, 1200))

    small, _oddities = Decoder(evaluation(), Decoding(fast=True)).decode(file)
    whole, _oddities = Decoder(evaluation()).decode(file)

    assert tuple(whole.shape) == (3, 1200, 1600)
    assert tuple(small.shape) == (3, 300, 400)  # a quarter; an eighth is below 256
    transformed = [evaluation().pixels(one).float() for one in (small, whole)]
    assert 0 < (transformed[0] - transformed[1]).abs().mean() < 8


def test_nothing_is_reduced_below_what_the_model_sees():
    for transform in (evaluation(), evaluation(resize=None, crop=224)):
        decoder = Decoder(transform, Decoding(fast=True))

        found, _oddities = decoder.decode(encoded(picture(500, 375)))

        assert tuple(found.shape) == (3, 375, 500)


def test_the_decoder_says_what_it_is():
    library = exact_jpegs()

    assert Decoder(evaluation()).name == f"{library.name}, Pillow for other files"
    assert Decoder(evaluation(), Decoding(fast=True)).name == (
        f"{library.name}, Pillow for other files, large JPEG files at reduced size"
    )
    assert Decoder(evaluation(interpolation="bicubic")).name == "Pillow"


def test_what_torch_would_resize_otherwise_is_left_to_pillow():
    bicubic = evaluation(interpolation="bicubic")

    image, _oddities = Decoder(bicubic).decode(encoded(picture()))
    already, _oddities = Decoder(bicubic).decode(picture())

    assert isinstance(image, Image.Image)
    assert isinstance(already, Image.Image)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(InputError) as error:
        Decoder(evaluation(), Decoding(place="gpu"))

    assert str(error.value) == (
        "decode must be cpu where torch sees no CUDA device, got 'gpu': run 'gpudiag diagnose' to "
        "see why"
    )


def test_decodings_that_cannot_be():
    with pytest.raises(InputError) as error:
        Decoding(place="tpu")
    assert str(error.value) == "decode must be cpu or gpu, got 'tpu'"

    with pytest.raises(InputError) as error:
        Decoding(place="gpu", fast=True)
    assert str(error.value) == "fast-decode must be asked for with decode cpu, got it with 'gpu'"


def test_as_tensor_keeps_colours_side_by_side():
    pixels = as_tensor(picture(5, 4))

    assert tuple(pixels.shape) == (3, 4, 5)
    assert pixels.stride(0) == 1
    assert tuple(as_tensor(picture(5, 4).convert("L")).shape) == (1, 4, 5)


def test_a_photo_on_its_side_is_not_reduced_below_what_it_becomes():
    exif = Image.Exif()
    exif[0x0112] = 6  # 4000 x 1000 in the file, 1000 x 4000 upright
    file = encoded(picture(4000, 1000), exif=exif)

    found, _oddities = Decoder(evaluation(resize=(200, 1000)), Decoding(fast=True)).decode(file)
    reduced, _oddities = Decoder(evaluation(resize=(1000, 200)), Decoding(fast=True)).decode(file)

    assert tuple(found.shape) == (3, 4000, 1000)
    assert tuple(reduced.shape) == (3, 1000, 250)


def test_an_image_that_pillow_has_not_read_yet_may_be_damaged(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture())[:900])

    with Image.open(path) as image, pytest.raises(UnreadableError, match="truncated"):
        Decoder(evaluation()).decode(image)


def test_an_image_that_would_become_endless():
    file = encoded(Image.new("L", (60_000, 1)), "PNG")

    with pytest.raises(UnreadableError, match="of 60000 x 1 pixels it would become one of 15,360"):
        Decoder(evaluation()).decode(file)

    assert Decoder(evaluation(resize=(9, 9))).decode(file)[0].shape == (3, 1, 60_000)
