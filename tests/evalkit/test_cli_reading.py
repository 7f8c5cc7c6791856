"""What the options on data and decoding do to a whole run."""

import json
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from image_files import CLASSES, ColourNet, coloured, write_folders
from PIL import Image

from evalkit.checkpoint import save_checkpoint
from evalkit.cli import main
from evalkit.images.jpegs import exact_jpegs
from evalkit.transforms import evaluation

TRANSFORM = evaluation(resize=None, crop=8)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A current directory with a checkpoint and a data folder."""
    save_checkpoint(
        tmp_path / "net.pth", ColourNet(), classes=CLASSES, transform=TRANSFORM.as_dict()
    )
    write_folders(tmp_path / "data", {"blue": 4, "green": 3, "red": 3})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evaluate(project, monkeypatch, capfd):
    """Run ``evalkit evaluate`` -> exit code, standard output, standard error, summary."""

    def run(*arguments, data="data"):
        common = ["--checkpoint", "net.pth", "--model", "image_files:colour_net", "--device", "cpu"]
        words = ["evaluate", *common, "--data", str(data), "--out", "report", *arguments]
        monkeypatch.setattr(sys, "argv", ["evalkit", *words])
        with pytest.raises(SystemExit) as end:
            main()
        found = project / "report" / "summary.json"
        summary = json.loads(found.read_text()) if end.value.code == 0 else None
        return end.value.code, *capfd.readouterr(), summary

    return run


def refusal(outcome):
    code, output, line, _summary = outcome
    assert (code, output) == (2, "")
    return line.removeprefix("evalkit: ").removesuffix("\n")


def test_every_file_is_counted_once_whatever_became_of_it(evaluate, project):
    (project / "data" / "green" / "1.png").write_bytes(b"")
    write_folders(project / "data", {"yellow": 2, "pink": 1})

    code, output, errors, summary = evaluate(
        "--on-unreadable", "skip", "--on-unknown-class", "skip"
    )

    assert (code, errors) == (0, "")
    assert "1 of 13 images could not be read and are not counted" in output
    assert "3 of 13 images are of classes that the model does not know" in output
    assert summary["samples"] == 9
    assert summary["unreadable"] == [
        {"index": 5, "path": "green/1.png", "reason": "the file is empty"}
    ]
    assert summary["reading"]["set_aside"] == {"pink": 1, "yellow": 2}
    assert summary["reading"]["files"] == 13 == 9 + 1 + 3
    table = pd.read_parquet(project / "report" / "predictions.parquet")
    assert set(table["label"]) == set(CLASSES)
    assert table["index"].is_unique
    assert "5" not in table["index"].astype(str).tolist()


def test_all_unreadable_files_are_listed_before_the_run_fails(evaluate, project):
    for number in range(30):
        (project / "data" / "red" / f"bad{number:02}.png").write_bytes(b"")

    code, output, errors, _summary = evaluate()

    *listed, line = errors.splitlines()
    assert (code, output) == (2, "")
    assert listed == [f"red/bad{number:02}.png: the file is empty" for number in range(30)]
    assert line.startswith("evalkit: data must have images that can be read, got 30 of 40 in data")
    assert "red/bad19.png (the file is empty) and 10 more: mend them" in line


def test_unknown_classes_end_the_run_with_their_list(evaluate, project):
    write_folders(project / "data", {"yellow": 2, "pink": 1})

    assert refusal(evaluate()) == (
        "data must have only classes that the model knows by the checkpoint, 3 names such as blue, "
        "green, red, got 2 others in data: pink, yellow: leave their samples out with "
        "--on-unknown-class skip"
    )
    assert not (project / "report").exists()


def test_a_run_in_which_nothing_is_left(evaluate, project):
    write_folders(project / "other", {"red": 0, "yellow": 2})

    assert refusal(evaluate("--on-unknown-class", "skip", data="other")) == (
        "data must have samples of classes that the model knows, got all 2 of other classes in "
        "other"
    )


def test_what_images_were_like_is_in_the_summary(evaluate, project):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = project / "data" / "red"
    coloured("red", 1).save(folder / "rotated.jpg", exif=exif)
    coloured("red", 1).convert("L").save(folder / "grey.jpg")
    coloured("red", 1).convert("CMYK").save(folder / "inks.jpg")
    coloured("red", 1).convert("P").save(folder / "palette.png")
    Image.new("RGBA", (12, 10), (9, 9, 9, 9)).save(folder / "glass.png")
    Image.fromarray(np.zeros((10, 12), np.uint16)).save(folder / "deep.png")

    _code, output, _errors, summary = evaluate()

    assert summary["reading"] == {
        "files": 16,
        "set_aside": {},
        "oddities": {
            "grey": 2,
            "turned upright by EXIF orientation, which many training programs ignore": 1,
            "in CMYK, converted to RGB without its colour profile": 1,
            "of a palette": 1,
            "transparent, laid on white": 1,
            "of 16 bits per channel, scaled to 8": 1,
        },
        "decoder": f"{exact_jpegs().name}, Pillow for other files",
        "decode": "cpu",
        "fast_decode": None,
    }
    assert output.count(" 1 image was ") == 4
    assert "palette" not in output


def test_a_transform_from_a_file(evaluate, project):
    spec = evaluation(resize=9, crop=7, interpolation="bicubic")
    (project / "own.json").write_text(json.dumps(spec.as_dict()))

    code, _output, _errors, summary = evaluate("--transform", "own.json")

    assert code == 0
    assert summary["transform"] == {"origin": "option", **spec.as_dict()}
    assert summary["reading"]["decoder"] == "Pillow"


def test_transforms_that_are_none(evaluate, project):
    names = "crop, flip, interpolation, mean, mode, random_area, resize, std"
    path = project / "own.json"

    assert refusal(evaluate("--transform", "own.json")) == (
        f"transform must be a JSON file of the names {names}, got own.json: No such file or "
        "directory"
    )
    path.write_text("{")
    assert refusal(evaluate("--transform", "own.json")).startswith(
        f"transform must be a JSON file of the names {names}, got own.json: Expecting property"
    )
    path.write_text("[1]")
    assert refusal(evaluate("--transform", "own.json")) == (
        f"transform must be a JSON file of the names {names}, got own.json with a list"
    )
    path.write_text('{"size": 224}')
    assert refusal(evaluate("--transform", "own.json")) == (
        f"own.json: transform must have only the names {names}, got size"
    )
    for wrong, fault in {
        '{"crop": "big"}': "crop must be one or two lengths of up to 16384 pixels, got 'big'",
        '{"resize": -4}': "resize must be one or two lengths of up to 16384 pixels, got -4",
        '{"crop": [3, 4, 5]}': (
            "crop must be one or two lengths of up to 16384 pixels, got (3, 4, 5)"
        ),
        '{"mean": 3}': "mean must be numbers, got 3",
        '{"std": [1, "x", 1]}': "std must be numbers, got (1, 'x', 1)",
        '{"flip": 2}': "flip must be a probability, got 2",
        '{"random_area": [1, 0.1]}': "random_area must be two shares of an image, got (1, 0.1)",
        '{"mode": ["RGB"]}': "mode must be one of RGB, L, got '('RGB',)'",
    }.items():
        path.write_text(wrong)
        assert refusal(evaluate("--transform", "own.json")) == f"own.json: {fault}"


def test_decoding_on_a_gpu_that_is_not_there(evaluate, project, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert refusal(evaluate("--decode", "gpu")) == (
        "decode must be cpu where torch sees no CUDA device, got 'gpu': run 'gpudiag diagnose' to "
        "see why"
    )
    assert not (project / "report").exists()


def test_what_fast_decoding_does_is_measured(evaluate, project):
    """Fine stripes of two colours become one when the decoder leaves out every second line."""
    (project / "own.json").write_text(json.dumps(evaluation(resize=32, crop=32).as_dict()))
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[..., 0] = 120
    pixels[:, ::2, 1] = np.random.default_rng(0).choice([0, 255], (512, 256))
    for number in range(3):
        name = project / "data" / "red" / f"{number}.jpg"
        Image.fromarray(pixels).save(name, quality=95, subsampling=0)

    code, output, _errors, summary = evaluate("--fast-decode", "--transform", "own.json")

    effect = summary["reading"]["fast_decode"]
    assert code == 0
    assert effect.keys() == {"samples", "flipped", "accuracy", "accuracy_exact"}
    assert effect["samples"] == 13
    assert summary["reading"]["decoder"].endswith("large JPEG files at reduced size")
    assert effect["accuracy"] == pytest.approx(summary["accuracy"])
    assert "images were decoded fast: of 13 samples decoded both ways" in output


def test_fast_decoding_excludes_the_gpu(evaluate):
    assert refusal(evaluate("--fast-decode", "--decode", "gpu")) == (
        "fast-decode must be asked for with decode cpu, got it with 'gpu'"
    )


def test_the_same_samples_in_every_form_get_the_same_predictions(evaluate, project, capfd):
    """A folder, a manifest, a data set of the library datasets and tars of one set of images."""
    datasets = pytest.importorskip("datasets")
    webdataset = pytest.importorskip("webdataset")
    files = sorted((project / "data").rglob("*.png"))
    labels = [path.parent.name for path in files]
    paths = [str(path.relative_to(project)) for path in files]
    rows = pd.DataFrame({"path": paths, "label": labels})
    rows.to_csv(project / "list.csv", index=False)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["red", "blue", "green"])}
    )
    columns = {"image": [str(path) for path in files], "label": labels}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(project / "set")
    for shard in range(2):
        with (
            (project / f"part-{shard}.tar").open("wb") as stream,
            webdataset.TarWriter(stream) as tar,
        ):
            for path, label in list(zip(files, labels, strict=True))[shard * 5 : shard * 5 + 5]:
                tar.write(
                    {"__key__": f"{label}-{path.stem}", "png": path.read_bytes(), "cls": label}
                )

    capfd.readouterr()  # a progress bar of saving

    found = {}
    for data in ("data", "list.csv", "huggingface:set", "part-{0..1}.tar"):
        code, _output, errors, summary = evaluate(data=data)
        table = pd.read_parquet(project / "report" / "predictions.parquet")
        found[data] = Counter(
            zip(table["label"].astype(str), table["prediction"].astype(str), strict=True)
        )
        assert (code, errors, summary["samples"]) == (0, "", 10)

    assert all(counts == found["data"] for counts in found.values())
    assert len(found["data"]) >= 3
