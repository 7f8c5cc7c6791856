"""Twenty kinds of files that are no sound image: each is listed with its reason, none replaced."""

import io
import struct
import zlib

import pytest

torch = pytest.importorskip("torch")

from image_files import colour_net, coloured, write_checkpoint, write_folders  # noqa: E402

from evalkit import evaluate  # noqa: E402
from evalkit.errors import InputError  # noqa: E402
from evalkit.transforms import evaluation  # noqa: E402

# Pillow warns of what it then refuses; the reason is in the list.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")


def encoded(form, **options):
    buffer = io.BytesIO()
    coloured("red", 1, size=(64, 48)).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, data):
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width, height, pixels):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def without(data, start, length):
    return data[:start] + data[start + length :]


JPEG, PNG, WEBP, TIFF, BMP, PPM = map(encoded, ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"))
CORRUPT = {
    "empty.png": b"",
    "one_byte.jpg": b"\xff",
    "zeros.png": bytes(5000),
    "text.jpg": b"not an image\n" * 40,
    "page.png": b"<!DOCTYPE html><html><body>404</body></html>",
    "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "archive.png": b"PK\x03\x04" + bytes(200),
    "header_alone.jpg": JPEG[:20],
    "half.jpg": JPEG[: len(JPEG) // 2],
    "half.png": PNG[: len(PNG) // 2],
    "half.webp": WEBP[: len(WEBP) // 2],
    "half.tif": TIFF[:200],
    "half.bmp": BMP[: len(BMP) // 2],
    "half.ppm": PPM[: len(PPM) // 2],
    "first_bytes_gone.jpg": JPEG[16:],
    "wrong_sum.png": PNG[:45] + bytes([PNG[45] ^ 0xFF]) + PNG[46:],
    "tables_gone.jpg": without(JPEG, JPEG.index(b"\xff\xdb"), 140),
    "too_few_pixels.png": png(64, 48, bytes(100)),
    "bomb.png": png(60_000, 60_000, bytes(1000)),
    "no_size.png": png(0, 0, b""),
    "numbers_too_large.tif": TIFF[:4] + b"\xff\xff\xff\xff" + TIFF[8:],
    "another_form.ppm": b"P6\n-5 -5\n255\n" + bytes(75),
}


@pytest.fixture
def checkpoint(tmp_path):
    transform = evaluation(resize=(10, 12), crop=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    return write_checkpoint(tmp_path / "net.pth", transform)


@pytest.fixture
def data(tmp_path):
    folder = write_folders(tmp_path / "data", {"blue": 3, "green": 3, "red": 3})
    for name, content in CORRUPT.items():
        (folder / "red" / name).write_bytes(content)
    return folder


def test_each_is_listed_with_its_reason_and_the_sound_ones_are_counted(checkpoint, data):
    found = evaluate(checkpoint, data, model=colour_net(), device="cpu", on_unreadable="skip")

    reasons = {one["path"]: one["reason"] for one in found.summary["unreadable"]}
    assert sorted(reasons) == sorted(f"red/{name}" for name in CORRUPT)
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert found.summary["samples"] == 9


def test_without_leave_to_skip_the_run_ends_with_all_their_names(checkpoint, data):
    with pytest.raises(InputError, match=f"got {len(CORRUPT)} of {len(CORRUPT) + 9} in ") as error:
        evaluate(checkpoint, data, model=colour_net(), device="cpu")

    assert "\n" not in str(error.value)


def test_there_are_twenty_kinds():
    assert len(set(CORRUPT.values())) >= 20
