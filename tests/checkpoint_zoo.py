"""One checkpoint of every kind, written by the programs that write them in the wild.

`ZOO` maps a name to an `Animal`: what writes it and whether it may be skipped because its producer
is not installed. Every writer gets a folder and a trained net, and returns the path to give to a
loader. The net's own state_dict is what must come out again.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import importlib.util
import io
import os
import pathlib
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import torch
from checkpoint_files import SmallNet, prefixed, small_net, tag_as_cuda
from torch import nn
from torch.optim.swa_utils import AveragedModel

EXAMPLE = torch.ones(2, 3, 8, 8)


@dataclass(frozen=True, kw_only=True)
class Animal:
    """A way to write a checkpoint."""

    write: Callable[[pathlib.Path, nn.Module], pathlib.Path]
    needs: str = "torch"
    weights: str | None = None  # which set is the trained one, where the file has others that fit
    dtype: torch.dtype | None = None  # of the file, where it is not float32


ZOO: dict[str, Animal] = {}


def animal(name, **options):
    def register(write):
        ZOO[name] = Animal(write=write, **options)
        return write

    return register


def saved(tree, folder, name="checkpoint.pth", **options):
    path = folder / name
    torch.save(tree, path, **options)
    return path


@contextmanager
def quiet():
    """Producers warn about each other and about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def process_group(folder):
    """One process that believes to be many."""
    from torch import distributed

    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def optimizer_of(model):
    """An optimizer that holds tensors of its own."""
    optimizer = torch.optim.AdamW(model.parameters())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(EXAMPLE).sum().backward()
    optimizer.step()
    model.load_state_dict(before)
    return optimizer


def with_sub(model, name="model"):
    """The net as an attribute of another module, as Lightning users have it."""
    outer = nn.Module()
    outer.add_module(name, model)
    return outer


# ---- torch.save, plain ----


@animal("state_dict")
def _(folder, model):
    return saved(model.state_dict(), folder)


@animal("state_dict of parameters (keep_vars)")
def _(folder, model):
    return saved(model.state_dict(keep_vars=True), folder)


@animal("legacy file (torch before 1.6)")
def _(folder, model):
    return saved(model.state_dict(), folder, _use_new_zipfile_serialization=False)


@animal("legacy file with an optimizer")
def _(folder, model):
    tree = {"state_dict": model.state_dict(), "optimizer": optimizer_of(model).state_dict()}
    return saved(tree, folder, _use_new_zipfile_serialization=False)


for _protocol in (1, 3, 4, 5):

    @animal(f"pickle protocol {_protocol}")
    def _(folder, model, protocol=_protocol):
        return saved(model.state_dict(), folder, pickle_protocol=protocol)


@animal("zip packed again with compression")
def _(folder, model):
    plain = saved(model.state_dict(), folder, "plain.pth")
    path = folder / "packed.pth"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return path


@animal("saved on cuda:7")
def _(folder, model):
    plain = saved({"state_dict": model.state_dict()}, folder, "cpu.pth")
    return tag_as_cuda(plain, folder / "cuda.pth", "cuda:7")


@animal("ImageNet example of PyTorch")
def _(folder, model):
    tree = {
        "epoch": 90,
        "arch": "small",
        "state_dict": nn.DataParallel(model).state_dict(),
        "best_acc1": torch.tensor(76.1),
        "optimizer": optimizer_of(model).state_dict(),
        "scheduler": {"last_epoch": 90},
    }
    return saved(tree, folder, "model_best.pth.tar")


@animal("torchvision's references, with Namespace and EMA", weights="model")
def _(folder, model):
    averaged = AveragedModel(small_net(seed=9))
    tree = {
        "model": model.state_dict(),
        "optimizer": optimizer_of(model).state_dict(),
        "lr_scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, data=pathlib.Path("/data")),
        "model_ema": averaged.state_dict(),
    }
    return saved(tree, folder)


