import datasets
import numpy as np
import pytest
from image_files import coloured
from PIL import Image

from evalkit.data import open_data
from evalkit.errors import InputError
from evalkit.images.reading import UnreadableError

NAMES = ["red", "blue"]


def features(**more):
    return datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), **more}
    )


def columns(count=4):
    return {
        "image": [coloured(NAMES[n % 2], n) for n in range(count)],
        "label": [n % 2 for n in range(count)],
    }


def saved(place, given=None, kinds=None):
    datasets.Dataset.from_dict(given or columns(), features=kinds or features()).save_to_disk(place)
    return f"huggingface:{place}"


def message_of(data):
    with pytest.raises(InputError) as error:
        open_data(data)
    return str(error.value)


def test_a_data_set_on_disk(tmp_path):
    data = saved(tmp_path / "set")

    source = open_data(data)

    assert source.classes == ("red", "blue")  # its own order, which the names make harmless
    assert list(source.labels) == ["red", "blue", "red", "blue"]
    assert source.paths[3] == f"{tmp_path}/set[3]"
    assert not source.order_is_a_guess
    assert not source.numbered
    loaded = source.load(2, "RGB")
    assert loaded.label == "red"
    assert np.array_equal(np.asarray(loaded.image), np.asarray(coloured("red", 2)))


def test_other_images_under_the_same_numbers_are_another_version(tmp_path):
    first = open_data(saved(tmp_path / "a")).version
    copy = open_data(saved(tmp_path / "b")).version
    changed = columns() | {"image": [coloured(NAMES[0], n, size=(30, 20)) for n in range(4)]}

    assert first == copy != open_data(saved(tmp_path / "c", changed)).version


def test_splits_are_named(tmp_path):
    parts = {
        name: datasets.Dataset.from_dict(columns(count), features=features())
        for name, count in (("train", 4), ("test", 3))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    place = f"huggingface:{tmp_path}/set"

    assert len(open_data(f"{place}:test")) == 3
    assert open_data(f"{place}:test").paths[0] == f"{tmp_path}/set:test[0]"
    expected = f"data must name one of the splits train, test, got {{}}: write {place}:train"
    assert message_of(place) == expected.format(f"none in {place}")
    assert message_of(f"{place}:val") == expected.format(f"'val' in {place}:val")


def test_one_split_need_not_be_named(tmp_path):
    part = datasets.Dataset.from_dict(columns(2), features=features())
    datasets.DatasetDict({"test": part}).save_to_disk(tmp_path / "set")

    assert len(open_data(f"huggingface:{tmp_path}/set")) == 2


def test_further_columns_come_along(tmp_path):
    more = {
        "site": datasets.Value("string"),
        "index": datasets.Value("int32"),
        "box": datasets.Sequence(datasets.Value("float32")),
    }
    given = columns(2) | {"site": ["north", "south"], "index": [7, 8], "box": [[1.0], [2.0]]}

    source = open_data(saved(tmp_path / "set", given, features(**more)))

    assert source.columns.to_dict("list") == {"site": ["north", "south"], "data_index": [7, 8]}


def test_rows_that_were_chosen_or_shuffled(tmp_path):
    whole = datasets.Dataset.from_dict(columns(6), features=features())
    whole.select([5, 0, 3]).save_to_disk(tmp_path / "set")

    source = open_data(f"huggingface:{tmp_path}/set")

    assert list(source.labels) == ["blue", "red", "blue"]
    assert np.array_equal(
        np.asarray(source.load(0, "RGB").image), np.asarray(coloured(NAMES[1], 5))
    )


def test_labels_that_are_numbers_or_texts(tmp_path):
    numbers = features() | {"label": datasets.Value("int64")}
    texts = features() | {"label": datasets.Value("string")}

    by_number = open_data(
        saved(tmp_path / "a", columns() | {"label": [10, 9, 1, 1]}, datasets.Features(numbers))
    )
    by_text = open_data(
        saved(tmp_path / "b", columns() | {"label": ["x", "a", "x", "b"]}, datasets.Features(texts))
    )

    assert (by_number.classes, by_number.numbered) == (("1", "9", "10"), True)
    assert (by_text.classes, by_text.numbered) == (("a", "b", "x"), False)


def test_images_that_are_missing_or_damaged(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    images = [None, str(tmp_path / "bad.jpg"), str(tmp_path / "bad.jpg")]
    source = open_data(saved(tmp_path / "set", {"image": images, "label": [0, 1, 0]}))

    for position, reason in ((0, "there is no image"), (1, "the file is no image of a known")):
        with pytest.raises(UnreadableError, match=reason):
            source.load(position, "RGB")


def test_a_folder_of_images_as_the_library_reads_it(tmp_path):
    for name in NAMES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            coloured(name, number).save(tmp_path / "images" / name / f"{number}.png")

    source = open_data(f"huggingface:{tmp_path}/images")

    assert source.classes == ("blue", "red")
    assert isinstance(source.load(0, "RGB").image, Image.Image)


def test_samples_without_a_class(tmp_path):
    data = saved(tmp_path / "set", columns() | {"label": [0, -1, -1, 1]})

    assert message_of(data) == (
        f"data must have a class for every sample, got {data} without for 2 samples, the first of "
        "them 1: take a split with labels"
    )


def test_columns_that_leave_a_choice(tmp_path):
    given = columns() | {"fine": [0, 1, 0, 1]}
    del given["label"]
    both = datasets.Features(
        {
            "image": datasets.Image(),
            "coarse": datasets.ClassLabel(names=NAMES),
            "fine": datasets.ClassLabel(names=NAMES),
        }
    )
    data = saved(tmp_path / "two", given | {"coarse": [0, 0, 1, 1]}, both)
    assert message_of(data) == (
        f"data must have one column of classes, got fine, coarse in {data} among image, fine, "
        "coarse: name it 'label'"
    )

    kinds = datasets.Features({"text": datasets.Value("string")})
    data = saved(tmp_path / "none", {"text": ["a"]}, kinds)
    assert message_of(data) == (
        f"data must have one column of images, got none in {data} among text: name it 'image'"
    )


def test_nothing_in_it_or_nothing_there(tmp_path):
    datasets.Dataset.from_dict(columns(), features=features()).select([]).save_to_disk(
        tmp_path / "set"
    )
    data = f"huggingface:{tmp_path}/set"

    assert message_of(data).startswith(f"data must be a data set that opens, got {data}: ")
    (tmp_path / "empty").mkdir()
    assert message_of(f"huggingface:{tmp_path}/empty").startswith(
        f"data must be a data set that opens, got huggingface:{tmp_path}/empty: "
    )
