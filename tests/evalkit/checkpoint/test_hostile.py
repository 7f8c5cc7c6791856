"""Files that want to run something or to fill the memory: each ends in one line or loads clean."""

import builtins
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from checkpoint_files import SmallNet, same_weights, small_net
from checkpoint_zoo import ZOO, trained_net
from safetensors.torch import save_file

from evalkit.checkpoint import inspect_checkpoint, load_checkpoint
from evalkit.checkpoint.read import read
from evalkit.errors import InputError

MOST_SECONDS = 20
NET = SmallNet()
MOST_KIB = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path that every hostile file tries to create; it must not be there afterwards."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """Only what can be called may be pickled as a call."""


class Evil:
    """Runs when its state is set."""

    def __setstate__(self, state):
        os.system(state["command"])


def with_state(command):
    evil = Evil()
    evil.__dict__["command"] = command
    return evil


def torch_side_effects(canary):
    return Call(torch.save, [1], str(canary))


CALLS = {
    "os.system": lambda canary: Call(os.system, f"touch {canary}"),
    "nested reduces": lambda canary: Call(
        getattr, Call(__import__, "os"), Call(os.system, f"touch {canary}")
    ),
    "__setstate__": lambda canary: with_state(f"touch {canary}"),
    "getattr chain": lambda canary: Call(
        Call(getattr, Call(__import__, "os"), "system"), f"touch {canary}"
    ),
    "builtins.eval": lambda canary: Call(eval, f"open({str(canary)!r}, 'w')"),
    "builtins.exec": lambda canary: Call(builtins.exec, f"open({str(canary)!r}, 'w')"),
    "open": lambda canary: Call(open, str(canary), "w"),
    "subprocess": lambda canary: Call(subprocess.Popen, ["touch", str(canary)]),
    "torch.save": torch_side_effects,
    "torch.hub": lambda canary: Call(torch.hub.load_state_dict_from_url, f"file://{canary}"),
    "torch.from_file": lambda canary: Call(torch.from_file, str(canary), *[True, 10]),
    "map over a list": lambda canary: Call(map, os.system, [f"touch {canary}"]),
    "state that is a call": lambda canary: Call(
        dict, [], state={"a": Call(os.system, f"touch {canary}")}
    ),
}


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_runs_and_the_weights_come_out(path, canary, name, as_zip):
    state = small_net(seed=1).state_dict()
    torch.save(
        {"state_dict": state, "x": CALLS[name](canary)},
        path,
        _use_new_zipfile_serialization=as_zip,
    )

    loaded, report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    if name != "__setstate__":
        assert "on the machine of whoever unpickles it: nothing of it was run here" in (
            " ".join(report.warnings)
        )


def pickled(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def in_zip(path, data, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in members.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", content)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    data = value.to_bytes(10, "little")
    return b"\x8a" + bytes([len(data)]) + data


def tensor(size, stride, *, offset=0, count=4, rebuild=b"ctorch._utils\n_rebuild_tensor_v2\n"):
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu"),
        integer(count) + b"tQ",
    )
    numbers = [b"(" + b"".join(map(integer, numbers)) + b"t" for numbers in (size, stride)]
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return rebuild + b"(" + b"".join(storage) + integer(offset) + b"".join(numbers) + hooks + b"tR"


def named(value):
    return b"}" + text("weight") + value + b"s"


FILES = {
    "10^15 elements": (tensor([10**15], [1]), {"data__0": bytes(16)}),
    "10^15 times one element": (tensor([10**15], [0]), {"data__0": bytes(16)}),
    "10^15 elements of storage": (tensor([4], [1], count=10**15), {"data__0": bytes(16)}),
    "sizes whose product overflows": (tensor([2**40, 2**40], [1, 1]), {"data__0": bytes(16)}),
    "offset beyond the storage": (tensor([2], [1], offset=3), {"data__0": bytes(16)}),
    "storage that is missing": (tensor([4], [1]), {}),
    "storage that is shorter": (tensor([4], [1]), {"data__0": bytes(15)}),
    "shape without strides": (tensor([2, 2], [1]), {"data__0": bytes(16)}),
    "stride beyond the storage": (tensor([2], [4]), {"data__0": bytes(16)}),
    "negative stride": (
        tensor([2], [1]).replace(integer(1) + b"t" + b"\x89", b"J\xff\xff\xff\xfft\x89"),
        {"data__0": bytes(16)},
    ),
    "negative offset": (
        tensor([1], [1]).replace(integer(0) + b"(", b"J\xff\xff\xff\xff(", 1),
        {"data__0": bytes(16)},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_tensor_that_its_storage_does_not_hold(path, name):
    value, members = FILES[name]
    in_zip(path, pickled(named(value)), **members)

    with pytest.raises(InputError) as error:
        read(path)

    assert str(error.value).startswith(f"{path}: expected a whole checkpoint, got a damaged one (")
    assert "\n" not in str(error.value)


def test_tensors_that_overlap_are_read_as_they_are(path):
    """Tied weights and views of one storage are nothing unusual."""
    both = b"}(" + text("a") + tensor([4], [1]) + text("b") + tensor([2], [1], offset=1) + b"u"
    in_zip(path, pickled(both), data__0=struct.pack("<4f", 1, 2, 3, 4))

    tree = read(path).tree

    assert tree["a"].tolist() == [1, 2, 3, 4]
    assert tree["b"].tolist() == [2, 3]
    assert tree["a"].untyped_storage().data_ptr() == tree["b"].untyped_storage().data_ptr()


def test_setting_the_state_of_a_tensor_does_nothing(path):
    """``Tensor.__setstate__`` would resize the storage."""
    state = b"(" + tensor([4], [1]) + integer(0) + b"(" + integer(10**12) + b"t(K\x01tt"
    in_zip(path, pickled(named(tensor([4], [1]) + state + b"b")), data__0=bytes(16))

    assert read(path).tree["weight"].shape == (4,)


def test_attributes_of_classes_are_not_changed(path):
    """Slot state given to a class would patch it for the whole program."""
    before = dict(vars(type(SmallNet())))
    state = b"N}" + text("__init__") + b"cos\nsystem\ns\x86"
    in_zip(path, pickled(named(b"cargparse\nNamespace\n" + state + b"b")))

    read(path)

    import argparse

    assert argparse.Namespace(lr=1).lr == 1
    assert dict(vars(type(SmallNet()))) == before


def nested_sets(first):
    """Sets whose two members are sets of two members each, put into the memo from *first* on."""
    levels = (
        b"(h%ch%c\x91q%c(h%ch%cN\x91q%c" % (n, n + 1, n + 2, n, n + 1, n + 3)
        for n in range(first, first + 80, 2)
    )
    return b"(K\x00\x91q%c(K\x01\x91q%c" % (first, first + 1) + b"".join(levels)


BOMBS = {
    "objects": b"\x80\x02" + b"\x8f" * 30_000_000 + b".",
    "memo of a large index": pickled(b"]r\xff\xff\xff\xff"),
    "bytes that are not there": pickled(b"\x8e" + struct.pack("<Q", 2**40)),
    "bytearray that is not there": pickled(b"\x96" + struct.pack("<Q", 2**40)),
    "text that is not there": pickled(b"X\xff\xff\xff\xff"),
    "a frame that is not there": pickled(b"\x95" + struct.pack("<Q", 2**60)),
    "one text again and again": pickled(
        text("a" * 1_000_000) + b"q\x00" + b"c_codecs\nencode\nq\x01("
        b"h\x01h\x00" + text("latin1") + b"\x86R" + (b"h\x01h\x00X\x06\0\0\0latin1\x86R" * 10_000),
        b"l",
    ),
    "one list again and again": pickled(
        b"](" + b"K\x01" * 1_000_000 + b"eq\x00(" + b"cbuiltins\nset\nh\x00\x85R" * 10_000 + b"l"
    ),
    "nested a million times": pickled(b"]" * 1_000_000 + b"a" * 999_999),
    "a key nested a million times": pickled(b"})" + b"\x85" * 1_000_000 + b"K\x01s"),
    "a key of a million parts": pickled(
        b"}(" + b"K\x01" * 1_000_000 + b"tq\x00" + b"K\x02s" + b"h\x00K\x01s" * 10_000
    ),
    "a number of many digits": pickled(b"}\x8b" + struct.pack("<i", 10**6) + bytes(10**6), b"Ns"),
    "bytearray of a length": pickled(named(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R")),
    "an unknown name called a million times over": pickled(
        b"}" + text("a") + b"cunknown\nname\n" + b")R" * 950_000 + b"s"
    ),
    "one long name again and again": pickled(
        b"](" + text("n" * 1_000_000) + b"q\x00" + b"h\x00h\x00\x93" * 10_000 + b"l"
    ),
    "a name that is a list of lists of lists": pickled(
        b"]q\x00"
        + b"".join(
            b"](" + bytes([*b"h", level]) * 10 + b"e" + bytes([*b"q", level + 1])
            for level in range(12)
        )
        + text("name")
        + b"\x93"
    ),
    "one state again and again": pickled(
        b"}q\x00("
        + b"".join(integer(number) + b"N" for number in range(100_000))
        + b"u"
        + b"cunknown\nname\n)R"
        + b"h\x00b" * 15_000
    ),
    "one set of options again and again": pickled(
        b"("
        + b"N" * 1_000_000
        + b"tq\x00}q\x01"
        + text("a")
        + b"Ns("
        + b"cunknown\nname\nh\x00h\x01\x92" * 10_000
        + b"l"
    ),
    "two keys of nested sets that are equal in the end": pickled(
        b"}(" + nested_sets(0) + nested_sets(100) + b"1h%cNsh%cNs" % (81, 181)
    ),
    "recursion": pickled(b"}q\x00" + text("self") + b"h\x00s"),
    "a dict that refers to one dict a thousand times, three times over": None,
}


def laughs():
    tree = {"w": torch.ones(1)}
    for _level in range(3):
        tree = {f"{number}": tree for number in range(1000)}
    return tree


@pytest.mark.parametrize("name", BOMBS)
def test_time_and_memory_stay_bounded(path, name):
    if BOMBS[name] is None:
        torch.save(laughs(), path)
    else:
        in_zip(path, BOMBS[name])
    model = small_net()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()

    try:
        load_checkpoint(path, model)
    except InputError as error:
        message = str(error)
    else:
        message = ""

    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert time.monotonic() - start < MOST_SECONDS
    assert grown_kib < MOST_KIB
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message


def test_decompression_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled(named(tensor([4], [1]))))
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _mebibyte in range(400):
                member.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(InputError) as error:
        read(path)

    assert str(error.value) == (
        f"{path}: expected a whole checkpoint, got a damaged one (ValueError: "
        f"{path.stat().st_size} packed bytes that grow beyond all weights): fetch or save it again"
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_zip_with_absolute_and_parent_paths_writes_nothing(path, tmp_path, canary):
    torch.save(small_net(seed=1).state_dict(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(str(canary), b"absolute")
        archive.writestr("../canary", b"parent")
        archive.writestr("checkpoint/../../canary", b"parent")

    loaded, _report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert list(tmp_path.iterdir()) == [path]


def test_an_index_of_shards_leads_nowhere_else(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    save_file({"w": torch.ones(1)}, tmp_path / "secret.safetensors")
    (tmp_path / "inner").mkdir()
    for name in ("../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..\\\\x", ".."):
        index = tmp_path / "inner" / "model.safetensors.index.json"
        index.write_text(f'{{"weight_map": {{"w": "{name}"}}}}')
        with pytest.raises(InputError, match="expected a whole checkpoint, got a damaged one"):
            read(index)


SAFETENSORS = {
    "a header of nested lists": b'{"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "10^15 elements": b'{"w": {"dtype": "F32", "shape": [1000000000000000], '
    b'"data_offsets": [0, 4000000000000000]}}',
    "offsets that are reversed": b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
    "a negative offset": b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    "a negative shape": b'{"w": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
    "a type that is none": b'{"w": {"dtype": "load", "shape": [1], "data_offsets": [0, 4]}}',
    "a list": b"[1, 2]",
    "an entry that is none": b'{"w": 1}',
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_hostile_safetensors(path, name):
    header = SAFETENSORS[name]
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))

    with pytest.raises(InputError) as error:
        read(path)

    assert str(error.value).startswith(f"{path}: expected a ")
    assert "\n" not in str(error.value)


def test_python_imports_nothing_that_a_file_names(path):
    """The module would be found: it is one of the standard library that nothing else imports."""
    in_zip(path, pickled(named(b"cantigravity\nfly\n)R") + text("x") + b"cthis\ns\n)Rs"))

    with pytest.raises(InputError, match="expected named tensors, got a file without any"):
        load_checkpoint(path, SmallNet())

    assert "antigravity" not in sys.modules
    assert "this" not in sys.modules


KINDS = (
    *("whole module", "TorchScript, scripted", "torch.export", "tar file of 2017 (torch 0.1.10)"),
    *("safetensors with metadata and half precision", "legacy file with an optimizer"),
    *("torchvision's references, with Namespace and EMA", "pickle protocol 4"),
    "numpy scalars, paths, dates and counters beside the weights",
)


@pytest.mark.parametrize("name", KINDS)
def test_damage_of_any_kind_ends_in_one_line_whatever_is_done(tmp_path, monkeypatch, name):
    """Checksums aside, which would notice most of it."""
    monkeypatch.setattr("evalkit.checkpoint.read.checked_sha256", lambda *_arguments: "0" * 64)
    path = ZOO[name].write(tmp_path, trained_net())
    whole = path.read_bytes()
    start = max(0, whole.find(b"\x80\x02"))
    generator = random.Random(0)
    refused = 0
    for _number in range(40):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 2, 5, 20])):
            damaged[generator.randrange(start, min(len(whole), start + 3000))] = (
                generator.randrange(256)
            )
        path.write_bytes(damaged)
        for act in (inspect_checkpoint, load_checkpoint, lambda one: load_checkpoint(one, NET)):
            try:
                act(path)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)  # noqa: PT017 - some pass

    assert refused > 10


def test_pickle_would_have_run_them(tmp_path):
    """The corpus is hostile indeed."""
    canary = tmp_path / "canary"

    pickle.loads(pickle.dumps(CALLS["os.system"](canary), protocol=2))

    assert canary.exists()
