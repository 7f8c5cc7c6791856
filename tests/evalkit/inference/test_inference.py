import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from evalkit.errors import InputError
from evalkit.inference.hardware import choose_device, computing, environment
from evalkit.inference.loop import predict
from evalkit.inference.outputs import scores_of


class Table(nn.Module):
    """Returns what it is given: scores are the inputs."""

    def __init__(self, wrap=lambda scores: scores):
        super().__init__()
        self.wrap = wrap

    def forward(self, scores):
        return self.wrap(scores)


def scored(rows, labels, model=None, batch_size=3, **options):
    scores = torch.as_tensor(rows, dtype=torch.float32)
    labels = torch.as_tensor(labels)
    batches = zip(scores.split(batch_size), labels.split(batch_size), strict=True)
    return predict(model or Table(), batches, device="cpu", **options)


def random_scores(samples=50, classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(samples, classes, generator=generator) * 3
    return scores, torch.randint(0, classes, (samples,), generator=generator)


def test_agrees_with_a_plain_loop():
    scores, labels = random_scores()

    found = scored(scores, labels)

    probabilities = scores.double().softmax(1)
    one_hot = functional.one_hot(labels, 7)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.predictions, scores.argmax(1))
    np.testing.assert_array_equal(found.top, scores.topk(5, 1).indices)
    np.testing.assert_allclose(found.confidence, probabilities.max(1).values, rtol=1e-12)
    np.testing.assert_allclose(
        found.label_probability, probabilities.gather(1, labels[:, None])[:, 0], rtol=1e-12
    )
    loss = functional.cross_entropy(scores.double(), labels, reduction="none")
    np.testing.assert_allclose(found.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(found.brier, (probabilities - one_hot).square().sum(1), rtol=1e-12)
    assert not found.gave_probabilities
    assert found.not_finite == 0
    assert len(found) == 50


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_batch_size_changes_nothing(batch_size):
    scores, labels = random_scores()

    one, other = scored(scores, labels), scored(scores, labels, batch_size=batch_size)

    np.testing.assert_array_equal(one.top, other.top)
    np.testing.assert_array_equal(one.loss, other.loss)


def test_probabilities_are_recognised_and_not_squeezed_again():
    scores, labels = random_scores()

    found = scored(scores.softmax(1), labels)

    assert found.gave_probabilities
    np.testing.assert_allclose(found.confidence, scores.softmax(1).max(1).values, rtol=1e-6)
    np.testing.assert_allclose(
        found.loss, functional.cross_entropy(scores, labels, reduction="none"), rtol=1e-4
    )


def test_logarithms_of_probabilities_are_read_as_logits_which_they_are():
    scores, labels = random_scores()

    found = scored(scores.log_softmax(1), labels)

    assert not found.gave_probabilities
    np.testing.assert_allclose(found.confidence, scores.softmax(1).max(1).values, rtol=1e-5)


def test_one_row_that_sums_to_one_does_not_make_probabilities():
    assert not scored([[0.3, 0.7], [2.0, -1.0]], [0, 1]).gave_probabilities


def test_ties_go_to_the_first_class():
    found = scored([[1.0, 5.0, 5.0], [0.0, 0.0, 0.0]], [0, 0])

    assert found.top.tolist() == [[1, 2, 0], [0, 1, 2]]


def test_minus_infinity_beside_a_number_rules_a_class_out():
    infinite = -math.inf

    found = scored([[infinite, 1.0, 2.0], [infinite, infinite, infinite]], [1, 0])

    assert found.not_finite == 1  # the second: nothing is left
    assert found.predictions.tolist() == [2, 0]
    assert found.label_probability[0] == pytest.approx(1 / (1 + math.e))


def test_scores_that_are_no_numbers_are_counted_and_never_the_best():
    rows = [[0.0, math.nan, 1.0], [math.inf, 0.0, 0.0], [0.0, 1.0, 2.0]]

    found = scored(rows, [0, 0, 0])

    assert found.not_finite == 2
    assert found.predictions.tolist() == [2, 0, 2]
    assert np.isnan(found.loss[0])
    assert np.isfinite(found.loss[2])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda scores: (scores, "auxiliary"),
        lambda scores: [scores],
        lambda scores: {"logits": scores, "hidden": None},
        lambda scores: {"out": scores},
        lambda scores: scores[:, :, None, None],
    ],
)
def test_scores_are_found_in_what_models_return(wrap):
    found = scored([[0.0, 1.0], [3.0, 1.0]], [0, 0], model=Table(wrap))

    assert found.predictions.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "got NoneType"),
        ({"features": torch.ones(2, 3)}, "got a dict with features"),
        ({}, "got a dict with nothing in it"),
        (["a"], "got a list that begins with str"),
    ],
)
def test_outputs_without_scores(output, message):
    with pytest.raises(InputError) as error:
        scores_of(output, rows=2, classes=None)

    assert str(error.value) == (
        "model must return a tensor of scores, a tuple that begins with one, or a dict with one of "
        f"logits, scores, output, out, prediction, predictions, probs, probabilities, {message}"
    )


