"""Copies of test images among the training data: planted, and none where there are none."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from painted import CLASSES, painted, write_painted
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images
from torch import nn

from evalkit.checks.duplicates import check_duplicates, find_copies
from evalkit.checks.fingerprints import fingerprints
from evalkit.checks.sample import Ran
from evalkit.data import Loaded, Source, open_data
from evalkit.demo.digits import load_digits, write_images

SIDE = 128


def ran(source, *, right=None, positions=None):
    """A run without a model: only what it said of which sample counts here."""
    positions = np.arange(len(source)) if positions is None else np.asarray(positions)
    right = np.ones(len(positions), dtype=bool) if right is None else np.asarray(right)
    return Ran(
        model=nn.Identity(),
        source=source,
        classes=source.classes,
        positions=positions,
        labels=np.zeros(len(positions), dtype=np.int64),
        predictions=np.where(right, 0, 1),
    )


def in_memory(images, name="memory"):
    return Source(
        name=name,
        paths=tuple(f"{name}[{number}]" for number in range(len(images))),
        classes=("a", "b"),
        load=lambda position, mode: Loaded(image=images[position].convert(mode), label="a"),
    )


@pytest.fixture(scope="module")
def photos():
    """160 pieces of two photographs that do not overlap much."""
    random = np.random.default_rng(0)
    pieces = []
    for photo in load_sample_images().images:
        whole = Image.fromarray(photo)
        for top in range(0, whole.height - SIDE, 32):
            for left in range(0, whole.width - SIDE, 64):
                shift = int(random.integers(0, 16))
                pieces.append(
                    whole.crop((left + shift, top + shift, left + shift + SIDE, top + shift + SIDE))
                )
    return pieces


def test_the_digits_share_nothing(tmp_path):
    write_images(tmp_path, load_digits(), seed=0)

    check = check_duplicates(ran(open_data(tmp_path / "val")), open_data(tmp_path / "train"))

    assert check.verdict == "passed"
    assert check.evidence == (
        "none of 359 images is among 1,438 training images, neither pixel by pixel nor nearly"
    )
    assert check.figures["too_plain"] == 359  # 8 x 8 pixels: a hash would say too little


def test_copies_pixel_by_pixel_in_other_files_and_formats(tmp_path):
    train = write_painted(tmp_path / "train", each=20, first_seed=100)
    val = write_painted(tmp_path / "val", each=10, first_seed=0)
    shutil.copy(train / "disc" / "003.png", val / "disc" / "copied.png")
    Image.open(train / "wedge" / "004.png").save(val / "disc" / "other format.bmp")  # and class

    source = open_data(val)
    right = [path != "disc/copied.png" for path in source.paths]
    check = check_duplicates(ran(source, right=right), open_data(train))

    assert check.verdict == "warning"
    assert check.figures["exact"] == 2
    assert check.figures["near"] == 0
    assert check.figures["pairs"] == [
        {"test": "disc/copied.png", "train": "disc/003.png", "exact": True},
        {"test": "disc/other format.bmp", "train": "wedge/004.png", "exact": True},
    ]
    assert check.evidence == (
        "2 of 42 images are in the training data, 2 pixel by pixel and 0 nearly (disc/copied.png = "
        "disc/003.png, disc/other format.bmp = wedge/004.png): accuracy is 0.976, and 1.000 "
        "without them"
    )


def test_the_same_folder_twice(tmp_path):
    source = open_data(write_painted(tmp_path / "val", each=3, first_seed=0))

    check = check_duplicates(ran(source), source)

    assert check.figures["exact"] == 12
    assert check.figures["accuracy_other"] is None
    assert check.evidence.endswith("accuracy is 1.000, and undefined without them")


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    ("changed", "least"),
    [
        (lambda image: jpeg(image, 75), 0.7),
        (lambda image: image.resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC), 0.7),
        (lambda image: image.convert("L").convert("RGB"), 0.9),
        (lambda image: ImageEnhance.Contrast(image).enhance(0.9), 0.6),
    ],
    ids=["jpeg", "half the size", "grey", "contrast"],
)
def test_near_copies_of_photographs(photos, changed, least):
    changed_photos = [changed(photo) for photo in photos]
    test, train = in_memory(changed_photos, "test"), in_memory(photos, "train")

    copies = find_copies(test, fingerprints(test), train, fingerprints(train))

    right = [copy for copy in copies if copy.test == copy.train]
    assert len(right) >= least * len(photos)
    assert not any(copy.exact for copy in right)


def test_different_pieces_of_photographs_are_no_copies(photos):
    test, train = in_memory(photos[::2], "test"), in_memory(photos[1::2], "train")

    assert find_copies(test, fingerprints(test), train, fingerprints(train)) == []


def test_plain_images_are_not_near_each_other():
    shades = [Image.new("RGB", (64, 64), (shade,) * 3) for shade in range(0, 200, 20)]
    test, train = in_memory(shades[::2]), in_memory(shades[1::2])

    assert not fingerprints(test).telling.any()
    assert find_copies(test, fingerprints(test), train, fingerprints(train)) == []


def test_only_evaluated_samples_count(tmp_path):
    source = open_data(write_painted(tmp_path / "val", each=3, first_seed=0))

    check = check_duplicates(ran(source, positions=[0, 5, 7]), source)

    assert check.figures["exact"] == 3
    assert check.figures["samples"] == 3


def test_unreadable_images_are_left_out(tmp_path):
    val = write_painted(tmp_path / "val", each=3, first_seed=0)
    source, train = open_data(val), open_data(write_painted(tmp_path / "t", each=3, first_seed=9))
    (val / "disc" / "001.png").write_bytes(b"no image")

    assert len(fingerprints(source)) == 11
    assert check_duplicates(ran(source), train).verdict == "passed"


def test_tensors_and_pillow_images_have_the_same_fingerprints():
    image = painted(CLASSES[0], 0)
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    pillow = in_memory([image])
    tensors = replace(pillow, load=lambda _position, _mode: Loaded(image=tensor, label="a"))

    assert fingerprints(pillow).digests == fingerprints(tensors).digests
    assert fingerprints(pillow).hashes == fingerprints(tensors).hashes


def test_fingerprints_do_not_depend_on_the_number_of_threads(tmp_path):
    source = open_data(write_painted(tmp_path / "val", each=30, first_seed=0))

    one, four = fingerprints(source), fingerprints(source, workers=4)

    np.testing.assert_array_equal(one.digests, four.digests)
    np.testing.assert_array_equal(one.hashes, four.hashes)
    assert len(set(one.digests.tolist())) == 120


def test_the_size_belongs_to_the_picture():
    black = [Image.new("RGB", (4, 9)), Image.new("RGB", (9, 4)), Image.new("RGB", (6, 6))]

    assert len(set(fingerprints(in_memory(black)).digests.tolist())) == 3
