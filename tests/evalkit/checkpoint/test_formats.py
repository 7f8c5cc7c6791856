"""What is special about each kind of checkpoint, beyond that its weights come out (see the zoo)."""

import hashlib
import io
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import SmallNet, same_weights, small_net
from checkpoint_zoo import ZOO, process_group, quiet, trained_net
from safetensors.torch import load_file, save_file
from torch import nn

from evalkit.checkpoint import load_checkpoint
from evalkit.checkpoint.read import read
from evalkit.errors import InputError

RECORDED = Path(__file__).parents[2] / "recorded"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


def message_of(path, model=None, **options):
    with pytest.raises(InputError) as error:
        load_checkpoint(path, SmallNet() if model is None else model, **options)
    return str(error.value)


def written(name, folder):
    return ZOO[name].write(folder, trained_net())


# ---- safetensors ----


def test_safetensors_are_read_as_their_own_package_reads_them(tmp_path):
    path = tmp_path / "all.safetensors"
    dtypes = [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
        *(torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
    ]
    tensors = {f"t.{dtype}": torch.arange(6).reshape(2, 3).to(dtype) for dtype in dtypes}
    save_file(tensors | {"empty": torch.ones(0, 3), "scalar": torch.tensor(3.0)}, path)

    tree = read(path).tree

    expected = load_file(path)
    assert tree.keys() == expected.keys()
    for key, value in expected.items():
        assert tree[key].dtype == value.dtype
        assert torch.equal(tree[key].to(torch.complex128), value.to(torch.complex128))


def test_class_names_in_the_header_of_safetensors(path):
    save_file(
        small_net(num_classes=2).state_dict(),
        path,
        metadata={"classes": '["cat", "dog"]', "note": "plain text", "epoch": "3"},
    )

    contents = read(path)

    assert contents.header == {"classes": ["cat", "dog"], "note": "plain text", "epoch": 3}
    _model, report = load_checkpoint(path, SmallNet(num_classes=2))
    assert report.classes == ("cat", "dog")


# ---- sharded ----


def test_sha256_of_shards_is_that_of_their_list(tmp_path):
    path = written("sharded safetensors", tmp_path)

    contents = read(path)

    shards = sorted(tmp_path.glob("*.safetensors"))
    lines = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in shards]
    assert contents.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert contents.kind.value == "sharded weights"
    assert contents.size_bytes == sum(one.stat().st_size for one in shards)


def test_a_shard_that_is_missing(tmp_path):
    path = written("sharded safetensors", tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()

    assert message_of(path) == (
        f"{shard}: expected a checkpoint file, got a path where there is none: check the path"
    )


def test_a_shard_of_another_model(tmp_path):
    path = written("sharded safetensors", tmp_path)
    shard = min(tmp_path.glob("*.safetensors"))
    held = len(load_file(shard))
    save_file({"other": torch.ones(1)}, shard)

    message = message_of(path)

    assert message.startswith(
        f"{path}: expected 18 tensors as the index says, got {held} less in the files, "
    )
    assert message.endswith(": fetch the files again")


# ---- torch.distributed.checkpoint ----


def test_distributed_checkpoint_leaves_the_optimizer_out(tmp_path):
    path = written("torch.distributed.checkpoint", tmp_path)

    contents = read(path)

    assert contents.kind.value == "torch.distributed.checkpoint"
    assert sorted(contents.tree) == ["epoch", "model"]
    assert contents.tree["epoch"] == 3


def test_damaged_bytes_of_a_distributed_checkpoint(tmp_path):
    path = written("torch.distributed.checkpoint", tmp_path)
    file = path / "__0_0.distcp"
    values = trained_net().stem.weight.detach().numpy().tobytes()
    data = bytearray(file.read_bytes())
    data[data.index(values) + 5] ^= 1
    file.write_bytes(data)

    assert message_of(path).startswith(
        f"{file}: expected the bytes that were saved, got others in 'archive/data/0', whose "
        "checksum is wrong"
    )


TWO_RANKS = """
import sys, torch
sys.path.insert(0, {tests!r})
from checkpoint_files import small_net
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.checkpoint import state_dict as gather
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

rank = int(sys.argv[1])
distributed.init_process_group("gloo", "file://{folder}/rendezvous", rank=rank, world_size=2)
model = small_net(seed=1)
fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
checkpoint.save({{"model": gather.get_model_state_dict(model)}}, checkpoint_id="{folder}/step_3")
torch.save(gather.get_model_state_dict(model), "{folder}/rank_%d.pth" % rank)
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two processes wrote, each of which held one half of every tensor."""
    folder = tmp_path_factory.mktemp("ranks")
    program = TWO_RANKS.format(tests=str(Path(__file__).parents[2]), folder=folder)
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, str(rank)])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    return folder


