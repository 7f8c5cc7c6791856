import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import CLASSES, coloured, write_folders
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision.datasets import ImageFolder

from evalkit.classes import join
from evalkit.data import Loaded, Source, open_data
from evalkit.data.torch_dataset import torch_dataset
from evalkit.errors import InputError
from evalkit.images.batches import Audit, Unreadable, batches
from evalkit.images.geometry import as_tensor
from evalkit.images.reading import UnreadableError
from evalkit.transforms import evaluation
from evalkit.wording import natural_order

TRANSFORM = evaluation(resize=None, crop=8)


def message_of(data):
    with pytest.raises(InputError) as error:
        open_data(data)
    return str(error.value)


def read_all(source, transform=TRANSFORM, batch_size=4, workers=2, audit=None):
    outputs = {name: position for position, name in enumerate(source.classes)}
    return list(
        batches(
            source,
            transform,
            outputs,
            batch_size=batch_size,
            workers=workers,
            audit=audit or Audit(),
        )
    )


def test_order_of_files_and_classes_is_torchvisions(tmp_path):
    root = write_folders(tmp_path / "data", {"b": 0, "B": 0, "10": 0, "9": 0, "a": 0})
    for place in ("10/2.png", "9/1.jpg", "a/x/deep.PNG", "a/b.jpeg", "a/a.webp", "B/z.bmp"):
        (root / place).parent.mkdir(exist_ok=True)
        coloured("red", 1).save(root / place)

    source = open_data(root)

    expected = ImageFolder(str(root), allow_empty=True)
    assert list(source.classes) == expected.classes
    assert [str(root / path) for path in source.paths] == [
        path for path, _label in expected.samples
    ]


def test_hidden_folders_and_files_are_not_looked_at(tmp_path):
    root = write_folders(tmp_path / "data", {"red": 1, ".cache": 0})
    (root / "red" / "._0.png").write_bytes(b"resource fork")
    (root / "red" / ".thumbnails").mkdir()
    coloured("red", 1).save(root / "red" / ".thumbnails" / "0.png")
    (root / "red" / "notes.txt").write_text("x")

    source = open_data(root)

    assert source.classes == ("red",)
    assert source.paths == ("red/0.png",)


def test_empty_class_is_kept(tmp_path):
    source = open_data(write_folders(tmp_path / "data", {"blue": 1, "green": 0, "red": 1}))

    assert source.classes == CLASSES
    assert len(source) == 2


def test_numbers_as_names_are_known_to_have_two_orders(tmp_path):
    few = write_folders(tmp_path / "few", {"1": 1, "2": 1, "9": 1})
    many = write_folders(tmp_path / "many", {"1": 1, "2": 1, "10": 1})

    assert not open_data(few).order_is_a_guess
    assert open_data(many).classes == ("1", "10", "2")
    assert open_data(many).order_is_a_guess
    assert natural_order(open_data(many).classes) == ["1", "2", "10"]


def test_manifest_with_columns_of_its_own(tmp_path):
    write_folders(tmp_path / "images", {"red": 2})
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "site,label,path,age\nnorth,NA,images/red/0.png,31\nsouth,007,images/red/1.png,32\n"
    )

    source = open_data(manifest)

    assert source.classes == ("007", "NA")
    assert source.paths == ("images/red/0.png", "images/red/1.png")
    pd.testing.assert_frame_equal(
        source.columns[["site", "age"]],
        pd.DataFrame({"site": ["north", "south"], "age": [31, 32]}),
        check_dtype=False,
    )
    (batch,) = read_all(source)
    assert batch.labels.tolist() == [1, 0]


def test_images_whose_ending_torchvision_does_not_know_are_told(tmp_path):
    write_folders(tmp_path, {"red": 1, "blue": 1})
    for name in ("a.gif", "b.GIF", "c.avif", "notes.txt", ".hidden.gif"):
        (tmp_path / "red" / name).write_bytes(b"")

    source = open_data(tmp_path)

    assert len(source) == 2
    assert source.doubts == (
        "3 images were passed over in the class folders, by endings that torchvision does not "
        "know: .gif (2), .avif (1); convert them, or list them in a manifest",
    )


