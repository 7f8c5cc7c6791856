import timm
from torch import nn

from evalkit.presets import preset_of
from evalkit.transforms import evaluation


def test_presets_that_models_bring_along():
    model = nn.Linear(1, 1)
    assert preset_of(model, None) is None
    assert preset_of(model, "own_net:net") is None

    model.transform = evaluation(resize=32, crop=28)
    assert preset_of(model, None) == evaluation(resize=32, crop=28)

    assert preset_of(nn.Linear(1, 1), "torchvision:efficientnet_b0") == evaluation(
        interpolation="bicubic"
    )
    assert preset_of(timm.create_model("test_resnet"), "timm:test_resnet") == evaluation(
        resize=168, crop=(160, 160), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