def test_tensors_are_put_together_from_the_files_of_all_ranks(two_ranks):
    loaded, report = load_checkpoint(two_ranks / "step_3", SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert report.matched_fraction == 1


def test_one_rank_alone_is_named(two_ranks):
    path = two_ranks / "rank_0.pth"

    assert message_of(path) == (
        f"{path}: expected whole weights, got one process's part of distributed tensors (DTensor): "
        "save again with torch.distributed.checkpoint, or call full_tensor() on each first"
    )


def test_the_file_of_a_rank_is_missing(two_ranks, tmp_path):
    folder = tmp_path / "step_3"
    folder.mkdir()
    for name in (".metadata", "__0_0.distcp"):
        (folder / name).write_bytes((two_ranks / "step_3" / name).read_bytes())

    assert message_of(folder) == (
        f"{folder}: expected a whole checkpoint, got a damaged one (FileNotFoundError: [Errno 2] "
        f"No such file or directory: '{folder}/__1_0.distcp'): fetch or save it again"
    )


# ---- programs ----


def test_scripted_program_is_not_run(tmp_path):
    path = written("TorchScript, scripted", tmp_path)

    model, report = load_checkpoint(path, SmallNet())

    assert same_weights(model, trained_net())
    assert report.kind == "TorchScript archive"
    assert report.unknown_classes == ()


def test_export_of_torch_before_2_8(path):
    """A zip at whose root a file of torch.save holds the weights."""
    inner = io.BytesIO()
    torch.save(small_net(seed=1).state_dict(), inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", inner.getvalue())
        archive.writestr("version", "7.0")

    loaded, report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert report.kind == "torch.export archive"


def test_export_of_torch_2_8():
    """Recorded: the weights are one file of torch.save in a folder that lists them later on."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))

    loaded, report = load_checkpoint(RECORDED / "torch_2_8.pt2", net)

    for name, value in loaded.state_dict().items():
        assert value.flatten().tolist() == list(range(value.numel())), name
    assert report.kind == "torch.export archive"


# ---- tar and legacy ----


def test_tar_with_two_checkpoints(tmp_path):
    path = tmp_path / "run.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("last.pth", "best.pth"):
            torch.save(small_net().state_dict(), tmp_path / name)
            archive.add(tmp_path / name, arcname=name)

    assert message_of(path) == (
        f"{path}: expected one checkpoint in the tar archive, got 2 checkpoints among 2 files: "
        "unpack it with 'tar xf' and give the checkpoint inside"
    )


def test_tar_without_a_checkpoint(tmp_path):
    path = tmp_path / "run.tar"
    (tmp_path / "notes.txt").write_text("nothing here")
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "notes.txt", arcname="notes.txt")

    assert "got none among 1 file:" in message_of(path)


def test_views_of_one_storage_in_a_legacy_file(path):
    whole = torch.arange(20.0)
    torch.save(
        {"a": whole[:10], "b": whole[5:15].reshape(2, 5).t(), "tied": whole},
        path,
        _use_new_zipfile_serialization=False,
    )

    tree = read(path).tree

    assert torch.equal(tree["a"], whole[:10])
    assert torch.equal(tree["b"], whole[5:15].reshape(2, 5).t())
    assert tree["a"].data_ptr() == tree["tied"].data_ptr()


# ---- torch zip ----


def test_zip_of_a_machine_with_the_other_byte_order(tmp_path, path):
    values = np.arange(4, dtype=np.float32)
    torch.save({"w": torch.from_numpy(values), "n": torch.tensor([1, 2])}, tmp_path / "little.pth")
    swapped = {"data/0": values.byteswap(), "data/1": np.array([1, 2]).byteswap()}
    with zipfile.ZipFile(tmp_path / "little.pth") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            inner = name.partition("/")[2]
            data = swapped[inner].tobytes() if inner in swapped else old.read(name)
            new.writestr(name, b"big" if inner == "byteorder" else data)

    tree = read(path).tree

    assert tree["w"].tolist() == [0, 1, 2, 3]
    assert tree["n"].tolist() == [1, 2]


def test_tensors_of_every_type_and_layout(path):
    tree = {
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "expanded": torch.ones(1).expand(5),
        "channels_last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "conjugated": torch.complex(torch.ones(2), torch.arange(2.0)).conj(),
        "empty": torch.ones(0, 7),
        "scalar": torch.tensor(3),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "uint16": torch.ones(3, dtype=torch.uint16),
        "parameter": nn.Parameter(torch.ones(2)),
        "storage": torch.ones(3).untyped_storage(),
    }
    torch.save(tree, path)

    found = read(path).tree

    for key in list(tree)[:8]:
        assert found[key].dtype == tree[key].dtype
        assert torch.equal(found[key].to(torch.complex128), tree[key].to(torch.complex128)), key
    assert found["parameter"].tolist() == [1, 1]
    assert type(found["parameter"]) is torch.Tensor


def test_what_is_read_is_not_written_back(path):
    torch.save({"w": torch.ones(1000)}, path)
    before = path.read_bytes()
    tensor = read(path).tree["w"]

    tensor.fill_(7)

    assert path.read_bytes() == before


# ---- whole modules and trust ----


def test_class_names_and_classes_of_a_whole_module(tmp_path):
    path = written("whole modules with an average (YOLO)", tmp_path)

    _model, report = load_checkpoint(path, SmallNet(num_classes=10), weights="model")

    assert report.classes == ("cat", "dog")
    assert "checkpoint_files.SmallNet" in report.unknown_classes
    assert report.dtype_changes == {"float16 -> float32": 16}
    assert report.warnings == (
        (
            "the checkpoint names 2 classes but its last layer has 10 outputs: names and outputs "
            "may not belong together"
        ),
    )


def test_buffers_that_are_not_persistent_stay_out(path):
    model = small_net()
    model.register_buffer("cache", torch.ones(3), persistent=False)
    torch.save(model, path)

    _model, report = load_checkpoint(path, SmallNet())

    assert report.unexpected == ()


def test_trust_makes_a_whole_module_the_model(path):
    torch.save({"model": small_net(seed=1), "ema": small_net(seed=2)}, path)

    model, report = load_checkpoint(path, trust=True)
    averaged, _report = load_checkpoint(path, trust=True, weights="ema")

    assert isinstance(model, SmallNet)
    assert same_weights(model, small_net(seed=1))
    assert same_weights(averaged, small_net(seed=2))
    assert "the file was trusted: its own classes were imported and their code was run" in (
        report.warnings
    )


def test_trust_makes_a_program_the_model(tmp_path):
    path = written("TorchScript, scripted", tmp_path)

    model, report = load_checkpoint(path, trust=True)

    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(pixels), trained_net()(pixels))
    assert report.matched_fraction == 1


def test_trust_of_a_class_that_is_not_there(path):
    torch.save({"model": small_net()}, path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"checkpoint_files", b"checkpoint_filed"))
    with zipfile.ZipFile(path) as archive:
        members = {
            name: archive.open(archive.getinfo(name)).read()
            for name in archive.namelist()
            if not name.endswith("data.pkl")
        }
        raw = data.replace(b"checkpoint_files", b"checkpoint_filed")
        info = archive.getinfo("checkpoint/data.pkl")
    start = raw.index(b"\x80\x02", info.header_offset)
    members["checkpoint/data.pkl"] = raw[start : start + info.file_size]
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)

    assert message_of(path, trust=True) == (
        f"{path}: expected the file's own classes to be importable, got 'No module named "
        "'checkpoint_filed'': run this in the folder of the project that wrote the file, or read "
        "the weights alone, without trust=True"
    )
    assert load_checkpoint(path, SmallNet())[1].matched_fraction == 1


def test_the_switch_that_makes_torch_unsafe_is_named(path, monkeypatch):
    torch.save(small_net().state_dict(), path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    _model, report = load_checkpoint(path, SmallNet())

    assert report.warnings == (
        (
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: every other program here runs whatever the "
            "checkpoints that it loads ask for; evalkit does not: unset it"
        ),
    )


# ---- peculiar files ----


def test_flat_parameters_of_fsdp(path):
    torch.save({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(100)}}, path)

    assert message_of(path) == (
        f"{path}: expected one tensor per parameter, got the flat ones of FSDP, which only the "
        "same number of processes can take apart: save again under "
        "StateDictType.FULL_STATE_DICT, or with torch.distributed.checkpoint"
    )


def test_part_of_a_deepspeed_checkpoint(tmp_path):
    path = tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    shapes = {key: value.shape for key, value in small_net().state_dict().items()}
    empty = {key: torch.ones(0) for key in shapes}
    torch.save({"module": empty, "param_shapes": [shapes], "ds_config": {}}, path)

    assert message_of(path) == (
        f"{path}: expected whole weights, got one process's part of a DeepSpeed checkpoint "
        "(ZeRO-3): run the zero_to_fp32.py that lies beside it and give the file that it writes"
    )


def quantised(seed):
    from torch.ao.quantization import quantize_dynamic

    with quiet():
        return quantize_dynamic(small_net(seed=seed), {nn.Linear}, dtype=torch.qint8)


def test_quantised_weights_into_a_quantised_model(path):
    torch.save(quantised(1).state_dict(), path)

    with quiet():
        model, report = load_checkpoint(path, quantised(2))

    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(model.eval()(pixels), quantised(1).eval()(pixels))
    assert report.matched_fraction == 1


def test_quantised_weights_into_a_floating_point_model(path):
    torch.save(quantised(1).state_dict(), path)

    assert message_of(path) == (
        f"{path}: expected weights for SmallNet, whose weights are floating point, got those of a "
        "quantised model: give the checkpoint before its quantisation, or a model that is "
        "quantised in the same way"
    )


@pytest.mark.parametrize("as_zip", [True, False])
def test_quantised_tensors(path, as_zip):
    with quiet():
        tree = {
            "tensor": torch.quantize_per_tensor(torch.arange(6.0), 0.5, 3, torch.quint8),
            "channel": torch.quantize_per_channel(
                torch.arange(6.0).reshape(2, 3),
                torch.tensor([0.5, 0.25]),
                torch.tensor([0, 1]),
                0,
                torch.qint8,
            ),
        }
        torch.save(tree, path, _use_new_zipfile_serialization=as_zip)

        found = read(path).tree

        for key, value in tree.items():
            assert torch.equal(found[key].dequantize(), value.dequantize())
            assert found[key].dtype == value.dtype


def test_nothing_here_warns(tmp_path):
    """Reading must not pass on torch's own warnings about formats."""
    path = written("whole module", tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(path)

    assert caught == []


def test_process_group_of_the_zoo_is_left_closed(tmp_path):
    with process_group(tmp_path):
        assert torch.distributed.is_initialized()

    assert not torch.distributed.is_initialized()
