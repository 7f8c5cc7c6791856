import layouts
import numpy as np
import pytest
import torch
from torch import nn

from evalkit.errors import InputError
from evalkit.inference.forward import Forward, find_batch_size
from evalkit.inference.hardware import is_out_of_memory
from evalkit.inference.layout import pays_channels_last
from evalkit.inference.loop import Computation, predict, run_over
from evalkit.inference.normalizer import Normalizer
from evalkit.inference.outputs import Rows
from evalkit.transforms import evaluation

CUDA_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
CPU_FULL = "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"


class Greedy(nn.Module):
    """Scores are the inputs; more than *most* samples at once are too many for its memory."""

    def __init__(self, most, error=CUDA_FULL):
        super().__init__()
        self.most = most
        self.error = error
        self.sizes = []

    def forward(self, scores):
        self.sizes.append(len(scores))
        if len(scores) > self.most:
            raise self.error
        return scores


def batches(samples=50, size=20, classes=4):
    scores = torch.randn(samples, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(samples) % classes
    return list(zip(scores.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize(
    "error",
    [
        CUDA_FULL,
        RuntimeError(CPU_FULL),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_a_batch_that_does_not_fit_is_split_and_no_sample_is_lost_or_repeated(error):
    model = Greedy(6, error)

    found, expected = (
        predict(model, batches(), device="cpu"),
        predict(Greedy(1_000), batches(), device="cpu"),
    )

    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.top, expected.top)
    np.testing.assert_array_equal(found.loss, expected.loss)
    # 20 and 10 failed; from then on parts of 5, at once
    assert model.sizes == [20, 10, *[5] * 10]


def test_memory_that_runs_short_later_shrinks_what_is_left_of_a_batch():
    model = Greedy(10)
    forward = Forward(model=model)
    inputs, labels = batches(samples=16, size=16)[0]

    model.most = 8
    first = Rows.of_tensors(forward(inputs, labels))
    model.most = 3
    second = Rows.of_tensors(forward(inputs, labels))

    assert model.sizes == [16, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert forward.most == 2
    np.testing.assert_array_equal(first.labels, labels)
    np.testing.assert_array_equal(second.top, first.top)


def test_not_even_one_sample_fits():
    with pytest.raises(InputError) as error:
        predict(Greedy(0), batches(), device="cpu")

    assert str(error.value) == (
        "a sample of shape (4,) must fit into the memory of cpu, got a model that needs more for "
        "one alone: free memory there, or take another device"
    )


def test_other_faults_of_a_model_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(MemoryError())

    with pytest.raises(InputError, match=r"^model \w+ must accept inputs of shape"):
        predict(Greedy(1, ValueError("no")), batches(), device="cpu")


def test_a_real_allocation_that_fails_on_the_cpu_is_recognised():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 55)

    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    ("most", "largest", "expected"), [(100, 64, 64), (100, 50, 50), (37, 512, 32), (1, 512, 1)]
)
def test_the_batch_size_is_found_by_trying(most, largest, expected):
    forward = Forward(model=Greedy(most))

    found = find_batch_size(
        forward, torch.ones(1, 4), torch.zeros(1, dtype=torch.int64), largest=largest
    )

    assert found == expected


def test_convolutions_get_channels_last_and_the_model_is_given_back_as_it_was():
    model = layouts.Laid()
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)

    predict(
        model, [(images, torch.zeros(6, dtype=torch.int64))], device="cpu",
        prepare=lambda pixels: pixels.float() / 255,
    )  # fmt: skip

    assert model.seen == [False, True, True]  # two samples tried both ways, and then all
    assert model.convolution.weight.is_contiguous()
    assert not pays_channels_last(nn.Conv2d(4, 8, 4, groups=4), torch.device("cpu"))


@pytest.mark.parametrize("kind", layouts.AWKWARD)
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_that_does_not_take_another_layout_is_computed_as_it_lies(kind, compiled):
    torch.manual_seed(0)
    model = kind().eval()
    strides = [one.stride() for one in (*model.parameters(), *model.buffers())]
    images = torch.rand(10, 3, 8, 8)
    with torch.inference_mode():
        expected = model(images)

    parts = []
    flags = run_over(
        model,
        [(None, part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(4)],
        lambda _key, rows: parts.append(rows),
        how=Computation(device="cpu", compiled=compiled),
    )

    confidence, _probability, loss, _brier = Rows.joined(parts).as_logits.T
    np.testing.assert_allclose(confidence, expected.softmax(1).max(1).values, rtol=1e-5)
    np.testing.assert_allclose(loss, -expected.log_softmax(1)[:, 0], rtol=1e-4)
    assert flags["channels_last"] is False
    assert [one.stride() for one in (*model.parameters(), *model.buffers())] == strides
    model.train()(images).sum().backward()  # it is not spoilt for training


def test_the_layout_that_was_computed_in_is_told():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3)).eval()
    batch = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)

    assert predict(model, [batch], device="cpu").precision_flags["channels_last"] is True


