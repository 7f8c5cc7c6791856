import pytest
import torch

from evalkit.errors import InputError
from evalkit.training import classification_loss, smoothing_for


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_smoothing_for_gives_the_targets_of_the_recipe(classes):
    """0.9 for the label, 0.1/(C-1) for each of the others, written out by hand as the oracle."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(16, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (16,), generator=generator)
    targets = torch.full((16, classes), 0.1 / (classes - 1), dtype=torch.float64)
    targets[torch.arange(16), labels] = 0.9
    by_hand = -(targets * logits.log_softmax(1)).sum(1).mean()

    loss = classification_loss(label_smoothing=smoothing_for(0.1, num_classes=classes))

    torch.testing.assert_close(loss(logits, labels), by_hand)


def test_soft_labels_are_taken_too():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    soft = torch.tensor([[0.0, 0.25, 0.75]])

    loss = classification_loss()(logits, soft)

    torch.testing.assert_close(loss, -(soft * logits.log_softmax(1)).sum())


def test_weights_of_classes():
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])

    loss = classification_loss(class_weights=torch.tensor([1.0, 0.0]))(logits, labels)

    torch.testing.assert_close(loss, torch.tensor(2.0).log())


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(InputError) as error:
        classification_loss(label_smoothing=smoothing)

    assert str(error.value) == f"label_smoothing must be in [0, 1), got {smoothing}"


@pytest.mark.parametrize(
    ("others", "classes", "message"),
    [
        (0.1, 1, "num_classes must be at least 2 and others in [0, 1), got 1 and 0.1"),
        (1.0, 3, "num_classes must be at least 2 and others in [0, 1), got 3 and 1.0"),
        (
            0.5,
            2,
            "others must be below 0.5 for 2 classes, got 0.5: the true class would get no more "
            "than the others",
        ),
    ],
)
def test_targets_that_cannot_be(others, classes, message):
    with pytest.raises(InputError) as error:
        smoothing_for(others, num_classes=classes)

    assert str(error.value) == message
