import torch

from evalkit.inference.normalizer import Normalizer
from evalkit.transforms import evaluation


def test_batches_of_any_size_and_layout_are_normalised_in_the_same_memory():
    spec = evaluation()
    normalizer = Normalizer(spec)
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 6, 5), (4, 3, 6, 5), (2, 3, 6, 5), (5, 3, 6, 5), (1, 3, 9, 9)]
    places = []
    for shape in shapes:
        for layout in (torch.contiguous_format, torch.channels_last):
            pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
            pixels = pixels.contiguous(memory_format=layout)

            found = normalizer(pixels)

            assert torch.equal(found, spec.normalize(pixels))
            assert torch.equal(found, spec.normalize(pixels.contiguous()))
        again = normalizer(pixels)
        places.append(again.data_ptr() == found.data_ptr())

    assert places == [True] * 5


def test_memory_made_in_inference_mode_is_of_use_outside():
    normalizer = Normalizer(evaluation())
    pixels = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    with torch.inference_mode():
        within = normalizer(pixels).clone()

    assert torch.equal(normalizer(pixels), within)
