"""What goes wrong while a model is trained is one line that says what to do."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training_runs import tiny_net, write_split

from evalkit.data import open_data
from evalkit.demo.net import digits_net
from evalkit.errors import InputError
from evalkit.inference.loop import predict
from evalkit.training import fit
from evalkit.training.faults import run_model
from evalkit.training.job import prepare
from evalkit.training.loader import TrainingBatches
from evalkit.training.order import Order
from evalkit.training.recipe import Recipe
from evalkit.training.splits import open_split

TESTS = Path(__file__).parents[2]
SHORT = Recipe(epochs=2, batch_size=8, random_area=None, flip=0)


@pytest.fixture
def data(tmp_path):
    return write_split(tmp_path / "data")


def job(data, out, model="training_runs:tiny_net", **choices):
    usual = {"recipe": SHORT, "device": "cpu", "workers": 0}
    return prepare(data, model, out=out, **(usual | choices))


def fitted(model, batches, **choices):
    sgd = torch.optim.SGD(model.parameters(), lr=choices.pop("lr", 0.1))
    return list(fit(model, batches, validation=batches, optimizer=sgd, epochs=1, **choices))


def test_a_label_outside_the_classes():
    batch = torch.ones(4, 3), torch.tensor([0, 1, 7, -2])

    with pytest.raises(InputError) as error:
        fitted(nn.Linear(3, 2), [batch])

    assert str(error.value) == (
        "labels must be from 0 to 1, one for each of 2 outputs of the model, got -2, 7"
    )


def test_a_number_in_place_of_classes():
    batch = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])

    with pytest.raises(InputError, match=r"classes must be a list of names, .* got 2"):
        fitted(nn.Linear(3, 2), [batch], classes=2)


def test_a_head_for_other_classes_than_there_are(data, tmp_path):
    (tmp_path / "three.py").write_text(
        "from torch import nn\n\n"
        "def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))\n"
    )
    recipe = Recipe(epochs=1, batch_size=8, image_size=8)

    with pytest.raises(InputError, match=r"one score for each of 2 classes \(left, right\), got 3"):
        list(job(data, tmp_path / "run", f"{tmp_path}/three.py:net", recipe=recipe).epochs())


def test_a_class_without_training_samples(data):
    (data / "train/upward").mkdir()

    with pytest.raises(InputError) as error:
        open_split(data)

    assert str(error.value) == (
        f"every class must have training samples, got 1 class without in {data}/train: upward: "
        "add images, or remove the class"
    )


def test_a_class_that_only_validation_has(data):
    (data / "val/left").rename(data / "val/up")

    with pytest.raises(InputError, match=r"such as left, right, got 1 other in .*/val: up$"):
        open_split(data)


def test_a_class_without_validation_samples_is_a_warning(data):
    for image in (data / "val/left").iterdir():
        image.unlink()

    assert open_split(data).warnings == (
        "1 class without validation samples, which no score speaks of: left",
    )


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_split(data, part):
    for image in (data / part).rglob("*.png"):
        image.unlink()

    with pytest.raises(InputError, match=rf"images in its class folders, got {data}/{part} with"):
        open_split(data)


def test_a_split_that_is_not_there(data):
    (data / "val").rename(data / "elsewhere")

    with pytest.raises(InputError, match=r"both folders train and val, got .* with only train$"):
        open_split(data)


def test_a_loss_that_is_not_finite_names_the_files_of_its_batch(data, tmp_path):
    ready = job(data, tmp_path / "run")
    with torch.no_grad():
        ready.begun.model.head.weight.fill_(torch.nan)
    first = Order(samples=32, batch_size=8, seed=0).step(1, 0)
    files = [open_data(data / "train").paths[position] for position in first]

    with pytest.raises(InputError) as error:
        list(ready.epochs())

    assert str(error.value) == (
        f"loss must be a finite number, got nan in epoch 1, step 1 for {', '.join(files)}: lower "
        "the learning rate, limit the gradients (clip_norm), or look at these images"
    )
    assert not (tmp_path / "run/last.pth").exists()


class Hungry(nn.Linear):
    """A model that needs more memory than there is."""

    def forward(self, inputs):
        if self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(inputs)


def test_too_little_memory_says_what_takes_it_and_what_takes_less():
    batch = torch.ones(5, 1024), torch.zeros(5, dtype=torch.int64)

    with pytest.raises(InputError) as error:
        fitted(Hungry(1024, 65_536), [batch])

    said = str(error.value)
    assert said.startswith(
        "training must fit into the memory of cpu, got weights 0.25 GiB, optimizer 0.00 GiB, "
        "batches of 5; at its peak "
    )
    assert "gpudiag sees " in said
    assert said.endswith(
        ": divide every step (accumulate 2, with the same result), use precision bf16, or lower "
        "batch-size"
    )


class Deadly(TensorDataset):
    """Kills the worker that loads it, as the kernel does when shared memory is full."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_died_is_told_with_the_state_of_shared_memory():
    loader = DataLoader(Deadly(torch.zeros(4, 2)), batch_size=2, num_workers=1)

    with pytest.raises(InputError) as error:
        fitted(nn.Linear(2, 2), loader)

    said = str(error.value)
    assert said.startswith("workers must live as long as training, got 'DataLoader worker (pid")
    assert "/dev/shm" in said
    assert " GiB of it in use" in said
    assert said.endswith("take fewer workers, or workers 0 to see the error itself")


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_read_are_all_listed(data, tmp_path, workers):
    (data / "train/left/3.png").write_bytes(b"no image")
    (data / "train/right/5.png").write_bytes(b"")

    with pytest.raises(InputError) as error:
        list(job(data, tmp_path / "run", workers=workers).epochs())

    said = str(error.value)
    assert said.startswith(f"data must have images that can be read, got 2 of 32 in {data}")
    assert "left/3.png (the file is no image" in said
    assert "right/5.png (the file is empty)" in said


