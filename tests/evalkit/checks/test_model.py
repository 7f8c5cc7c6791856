"""Errors planted into a real, trained net and its real images, and what the checks make of them."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from painted import CLASSES, RIGHT, trained, write_painted
from PIL import Image
from torch import nn

from evalkit.checks.alternatives import alternatives
from evalkit.checks.batch_norm import batch_statistics, check_state
from evalkit.checks.evidence import least_gained
from evalkit.checks.examine import Choices, examine
from evalkit.checks.joined import joined_checks
from evalkit.checks.numerics import check_precision
from evalkit.checks.preprocessing import check_preparation
from evalkit.checks.sample import Ran, choose
from evalkit.checks.trial import GLANCE, SCREENED, USUAL, looks_at
from evalkit.data import open_data
from evalkit.images.batches import Audit, batches
from evalkit.inference.loop import predict
from evalkit.scoring.sparse import of_pairs
from evalkit.transforms import evaluation

PLAIN = replace(RIGHT, mean=(0.0,) * 3, std=(1.0,) * 3)
HALF = replace(RIGHT, mean=(0.5,) * 3, std=(0.5,) * 3)
BYTES = replace(RIGHT, mean=(0.0,) * 3, std=(1 / 255,) * 3)
UNITS = replace(RIGHT, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
ALL = [
    "label-order", "channel-order", "normalisation", "preset", "batch-norm", "repeatability",
    "batch-dependence",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def net():
    return trained()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_data(
        write_painted(tmp_path_factory.mktemp("painted") / "val", each=75, first_seed=0)
    )


def ran(model, source, spec=RIGHT, *, classes=CLASSES, precision="fp32", batch_size=64):
    """Run a model over all images, as `evaluate` does."""
    outputs = {name: position for position, name in enumerate(classes)}
    read = list(batches(source, spec, outputs, batch_size=batch_size, workers=1, audit=Audit()))
    scored = predict(
        model,
        [(batch.pixels, batch.labels) for batch in read],
        classes=classes,
        device="cpu",
        precision=precision,
        prepare=spec.normalize,
    )
    return Ran(
        model=model,
        source=source,
        classes=tuple(classes),
        positions=np.concatenate([batch.indices.numpy() for batch in read]),
        labels=scored.labels,
        predictions=scored.predictions,
        precision=precision,
        batch_size=batch_size,
    )


def checked(model, source, spec=RIGHT, *, choices=None, **how):
    """Return all checks by id, and the ids that warn."""
    run = ran(model, source, spec, **how)
    of_run = [check.as_dict() for check in examine(run, spec, choices or Choices())]
    cells = of_pairs(run.labels, run.predictions, pd.Index(run.classes))
    checks, _new = joined_checks(cells, of_run)
    return {check["id"]: check for check in checks}, [
        check["id"] for check in checks if check["verdict"] == "warning"
    ]


def with_swapped_input(net):
    """The same net, had it been trained on images whose channels are blue, green, red."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        first = other.features[0].weight
        first.copy_(first.flip(1))
    return other


def test_a_run_as_trained_passes_everything(net, source):
    checks, warned = checked(net, source)

    assert warned == []
    assert list(checks) == ALL
    assert {check["verdict"] for check in checks.values()} == {"passed"}
    right = int((ran(net, source).predictions == ran(net, source).labels).sum())
    assert right >= 290  # of 300


def test_so_few_mistakes_cost_no_image(net, source):
    checks, _warned = checked(net, source)

    assert checks["normalisation"]["images_run"] == 0
    assert "which nothing else could clearly improve" in checks["normalisation"]["evidence"]


def test_red_and_blue_exchanged(net, source):
    checks, warned = checked(with_swapped_input(net), source)

    assert warned == ["channel-order"]
    check = checks["channel-order"]
    assert check["accuracy_other"] > check["accuracy"] + 0.2
    assert "red and blue exchanged (BGR, as OpenCV reads images)" in check["evidence"]
    assert check["gained"] >= least_gained(check["alternatives"])


@pytest.mark.parametrize("wrong", [PLAIN, HALF, BYTES, UNITS], ids=["0-1", "-1-1", "255", "units"])
def test_wrong_normalisation(net, source, wrong):
    checks, warned = checked(net, source, wrong)

    assert warned == ["normalisation"]
    check = checks["normalisation"]
    assert check["accuracy_other"] > 0.96
    if wrong is UNITS:
        assert "mean and deviation divided by 255" in check["evidence"]
    else:
        assert "the mean and deviation of ImageNet" in check["evidence"]
    assert checks["label-order"]["verdict"] != "warning"
    assert checks["batch-norm"]["verdict"] in {"passed", "explained"}  # it undoes the same


