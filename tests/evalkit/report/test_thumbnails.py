import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

from evalkit.report.thumbnails import SIDE, thumbnails


def opened(uri):
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_images_of_any_mode_become_small(tmp_path, mode):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.new(mode, (600, 300)).save(tmp_path / name)

    image = opened(thumbnails([name], tmp_path)[name])

    assert image.size == (SIDE, SIDE // 2)


def test_tiny_images_keep_every_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    image = opened(thumbnails(["a.png"], tmp_path)["a.png"])

    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)


def test_photographs_are_turned_upright(tmp_path):
    image = Image.new("RGB", (400, 200))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)

    assert opened(thumbnails(["a.jpg"], tmp_path)["a.jpg"]).size == (SIDE // 2, SIDE)


def test_what_cannot_be_read_is_left_out(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    names = ["text.png", "folder.png", "pipe.png", "cut.png", "absent.png", "a\0b.png", "good.png"]

    assert list(thumbnails(names, tmp_path)) == ["good.png"]


def test_they_stay_within_their_bytes_and_number(tmp_path):
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    names = [f"{number}.png" for number in range(6)]
    every = thumbnails(names, tmp_path)
    limit = len(every["0.png"]) + len(every["1.png"])

    assert list(thumbnails(names, tmp_path, most_images=3)) == names[:3]
    within = thumbnails(names, tmp_path, most_bytes=limit)
    assert list(within)[:2] == names[:2]
    assert sum(map(len, within.values())) <= limit
