import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from image_files import CLASSES, ColourNet, colour_net, coloured, write_checkpoint, write_folders
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from torch import nn
from torchvision.datasets import ImageFolder

from evalkit.checkpoint import save_checkpoint
from evalkit.errors import InputError
from evalkit.run import evaluate
from evalkit.transforms import evaluation

TRANSFORM = evaluation(resize=None, crop=8)


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "net.pth", TRANSFORM)


@pytest.fixture
def data(tmp_path):
    return write_folders(tmp_path / "data", {"blue": 9, "green": 8, "red": 7})


def run(checkpoint, data, model=None, **options):
    return evaluate(checkpoint, data, model=model or colour_net(), device="cpu", **options)


def message_of(*arguments, **options):
    with pytest.raises(InputError) as error:
        run(*arguments, **options)
    return str(error.value)


def plain_loop(model, folder, transform=TRANSFORM):
    """What everybody writes by hand: labels and predicted outputs."""
    images = ImageFolder(str(folder), transform=transform)
    loader = torch.utils.data.DataLoader(images, batch_size=5)
    model.eval()
    with torch.no_grad():
        outputs = [(labels, model(pixels)) for pixels, labels in loader]
    return torch.cat([one for one, _ in outputs]), torch.cat([logits for _, logits in outputs])


def test_agrees_with_a_plain_loop_and_scikit_learn(checkpoint, data):
    found = run(checkpoint, data, batch_size=7)

    labels, logits = plain_loop(ColourNet(), data)
    predicted = logits.argmax(1)
    assert 0.4 < accuracy_score(labels, predicted) < 1  # the data is neither hopeless nor trivial
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, predicted))
    scores = precision_recall_fscore_support(labels, predicted, zero_division=0)
    np.testing.assert_allclose(
        found.per_class[["precision", "recall", "f1", "support"]].T, scores, atol=1e-12
    )
    np.testing.assert_allclose(found.summary["accuracy"], accuracy_score(labels, predicted))
    loss = nn.functional.cross_entropy(logits.double(), labels).item()
    np.testing.assert_allclose(found.summary["nll"], loss, rtol=1e-6)
    assert found.summary["samples"] == 24
    assert found.summary["warnings"] == []
    assert list(found.confusion.index) == list(CLASSES)


def test_tables_are_keyed_by_sample(checkpoint, data):
    table = run(checkpoint, data).predictions

    assert list(table) == [
        "index", "path", "label", "prediction", "confidence", "label_probability", "loss", "top5",
    ]  # fmt: skip
    assert table["index"].tolist() == list(range(24))
    assert table["path"][8:10].tolist() == ["blue/8.png", "green/0.png"]
    assert [top[0] for top in table["top5"]] == table["prediction"].tolist()
    assert set(map(len, table["top5"])) == {3}


def test_another_order_of_outputs_is_joined_by_name(tmp_path, checkpoint, data):
    """The silent error: the same net, trained where the classes had another order."""
    order = ("red", "blue", "green")
    shuffled = tmp_path / "shuffled.pth"
    save_checkpoint(shuffled, ColourNet(order), classes=order, transform=TRANSFORM.as_dict())

    expected, found = run(checkpoint, data), run(shuffled, data)

    assert list(found.confusion.index) == list(order)
    pd.testing.assert_frame_equal(
        found.confusion.loc[list(CLASSES), list(CLASSES)], expected.confusion
    )
    assert found.predictions["prediction"].tolist() == expected.predictions["prediction"].tolist()


def test_data_may_have_fewer_classes_than_the_model(tmp_path, checkpoint):
    data = write_folders(tmp_path / "few", {"red": 3, "blue": 3})

    found = run(checkpoint, data)

    assert list(found.confusion.index) == list(CLASSES)
    assert found.confusion.sum(axis=1).tolist() == [3, 0, 3]
    assert "green" in found.summary["warnings"][0]


def test_names_that_the_model_does_not_know(tmp_path, checkpoint):
    data = write_folders(tmp_path / "more", {"red": 1, "Blue": 1, "yellow": 1})

    assert message_of(checkpoint, data) == (
        "data must have only classes that the model knows by the checkpoint, 3 names such as "
        f"blue, green, red, got 2 others in {data}: Blue, yellow: write them alike, as only blanks "
        "or case differ: 'Blue' and 'blue'"
    )


def test_option_names_the_classes_where_the_checkpoint_does_not(tmp_path, data):
    path = tmp_path / "plain.pth"
    torch.save(ColourNet(("red", "blue", "green")).state_dict(), path)

    right = run(path, data, classes=("red", "blue", "green"), transform=TRANSFORM)
    wrong = run(path, data, transform=TRANSFORM)

    assert right.summary["accuracy"] > 0.6
    assert wrong.summary["accuracy"] < 0.4
    assert wrong.summary["transform"]["origin"] == "option"