def test_further_columns_are_numbers_only_where_no_value_changes(tmp_path):
    rows = {
        "patient": ["7", "07", "007"],
        "study": ["1000000000000000000000001", "2", "3"],
        "dose": ["1.0", "1.00", "2"],
        "age": ["40", "", "-3"],
        "weight": ["0.5", "70.25", "1e-05"],
    }
    path = tmp_path / "list.csv"
    pd.DataFrame({"path": list("abc"), "label": list("xyy"), **rows}).to_csv(path, index=False)

    columns = open_data(path).columns

    for name in ("patient", "study", "dose"):
        assert columns[name].tolist() == rows[name]
    assert columns["age"].fillna(0).tolist() == [40, 0, -3]
    assert columns["weight"].tolist() == [0.5, 70.25, 1e-05]


def test_a_manifest_in_parquet_with_an_index(tmp_path):
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": ["cat", None]}, index=["x", "y"])
    table.to_parquet(tmp_path / "numbered.parquet")
    table.fillna("dog").set_index("path").to_parquet(tmp_path / "named.parquet")

    assert "the first of them row 2" in message_of(tmp_path / "numbered.parquet")
    assert open_data(tmp_path / "named.parquet").paths == ("a.png", "b.png")


def test_a_manifest_of_several_splits_is_told(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,dog,val\n")

    assert open_data(path).doubts == (
        "all rows of list.csv were evaluated, whatever its column split says: train (2), val (1); "
        "make a manifest of those that are meant",
    )


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("path,label,label", "manifest must have every column once, got 'label' more than once in"),
        ("path,label,p_cat", "p_CLASS to the predictions, got"),
    ],
)
def test_columns_of_a_manifest_that_would_mislead(tmp_path, header, said):
    path = tmp_path / "list.csv"
    path.write_text(f"{header}\na.png,cat,0.5\n")

    assert said in message_of(path)


