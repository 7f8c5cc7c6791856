"""The paths that only CUDA takes; run with -m gpu where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import noise
import numpy as np
import pytest
import torch
from torch import nn

from evalkit import evaluate, predict
from evalkit.inference.hardware import choose_device
from evalkit.inference.loop import Computation, run_over
from evalkit.inference.outputs import Rows
from evalkit.inference.transfer import IN_FLIGHT, uploaded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


def images(samples=300, size=64):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (samples, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return list(zip(pixels.split(size), (torch.arange(samples) % 5).split(size), strict=True))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    )  # fmt: skip


prepare = noise.TRANSFORM.normalize


def test_every_pixel_arrives_through_the_two_pinned_buffers():
    device = choose_device("cuda")
    batches = [(number, *pair) for number, pair in enumerate(images())]

    arrived = [
        (key, pixels.cpu(), labels.cpu()) for key, pixels, labels in uploaded(batches, device)
    ]

    assert [key for key, _, _ in arrived] == list(range(len(batches)))
    for (_, pixels, labels), (_, there, named) in zip(batches, arrived, strict=True):
        assert torch.equal(pixels, there)
        assert torch.equal(labels, named)


def test_agrees_with_the_cpu():
    model = net()

    here = predict(model, images(), device="cpu", prepare=prepare)
    there = predict(model, images(), device="cuda", prepare=prepare)

    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_allclose(there.confidence, here.confidence, atol=1e-5)
    np.testing.assert_array_equal(there.predictions, here.predictions)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_other_precisions_are_near(precision):
    model = net()

    exact = predict(model, images(), device="cuda", prepare=prepare)
    found = predict(model, images(), device="cuda", prepare=prepare, precision=precision)

    np.testing.assert_allclose(found.confidence, exact.confidence, atol=0.02)
    assert found.precision_flags["precision"] == precision


def test_nothing_waits_for_a_batch_that_has_just_been_given():
    """torch raises at every synchronisation but those of events, which are two batches old."""
    model = net().to("cuda")
    predict(model, images(), device="cuda", prepare=prepare)  # warm: cuDNN chooses
    delivered, given = [], []

    def watched():
        for number, pair in enumerate(images(samples=64 * 8)):
            given.append((number, len(delivered)))
            yield number, *pair

    before = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("error")
        run_over(
            model,
            watched(),
            lambda key, rows: delivered.append((key, len(rows))),
            how=Computation(device="cuda"),
            prepare=prepare,
        )
    finally:
        torch.cuda.set_sync_debug_mode(before)

    assert [key for key, _ in delivered] == list(range(8))
    assert all(number - done <= IN_FLIGHT + 1 for number, done in given)
    assert max(number - done for number, done in given) >= IN_FLIGHT


class Hungry(nn.Module):
    """Takes a GiB for every sample."""

    def forward(self, inputs):
        memory = torch.empty(len(inputs), 1 << 28, device=inputs.device)
        return inputs[:, :5] + memory[:, :5] * 0


def test_memory_that_is_really_full_splits_the_batch():
    free = torch.cuda.mem_get_info()[0] >> 30
    samples = int(free * 1.5)
    inputs = torch.rand(samples, 8)

    found = predict(Hungry(), [(inputs, torch.zeros(samples, dtype=torch.int64))], device="cuda")

    np.testing.assert_array_equal(found.predictions, inputs[:, :5].argmax(1))


def test_a_run_of_any_size_of_batches_and_the_same_resumed(tmp_path):
    checkpoint = noise.write_checkpoint(tmp_path / "net.pth")
    options = {"model": "noise:conv_net", "device": "cuda"}

    found = evaluate(checkpoint, "noise:noise", out=tmp_path / "a", batch_size="auto", **options)
    here = evaluate(checkpoint, "noise:noise", model="noise:conv_net", device="cpu")

    assert found.summary["throughput"]["batch_size"] >= 64
    assert found.summary["accuracy"] == pytest.approx(here.summary["accuracy"], abs=0.002)


def test_compiled_on_the_gpu():
    model, parts = net(), []

    run_over(
        model,
        [(None, *pair) for pair in images()],
        lambda _key, rows: parts.append(rows),
        how=Computation(device="cuda", compiled=True),
        prepare=prepare,
    )

    plain = predict(model, images(), device="cuda", prepare=prepare)
    found = Rows.joined(parts)
    assert len(found) == len(plain)
    np.testing.assert_allclose(found.as_logits[:, 0], plain.confidence, atol=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_under_torchrun(tmp_path):
    checkpoint = noise.write_checkpoint(tmp_path / "net.pth")
    command = [
        *(str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"),
        *("-m", "evalkit", "evaluate", "--checkpoint", str(checkpoint), "--data", "noise:noise"),
        *("--model", "noise:conv_net", "--out", str(tmp_path / "out")),
    ]

    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(noise.__file__).parent)},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