ONE_OUTPUT = (
    ": where one output x tells two classes apart, return both scores, "
    "torch.stack([-x, x], 1) / 2, whose softmax is the sigmoid of x"
)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (3, 4), (2, 4, 5), (2, 4, 5, 5)])
def test_scores_of_a_wrong_shape(shape):
    with pytest.raises(InputError) as error:
        scores_of(torch.ones(shape), rows=2, classes=None)

    assert str(error.value) == (
        f"model must return scores of shape (2, number of classes), got {shape}"
        + (ONE_OUTPUT if shape in {(2,), (2, 1)} else "")
    )


def test_scores_that_an_object_holds():
    scores = torch.ones(2, 3)

    assert scores_of(SimpleNamespace(loss=None, logits=scores), rows=2, classes=None) is scores


def test_the_advice_for_one_output_gives_its_sigmoid():
    output = torch.tensor([-2.0, 0.0, 3.0])

    torch.testing.assert_close(
        (torch.stack([-output, output], 1) / 2).softmax(1)[:, 1], output.sigmoid()
    )


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((torch.ones(2, 3), [0, 1], ["a", "b"]), "batches must be pairs of inputs and labels, got"),
        (({"x": 1}, [0]), "batches must be pairs of inputs and labels that torch makes tensors of"),
        ((torch.ones(2, 3), ["a", "b"]), "batches must be pairs of inputs and labels that torch"),
        ((torch.ones(2, 3), None), "batches must be pairs of inputs and labels that torch makes t"),
        ((torch.tensor(1.0), [0]), "inputs must have the shape (B, …), got a single number"),
        ({"x": torch.ones(2, 3)}, "batches must be pairs of inputs and labels, got a dict of 1"),
        ((torch.ones(2, 3), [0.0, 1.0]), "labels must be whole numbers of shape (2,), the positi"),
        ((torch.ones(2, 3), [[0], [1]]), "labels must be whole numbers of shape (2,), the positi"),
        ((torch.ones(2, 3), [0, 3]), "labels must be from 0 to 2, one for each of 3 outputs of th"),
        ((torch.ones(2, 3), [-1, 0]), "labels must be from 0 to 2, one for each of 3 outputs of t"),
    ],
)
def test_batches_that_are_no_pairs_of_inputs_and_positions(batch, said):
    with pytest.raises(InputError) as error:
        predict(nn.Identity(), [batch], device="cpu")

    assert str(error.value).startswith(said)


def test_arrays_lists_and_bytes_are_batches_as_well():
    scores = np.float32([[0, 1, 0], [2, 1, 0]])

    found = predict(nn.Identity(), [(scores, np.uint8([1, 0])), (scores, [1, 0])], device="cpu")

    assert found.predictions.tolist() == [1, 0, 1, 0]
    assert found.labels.tolist() == [1, 0, 1, 0]


def test_head_of_another_size_than_the_classes():
    with pytest.raises(InputError) as error:
        scored([[0.0, 1.0, 2.0]], [0], classes=["cat", "dog"])

    assert str(error.value) == (
        "model must give one score for each of 2 classes (cat, dog), got 3: name the classes of "
        "all its outputs, in their order, with classes"
    )


@pytest.mark.parametrize("classes", [3, "cat", {"cat", "dog", "owl"}])
def test_classes_that_are_no_names_in_their_order(classes):
    with pytest.raises(InputError) as error:
        scored([[0.0, 1.0, 2.0]], [0], classes=classes)

    assert str(error.value) == (
        "classes must be a list of names, one for each output of the model, in their order, "
        f"got {classes!r}"
    )