def test_numbers_of_several_kinds_are_numbers(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label,dose,share,,\na.png,cat,1,0.50,,\nb.png,dog,2.5,0.25,,\n")

    columns = open_data(path).columns

    assert columns["dose"].tolist() == [1.0, 2.5]
    assert columns["share"].tolist() == [0.5, 0.25]


def test_an_index_that_has_a_reserved_name_is_no_column(tmp_path):
    table = pd.DataFrame({"path": ["a.png"], "label": ["cat"]}).rename_axis("index")
    table.to_parquet(tmp_path / "list.parquet")

    assert open_data(tmp_path / "list.parquet").paths == ("a.png",)


def test_a_split_with_gaps_names_no_empty_one(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label,split\na.png,cat,test\nb.png,dog,\n")

    assert open_data(path).doubts == ()


def test_other_samples_of_a_dataset_are_another_version():
    class Ten(Dataset):
        classes = ("a", "b")
        targets = torch.arange(10) % 2

        def __len__(self):
            return 10

        def __getitem__(self, position):
            return SMALL, int(self.targets[position])

    class Other(Ten):
        targets = torch.arange(10) // 5

    def version(dataset):
        return open_data(dataset).version

    assert version(Ten()) == version(Ten()) != version(Other())
    assert version(Subset(Ten(), [0, 1])) != version(Subset(Ten(), [0, 3]))
    assert version(Subset(Ten(), [0, 1])) != version(Subset(Other(), [0, 1]))


def test_images_that_a_manifest_names_twice(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label\na.png,cat\nb.png,dog\na.png,dog\nc.png,cat\nc.png,cat\n")

    source = open_data(path)

    assert len(source) == 5
    assert source.doubts == (
        "2 images are named by more than one row, 1 of them under several labels, and counted as "
        "often: a.png, c.png in list.csv",
    )


def test_manifest_in_parquet_with_numbers_as_classes(tmp_path):
    write_folders(tmp_path / "images", {"red": 3})
    manifest = tmp_path / "list.parquet"
    paths = [f"images/red/{number}.png" for number in range(3)]
    pd.DataFrame({"path": paths, "label": [10, 9, 1]}).to_parquet(manifest)

    assert open_data(manifest).classes == ("1", "9", "10")


def test_manifests_that_cannot_be_used(tmp_path):
    path = tmp_path / "list.csv"

    path.write_text("file,label\na.png,cat\n")
    assert message_of(path) == (
        f"manifest must have the columns path and label, got {path} without path: it has "
        "file, label"
    )
    path.write_text("path,label\n")
    assert message_of(path) == f"manifest must have at least one row, got {path} with none"
    path.write_text("path,label\na.png,cat\nb.png,\n")
    assert message_of(path) == (
        f"manifest must have a path and a label in every row, got {path} without in 1 row, the "
        "first of them row 2"
    )
    path.write_text("path,label,confidence\na.png,cat,1\n")
    assert message_of(path) == (
        "manifest must leave the names index, prediction, confidence, label_probability, loss, "
        f"top5, probabilities and p_CLASS to the predictions, got {path} with confidence: rename "
        "these columns"
    )
    path.write_text("")
    assert message_of(path) == (
        f"manifest must be a CSV file, got {path}: No columns to parse from file"
    )
    path = tmp_path / "list.parquet"
    path.write_text("path,label\n")
    assert message_of(path).startswith(f"manifest must be a Parquet file, got {path}: ")


def test_places_that_hold_no_data(tmp_path):
    expected = (
        "data must be a folder of class folders, a manifest (.csv or .parquet), WebDataset tars, "
        "huggingface:PATH or package.module:function, got "
    )
    missing = tmp_path / "missing"
    assert message_of(missing) == f"{expected}{missing}: a path where there is nothing"

    text = tmp_path / "notes.txt"
    text.write_text("x")
    assert message_of(text) == f"{expected}{text}: a file of another kind"


def test_folders_that_hold_no_classes(tmp_path):
    expected = f"data must be a folder with one folder per class, got {tmp_path}"
    advice = "put the images of each class into a folder of its name, or list them in a manifest"
    assert message_of(tmp_path) == f"{expected} with nothing in it: {advice}"

    (tmp_path / "notes.txt").touch()
    assert message_of(tmp_path) == f"{expected} with no folder in it: {advice}"

    coloured("red", 1).save(tmp_path / "a.png")
    assert message_of(tmp_path) == f"{expected} with 1 image and no folder in it: {advice}"

    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    assert message_of(tmp_path) == (
        f"data must have images in its class folders, got {tmp_path} with none in 2 folders: "
        "known are .jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp"
    )


def test_folders_inside_of_classes_that_could_be_classes_themselves_are_refused(tmp_path):
    """Programs that take the innermost folder for the class would merge or swap them."""
    advice = "rename it, or list the images in a manifest"
    for first, second in (("x", "y"), ("x", "z")):
        data = tmp_path / f"data-{first}{second}"
        (data / "pets").mkdir(parents=True)
        (data / "wild").mkdir()
        write_folders(data / "pets" / first, {"cat": 1})
        write_folders(data / "wild" / second, {"cat": 1, "lion": 1})
        assert message_of(data) == (
            "data must have folders inside of class folders that cannot be taken for classes, got "
            f"'cat' in the classes pets, wild of {data}: {advice}"
        )

    data = write_folders(tmp_path / "nested", {"cat": 1, "dog": 1})
    write_folders(data / "cat", {"dog": 1})
    assert message_of(data) == (
        "data must have folders inside of class folders that cannot be taken for classes, got "
        f"'dog' in the classes cat, dog of {data}: {advice}"
    )


def test_classes_that_are_divided_alike_are_clear(tmp_path):
    """As in Tiny ImageNet: every class has one folder called images."""
    for name in ("cat", "dog"):
        write_folders(tmp_path / name, {"images": 2})

    assert open_data(tmp_path).classes == ("cat", "dog")
    assert len(open_data(tmp_path)) == 4


def test_a_folder_in_one_class_alone_is_clear(tmp_path):
    write_folders(tmp_path, {"cat": 1, "dog": 1})
    write_folders(tmp_path / "cat", {"kittens": 1})

    assert list(open_data(tmp_path).labels) == ["cat", "cat", "dog"]


def test_a_data_set_of_ten_million_has_names_without_memory_for_them():
    class Huge(Patches):
        def __len__(self):
            return 10_000_000

    source = torch_dataset("mine:test_set", Huge())

    assert len(source.paths) == 10_000_000
    assert source.paths[9_999_999] == "mine:test_set[9999999]"
    assert sys.getsizeof(source.paths) < 1000


def test_a_folder_of_splits_is_not_a_folder_of_classes(tmp_path):
    for name in ("train", "val"):
        write_folders(tmp_path / name, {"red": 1})

    assert message_of(tmp_path) == (
        f"data must be a folder with one folder per class, got {tmp_path} with the splits train, "
        f"val: give one of them, such as {tmp_path / 'val'}"
    )


class Patches(Dataset):
    classes = ["dark", "light"]  # noqa: RUF012 - as torchvision's data sets have them

    def __len__(self):
        return 3

    def __getitem__(self, position):
        if position == 1:
            raise OSError("disk on fire")
        return torch.full((3, 9, 9), 200 * (position // 2), dtype=torch.uint8), position // 2


class Nameless(Patches):
    classes = None


class Mislabelled(Patches):
    def __getitem__(self, _position):
        return torch.zeros(3, 9, 9, dtype=torch.uint8), 2


def make_patches():
    return Patches()


def test_a_dataset_of_ones_own():
    source = open_data(f"{__file__}:make_patches")
    audit = Audit()

    (batch,) = read_all(source, audit=audit)

    assert source.classes == ("dark", "light")
    assert batch.indices.tolist() == [0, 2]
    assert batch.labels.tolist() == [0, 1]
    assert audit.unreadable == [
        Unreadable(index=1, path=f"{__file__}:make_patches[1]", reason="disk on fire")
    ]


def test_datasets_that_cannot_be_used():
    nameless, wrong = f"{__file__}:Nameless", f"{__file__}:Mislabelled"

    assert message_of(nameless) == (
        "data must be a Dataset with the names of its classes in its attribute classes, got "
        f"'{nameless}' without: set it"
    )
    with pytest.raises(InputError) as error:
        read_all(open_data(wrong))
    assert str(error.value) == (
        f"data must have labels among its 2 classes dark, light, got 2 for {wrong}[0]"
    )
    assert message_of(f"{__file__}:zzz") == (
        f"data must name an object of {__file__}, got 'zzz': check the name"
    )
    assert message_of(f"{__file__}:CLASSES") == (
        "data must be a Dataset with the names of its classes in its attribute classes, got "
        f"'{__file__}:CLASSES' without: set it"
    )


def test_every_readable_sample_comes_once_in_order(tmp_path):
    root = write_folders(tmp_path / "data", {"blue": 5, "green": 4, "red": 4})
    (root / "green" / "1.png").write_bytes(b"")
    (root / "green" / "2.png").write_text("no image")
    source, audit = open_data(root), Audit()

    found = read_all(source, batch_size=4, workers=3, audit=audit)

    indices = torch.cat([batch.indices for batch in found]).tolist()
    assert [len(batch.indices) for batch in found] == [4, 2, 4, 1]  # gaps, always the same cuts
    assert indices == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12]
    assert torch.cat([batch.labels for batch in found]).tolist() == [0] * 5 + [1] * 2 + [2] * 4
    assert audit.unreadable == [
        Unreadable(index=6, path="green/1.png", reason="the file is empty"),
        Unreadable(index=7, path="green/2.png", reason="the file is no image of a known format"),
    ]
    assert len(indices) + len(audit.unreadable) == len(source)
    with_image = TRANSFORM.pixels(coloured("blue", 3))
    assert torch.equal(found[0].pixels[3], with_image)


@pytest.mark.parametrize(
    "transform",
    [TRANSFORM, evaluation(resize=(9, 7), crop=None), evaluation(resize=None, crop=None)],
    ids=["memory of a known size", "another", "of a size that the images tell"],
)
def test_every_sample_has_its_own_pixels_wherever_others_are_missing(tmp_path, transform):
    root = write_folders(tmp_path / "data", {"blue": 9, "red": 9})
    generator = np.random.default_rng(0)
    for path in root.rglob("*.png"):
        Image.fromarray(generator.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(path)
    for name in ("blue/0.png", "blue/4.png", "blue/5.png", "red/8.png"):
        (root / name).write_bytes(b"")
    source, outputs = open_data(root), {"blue": 0, "red": 1}

    found = list(batches(source, transform, outputs, batch_size=6, workers=3, audit=Audit()))

    assert [len(batch.indices) for batch in found] == [3, 6, 5]
    for batch in found:
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        for index, pixels in zip(batch.indices, batch.pixels, strict=True):
            with Image.open(root / source.paths[index]) as image:
                assert torch.equal(pixels, transform.pixels(as_tensor(image)))


def test_a_share_of_the_samples_and_what_was_noticed_up_to_every_batch(tmp_path):
    source = open_data(write_folders(tmp_path / "data", {"blue": 5, "red": 6}))
    for place in ("blue/1.png", "red/0.png", "red/5.png"):
        (tmp_path / "data" / place).write_bytes(b"")
    audit, noticed = Audit(), []
    outputs = {"blue": 0, "red": 1}

    for batch in batches(
        source, TRANSFORM, outputs, batch_size=3, workers=2, audit=audit, positions=range(10, 0, -1)
    ):
        taken = audit.take()
        noticed.append((batch.indices.tolist(), [one.index for one in taken.unreadable]))

    assert noticed == [([9, 8], [10]), ([7, 6], [5]), ([4, 3, 2], []), ([], [1])]
    assert (
        list(
            batches(source, TRANSFORM, outputs, batch_size=3, workers=2, audit=audit, positions=[])
        )
        == []
    )


@pytest.mark.parametrize("workers", [1, 4])
def test_no_more_than_two_batches_wait_in_memory(workers):
    loaded = []
    lock = threading.Lock()

    def load(position, _mode):
        with lock:
            loaded.append(position)
        return Loaded(image=torch.zeros(3, 8, 8, dtype=torch.uint8), label="a")

    source = Source(name="x", paths=[""] * 100, classes=("a",), load=load)
    taken = 0
    for batch in batches(source, TRANSFORM, {"a": 0}, batch_size=5, workers=workers, audit=Audit()):
        taken += len(batch.indices)
        time.sleep(0.002)
        assert len(loaded) <= taken + 2 * 5

    assert sorted(loaded) == list(range(100))


def test_decoding_stops_when_nobody_listens_any_more():
    loaded = []

    def load(position, _mode):
        loaded.append(position)
        return Loaded(image=torch.zeros(3, 8, 8, dtype=torch.uint8), label="a")

    source = Source(name="x", paths=[""] * 1000, classes=("a",), load=load)
    stream = batches(source, TRANSFORM, {"a": 0}, batch_size=5, workers=2, audit=Audit())
    next(stream)
    stream.close()

    assert len(loaded) < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_images_of_several_sizes_in_one_batch(tmp_path):
    root = write_folders(tmp_path / "data", {"red": 2})
    coloured("red", 1, size=(20, 20)).save(root / "red" / "0.png")

    with pytest.raises(InputError) as error:
        read_all(open_data(root), transform=evaluation(resize=None, crop=None))

    assert str(error.value) == (
        "images must have one size after the transform, got 2 sizes: (10, 12), (20, 20): give a "
        "transform with crop"
    )


def test_what_is_odd_is_counted(tmp_path):
    root = write_folders(tmp_path / "data", {"red": 2})
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(root / "red" / "2.png")
    Image.new("RGBA", (9, 9)).save(root / "red" / "3.png")
    audit = Audit()

    read_all(open_data(root), audit=audit)

    assert dict(audit.oddities) == {
        "grey": 1,
        "of 16 bits per channel, scaled to 8": 1,
        "transparent, laid on white": 1,
    }


def test_a_class_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfebad")  # noqa: PTH102 - a name of bytes

    with pytest.raises(InputError, match=r"names in UTF-8, got .*udcff.*: rename them"):
        open_data(tmp_path)


def test_rows_with_more_fields_than_the_header_are_not_shifted(tmp_path):
    """Otherwise the first field would be taken for a name of the row, and a label for a path."""
    path = tmp_path / "long.csv"
    path.write_text("path,label\nx,a.png,cat\ny,b.png,dog\n")

    assert message_of(path) == (
        f"manifest {path}, line 2: expected 2 fields as in its header, got 3: put a field that "
        "holds a comma into quotation marks"
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "path,label\na.png,cat\n\nb.png,cat,tabby\n",
            ", line 4: expected 2 fields as in its header, got 3: put a field that holds a comma "
            "into quotation marks",
        ),
        (
            'path,label,note\na.png,cat,"two\nlines"\nb.png,cat,x,y\n',
            ", line 4: expected 3 fields as in its header, got 4: put a field that holds a comma "
            "into quotation marks",
        ),
        (
            'path,label\na.png,cat\n"b.png,cat\nc.png,cat\n',
            ", from line 3: expected a quotation mark at the end of a field, got the end of the "
            "file: close it, or write the file again",
        ),
        (
            "path,label\na.png,caf\xe9\n".encode("latin-1"),
            ", line 2: expected text in UTF-8, got the byte 0xe9: save it as UTF-8",
        ),
        (
            "path;label;score\na.png;cat;0,5\n",
            ", line 1: expected names between commas, got semicolons: save it with commas",
        ),
        (
            "path\tlabel\na.png\tcat\n",
            ", line 1: expected names between commas, got tabs: save it with commas",
        ),
        (
            "path, label \na.png,cat\n",
            ", line 1: expected names without blanks around them, got ' label ': remove the blanks",
        ),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_told_with_the_line(tmp_path, written, said):
    path = tmp_path / "m.csv"
    path.write_bytes(written if isinstance(written, bytes) else written.encode())

    assert message_of(path) == f"manifest {path}{said}"


def test_classes_that_blanks_alone_tell_apart_are_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,label\na.png,cat\nb.png,cat \nc.png,dog\n")

    assert message_of(path) == (
        "manifest must have classes that more than blanks tell apart, got 'cat' and 'cat ' in "
        f"{path}: remove the blanks"
    )


def test_a_parquet_manifest_whose_notes_are_damaged(tmp_path):
    path = tmp_path / "odd.parquet"
    table = pa.table({"path": ["a.png"], "label": ["cat"]})
    pq.write_table(table.replace_schema_metadata({b"pandas": b"{no JSON"}), path)

    assert message_of(path).startswith(f"manifest must be a Parquet file, got {path}: ")


class Faulty:
    """Samples by name: what people's data sets give by mistake."""

    classes = ("cat", "dog")

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, position):
        sample = self.samples[position]
        if isinstance(sample, Exception):
            raise sample
        return sample


SMALL = torch.zeros(3, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ((SMALL, 0, "more"), "got a tuple of 3 for mine"),
        ({"image": SMALL}, "got a dict of 1 for mine"),
        ((np.zeros((3, 4, 4), np.uint8), 0), r"got ndarray \(3, 4, 4\) of uint8 for mine"),
        ((np.zeros((4, 4, 3)), 0), r"got ndarray \(4, 4, 3\) of float64 for mine"),
        ((SMALL, torch.tensor([0, 1])), "got tensor"),
        ((SMALL, None), "got None for mine"),
        ((SMALL, 0.9), "got 0.9 for mine"),
        ((SMALL, float("nan")), "got nan for mine"),
        ((SMALL, 2), "got 2 for mine"),
        (ValueError("what"), r"got ValueError: what \(.*test_data.py, line \d+\) for mine"),
        (KeyError("what"), "got KeyError"),
    ],
)
def test_faults_of_a_dataset_are_said_to_be_its_own(sample, reason):
    source = torch_dataset("mine", Faulty(sample))

    with pytest.raises(InputError, match=reason):
        source.load(0, "RGB")


def test_images_without_pixels_or_damaged_are_unreadable(tmp_path):
    cut = tmp_path / "cut.png"
    coloured("red", 0, size=(64, 64)).save(cut)
    cut.write_bytes(cut.read_bytes()[:80])
    samples = [(Image.open(cut), 0), (SMALL[:, :0], 0), (OSError("gone"), 0)]
    source = torch_dataset("mine", Faulty(*samples[:2], samples[2][0]))

    for position in range(3):
        with pytest.raises(UnreadableError):
            source.load(position, "RGB")
    samples[0][0].close()


def test_labels_of_numpy_and_torch_are_positions():
    labels = (1, np.int64(1), torch.tensor(1), True, "dog")
    source = torch_dataset("mine", Faulty(*((SMALL, label) for label in labels)))

    assert [source.load(position, "RGB").label for position in range(5)] == ["dog"] * 5


class Numbered(ImageFolder):
    """Numbers its classes as torchvision's documentation shows."""

    def find_classes(self, _directory):
        return ["blue", "green", "red"], {"red": 0, "green": 1, "blue": 2}


def test_positions_are_those_of_class_to_idx(tmp_path):
    root = write_folders(tmp_path / "data", {"blue": 1, "green": 1, "red": 1})

    source = open_data(Numbered(str(root)))

    assert source.classes == ("red", "green", "blue")
    folders = [Path(place).parent.name for place, _label in Numbered(str(root)).samples]
    assert [source.load(position, "RGB").label for position in range(3)] == folders
    assert "different orders: labels were read by class_to_idx" in source.doubts[0]


def test_classes_of_what_a_dataset_is_made_of():
    one, other = Faulty((SMALL, 0), (SMALL, 1)), Faulty((SMALL, 1))

    source = open_data(ConcatDataset([Subset(one, [1]), other]))

    assert source.classes == ("cat", "dog")
    assert [source.load(position, "RGB").label for position in range(2)] == ["dog", "dog"]
    other.classes = ("dog", "cat")
    assert "got cat, dog and dog, cat in" in message_of(ConcatDataset([one, other]))


@pytest.mark.parametrize("classes", [{"dog": 1, "cat": 0}, np.array(["cat", "dog"])])
def test_classes_of_a_dataset_in_other_containers(classes):
    two = Faulty((SMALL, 1))
    two.classes = classes

    assert torch_dataset("mine", two).load(0, "RGB").label == "dog"


def test_labels_that_are_positions_and_names_alike_are_refused():
    three = Faulty((SMALL, 1), (SMALL, 30))
    three.classes = [1, 2, 30]
    source = torch_dataset("mine", three)

    with pytest.raises(InputError, match="got the label 1, which is both: set class_to_idx"):
        source.load(0, "RGB")
    assert source.load(1, "RGB").label == "30"


def test_samples_of_other_kinds():
    pixels = np.full((4, 5, 3), 7, np.uint8)
    samples = [
        {"image": SMALL, "label": 1},
        {"pixel_values": SMALL, "labels": torch.tensor([1])},
        (SMALL, 1.0),
        (SMALL, torch.tensor(1.0)),
        (pixels, 1),
        (pixels[:, :, 0], 1),
    ]
    source = torch_dataset("mine", Faulty(*samples))

    loaded = [source.load(position, "RGB") for position in range(len(samples))]

    assert [one.label for one in loaded] == ["dog"] * len(samples)
    assert [one.image.mode for one in loaded[-2:]] == ["RGB", "L"]
    assert np.array_equal(np.asarray(loaded[-2].image), pixels)


def test_what_is_no_dataset_and_no_path():
    assert message_of(iter([])) == (
        "data must be a path, a name, or a Dataset with a length whose samples can be asked for "
        "one by one, got list_iterator"
    )


def test_classes_of_a_dataset_that_have_one_name():
    two = Faulty((SMALL, 0))
    two.classes = ("crane", "cat", "crane")

    with pytest.raises(InputError, match="got crane more than once"):
        torch_dataset("mine", two)


def test_a_maker_that_fails():
    def maker(path):
        raise AssertionError(path)

    with pytest.raises(InputError, match="a function of no arguments that makes one, got TypeErr"):
        torch_dataset("mine", maker)


class Shared(Faulty):
    """Reads as from a file that is held open: where it is, is one for all threads."""

    def __init__(self):
        super().__init__(*range(60))
        self.place = 0
        self.wrong = 0

    def __getitem__(self, position):
        self.place = position
        time.sleep(0.002)
        self.wrong += self.place != position
        return SMALL, position % 2


@pytest.mark.parametrize("thread_safe", [False, True])
def test_a_dataset_is_asked_by_one_thread_at_a_time_unless_it_says_otherwise(thread_safe):
    dataset = Shared()
    dataset.thread_safe = thread_safe

    read_all(torch_dataset("mine", dataset), evaluation(resize=None, crop=4), workers=4)

    assert (dataset.wrong > 0) == thread_safe


def test_numbers_in_a_manifest_are_positions_where_no_class_has_such_a_name(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label\na.png,0\nb.png,2\n")

    joined = join(open_data(path), stored=("cat", "dog", "yak"))

    assert joined.outputs["2"] == 2
    assert "by number alone" in " ".join(joined.warnings)
    assert join(open_data(path), stored=("2", "1", "0")).outputs["2"] == 0


def test_folders_that_do_not_end_and_names_that_cannot_be_written(tmp_path):
    root = write_folders(tmp_path / "data", {"blue": 1, "red": 1})
    link = root / "blue" / "again"
    link.symlink_to("..")
    assert "a link to a folder that it is in" in message_of(root)
    link.unlink()
    link.symlink_to(root / "red")
    assert len(open_data(root)) == 3
    link.unlink()
    (root / "blue" / os.fsdecode(b"\xff.png")).touch()
    assert message_of(root) == (
        f"data must have files with names in UTF-8, got 1 other in {root}: 'blue/\\udcff.png': "
        "rename them"
    )


def test_class_folders_that_blanks_alone_tell_apart(tmp_path):
    root = write_folders(tmp_path / "data", {"cat": 1, " cat": 1})

    assert "more than blanks tell apart" in message_of(root)


def test_a_folder_in_a_class_named_like_an_empty_class(tmp_path):
    root = write_folders(tmp_path / "data", {"cat": 1})
    (root / "dog").mkdir()
    (root / "cat" / "dog").mkdir()
    (root / "cat" / "0.png").rename(root / "cat" / "dog" / "0.png")

    assert "got 'dog' in the classes cat, dog of" in message_of(root)