@animal("numpy scalars, paths, dates and counters beside the weights")
def _(folder, model):
    tree = {
        "net": model.state_dict(),
        "best": np.float64(0.75),
        "classes": np.array(["a", "b"]),
        "started": datetime(2024, 5, 1),  # noqa: DTZ001 - as people write it
        "data": pathlib.Path("/data"),
        "seen": collections.defaultdict(int, {"a": 3}),
        "counts": collections.Counter("aab"),
        "rng_state": torch.get_rng_state(),
    }
    return saved(tree, folder)


@animal("numpy arrays instead of tensors")
def _(folder, model):
    return saved({key: value.numpy() for key, value in model.state_dict().items()}, folder)


@animal("list of weights and optimizer")
def _(folder, model):
    return saved([model.state_dict(), optimizer_of(model).state_dict(), 3], folder)


for _name in (
    *("model", "net", "network", "model_state", "model_state_dict", "weights", "params"),
    *("classifier", "generator", "net_state", "state_dict", "module", "student"),
):

    @animal(f"under '{_name}'")
    def _(folder, model, name=_name):
        return saved({name: model.state_dict(), "epoch": 3, "lr": [0.1]}, folder)


@animal("three levels deep")
def _(folder, model):
    return saved({"checkpoint": {"model": {"weights": model.state_dict()}}}, folder)


@animal("student and teacher (DINO)", weights="teacher")
def _(folder, model):
    tree = {
        "student": prefixed("module.backbone.", small_net(seed=9).state_dict()),
        "teacher": prefixed("backbone.", model.state_dict()),
        "epoch": 3,
    }
    return saved(tree, folder)


for _dtype in (torch.float16, torch.bfloat16, torch.float64):

    @animal(f"weights as {str(_dtype).removeprefix('torch.')}", dtype=_dtype)
    def _(folder, model, dtype=_dtype):
        state = model.state_dict()
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        return saved(state, folder)


@animal("without counters (torch before 0.4.1)")
def _(folder, model):
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("batches_tracked")}
    return saved(state, folder)


# ---- whole modules ----


@animal("whole module")
def _(folder, model):
    return saved(model, folder)


@animal("whole module, legacy file with its source")
def _(folder, model):
    with quiet():
        return saved(model, folder, _use_new_zipfile_serialization=False)


@animal("whole DataParallel module")
def _(folder, model):
    return saved(nn.DataParallel(model), folder)


@animal("whole modules with an average (YOLO)", weights="model", dtype=torch.float16)
def _(folder, model):
    copy = small_net()
    copy.load_state_dict(model.state_dict())
    copy.names = {0: "cat", 1: "dog"}
    tree = {
        "epoch": 3,
        "model": copy.half(),
        "ema": small_net(seed=9).half(),
        "train_args": {"imgsz": 640},
        "optimizer": None,
    }
    return saved(tree, folder, "best.pt")


# ---- wrappers ----


WRAPS = {
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "compile(DataParallel)": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
    "DataParallel(compile)": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    "AveragedModel": AveragedModel,
    "AveragedModel(DataParallel)": lambda model: AveragedModel(nn.DataParallel(model)),
    "an attribute named model": with_sub,
    "an attribute named backbone": lambda model: with_sub(model, "backbone"),
    "DataParallel of an attribute": lambda model: nn.DataParallel(with_sub(model, "net")),
    "nn.Sequential": nn.Sequential,
}
for _name, _wrap in WRAPS.items():

    @animal(f"wrapped by {_name}")
    def _(folder, model, wrap=_wrap):
        return saved({"state_dict": wrap(model).state_dict()}, folder)


@animal("model.compile() in place")
def _(folder, model):
    model.compile(backend="eager")
    return saved(model.state_dict(), folder)