def test_an_image_that_stops_validation_costs_no_training(data, tmp_path):
    image = data / "val/left/1.png"
    whole = image.read_bytes()
    image.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"left/1\.png"):
        list(job(data, tmp_path / "run").epochs())
    position = torch.load(tmp_path / "run/last.pth", weights_only=True)["position"]
    image.write_bytes(whole)

    records = list(job(data, tmp_path / "run", resume=True).epochs())

    assert (position["epoch"], position["step"]) == (1, 4)
    assert [record.epoch for record in records] == [1, 2]


def test_images_that_cannot_be_read_are_left_out_on_request_and_after_resuming(data, tmp_path):
    (data / "train/left/3.png").write_bytes(b"no image")
    (data / "val/right/5.png").write_bytes(b"")

    ready = job(data, tmp_path / "run", on_unreadable="skip")
    list(ready.epochs())
    again = job(data, tmp_path / "run", resume=True)

    assert (len(ready.split.train), len(ready.split.validation)) == (31, 11)
    assert ready.warnings[0].startswith("2 images left out that cannot be read: left/3.png (")
    assert (len(again.split.train), len(again.split.validation)) == (31, 11)
    assert again.report().summary["samples"] == 11


def test_images_of_different_sizes_in_a_worker_are_one_line(tmp_path):
    data = write_split(tmp_path / "data")
    source = open_data(data / "train")
    from PIL import Image

    Image.new("L", (9, 8)).save(data / "train/left/0.png")
    from evalkit.transforms import evaluation

    batches = TrainingBatches(
        source,
        evaluation(mode="L", resize=None, crop=None, mean=(0.5,), std=(0.5,)),
        source.classes,
        order=Order(samples=32, batch_size=32, seed=0),
        workers=1,
    )

    with pytest.raises(InputError) as error:
        list(next(batches.steps(1)).parts)

    assert str(error.value) == (
        "images must have one size after the transform, got 2 sizes: (8, 8), (8, 9): give a "
        "transform with crop"
    )


def test_all_unreadable_images_of_a_training_are_listed(tmp_path):
    data = write_split(tmp_path / "data", (60, 6))
    paths = sorted((data / "train/left").glob("*.png"))[:30]
    for path in paths:
        path.write_bytes(b"")

    with pytest.raises(InputError, match="got 30 of 120 in") as error:
        list(job(data, tmp_path / "run").epochs())

    named = {line.partition(": ")[0] for line in error.value.details}
    assert named == {f"left/{path.name}" for path in paths}


def test_a_model_that_fails_in_its_own_way():
    class Net(nn.Module):
        def forward(self, pixels):
            return {"a": pixels}["b"]

    with pytest.raises(InputError) as error:
        run_model(Net(), torch.zeros(2, 3))

    assert re.fullmatch(
        r"model Net must accept inputs of shape \(2, 3\) in training, got KeyError: 'b' "
        r"\(.*test_faults.py, line \d+\)",
        str(error.value),
    )


def test_a_model_for_other_inputs(data, tmp_path):
    with pytest.raises(
        InputError, match=r"^model Sequential must accept inputs of shape \(8, 3, 16, 16\) in"
    ):
        list(
            job(
                data,
                tmp_path / "run",
                "training_runs:plain_net",
                recipe=Recipe(epochs=1, batch_size=8, image_size=16),
            ).epochs()
        )


def test_validation_in_between_leaves_the_layout_of_the_weights():
    """Laid out for speed meanwhile: what learns must be as it was, and must go on learning."""
    model = tiny_net()
    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(), nn.LazyLinear(2))
    grey = digits_net()  # weights of one channel count as laid out both ways
    for net, shape in ((model, (2, 1, 8, 8)), (wide, (2, 3, 8, 8)), (grey, (2, 1, 8, 8))):
        net(torch.zeros(shape))
        before = [parameter.stride() for parameter in net.parameters()]
        predict(net, [(torch.zeros(shape), torch.zeros(2, dtype=torch.int64))], device="cpu")
        net(torch.zeros(shape)).sum().backward()

        assert [parameter.stride() for parameter in net.parameters()] == before


def test_a_place_that_cannot_be_written_to_is_said_before_the_first_step(data):
    with pytest.raises(InputError, match=r"^/proc/nowhere/run: expected a folder to write to, got"):
        job(data, Path("/proc/nowhere/run"))


@pytest.mark.parametrize(
    "wrong", [{"label_smoothing": 2.0}, {"ema": 3.0}, {"mixup": -1.0}, {"schedule": "spiral"}]
)
def test_an_option_out_of_range_leaves_nothing_behind(data, tmp_path, wrong):
    ready = job(data, tmp_path / "run", recipe=replace(SHORT, **wrong))

    with pytest.raises(InputError):
        next(ready.epochs())

    assert not (tmp_path / "run").exists()


def test_the_command_prints_one_line_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "evalkit", "train", "--data", tmp_path / "nowhere"),
            *("--model", "torchvision:resnet18", "--out", tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("evalkit: data must be a folder of class folders, a manifest")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