def test_no_samples():
    with pytest.raises(InputError) as error:
        predict(Table(), [], device="cpu")

    assert str(error.value) == "batches must hold at least one sample, got none"


def test_model_that_cannot_take_the_input():
    with pytest.raises(InputError) as error:
        scored([[0.0, 1.0, 2.0]], [0], model=nn.Conv2d(3, 2, 1))

    assert str(error.value).startswith(
        "model Conv2d must accept inputs of shape (1, 3), got RuntimeError: Expected 3D "
    )


class Watching(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm1d(2)
        self.frozen.eval()
        self.drop = nn.Dropout()
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, self.drop.training, torch.is_inference_mode_enabled()))
        return self.drop(self.frozen(x))


def test_model_runs_in_evaluation_mode_and_gets_its_own_back():
    model = Watching().train()
    model.frozen.eval()

    found = scored([[0.0, 1.0]], [1], model=model)

    assert model.seen == [(False, False, True)]
    assert found.predictions.tolist() == [1]
    assert (model.training, model.drop.training, model.frozen.training) == (True, True, False)


class Stubborn(nn.Linear):
    def train(self, mode=True):  # noqa: ARG002, FBT002 - torch's own signature
        return super().train(mode=True)


def test_model_that_stays_in_training_mode():
    with pytest.raises(InputError) as error:
        scored([[0.0, 1.0]], [1], model=nn.Sequential(Stubborn(2, 2)))

    assert str(error.value) == "model must be in evaluation mode after eval(), got training: 0"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_computes_in_it_and_scores_in_double(precision):
    model = nn.Linear(3, 4)
    inputs = torch.rand(6, 3)

    found = scored(inputs, [0] * 6, model=model, precision=precision)

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        expected = model(inputs)
    assert expected.dtype is dtype
    np.testing.assert_array_equal(found.predictions, expected.float().argmax(1))
    np.testing.assert_allclose(found.confidence, expected.double().softmax(1).max(1).values)
    assert found.precision_flags["precision"] == precision


def test_settings_of_torch_are_put_back():
    torch.set_float32_matmul_precision("medium")
    before = torch.backends.cudnn.allow_tf32
    try:
        with computing(torch.device("cpu"), "fp32") as flags:
            assert flags["float32_matmul_precision"] == "highest"
            assert flags["cudnn_allow_tf32"] is False
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32 == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_devices_and_precisions_that_are_not_there():
    with pytest.raises(InputError) as error:
        choose_device("gpu")
    assert str(error.value) == "device must be auto, cuda, mps, xpu, cpu or cuda:N, got 'gpu'"

    with pytest.raises(InputError) as error:
        scored([[0.0, 1.0]], [1], precision="tf32")
    assert str(error.value) == (
        "precision must be fp32, bf16 or fp16 on cpu, got 'tf32', which is CUDA's"
    )

    with pytest.raises(InputError) as error:
        scored([[0.0, 1.0]], [1], precision="int8")
    assert str(error.value) == "precision must be one of fp32, tf32, bf16, fp16, got 'int8'"


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(name):
    with pytest.raises(InputError) as error:
        choose_device(name)

    assert str(error.value) == (
        f"device must be one that is there, got '{name}': torch sees none: run 'gpudiag diagnose' "
        "to see why"
    )


def test_environment_names_what_a_repetition_needs():
    found = environment(torch.device("cpu"))

    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert set(found) == {
        "python", "platform", "torch", "torchvision", "cuda", "device", "device_name", "threads",
        "versions", "findings",
    }  # fmt: skip
    assert found["versions"]["python"] == found["python"]  # gpudiag's


def test_progress_is_not_shown_where_there_is_no_terminal(capfd):
    scored([[0.0, 1.0]], [1], total=1)

    assert capfd.readouterr() == ("", "")


def test_a_row_that_is_no_number_has_no_say_in_what_the_others_are():
    rows = [[0.3, 0.7], [math.nan, math.nan], [math.nan, 0.5]]

    assert scored(rows, [0, 1, 0]).gave_probabilities
    assert not scored([*rows, [3.0, -1.0]], [0, 1, 0, 1]).gave_probabilities
    assert not scored([[-math.inf, 0.4], [0.5, 0.5]], [0, 1]).gave_probabilities
