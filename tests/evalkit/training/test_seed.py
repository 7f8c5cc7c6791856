import os
import subprocess
import sys

import pytest
import torch

from evalkit.training import seed_everything


def test_deterministic_covers_cudnn_and_cublas_and_keeps_a_choice_that_is_there():
    program = (
        "import os, torch; from evalkit.training import seed_everything\n"
        "seed_everything(1); off = torch.are_deterministic_algorithms_enabled()\n"
        "torch.backends.cudnn.benchmark = True\n"
        "seed_everything(1, deterministic=True)\n"
        "print(off, torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,"
        " torch.backends.cudnn.deterministic, os.environ['CUBLAS_WORKSPACE_CONFIG'])\n"
        "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':16:8'\n"
        "seed_everything(1, deterministic=True); print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )

    assert done.stdout == "False True False True :4096:8\n:16:8\n"


@pytest.mark.gpu
def test_every_gpu_follows_the_seed():
    def draw():
        count = torch.cuda.device_count()
        return [torch.rand(3, device=f"cuda:{index}").tolist() for index in range(count)]

    seed_everything(3)
    first = draw()
    seed_everything(3)

    assert draw() == first
    assert draw() != first
