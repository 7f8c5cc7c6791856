import gzip
import io
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_files import small_net
from safetensors.torch import save_file

from evalkit.checkpoint.kind import Kind, require_readable, sniff
from evalkit.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pth"


def test_zip_of_torch_save(path):
    torch.save(small_net().state_dict(), path)

    assert sniff(path) is Kind.TORCH_ZIP
    assert require_readable(path) is Kind.TORCH_ZIP


def test_file_of_torch_before_1_6(path):
    torch.save(small_net().state_dict(), path, _use_new_zipfile_serialization=False)

    assert require_readable(path) is Kind.TORCH_LEGACY


def test_safetensors_whatever_the_suffix(path):
    save_file(small_net().state_dict(), path)

    assert require_readable(path) is Kind.SAFETENSORS


def write_truncated(path):
    torch.save(small_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/model.pth", b"")


def npy_bytes():
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


def npz_bytes():
    stream = io.BytesIO()
    np.savez(stream, weight=np.ones(3), bias=np.ones(1))
    return stream.getvalue()


def write_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


REFUSED = {
    "truncated": (
        write_truncated,
        (
            "a zip file whose list of contents, at its end, is missing or damaged, as a download "
            "that broke off or a full disk leaves it: fetch or save it again"
        ),
    ),
    "zip": (
        write_zip,
        (
            "a zip archive without weights of torch.save (no data.pkl): unpack it and give the "
            "checkpoint inside"
        ),
    ),
    "onnx": (
        lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(500)),
        (
            "an ONNX model, whose weights have lost their names in the PyTorch model: where it was "
            "made, save the model's state_dict() with torch.save"
        ),
    ),
    "gguf": (
        lambda path: path.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(500)),
        (
            "a GGUF file of llama.cpp, whose weights are quantised for it: give the checkpoint it "
            "was made from"
        ),
    ),
    "gzip": (
        lambda path: path.write_bytes(gzip.compress(b"weights")),
        "a gzip archive: unpack it with 'gunzip' or 'tar xzf' and give the checkpoint inside",
    ),
    "npy": (
        lambda path: path.write_bytes(npy_bytes()),
        (
            "arrays of NumPy: turn them into a dict of tensors by the names of the model's "
            "state_dict(), with torch.from_numpy, and save that with torch.save"
        ),
    ),
    "npz": (
        lambda path: path.write_bytes(npz_bytes()),
        (
            "arrays of NumPy: turn them into a dict of tensors by the names of the model's "
            "state_dict(), with torch.from_numpy, and save that with torch.save"
        ),
    ),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps({"weight": [1.0]})),
        (
            "a plain pickle, which can run any code when it is read: where it was made, save the "
            "weights with torch.save or safetensors"
        ),
    ),
    "hdf5": (
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
        "an HDF5 file, as Keras writes it: convert the weights to PyTorch first",
    ),
    "html": (
        lambda path: path.write_text("\n<!DOCTYPE html>\n<html><title>Sign in</title></html>"),
        "an HTML page, as a download that asked for a login leaves it: fetch the file itself again",
    ),
    "pointer": (
        write_pointer,
        "a Git LFS pointer, which stands for the file: run 'git lfs pull'",
    ),
    "text": (
        lambda path: path.write_text("learning rate: 0.1\n"),
        "a text file: check the path",
    ),
    "long text": (
        lambda path: path.write_text("é" * 2000),
        "a text file: check the path",
    ),
    "empty": (
        lambda path: path.write_bytes(b""),
        "an empty file, as a save or download that broke off leaves it: fetch or save it again",
    ),
    "noise": (
        lambda path: path.write_bytes(bytes(range(256))),
        "bytes of no known format: check the path, or fetch the file again",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_checkpoint_is_named_with_what_to_do(path, name):
    write, expected = REFUSED[name]
    write(path)

    with pytest.raises(InputError) as error:
        require_readable(path)

    assert str(error.value) == f"{path}: expected a checkpoint, got {expected}"


def test_one_file_of_a_distributed_checkpoint(tmp_path):
    path = tmp_path / "__0_0.distcp"
    torch.save(torch.ones(1), path)

    with pytest.raises(InputError) as error:
        require_readable(path)

    assert str(error.value) == (
        f"{path}: expected a checkpoint, got one file of a directory that "
        "torch.distributed.checkpoint wrote: give the directory"
    )


def test_real_torchscript_and_torch_export_archives(tmp_path):
    model = torch.nn.Linear(4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch would rather not
        torch.jit.script(model).save(tmp_path / "script.pt")
    torch.export.save(torch.export.export(model, (torch.ones(1, 4),)), tmp_path / "export.pt2")

    assert sniff(tmp_path / "script.pt") is Kind.TORCHSCRIPT
    assert sniff(tmp_path / "export.pt2") is Kind.TORCH_EXPORT


def test_missing_file(path):
    with pytest.raises(InputError) as error:
        sniff(path)

    assert str(error.value) == (
        f"{path}: expected a checkpoint file, got a path where there is none: check the path"
    )


def test_directory_names_the_checkpoints_in_it(tmp_path):
    with pytest.raises(InputError) as error:
        sniff(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected a checkpoint file, got a directory: give the file"
    )

    for name in ("last.pth", "best.pth", "log.csv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        sniff(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected a checkpoint file, got a directory: "
        "give one of the files in it: best.pth, last.pth"
    )