@animal("activation checkpointing of blocks")
def _(folder, model):
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as checkpointing

    model.layer1[0] = checkpointing.CheckpointWrapper(model.layer1[0])
    model.submodule = torch.compile(model.submodule, backend="eager")
    state = nn.Module.state_dict(model)
    wrapped = {
        key.replace("layer1.0.", "layer1.0._checkpoint_wrapped_module.")
        if "layer1.0." in key and "_checkpoint_wrapped_module" not in key
        else key: value
        for key, value in state.items()
    }
    return saved(wrapped, folder)


@animal("DistributedDataParallel under gloo")
def _(folder, model):
    with process_group(folder):
        wrapped = nn.parallel.DistributedDataParallel(model)
        return saved({"model": wrapped.state_dict()}, folder)


@animal("DistributedDataParallel(torch.compile)")
def _(folder, model):
    with process_group(folder):
        compiled = torch.compile(model, backend="eager")
        wrapped = nn.parallel.DistributedDataParallel(compiled)
        return saved({"model": wrapped.state_dict()}, folder)


@animal("fully_shard (FSDP 2) on the CPU, gathered")
def _(folder, model):
    from torch.distributed.checkpoint import state_dict as gather
    from torch.distributed.fsdp import fully_shard

    with process_group(folder), quiet():
        from torch.distributed.device_mesh import init_device_mesh

        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        options = gather.StateDictOptions(full_state_dict=True, cpu_offload=True)
        return saved(gather.get_model_state_dict(model, options=options), folder)


# ---- torch.distributed.checkpoint ----


@animal("torch.distributed.checkpoint")
def _(folder, model):
    from torch.distributed import checkpoint

    tree = {
        "model": model.state_dict(),
        "optim": optimizer_of(model).state_dict(),
        "epoch": 3,
    }
    with quiet():
        checkpoint.save(tree, checkpoint_id=folder / "step_3")
    return folder / "step_3"


@animal("torch.distributed.checkpoint of fully_shard")
def _(folder, model):
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint import state_dict as gather
    from torch.distributed.fsdp import fully_shard

    with process_group(folder), quiet():
        from torch.distributed.device_mesh import init_device_mesh

        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        state = gather.get_model_state_dict(model)
        checkpoint.save({"app": {"model": state}}, checkpoint_id=folder / "step_3")
    return folder / "step_3"


@animal("torch.distributed.checkpoint, converted to one file")
def _(folder, model):
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint import format_utils

    with quiet():
        checkpoint.save({"model": model.state_dict()}, checkpoint_id=folder / "step_3")
        format_utils.dcp_to_torch_save(folder / "step_3", folder / "one.pt")
    return folder / "one.pt"


# ---- programs ----


@animal("TorchScript, scripted")
def _(folder, model):
    with quiet():
        torch.jit.script(model).save(folder / "model.pt")
    return folder / "model.pt"


@animal("TorchScript, traced")
def _(folder, model):
    with quiet():
        torch.jit.trace(model.eval(), EXAMPLE).save(folder / "model.pt")
    return folder / "model.pt"


@animal("torch.export")
def _(folder, model):
    with quiet():
        torch.export.save(torch.export.export(model.eval(), (EXAMPLE,)), folder / "model.pt2")
    return folder / "model.pt2"


# ---- tar ----


