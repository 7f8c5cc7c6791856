import io
import random
import struct
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image, ImageOps

from evalkit.images.reading import (
    ALPHA,
    DEEP,
    GREY,
    INKS,
    PALETTE,
    ROTATED,
    TRANSPARENT,
    UnreadableError,
    decode_image,
    read_image,
    to_mode,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.png"


def first_pixel(path, mode="RGB"):
    image, oddities = read_image(path, mode)
    return image.getpixel((0, 0)), oddities


def reason_of(path):
    with pytest.raises(UnreadableError) as error:
        read_image(path, "RGB")
    return str(error.value)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_usual_mode_becomes_the_one_that_is_wanted(mode):
    image = Image.new("RGB", (4, 3), "white").convert(mode if mode != "LAB" else "RGB")

    for wanted in ("RGB", "L"):
        converted = to_mode(image, wanted)
        assert (converted.mode, converted.size) == (wanted, (4, 3))
        assert np.asarray(converted).min() >= 254


def test_cmyk_jpeg_keeps_its_colour(tmp_path):
    path = tmp_path / "image.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path)  # no cyan: red

    (red, green, blue), oddities = first_pixel(path)

    assert red > 200
    assert max(green, blue) < 60
    assert oddities == (INKS,)


def test_sixteen_bits_are_scaled_not_cut_off(path):
    """Cut off at 255, as a plain conversion does, nearly every such image is white."""
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(path)

    image, oddities = read_image(path, "L")

    assert np.asarray(image).tolist() == [[0, 128, 255]]
    assert oddities == (DEEP, GREY)


def test_pixels_of_unknown_range_are_not_guessed(tmp_path):
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([[0.5]], dtype=np.float32)).save(path)

    assert reason_of(path) == "pixels are 32-bit numbers (mode F) of unknown range"


def test_transparent_pixels_show_the_paper_not_their_hidden_colour(path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(path)

    assert first_pixel(path) == ((255, 255, 255), (TRANSPARENT,))


def test_palette_with_transparency(path):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(path)
    assert first_pixel(path) == ((255, 0, 0), (PALETTE,))

    image.save(path, transparency=0)
    assert first_pixel(path) == ((255, 255, 255), (TRANSPARENT, PALETTE))


def test_an_alpha_channel_that_hides_nothing_is_known(path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 255)).save(path)

    assert first_pixel(path) == ((255, 0, 0), (ALPHA,))


def png(colour_type, bits, samples):
    """One pixel, which Pillow does not write with 16 bits per colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, bits, colour_type, 0, 0, 0)
    pixel = b"\0" + struct.pack(f">{len(samples)}H", *samples)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", compress(pixel))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bits_per_colour(tmp_path, path):
    path.write_bytes(png(2, 16, [65535, 32768, 0]))
    assert first_pixel(path) == ((255, 128, 0), (DEEP,))

    path.write_bytes(png(6, 16, [65535, 32768, 0, 65535]))
    assert first_pixel(path) == ((255, 128, 0), (ALPHA, DEEP))

    portable = tmp_path / "image.ppm"
    portable.write_bytes(b"P6 1 1 65535 " + struct.pack(">3H", 65535, 32768, 0))
    assert first_pixel(portable) == ((255, 128, 0), (DEEP,))

    portable.write_bytes(b"P6 1 1 255 " + bytes([255, 128, 0]))
    assert first_pixel(portable) == ((255, 128, 0), ())


def test_sixteen_bits_in_a_portable_grey_map(tmp_path):
    path = tmp_path / "image.pgm"

    path.write_bytes(b"P5 1 1 65535 " + struct.pack(">H", 32768))
    assert first_pixel(path, "L") == (128, (DEEP, GREY))

    path.write_bytes(b"P5 1 1 1023 " + struct.pack(">H", 1023))
    assert first_pixel(path, "L") == (255, (DEEP, GREY))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation):
    """A bright left half ends up where the tag says that it belongs."""
    image = Image.new("L", (16, 8))
    image.paste(255, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "image.png", exif=exif)

    upright, oddities = read_image(tmp_path / "image.png", "L")

    bright = {
        1: "left",
        2: "right",
        3: "right",
        4: "left",
        5: "top",
        6: "top",
        7: "bottom",
        8: "bottom",
    }
    width, height = upright.size
    corners = {
        "left": (0, height // 2),
        "right": (width - 1, height // 2),
        "top": (width // 2, 0),
        "bottom": (width // 2, height - 1),
    }
    assert upright.size == ((16, 8) if orientation < 5 else (8, 16))
    assert upright.getpixel(corners[bright[orientation]]) == 255
    assert oddities == ((GREY,) if orientation == 1 else (ROTATED, GREY))


def test_the_turns_are_those_of_pillow(path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(noise).save(path, exif=exif)

        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert np.array_equal(np.asarray(read_image(path, "RGB")[0]), expected)


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_data_make_no_image_unreadable():
    """Everybody else reads these: what nobody needs must not take a sample away."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8825] = 6, "maker", {1: "N", 2: (1.0, 2.0, 3.0)}
    stream = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(stream, "JPEG", exif=exif)
    whole, generator = stream.getvalue(), random.Random(0)
    start, read = whole.index(b"maker") - 60, 0
    for _ in range(800):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 2, 5])):
            damaged[generator.randrange(start, start + 150)] = generator.randrange(256)
        try:
            with Image.open(io.BytesIO(damaged)) as image:
                image.load()
        except (OSError, SyntaxError):
            continue
        assert decode_image(bytes(damaged), "RGB")[0].mode == "RGB"
        read += 1

    assert read > 100


def test_reasons_why_a_file_cannot_be_read(tmp_path, path):
    assert reason_of(tmp_path / "missing.png") == "there is no such file"

    path.write_bytes(b"")
    assert reason_of(path) == "the file is empty"

    path.write_text("<html>")
    assert reason_of(path) == "the file is no image of a known format"

    assert reason_of(tmp_path) == "Is a directory"


def test_an_image_that_is_cut_off_is_not_filled_up_with_grey(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for name in ("cut.jpg", "cut.png", "cut.webp", "cut.bmp"):
        path = tmp_path / name
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:-500])

        assert reason_of(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "ppm"])
def test_any_damage_ends_in_a_reason_or_in_an_image(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 3, 10])):
            damaged[generator.randrange(min(len(whole), 200))] = generator.randrange(256)
        path.write_bytes(damaged[: generator.choice([len(whole), generator.randrange(len(whole))])])
        try:
            image, _oddities = read_image(path, "RGB")
        except UnreadableError:
            continue
        assert image.mode == "RGB"
