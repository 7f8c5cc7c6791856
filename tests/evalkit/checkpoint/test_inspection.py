import hashlib
import json

import pytest
import torch
from checkpoint_files import SmallNet, prefixed, same_weights, small_net
from click.testing import CliRunner
from safetensors.torch import load_file

from evalkit.checkpoint import convert_checkpoint, inspect_checkpoint
from evalkit.checkpoint.inspection_text import as_text
from evalkit.cli import cli
from evalkit.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


@pytest.fixture
def training(path):
    """What a training left: weights of DataParallel, an average, an optimizer."""
    torch.save(
        {
            "epoch": 3,
            "arch": "small",
            "state_dict": prefixed("module.", small_net(seed=1).state_dict()),
            "state_dict_ema": small_net(seed=2).half().state_dict(),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
            "classes": [f"class {number}" for number in range(10)],
        },
        path,
    )
    return path


def test_what_a_training_left(training):
    found = inspect_checkpoint(training)

    raw, averaged = found.weights
    assert found.kind == "torch zip"
    assert found.size_bytes == training.stat().st_size
    assert found.sha256 == hashlib.sha256(training.read_bytes()).hexdigest()
    assert found.holds == {
        "epoch": "3",
        "arch": "'small'",
        "state_dict": "dict of 18",
        "state_dict_ema": "dict of 18",
        "optimizer": "dict of 1",
        "classes": "list of 10",
    }
    assert (raw.name, raw.tensors, raw.values, raw.prefix) == ("state_dict", 18, 504, "module.")
    assert (raw.is_averaged, averaged.is_averaged) == (False, True)
    assert averaged.dtypes == {"float16": 16, "int64": 2}
    assert raw.shapes["module.fc.weight"] == (10, 4)
    assert found.classes == tuple(f"class {number}" for number in range(10))
    assert found.guess is None
    assert found.warnings == ()


def test_a_screen_of_tables(training):
    done = CliRunner().invoke(cli, ["inspect", str(training)])

    assert done.exit_code == 0
    assert (
        done.output
        == f"""\
file     {training}
kind     torch zip, {training.stat().st_size / 1024:.1f} KiB
sha256   {hashlib.sha256(training.read_bytes()).hexdigest()}
model    unknown: give the model, such as torchvision:resnet18 (evalkit evaluate --model)
classes  10 names: class 0, class 1, class 2, class 3, class 4 and 5 more

holds
--------------  ----------
epoch           3
arch            'small'
state_dict      dict of 18
state_dict_ema  dict of 18
optimizer       dict of 1
classes         list of 10

weights           tensors    values        size  types
--------------  ---------  --------  ----------  --------------  ---------------
state_dict             18       504     2.0 KiB  float32, int64  below 'module.'
state_dict_ema         18       504  1020 bytes  float16, int64  averaged

tensors of 'state_dict'      shape
---------------------------  ------------
module.stem.weight           (4, 3, 3, 3)
module.stem.bias             (4,)
module.layer1.0.conv.weight  (4, 4, 3, 3)
module.layer1.0.bn.weight    (4,)
… 10 more
module.submodule.weight      (4, 4)
module.submodule.bias        (4,)
module.fc.weight             (10, 4)
module.fc.bias               (10,)
"""
    )


def test_the_same_as_json(training):
    done = CliRunner().invoke(cli, ["inspect", str(training), "--format", "json"])

    found = json.loads(done.output)
    assert found["weights"][1]["name"] == "state_dict_ema"
    assert found["weights"][0]["shapes"]["module.fc.bias"] == [10]
    assert found["holds"]["epoch"] == "3"


def test_dangers_come_first(path):
    class Evil:
        def __reduce__(self):
            return print, ("boo",)

    torch.save({"model": small_net().state_dict(), "x": Evil()}, path)

    found = inspect_checkpoint(path)

    assert found.unknown_classes == ("builtins.print",)
    assert found.dangerous == ("builtins.print",)
    assert as_text(found).startswith("warning: the file names builtins.print, which would run")


def test_what_no_plain_model_takes_is_said(path):
    torch.save({"model": {"_flat_param": torch.ones(3)}}, path)

    assert inspect_checkpoint(path).warnings[0].startswith("expected one tensor per parameter")


def test_text_of_a_file_cannot_write_to_the_terminal(path):
    torch.save({"\x1b[31mred": torch.ones(2), "epoch\n": "\x1b[0m"}, path)

    assert "\x1b" not in as_text(inspect_checkpoint(path))


def test_no_checkpoint_is_one_line(path):
    path.write_text("<!DOCTYPE html>")

    with pytest.raises(InputError, match="got an HTML page"):
        inspect_checkpoint(path)


def test_a_clean_file_for_torch(training, tmp_path):
    target = tmp_path / "clean.pth"

    done = CliRunner().invoke(cli, ["convert", str(training), str(target)])

    assert done.output == (
        "18 tensors with 504 values of 'state_dict', without module.\n"
        "other sets of weights, not taken: state_dict_ema\n"
        f"written to {target}\n"
    )
    tree = torch.load(target, weights_only=True)
    assert sorted(tree) == ["classes", "source_sha256", "state_dict"]
    assert tree["source_sha256"] == hashlib.sha256(training.read_bytes()).hexdigest()
    loaded = SmallNet()
    loaded.load_state_dict(tree["state_dict"])
    assert same_weights(loaded, small_net(seed=1))