@animal("tar archive that holds a .pth")
def _(folder, model):
    inner = saved(model.state_dict(), folder, "inner.pth")
    path = folder / "model.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(inner, arcname="run/model.pth")
        info = tarfile.TarInfo("run/notes.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"notes"))
    return path


@animal("tar file of 2017 (torch 0.1.10)")
def _(folder, model):
    """As torch wrote it: three pickles with raw numbers between them."""
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    types = {torch.float32: torch.FloatStorage, torch.int64: torch.LongStorage}
    storages, tensors = io.BytesIO(), io.BytesIO()
    for stream in (storages, tensors):
        pickle.dump(len(state), stream, protocol=2)
    for number, value in enumerate(state.values()):
        key = 1000 + number
        pickle.dump((key, "cpu", types[value.dtype]), storages, protocol=2)
        storages.write(struct.pack("<q", value.numel()) + value.numpy().tobytes())
        pickle.dump((number, key, torch.FloatTensor), tensors, protocol=2)
        tensors.write(struct.pack("<i4x", value.ndim))
        tensors.write(struct.pack(f"<{2 * value.ndim}q", *value.shape, *value.stride()))
        tensors.write(struct.pack("<q", 0))
    pickle.dump([], storages, protocol=2)
    members = {
        "sys_info": pickle.dumps({"little_endian": True}, protocol=2),
        "pickle": _references(state),
        "storages": storages.getvalue(),
        "tensors": tensors.getvalue(),
    }
    path = folder / "resnet.pth.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _references(state):
    """A pickle of the dict in which every tensor is a number, as torch 0.1.10 wrote it."""
    places = {id(value): number for number, value in enumerate(state.values())}

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            return str(places[id(value)]) if id(value) in places else None

    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(collections.OrderedDict(state))
    return stream.getvalue()


# ---- safetensors ----


@animal("safetensors", needs="safetensors")
def _(folder, model):
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


@animal("safetensors with metadata and half precision", needs="safetensors", dtype=torch.bfloat16)
def _(folder, model):
    from safetensors.torch import save_file

    state = model.state_dict()
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors"


@animal("safetensors of save_model", needs="safetensors")
def _(folder, model):
    from safetensors.torch import save_model

    save_model(nn.DataParallel(model), str(folder / "model.safetensors"))
    return folder / "model.safetensors"


@animal("sharded safetensors", needs="huggingface_hub")
def _(folder, model):
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict(model.state_dict(), folder, max_shard_size=600)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder / "model.safetensors.index.json"


@animal("directory of sharded safetensors", needs="huggingface_hub")
def _(folder, model):
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict(model.state_dict(), folder, max_shard_size=600)
    return folder


@animal("sharded .bin with an index", needs="huggingface_hub")
def _(folder, model):
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict(model.state_dict(), folder, max_shard_size=600, safe_serialization=False)
    return folder / "pytorch_model.bin.index.json"


# ---- libraries ----


@animal("accelerate: save_model", needs="accelerate")
def _(folder, model):
    from accelerate import Accelerator

    with quiet():
        Accelerator(cpu=True).save_model(model, folder)
    return folder / "model.safetensors"


@animal("accelerate: save_model, sharded", needs="accelerate")
def _(folder, model):
    from accelerate import Accelerator

    with quiet():
        Accelerator(cpu=True).save_model(model, folder, max_shard_size=600)
    return folder / "model.safetensors.index.json"


@animal("accelerate: save_state", needs="accelerate")
def _(folder, model):
    from accelerate import Accelerator

    with quiet():
        accelerator = Accelerator(cpu=True)
        accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        accelerator.save_state(folder / "state", safe_serialization=False)
    return folder / "state" / "pytorch_model.bin"


def _lightning_module(model, name):
    import lightning

    module = lightning.LightningModule()
    module.add_module(name, model)
    module.save_hyperparameters({"lr": 0.1, "class_names": ["a", "b"]})
    return module


for _name in ("model", "net"):

    @animal(f"Lightning: Trainer.save_checkpoint, self.{_name}", needs="lightning")
    def _(folder, model, name=_name):
        import lightning

        with quiet():
            module = _lightning_module(model, name)
            module.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.1)
            trainer = lightning.Trainer(
                accelerator="cpu", logger=False, default_root_dir=folder, barebones=False
            )
            trainer.strategy.connect(module)
            trainer.save_checkpoint(folder / "last.ckpt")
        return folder / "last.ckpt"