def test_all_precisions_agree_on_clear_cases():
    model = nn.Linear(8, 3)
    inputs = torch.rand(20, 8, generator=torch.Generator().manual_seed(1))
    given = [(inputs, torch.zeros(20, dtype=torch.int64))]

    confidences = {
        precision: predict(model, given, device="cpu", precision=precision).confidence
        for precision in ("fp32", "bf16", "fp16")
    }

    np.testing.assert_allclose(confidences["bf16"], confidences["fp32"], atol=0.02)
    np.testing.assert_allclose(confidences["fp16"], confidences["fp32"], atol=0.003)


def test_keys_come_back_with_their_results_in_order():
    given = [(number, *pair) for number, pair in enumerate(batches())]
    found = []

    flags = run_over(
        Greedy(1_000), given, lambda key, rows: found.append((key, len(rows), rows.scores.shape)),
        how=Computation(device="cpu", scores=True),
    )  # fmt: skip

    assert found == [(0, 20, (20, 4)), (1, 20, (20, 4)), (2, 10, (10, 4))]
    assert flags["precision"] == "fp32"
    assert flags["compiled"] is False


def test_ties_are_counted():
    rows = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 1.0], [float("nan"), 3.0, 3.0]])

    found = predict(Greedy(9), [(rows, torch.tensor([0, 0, 0]))], device="cpu")

    assert found.tied == 2
    assert found.top[:, 0].tolist() == [0, 0, 1]


class Counting(nn.Module):
    """Fails where more than one shape comes: a compiled model would be compiled again."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, inputs):
        if len(inputs) != 20:
            raise ValueError(f"{len(inputs)} samples")
        return self.linear(inputs)


def test_a_compiled_model_sees_one_shape_and_what_fills_it_counts_nowhere():
    forward = Forward(model=Counting(), padded=True)

    with torch.inference_mode():
        found = [Rows.of_tensors(forward(*pair)) for pair in batches()]

    assert [len(rows) for rows in found] == [20, 20, 10]


@pytest.mark.slow
def test_compiling_changes_no_prediction():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    images = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    given = list(zip(images.split(8), (torch.arange(30) % 5).split(8), strict=True))
    found = {}

    for compiled in (False, True):
        parts = []
        run_over(
            model,
            [(None, *pair) for pair in given],
            lambda _key, rows, parts=parts: parts.append(rows),
            how=Computation(device="cpu", compiled=compiled),
        )
        found[compiled] = Rows.joined(parts)

    np.testing.assert_array_equal(found[True].top, found[False].top)
    np.testing.assert_allclose(found[True].as_logits, found[False].as_logits, rtol=1e-4)
    assert len(found[True]) == 30


def test_scores_that_are_the_input_itself_are_kept_though_its_memory_is_used_again():
    batches = [torch.full((2, 3, 1, 2), value, dtype=torch.uint8) for value in (10, 200)]
    spec = evaluation()
    kept = {}

    run_over(
        nn.Flatten(),
        [(key, pixels, torch.zeros(2, dtype=torch.int64)) for key, pixels in enumerate(batches)],
        lambda key, rows: kept.update({key: rows.scores}),
        how=Computation(device="cpu", scores=True),
        prepare=Normalizer(spec),
    )

    for key, pixels in enumerate(batches):
        assert np.array_equal(kept[key], spec.normalize(pixels).flatten(1).numpy())
