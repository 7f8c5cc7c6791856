"""JPEG files that wait for their batch: on a GPU, and with the CPU in its place."""

import numpy as np
import pytest
import torch
from image_files import coloured, write_folders
from PIL import Image

from evalkit.data import open_data
from evalkit.images import decoding
from evalkit.images.batches import Audit, batches
from evalkit.images.decoding import Decoding
from evalkit.images.jpegs import CANDIDATES, Jpegs
from evalkit.transforms import evaluation

TRANSFORM = evaluation(resize=32, crop=28)
MOST_OFF = 12  # of 255: nvJPEG interpolates colours and rounds in its own way


@pytest.fixture
def on_the_cpu(monkeypatch):
    """What batches were decoded together, by a library that is not on a GPU."""
    library, calls = CANDIDATES["torchvision"](), []

    def decode(files, colours, device):
        assert device == "cuda"
        calls.append(len(files))
        return library.decode(files, colours, "cpu")

    monkeypatch.setattr(decoding, "gpu_jpegs", lambda: Jpegs(name="stand-in", decode=decode))
    return calls


def photos(root):
    """Ten JPEG files and what goes past the library: turned, in CMYK, a PNG, damaged."""
    write_folders(root, {"blue": 1, "red": 0})
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(10):
        coloured("red", number, size=(64, 48)).save(root / "red" / f"{number}.jpg")
    coloured("red", 10, size=(64, 48)).convert("L").save(root / "red" / "grey.jpg")
    coloured("red", 11, size=(64, 48)).save(root / "red" / "turned.jpg", exif=exif)
    coloured("red", 12, size=(64, 48)).convert("CMYK").save(root / "red" / "inks.jpg")
    return open_data(root)


def read(source, place):
    audit = Audit()
    found = list(
        batches(
            source,
            TRANSFORM,
            {"blue": 0, "red": 1},
            batch_size=5,
            workers=2,
            audit=audit,
            decoding=Decoding(place=place),
        )
    )
    return found, audit


def test_what_waits_for_its_batch_comes_out_in_order(tmp_path, on_the_cpu):
    source = photos(tmp_path / "data")

    expected, audit = read(source, "cpu")
    found, waited = read(source, "gpu")

    assert on_the_cpu == [4, 5, 2]  # of batches of 5, without what goes past the library
    assert [one.indices.tolist() for one in found] == [one.indices.tolist() for one in expected]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found, expected, strict=True))
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(found, expected, strict=True))
    assert waited == audit
    assert audit.oddities["grey"] == 1


def test_a_damaged_file_takes_nothing_else_of_its_batch_along(tmp_path, on_the_cpu):
    source = photos(tmp_path / "data")
    path = tmp_path / "data" / "red" / "3.jpg"
    path.write_bytes(path.read_bytes()[:-300])

    expected, audit = read(source, "cpu")
    found, waited = read(source, "gpu")

    assert [one.path for one in waited.unreadable] == ["red/3.jpg"]
    assert "truncated" in waited.unreadable[0].reason
    assert waited == audit
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found, expected, strict=True))
    assert sum(on_the_cpu) == 11


@pytest.mark.gpu
def test_pixels_of_a_gpu_are_nearly_those_of_pillow(tmp_path):
    (tmp_path / "blue").mkdir()
    (tmp_path / "red").mkdir()
    rows, columns = np.mgrid[0:375, 0:500]
    waves = np.stack(
        [np.sin(rows / 40), np.cos(columns / 30), np.sin(rows / 50 + columns / 60)], -1
    )
    photo = Image.fromarray((waves * 100 + 127).astype(np.uint8))
    for number in range(7):
        photo.rotate(number).save(tmp_path / "red" / f"{number}.jpg", quality=92)
    source = open_data(tmp_path)

    (expected, last), _audit = read(source, "cpu")
    (found, also_last), audit = read(source, "gpu")

    assert found.pixels.device.type == "cuda"
    assert audit == Audit()
    for ours, theirs in ((found, expected), (also_last, last)):
        assert (ours.pixels.cpu().int() - theirs.pixels.int()).abs().max() <= MOST_OFF
        assert ours.indices.tolist() == theirs.indices.tolist()