def test_folders_with_numbers_are_warned_of_where_nobody_names_the_outputs(tmp_path):
    data = write_folders(tmp_path / "data", {"1": 1, "2": 1, "10": 1})
    path = tmp_path / "plain.pth"
    torch.save(ColourNet().state_dict(), path)

    found = run(path, data, transform=TRANSFORM)

    assert found.summary["warnings"][0] == (
        "the checkpoint does not name its classes: outputs were taken in the order 1, 10, 2; "
        "programs that count naturally have 1, 2, 10: if the model was trained so, name the classes"
    )


@pytest.mark.usefixtures("data")
def test_manifest_brings_its_columns_along(tmp_path, checkpoint):
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label,site\ndata/red/1.png,red,north\ndata/blue/1.png,blue,south\n")

    found = run(checkpoint, manifest)

    assert found.predictions["site"].tolist() == ["north", "south"]
    assert found.predictions["path"].tolist() == ["data/red/1.png", "data/blue/1.png"]


def test_unreadable_images_fail_after_all_of_them_are_listed(checkpoint, data):
    (data / "blue" / "1.png").write_bytes(b"")
    (data / "red" / "6.png").write_text("no image")

    assert message_of(checkpoint, data, batch_size=2) == (
        f"data must have images that can be read, got 2 of 24 in {data} that cannot: blue/1.png "
        "(the file is empty), red/6.png (the file is no image of a known format): mend them, or "
        "leave them out with on_unreadable='skip'"
    )


def test_unreadable_images_that_are_skipped_are_counted_and_listed(checkpoint, data):
    (data / "blue" / "1.png").write_bytes(b"")

    found = run(checkpoint, data, on_unreadable="skip")

    assert found.summary["samples"] == 23
    assert found.summary["unreadable"] == [
        {"index": 1, "path": "blue/1.png", "reason": "the file is empty"}
    ]
    assert found.predictions["index"].tolist() == [0, *range(2, 24)]
    assert found.summary["warnings"] == ["1 of 24 images could not be read and are not counted"]


def test_nothing_can_be_read(tmp_path, checkpoint):
    data = write_folders(tmp_path / "bad", {"red": 1})
    (data / "red" / "0.png").write_bytes(b"")

    message = message_of(checkpoint, data, on_unreadable="skip")

    assert message.startswith("data must have images that can be read, got 1 of 1 in ")


def test_summary_tells_how_the_numbers_were_made(checkpoint, data):
    summary = run(checkpoint, data, batch_size=5, workers=1).summary

    assert summary["checkpoint"]["container"] == "state_dict"
    assert summary["checkpoint"]["matched_fraction"] == 1.0
    assert summary["model"] == {"spec": None, "class": "ColourNet", "parameters": 12}
    assert summary["transform"] == {"origin": "checkpoint", **TRANSFORM.as_dict()}
    assert summary["precision_flags"]["precision"] == "fp32"
    assert summary["environment"]["torch"] == str(torch.__version__)
    assert summary["throughput"]["batch_size"] == 5
    assert summary["throughput"]["workers"] == 1
    assert summary["throughput"]["samples_per_second"] > 0
    assert summary["unreadable"] == []
    assert json.loads(json.dumps(summary)) == summary


def test_odd_images_odd_scores_and_defaults_are_warned_of(tmp_path, data):
    path = tmp_path / "plain.pth"
    net = nn.Sequential(ColourNet(), nn.Softmax(1))
    torch.save(net.state_dict(), path)
    exif = Image.Exif()
    exif[0x0112] = 6
    coloured("red", 1).save(data / "red" / "1.png", exif=exif)

    found = run(path, data, model=nn.Sequential(colour_net(), nn.Softmax(1)))

    assert found.summary["warnings"] == [
        "the checkpoint does not name its classes: outputs were taken in the order of the data, "
        "blue, green, red",
        "nobody said how images are prepared for this model: they were resized to 256, cropped to "
        "224 and normalised as for ImageNet",
        "1 image was turned upright by EXIF orientation, which many training programs ignore",
        "the model gives probabilities, not logits: they were taken as they are",
    ]


def test_results_within_the_data_are_refused(checkpoint, data):
    assert message_of(checkpoint, data, out=data / "report") == (
        f"out must lie outside of the data, got {data / 'report'} in {data}: its files would be "
        "samples of a class the next time"
    )
    assert not (data / "report").exists()
    assert run(checkpoint, data, out=data / ".reports" / "a").summary["samples"] == 24
    assert run(checkpoint, data, out=data / ".reports" / "b").summary["samples"] == 24


