import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from evalkit.errors import InputError
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


def test_timm_resizes_each_side_by_itself_or_at_another_size_than_in_training():
    net = timm.create_model("test_resnet")
    usual = {"input_size": (3, 160, 160), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    net.pretrained_cfg = usual | {"crop_mode": "squash", "interpolation": "bilinear"}

    squashed = preset_of(net, None)

    assert squashed.resize == squashed.crop == (160, 160)
    net.pretrained_cfg = usual | {"test_input_size": (3, 192, 192), "test_crop_pct": 0.96}
    assert preset_of(net, None).crop == (192, 192)
    assert preset_of(net, None).resize == 200
    assert preset_of(net, None, in_training=True).crop == (160, 160)


def test_timm_transforms_are_those_that_timm_makes():
    picture = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    net = timm.create_model("test_resnet")
    for mode in ("center", "squash"):
        net.pretrained_cfg = net.default_cfg | {"crop_mode": mode, "interpolation": "bicubic"}
        config = timm.data.resolve_data_config(model=net, use_test_size=True)
        expected = timm.data.create_transform(**config)(Image.fromarray(picture))

        found = preset_of(net, None)(Image.fromarray(picture))

        torch.testing.assert_close(found, expected)


def test_a_frame_is_refused_where_it_would_be_left_out_silently():
    net = timm.create_model("test_resnet")
    net.pretrained_cfg = net.default_cfg | {"crop_mode": "border"}

    with pytest.raises(InputError, match="crop_mode 'border', which frames images: write another"):
        preset_of(net, None)

    assert preset_of(net, None, in_training=True) is not None
