import pytest
import torch

from evalkit.errors import InputError
from evalkit.training import classification_loss, mixing, seed_everything

LABELS = torch.tensor([0, 1, 2, 2])


def images():
    """Every image is one number throughout, so that mixtures can be read off."""
    return torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8).clone()


def test_mixup_mixes_labels_as_it_mixes_images():
    seed_everything(1)

    inputs, labels = mixing(3, mixup=1.0)(images(), LABELS)

    partner = images().roll(1, 0)
    share = ((inputs - partner) / (images() - partner))[:, 0, 0, 0]  # of the image itself
    one_hot = torch.nn.functional.one_hot(LABELS, 3).float()
    expected = share[:, None] * one_hot + (1 - share[:, None]) * one_hot.roll(1, 0)
    torch.testing.assert_close(labels, expected)
    assert 0 < share[0] < 1
    torch.testing.assert_close(share, share[:1].expand(4))


def test_cutmix_mixes_labels_by_the_area_that_it_pastes():
    seed_everything(3)

    inputs, labels = mixing(3, cutmix=1.0)(images(), LABELS)

    pasted = (inputs != images()).float().mean((1, 2, 3))
    assert set(inputs.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert 0 < pasted[0] < 1
    torch.testing.assert_close(labels[0], torch.tensor([1 - pasted[0], 0.0, pasted[0]]))


def test_both_take_turns():
    seed_everything(0)
    mix = mixing(3, mixup=1.0, cutmix=1.0)

    blended = [
        not set(mix(images(), LABELS)[0].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
        for _ in range(40)
    ]

    assert 10 < sum(blended) < 30


def test_the_same_seed_mixes_the_same():
    def once():
        seed_everything(4)
        return mixing(3, mixup=0.2, cutmix=1.0)(images(), LABELS)

    (first, labels), (second, again) = once(), once()

    assert torch.equal(first, second)
    assert torch.equal(labels, again)


def test_the_loss_takes_what_comes_out():
    inputs, labels = mixing(3, mixup=0.2)(images(), LABELS)

    loss = classification_loss(label_smoothing=0.1)(inputs.flatten(1)[:, :3], labels)

    assert loss.isfinite()


def test_off_is_off():
    assert mixing(3) is None


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"mixup": -0.1}, "-0.1, 0.0 and 3"),
        ({"cutmix": -1.0}, "0.0, -1.0 and 3"),
        ({"num_classes": 1, "mixup": 0.2}, "0.2, 0.0 and 1"),
    ],
)
def test_numbers_out_of_range(options, got):
    with pytest.raises(InputError) as error:
        mixing(**{"num_classes": 3, **options})

    assert str(error.value) == (
        f"mixup and cutmix must be 0 or more and num_classes at least 2, got {got}"
    )
