import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import webdataset
from image_files import coloured

from evalkit.data import open_data
from evalkit.errors import InputError
from evalkit.images.audit import Audit
from evalkit.images.batches import batches
from evalkit.transforms import evaluation

NAMES = ("red", "blue")


def png(number):
    stream = io.BytesIO()
    coloured(NAMES[number % 2], number).save(stream, "PNG")
    return stream.getvalue()


def sample(number, **more):
    return {"__key__": f"{number:04}", "png": png(number)} | (more or {"cls": number % 2})


def write(path, samples):
    with path.open("wb") as stream, webdataset.TarWriter(stream) as tar:
        for one in samples:
            tar.write(one)
    return path


def as_webdataset_reads(data):
    """Pixels and class of every sample; in a process of its own, because it leaves files open."""
    program = (
        "import json, sys, numpy, webdataset\n"
        "read = webdataset.WebDataset(sys.argv[1], shardshuffle=False).decode('pil')\n"
        "pairs = read.to_tuple('png', 'cls')\n"
        "print(json.dumps([(numpy.asarray(image).tolist(), label) for image, label in pairs]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, data], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def message_of(data):
    with pytest.raises(InputError) as error:
        open_data(data)
    return str(error.value)


def test_other_images_under_the_same_names_are_another_version(tmp_path):
    first = open_data(str(write(tmp_path / "a.tar", [sample(0), sample(1)])))
    (tmp_path / "copy").mkdir()
    same = open_data(str(write(tmp_path / "copy/a.tar", [sample(0), sample(1)])))
    longer = png(1) + bytes(9)
    other = open_data(str(write(tmp_path / "a.tar", [sample(0), sample(1, png=longer, cls=1)])))

    assert first.version == same.version
    assert list(other.paths) == list(first.paths)
    assert other.version != first.version


def test_the_samples_are_those_that_webdataset_yields(tmp_path):
    for shard in range(3):
        write(tmp_path / f"a-{shard}.tar", [sample(4 * shard + number) for number in range(4)])
    data = f"{tmp_path}/a-{{0..2}}.tar"

    source = open_data(data)

    theirs = as_webdataset_reads(data)
    assert len(source) == len(theirs) == 12
    for position, (pixels, label) in enumerate(theirs):
        loaded = source.load(position, "RGB")
        assert loaded.label == str(label)
        assert np.asarray(loaded.image).tolist() == pixels
    assert source.paths[5] == "a-1.tar/0005.png"
    assert source.numbered
    assert source.classes == ("0", "1")


def test_any_share_can_be_read(tmp_path):
    source = open_data(write(tmp_path / "a.tar", [sample(number) for number in range(9)]))
    transform = evaluation(resize=None, crop=8)
    outputs = {"0": 0, "1": 1}

    (batch,) = batches(
        source, transform, outputs, batch_size=8, workers=2, audit=Audit(), positions=[7, 2, 5]
    )

    assert batch.indices.tolist() == [7, 2, 5]
    assert batch.labels.tolist() == [1, 0, 1]
    assert np.array_equal(batch.pixels[0], transform.pixels(coloured("blue", 7)))


def test_labels_by_name_and_in_json(tmp_path):
    first = sample(0, cls=b"red\n")
    second = sample(1, json=json.dumps({"label": "blue", "width": 9}).encode())

    source = open_data(write(tmp_path / "a.tar", [first, second]))

    assert list(source.labels) == ["red", "blue"]
    assert source.classes == ("blue", "red")
    assert not source.numbered


def test_what_is_damaged_inside_of_a_tar_is_listed(tmp_path):
    path = write(tmp_path / "a.tar", [sample(0), sample(1, cls=1) | {"png": b"x"}, sample(2)])
    source, audit = open_data(path), Audit()

    list(batches(source, evaluation(), {"0": 0, "1": 1}, batch_size=2, workers=1, audit=audit))

    assert [(one.index, one.path, one.reason) for one in audit.unreadable] == [
        (1, "a.tar/0001.png", "the file is no image of a known format")
    ]


def test_samples_that_lack_something(tmp_path):
    lacking = [{"__key__": "a", "png": png(0)}, {"__key__": "b", "cls": 1}, sample(2)]
    path = write(tmp_path / "a.tar", lacking)

    assert message_of(path) == (
        "data must have samples of one image (.jpg, .png, …) and a class (.cls, or .json with "
        f"label), got 2 samples without in {path}: a.tar/a, a.tar/b"
    )
    write(path, [])
    assert message_of(path).endswith(f"got 0 samples without in {path}: it is empty")
    write(path, [sample(0, json=b"{")])
    assert message_of(path).endswith(f"got 1 sample without in {path}: a.tar/0000")


def test_tars_that_are_cut_off_or_none(tmp_path):
    path = write(tmp_path / "a.tar", [sample(number) for number in range(5)])
    whole = path.read_bytes()

    path.write_bytes(b"x" * 2000)
    assert message_of(path).startswith(f"data must be whole tars, got {path}: ")
    for length in (3, 700, len(whole) // 2, len(whole) // 2 + 300):
        path.write_bytes(whole[:length])
        assert message_of(path).startswith(("data must be whole tars", "data must have samples of"))


def test_a_file_twice(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a.png", "a.cls", "a.png"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"1"))

    assert message_of(path) == f"data must have every file once, got a.png twice in {path}"


def test_tars_that_cannot_be_had(tmp_path):
    assert message_of("photos-{00..02}.tar") == (
        "data must be tars that are there, got photos-{00..02}.tar without 3 of them: "
        "photos-00.tar, photos-01.tar, photos-02.tar"
    )
    assert message_of(f"{tmp_path}/a.tar.gz") == (
        f"data must be tars of which any part can be read, got compressed ones in {tmp_path}/"
        "a.tar.gz: unpack them, with gunzip or the like"
    )
    assert message_of("https://example.org/a.tar") == (
        "data must be tars on this machine, got https://example.org/a.tar: copy them here first"
    )


def test_tars_that_are_cut_off_between_two_files(tmp_path):
    """Where tarfile sees nothing unusual."""
    path = write(tmp_path / "a.tar", [sample(number) for number in range(5)])
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        ends = [member.offset for member in archive][1:]
        ends.append(archive.offset)

    for end in [end + more for end in ends for more in (0, 100)]:
        path.write_bytes(whole[:end])
        assert "data must be whole tars, got" in message_of(str(path))
    path.write_bytes(whole[: ends[-1] + 512])
    assert len(open_data(str(path))) == 5