@animal("Lightning: criterion with weights beside the model", needs="lightning")
def _(folder, model):
    import lightning

    with quiet():
        module = _lightning_module(model, "model")
        module.criterion = nn.CrossEntropyLoss(weight=torch.ones(10))
        trainer = lightning.Trainer(accelerator="cpu", logger=False, default_root_dir=folder)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@animal("Lightning Fabric", needs="lightning")
def _(folder, model):
    from lightning.fabric import Fabric

    with quiet():
        fabric = Fabric(accelerator="cpu", devices=1)
        wrapped = fabric.setup(model)
        fabric.save(folder / "fabric.ckpt", {"model": wrapped, "step": 3})
    return folder / "fabric.ckpt"


def _ignite(folder, to_save):
    from ignite.engine import Engine, Events
    from ignite.handlers import Checkpoint, DiskSaver

    with quiet():
        engine = Engine(lambda _engine, _batch: None)
        handler = Checkpoint(to_save, DiskSaver(folder, require_empty=False))
        engine.add_event_handler(Events.EPOCH_COMPLETED, handler)
        engine.run([0])
    return next(folder.glob("*.pt"))


@animal("ignite: Checkpoint", needs="ignite")
def _(folder, model):
    return _ignite(folder, {"model": nn.DataParallel(model), "optimizer": optimizer_of(model)})


@animal("ignite: model alone", needs="ignite")
def _(folder, model):
    return _ignite(folder, {"model": model})


@animal("timm: CheckpointSaver with ModelEmaV3", needs="timm", weights="state_dict")
def _(folder, model):
    from timm.utils import CheckpointSaver, ModelEmaV3

    with quiet():
        saver = CheckpointSaver(
            model,
            optimizer_of(model),
            args=argparse.Namespace(model="small", lr=np.float64(0.1)),
            model_ema=ModelEmaV3(small_net(seed=9)),
            checkpoint_dir=str(folder),
            recovery_dir=str(folder),
        )
        saver.save_checkpoint(3, metric=0.5)
    return folder / "last.pth.tar"


@animal("timm: ModelEmaV2", needs="timm")
def _(folder, model):
    from timm.utils import ModelEmaV2

    return saved({"state_dict_ema": ModelEmaV2(model).state_dict()}, folder)


@animal("fairseq-like: Namespace, defaultdict and a project's class")
def _(folder, model):
    class Config:
        pass

    Config.__module__, Config.__qualname__ = "fairseq.dataclass", "FairseqConfig"
    module = type(os)("fairseq.dataclass")
    module.FairseqConfig = Config
    with _importable({"fairseq": type(os)("fairseq"), "fairseq.dataclass": module}):
        tree = {
            "args": argparse.Namespace(arch="small"),
            "cfg": Config(),
            "model": model.state_dict(),
            "extra_state": collections.defaultdict(list, {"loss": [1.0]}),
        }
        return saved(tree, folder)


@animal("DeepSpeed-like: ZeRO 2")
def _(folder, model):
    tree = {
        "module": model.state_dict(),
        "ds_config": {"zero_optimization": {"stage": 2}},
        "param_shapes": [{key: value.shape for key, value in model.state_dict().items()}],
        "ds_version": "0.14",
    }
    return saved(tree, folder, "mp_rank_00_model_states.pt")


@contextmanager
def _importable(modules):
    import sys

    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def is_installed(name):
    return importlib.util.find_spec(name) is not None


def trained_net():
    """A net in which every value was moved, also those of batch norm."""
    model = small_net(seed=1)
    model.train()
    for _step in range(2):
        model(torch.rand(4, 3, 8, 8))
    return model.eval()


def original_of(animal):
    """The values that a file of this kind holds, in the precision of a float32 net."""
    state = trained_net().state_dict()
    if animal.dtype is None:
        return state
    return {
        key: value.to(animal.dtype).to(value.dtype) if value.is_floating_point() else value
        for key, value in state.items()
    }


__all__ = ["ZOO", "Animal", "SmallNet", "is_installed", "original_of", "trained_net"]