def test_the_data_have_a_fingerprint_wherever_they_lie(checkpoint, data, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(data, copy)

    first, same = (
        run(checkpoint, place, out=tmp_path / name).summary["data"]
        for name, place in (("a", data), ("b", copy))
    )
    Image.new("RGB", (64, 64)).save(copy / "red" / "0.png")
    other = run(checkpoint, copy, out=tmp_path / "c").summary["data"]

    assert (first["name"], same["name"]) == (str(data), str(copy))
    assert first["sha256"] == same["sha256"] != other["sha256"]


def test_an_image_that_a_manifest_names_twice_is_told(checkpoint, data):
    (data / "list.csv").write_text("path,label\nred/17.png,red\nred/17.png,red\n")
    (data / "red/17.png").write_bytes(next((data / "red").glob("*.png")).read_bytes())

    summary = run(checkpoint, data / "list.csv").summary

    assert summary["samples"] == 2
    assert (
        "1 image is named by more than one row, and counted as often: red/17.png in list.csv"
        in summary["warnings"]
    )


def test_scores_that_are_no_numbers(tmp_path, data):
    path = tmp_path / "broken.pth"
    net = ColourNet()
    with torch.no_grad():
        net.head.bias.fill_(float("nan"))
    save_checkpoint(path, net, classes=CLASSES, transform=TRANSFORM.as_dict())

    out = tmp_path / "out"

    assert message_of(path, data, out=out) == (
        "model must give scores that are numbers, got NaN or infinite ones for all 24 samples: "
        "look for such weights with 'evalkit inspect', and take an earlier checkpoint"
    )
    assert not out.exists()


def test_classes_that_a_model_rules_out_are_no_fault(tmp_path, data):
    """A score of minus infinity is a probability of 0."""
    path = tmp_path / "masked.pth"
    net = ColourNet()
    with torch.no_grad():
        net.head.bias[0] = float("-inf")
    save_checkpoint(path, net, classes=CLASSES, transform=TRANSFORM.as_dict())

    summary = run(path, data).summary

    assert [one for one in summary["warnings"] if "infin" in one] == [
        "24 of 24 samples got minus infinity for some class, which was taken for a probability of "
        "0: right of a model that masks classes, else an overflow in half precision"
    ]
    assert summary["samples"] == 24


def test_a_transform_of_somebody_else_in_the_checkpoint(tmp_path, data):
    path = tmp_path / "other.pth"
    torch.save(
        {
            "state_dict": ColourNet().state_dict(),
            "classes": list(CLASSES),
            "transform": {"Resize": 256},
        },
        path,
    )

    assert run(path, data).summary["transform"]["origin"] == "default"


def test_options_out_of_range(checkpoint, data):
    assert message_of(checkpoint, data, on_unreadable="ignore") == (
        "on_unreadable must be fail or skip, got 'ignore'"
    )
    assert message_of(checkpoint, data, batch_size=0) == (
        "batch_size and workers must be at least 1, got 0 and None"
    )


def test_torchvision_model_by_name_from_a_wrapped_checkpoint(tmp_path, data):
    """The line of a real user: DataParallel, an optimizer, three classes, resnet18."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3)
    path = tmp_path / "model_best.pth.tar"
    torch.save(
        {
            "epoch": 5,
            "arch": "resnet18",
            "state_dict": nn.DataParallel(model).state_dict(),
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9).state_dict(),
        },
        path,
    )

    found = evaluate(path, data, model="torchvision:resnet18", device="cpu")

    preset = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    labels, logits = plain_loop(model, data, transform=preset)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, logits.argmax(1)))
    np.testing.assert_allclose(
        found.summary["nll"], nn.functional.cross_entropy(logits, labels).item(), rtol=1e-5
    )
    assert found.summary["transform"]["origin"] == "model"
    assert found.summary["model"]["spec"] == "torchvision:resnet18"
    assert found.summary["checkpoint"]["prefixes"] == ["module."]


def test_head_of_another_size_than_the_folders(tmp_path, data):
    path = tmp_path / "imagenet.pth"
    torch.save(torchvision.models.squeezenet1_1(num_classes=1000).state_dict(), path)

    with pytest.raises(InputError) as error:
        evaluate(path, data, model="torchvision:squeezenet1_1", device="cpu")

    assert str(error.value) == (
        f"{path}: expected the names of its 1,000 classes, got none, and 3 classes in {data} "
        "(blue, green, red): name all 1,000, in the order of the outputs, with classes (--classes "
        "FILE)"
    )
