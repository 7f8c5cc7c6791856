import argparse
import collections
import datetime as dt
import hashlib
import pathlib
import random
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_files import SmallNet, same_weights, small_net, tag_as_cuda
from safetensors.torch import save_file

from evalkit.checkpoint import load_checkpoint
from evalkit.checkpoint.read import read
from evalkit.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


def message_of(path):
    with pytest.raises(InputError) as error:
        read(path)
    return str(error.value)


@pytest.mark.parametrize("as_zip", [True, False])
def test_reads_what_torch_saved(path, as_zip):
    state = small_net().state_dict()
    torch.save({"epoch": 3, "state_dict": state}, path, _use_new_zipfile_serialization=as_zip)

    contents = read(path)

    assert contents.kind.value == ("torch zip" if as_zip else "legacy torch")
    assert contents.tree["epoch"] == 3
    assert torch.equal(contents.tree["state_dict"]["fc.weight"], state["fc.weight"])
    assert contents.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_reads_safetensors(path):
    save_file(small_net().state_dict(), path)

    assert torch.equal(read(path).tree["fc.bias"], small_net().fc.bias)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:7"])
def test_file_of_a_gpu_loads_on_the_cpu(tmp_path, path, device):
    """The error that everybody meets first, proved to occur before it is proved to be avoided."""
    torch.save({"state_dict": small_net().state_dict()}, tmp_path / "cpu.pth")
    tag_as_cuda(tmp_path / "cpu.pth", path, device)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"Attempting to deserialize object on a CUDA"):
            torch.load(path, weights_only=True)

    model, report = load_checkpoint(path, SmallNet())

    assert report.matched_fraction == 1
    assert same_weights(model, small_net())
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("as_zip", [True, False])
def test_harmless_classes_are_read_without_their_libraries(path, as_zip):
    args = argparse.Namespace(
        lr=np.float64(0.1),
        best=np.float32(0.5),
        name=np.str_("run"),
        table=np.arange(6).reshape(2, 3),
        fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        big_endian=np.array([1, 2], dtype=">i4"),
        objects=np.array(["a", None], dtype=object),
        struct=np.zeros(2, dtype=[("a", "f4")]),
        data=pathlib.Path("/data/images"),
        started=dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
        took=dt.timedelta(hours=2),
        counts=collections.defaultdict(int, {"cat": 3}),
        last=collections.deque([1, 2], maxlen=2),
        tags=frozenset({"a"}),
        torch=torch.__version__,
    )
    torch.save({"args": args}, path, _use_new_zipfile_serialization=as_zip)

    found = read(path).tree["args"]

    assert (found.lr, found.best, found.name) == (0.1, 0.5, "run")
    assert type(found.lr) is float
    np.testing.assert_array_equal(found.table.value, args.table)
    np.testing.assert_array_equal(found.fortran.value, args.fortran)
    np.testing.assert_array_equal(found.big_endian.value, args.big_endian)
    assert found.objects.value is None
    assert found.struct.value is None
    assert str(found.data) == "/data/images"
    assert found.started == args.started
    assert found.took == args.took
    assert found.counts == {"cat": 3}
    assert found.last == [1, 2]
    assert found.tags == args.tags
    assert found.torch == str(torch.__version__)


def test_names_of_numpy_1_are_read_by_numpy_2(tmp_path, path):
    torch.save({"best_acc": np.float64(0.75)}, tmp_path / "numpy2.pth")
    with zipfile.ZipFile(tmp_path / "numpy2.pth") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.", b"numpy.core."))

    assert read(path).tree["best_acc"] == 0.75


def test_another_pickle_protocol(path):
    for protocol in range(1, 6):
        torch.save({"epoch": 3, "w": torch.ones(2)}, path, pickle_protocol=protocol)
        tree = read(path).tree
        assert torch.equal(tree["w"], torch.ones(2))
        assert tree["epoch"] == 3


def test_zip_packed_again_with_compression_is_not_mapped(tmp_path, path):
    """Mapped at their offsets, compressed tensors would be noise that loads without an error."""
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))

    assert torch.equal(read(path).tree["weight"], torch.zeros(1000))


def test_damaged_pickle(tmp_path, path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:-4] if name.endswith("data.pkl") else data)

    assert message_of(path).startswith(f"{path}: expected a whole checkpoint, got a damaged one (")
    assert message_of(path).endswith("): fetch or save it again")


def test_legacy_file_that_ends_too_early(path):
    torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])

    assert message_of(path).startswith(f"{path}: expected a whole checkpoint, got a damaged one (")


def test_damaged_safetensors(path):
    save_file({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])

    assert message_of(path) == (
        f"{path}: expected a whole checkpoint, got a damaged one (ValueError: bytes 0 to 4000 lie "
        "outside of 3900): fetch or save it again"
    )


@pytest.mark.parametrize("name", ["data/0", "data.pkl"])
def test_damaged_bytes_of_a_zip_are_noticed_by_their_checksum(path, name):
    """torch loads such a file without a word."""
    torch.save({"weight": torch.ones(1000), "note": "abc"}, path)
    with zipfile.ZipFile(path) as archive:
        member = next(one for one in archive.infolist() if one.filename.endswith(name))
    data = bytearray(path.read_bytes())
    place = data.index(b"abc") if name == "data.pkl" else member.header_offset + 500
    data[place] ^= 1
    path.write_bytes(data)

    assert message_of(path) == (
        f"{path}: expected the bytes that were saved, got others in 'checkpoint/{name}', whose "
        "checksum is wrong, as a faulty disk or transfer leaves it: fetch or save it again"
    )


def test_zip_that_was_written_without_checksums(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(1000)}, path)
    finally:
        torch.serialization.set_crc32_options(True)

    assert torch.equal(read(path).tree["weight"], torch.ones(1000))


def save_zip(tree, path):
    torch.save(tree, path)


def save_legacy(tree, path):
    torch.save(tree, path, _use_new_zipfile_serialization=False)


def save_safetensors(tree, path):
    save_file(tree["state_dict"], path)


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_safetensors])
def test_any_damage_ends_in_one_line_or_in_none(tmp_path, path, save):
    save({"state_dict": small_net().state_dict(), "lr": np.float64(1)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 3, 10])):
            damaged[generator.randrange(min(len(whole), 3000))] = generator.randrange(256)
        path.write_bytes(damaged[: generator.choice([len(whole), generator.randrange(len(whole))])])
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: expected ")  # noqa: PT017 - some pass
            assert "\n" not in str(error)  # noqa: PT017

    assert refused > 75 if save is not save_legacy else refused > 50