def test_a_default_preset_for_images_of_another_size(net, source):
    checks, warned = checked(net, source, evaluation(resize=96, crop=84))

    assert warned == ["preset"]
    assert checks["preset"]["other"] in {
        "images as they are, 24 x 24",
        "the whole image squeezed to 84 x 84",
    }


@pytest.mark.parametrize(
    "order",
    [CLASSES[1:] + CLASSES[:1], ("frame", "disc", "stripes", "wedge"), CLASSES[::-1]],
    ids=["shifted", "pair", "reversed"],
)
def test_another_order_of_classes_is_no_matter_of_pixels(net, source, order):
    checks, warned = checked(net, source, classes=order)

    assert warned == ["label-order"]
    assert checks["label-order"]["accuracy_other"] > 0.95


def test_permuted_labels_and_wrong_pixels_are_both_found(net, source):
    _checks, warned = checked(net, source, HALF, classes=CLASSES[1:] + CLASSES[:1])

    assert warned == ["label-order", "normalisation"]


def test_where_colour_alone_tells_the_classes_both_readings_are_named(tmp_path):
    """A warm and a cold class: exchanged channels look like exchanged labels."""
    colours = {"cold": (60, 90, 200), "warm": (200, 90, 60)}
    random = np.random.default_rng(0)
    for name, colour in colours.items():
        (tmp_path / name).mkdir()
        for number in range(60):
            pixels = random.normal(colour, 30, (24, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")

    class Warmth(nn.Module):
        """As if trained on blue, green, red."""

        def forward(self, pixels):
            warm = (pixels[:, 2] - pixels[:, 0]).mean((1, 2))
            return torch.stack([-warm, warm], 1)

    checks, warned = checked(Warmth(), open_data(tmp_path), classes=tuple(colours))

    assert warned == ["label-order"]
    bgr = "red and blue exchanged (BGR, as OpenCV reads images)"
    assert checks["channel-order"]["verdict"] == "explained"
    assert checks["channel-order"]["other"].startswith(bgr)
    assert f"; {bgr}" in checks["label-order"]["evidence"]
    assert checks["label-order"]["evidence"].endswith(
        "would explain it as well: on 120 images, accuracy is 1.000 then"
    )
    assert checks["normalisation"]["verdict"] == "passed"


def test_in_a_large_run_a_smaller_loss_is_seen(net, source):
    """Five points of accuracy: 256 images do not tell, 1,024 do."""
    nearly = replace(RIGHT, mean=(0.48,) * 3, std=(0.3,) * 3)
    small = ran(net, source, nearly)
    repeated = ("positions", "labels", "predictions")
    large = replace(small, **{name: np.tile(getattr(small, name), 28) for name in repeated})

    few, many = (examine(one, nearly, Choices()) for one in (small, large))

    assert 0.94 < (small.predictions == small.labels).mean() < 0.96
    assert {check.verdict for check in few} == {"passed"}
    assert [check.id for check in many if check.verdict == "warning"] == ["normalisation"]
    assert {check.id: check for check in many}["normalisation"].figures["samples"] == 1024


@pytest.mark.parametrize("samples", [10, 64, 300, 2047, 2048, 8191, 8192, 10**6])
def test_looks_see_more_and_more_and_keep_the_level_together(samples):
    looks = looks_at(samples)
    images = [look.images for look in looks]

    assert images == sorted(images)
    assert images[-1] <= max(USUAL, samples / 8, 0)
    assert images[-1] <= min(samples, 1024)
    assert sum(look.share for look in looks) == 1
    assert looks[-1].share > 0


def norms(model):
    return [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]


def test_statistics_that_were_never_learned(net, source):
    fresh = copy.deepcopy(net)
    for layer in norms(fresh):
        layer.reset_running_stats()

    checks, warned = checked(fresh, source)

    assert warned == ["batch-norm"]
    assert checks["batch-norm"]["evidence"].startswith(
        "the running statistics of all 2 batch norm layers are as they are made, mean 0 and "
        "variance 1"
    )


def test_statistics_that_do_not_fit(net, source):
    """As a momentum too small, or training for a moment too long, leaves them."""
    stale = copy.deepcopy(net)
    for layer in norms(stale):
        layer.running_mean += 3
        layer.running_var *= 0.1

    checks, warned = checked(stale, source)

    assert warned == ["batch-norm"]
    assert checks["batch-norm"]["accuracy_other"] > checks["batch-norm"]["accuracy"] + 0.1


def test_batch_norm_without_statistics(net, source):
    untracked = copy.deepcopy(net)
    for layer in norms(untracked):
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = None

    checks, warned = checked(untracked, source)

    assert warned == ["batch-norm"]
    assert checks["batch-dependence"]["verdict"] == "explained"
    assert checks["batch-dependence"]["largest_difference"] > 0.01
    assert "2 batch norm layers of 2 (features.1, features.4)" in checks["batch-norm"]["evidence"]


class OfTheBatch(nn.Module):
    """Normalises by hand, over the batch."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pixels):
        spread, mean = torch.std_mean(pixels, (0, 2, 3), keepdim=True)
        return self.net((pixels - mean) / spread)


class Dropping(nn.Module):
    """Calls the functional dropout and forgets to say in which mode it is."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pixels):
        return self.net(nn.functional.dropout(pixels, 0.5))


class Training(nn.Module):
    """Calls the functional batch norm as in training."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pixels):
        return nn.functional.batch_norm(self.net(pixels), None, None, training=True)


def test_a_model_whose_answers_depend_on_the_batch(net, source):
    checks, warned = checked(OfTheBatch(net), source)

    assert warned == ["batch-dependence"]
    assert (
        "predictions depend on the other images of the batch"
        in (checks["batch-dependence"]["evidence"])
    )
    assert checks["normalisation"]["verdict"] == "skipped"


def test_a_model_that_cannot_take_one_image(net, source):
    checks, warned = checked(Training(net), source, choices=Choices(verify=5))

    assert warned == ["batch-dependence"]
    assert checks["precision"]["verdict"] == "skipped"
    assert checks["precision"]["evidence"].startswith(
        "with one image alone model Training must accept inputs of shape (1, 3, 24, 24), got "
        "ValueError: Expected more than 1 value per channel"
    )
    assert "Expected more than 1 value per channel" in checks["batch-dependence"]["evidence"]


def test_dropout_in_evaluation_mode(net, source):
    checks, warned = checked(Dropping(net), source)

    assert warned == ["repeatability"]
    assert checks["batch-dependence"]["verdict"] == "skipped"
    assert checks["repeatability"]["largest_difference"] > 1e-3


def test_nothing_in_the_model_is_changed_by_asking(net, source):
    before = copy.deepcopy(net.state_dict())
    net.train()

    examine(ran(net, source, HALF), HALF, Choices(verify=3))

    assert all(module.training for module in net.modules())
    net.eval()
    after = net.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_batch_statistics_ignore_the_running_ones(net):
    wild = copy.deepcopy(net).eval()
    for layer in norms(wild):
        layer.running_mean += 100
    pixels = torch.randn(8, 3, 24, 24, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode(), batch_statistics(wild), batch_statistics(net):
        assert torch.equal(wild(pixels), net(pixels))
    with torch.inference_mode():
        assert not torch.equal(wild(pixels), net(pixels))


def test_an_affine_free_model_has_no_batch_norm():
    assert check_state(nn.Linear(2, 2)).verdict == "skipped"


def test_while_nothing_looks_wrong_the_cost_is_bounded(net, source):
    """A weak model, rightly used: many mistakes, and no other preparation mends them."""
    weak = copy.deepcopy(net)
    with torch.no_grad():
        weak.head.weight += 0.8 * torch.randn(
            weak.head.weight.shape, generator=torch.Generator().manual_seed(3)
        )
    run = ran(weak, source)
    assert 0.4 < (run.predictions == run.labels).mean() < 0.93

    checks, warned = checked(weak, source)

    assert warned == []
    ways = checks["preset"]["alternatives"]
    assert 0 < checks["preset"]["images_run"] <= SCREENED * ways + 2 * GLANCE


def test_a_larger_sample_is_run_when_asked_for(net, source):
    checks, _warned = checked(net, source, HALF, choices=Choices(sample=300))

    assert checks["normalisation"]["samples"] == 300
    assert checks["normalisation"]["accuracy"] == pytest.approx(
        (ran(net, source, HALF).predictions == ran(net, source, HALF).labels).mean()
    )


def test_no_sample_no_checks(net, source):
    assert examine(ran(net, source), RIGHT, Choices(sample=0)) == []


def test_fewer_images_than_could_tell(net, tmp_path):
    few = open_data(write_painted(tmp_path / "few", each=3, first_seed=0))

    checks, warned = checked(net, few, BYTES)

    assert warned == []
    assert checks["preset"]["verdict"] == "skipped"
    assert checks["preset"]["evidence"] == "12 images cannot tell: at least 15 are needed"
    assert checks["batch-dependence"]["verdict"] == "passed"


def test_one_image_has_no_neighbours(net, tmp_path):
    (tmp_path / "one" / "disc").mkdir(parents=True)
    Image.new("RGB", (24, 24)).save(tmp_path / "one" / "disc" / "0.png")

    checks, warned = checked(net, open_data(tmp_path / "one"), classes=CLASSES)

    assert warned == []
    assert checks["batch-dependence"]["evidence"] == "it takes at least 2 images in a batch"


def test_images_that_vanished_after_the_run(net, tmp_path):
    root = write_painted(tmp_path / "val", each=20, first_seed=0)
    run = ran(net, open_data(root), BYTES)
    for path in root.rglob("*.png"):
        path.unlink()

    checks = examine(run, BYTES, Choices(verify=5))

    assert {check.verdict for check in checks} == {"skipped"}
    assert checks[0].evidence == "the images could not be read again"


def test_a_model_for_one_size_refuses_the_others(net, source):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, pixels):
            assert pixels.shape[-1] == 24, "only 24"
            return self.net(pixels)

    _checks, warned = checked(Fixed(), source, HALF)

    assert warned == ["normalisation"]


def test_flips_in_half_precision_are_counted(net, source):
    """A head of near ties: bf16 has 8 bits for what differs in the ninth."""
    close = copy.deepcopy(net)
    with torch.no_grad():
        close.head.bias += 3000
    coarse = ran(close, source, precision="bf16")
    exact = ran(close, source)

    check = check_precision(coarse, RIGHT, samples=300)

    flips = int((coarse.predictions != exact.predictions).sum())
    assert flips > 0
    assert check.verdict == "warning"
    assert check.figures["flips"] == flips
    assert check.evidence.startswith(
        f"{flips} of 300 predictions changed when the samples were run again alone in fp32 (the "
        "run: bf16, batches of 64;"
    )
    assert check_precision(exact, RIGHT, samples=300).verdict == "passed"


def test_verify_takes_as_many_as_there_are(net, source):
    check = check_precision(ran(net, source), RIGHT, samples=10_000)

    assert check.figures["samples"] == 300


def test_samples_are_the_same_every_time_and_nested(net, source):
    run = ran(net, source)

    assert set(choose(run, 20)) < set(choose(run, 256))
    np.testing.assert_array_equal(choose(run, 20), choose(run, 20))
    assert len(set(choose(run, 300))) == 300


def test_alternatives_never_repeat_what_is_in_use():
    for spec in (
        RIGHT,
        PLAIN,
        HALF,
        BYTES,
        evaluation(),
        evaluation(mode="L", mean=(0.5,), std=(0.5,)),
    ):
        for one in alternatives(spec, image_size=(24, 24)):
            assert one.swapped or one.spec != spec
            assert one.spec.mode == spec.mode


def test_a_grey_model_has_no_channel_order():
    kinds = {one.kind for one in alternatives(evaluation(mode="L", mean=(0.5,), std=(0.5,)))}

    assert kinds == {"normalisation", "preset"}


def test_ways_that_are_no_better_than_the_commonest_class_are_not_recommended(source):
    """Permuted labels: naming one class always would be right more often than the run."""

    class Always(nn.Module):
        def forward(self, pixels):
            scores = torch.zeros(len(pixels), 4)
            bright = pixels.mean((1, 2, 3)) > 50  # only where pixels go to 255
            scores[:, 0] = bright.float()
            scores[:, 1] = (~bright).float()
            return scores

    only = replace(
        source, load=lambda position, mode: replace(source.load(position, mode), label="disc")
    )
    run = ran(Always(), only)
    run = replace(run, labels=np.zeros(300, dtype=np.int64))

    checks = check_preparation(run, RIGHT, sample=256)

    assert {check.verdict for check in checks} <= {"passed", "skipped"}