def test_the_average_in_another_precision(training, tmp_path):
    target = tmp_path / "clean.safetensors"

    done = CliRunner().invoke(
        cli,
        [
            *("convert", str(training), str(target)),
            *("--weights", "state_dict_ema", "--dtype", "bfloat16"),
        ],
    )

    assert done.exit_code == 0
    clean = load_file(target)
    assert clean["fc.weight"].dtype is torch.bfloat16
    assert clean["layer1.0.bn.num_batches_tracked"].dtype is torch.int64
    assert torch.equal(clean["fc.bias"], small_net(seed=2).fc.bias.half().bfloat16())


def test_what_is_no_part_of_a_known_architecture_is_left_out(tmp_path, path):
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.get_model("squeezenet1_1", num_classes=3)
    state = prefixed("net.", model.state_dict()) | {"criterion.weight": torch.ones(3)}
    torch.save({"state_dict": state}, path)

    made = convert_checkpoint(path, tmp_path / "clean.pth")

    assert made.prefixes == ("net.",)
    assert made.dropped == ("criterion.weight",)
    assert made.spec == "torchvision:squeezenet1_1"
    model.load_state_dict(torch.load(tmp_path / "clean.pth")["state_dict"])


def test_the_source_is_not_overwritten(training):
    before = training.read_bytes()

    with pytest.raises(InputError) as error:
        convert_checkpoint(training, training)

    assert str(error.value) == (
        f"{training}: expected another file to write to, got the one to read"
    )
    assert training.read_bytes() == before


def test_a_type_that_is_none(training, tmp_path):
    with pytest.raises(InputError) as error:
        convert_checkpoint(training, tmp_path / "x.pth", dtype="int8")

    assert str(error.value) == "dtype must be one of float32, float16, bfloat16, got 'int8'"


def test_a_set_of_weights_that_is_not_there(training, tmp_path):
    with pytest.raises(InputError) as error:
        convert_checkpoint(training, tmp_path / "x.pth", weights="teacher")

    assert str(error.value) == (
        f"{training}: expected a set of weights named 'teacher', got state_dict, state_dict_ema: "
        "give one of these names"
    )


def text_of(path):
    done = CliRunner().invoke(cli, ["inspect", str(path)])
    assert done.exit_code == 0
    return done.output


def test_a_file_without_weights_is_said_to_have_none(path):
    torch.save({"epoch": 3, "optimizer": {"state": {}}}, path)

    text = text_of(path)

    assert text.startswith(
        "warning: expected named tensors, got a file without any: save the model's state_dict()\n"
    )
    assert "\nno weights\n" in text
    assert "unknown" not in text


def test_weights_that_lie_too_deep_are_named(path):
    torch.save({"a": {"b": {"c": {"d": small_net().state_dict()}}}}, path)

    assert text_of(path).startswith(
        "warning: expected named tensors at most 3 levels deep, got them below 'a.b.c.d': save "
        "that part by itself\n"
    )


def test_values_that_are_no_numbers_are_said(path):
    good, bad = small_net().state_dict(), small_net().state_dict()
    for tensor in bad.values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    good["fc.bias"][3] = float("inf")
    torch.save({"good": good, "bad": bad}, path)

    assert inspect_checkpoint(path).warnings == (
        "1 of 18 tensors in 'good' with NaN or infinite values (fc.bias), as a training that "
        "diverged leaves them: take an earlier checkpoint",
        "16 of 18 tensors in 'bad' with NaN or infinite values (stem.weight, stem.bias, "
        "layer1.0.conv.weight, layer1.0.bn.weight, layer1.0.bn.bias and 11 more), as a training "
        "that diverged leaves them: take an earlier checkpoint",
    )


def test_whole_checkpoints_beside_a_damaged_one_are_named(tmp_path):
    for name in ("last.pth", "best.pth", "epoch_9.pth", "epoch_10.pth", "epoch_11.pth"):
        torch.save(small_net().state_dict(), tmp_path / name)
    for name in ("last.pth", "epoch_11.pth"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])

    done = CliRunner().invoke(cli, ["inspect", str(tmp_path / "last.pth")], standalone_mode=False)

    assert isinstance(done.exception, InputError)
    assert str(done.exception).endswith(
        "fetch or save it again; best.pth and epoch_10.pth beside it look whole: take one of these"
    )


def test_nothing_is_advised_beside_what_is_no_part_of_a_training(tmp_path):
    torch.save(small_net().state_dict(), tmp_path / "best.pth")
    (tmp_path / "resnet18.pth").write_bytes(b"")

    with pytest.raises(InputError, match=r"fetch or save it again$"):
        inspect_checkpoint(tmp_path / "resnet18.pth")


@pytest.mark.parametrize(("name", "got"), [("out.onnx", "'.onnx'"), ("out", "none")])
def test_only_suffixes_that_are_written_are_taken(training, tmp_path, name, got):
    with pytest.raises(InputError) as error:
        convert_checkpoint(training, tmp_path / name)

    assert str(error.value) == (
        f"{tmp_path / name}: expected one of the suffixes that are written, .safetensors, .pth, "
        f".pt, .ckpt, .bin, .pth.tar, got {got}: choose one of these"
    )
    assert not (tmp_path / name).exists()
