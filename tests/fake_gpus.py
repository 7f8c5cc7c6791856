"""The active tests on two GPUs that are the CPU, first sound ones, then each with a fault.

Usage: python fake_gpus.py         prints what the tests say, each case behind a line {"case": NAME}
       python fake_gpus.py sound   prints the first one alone, as the child of gpudiag measure does

Whatever a test asks of torch.cuda is answered here, so that the code for GPUs is run where there is
none; what is measured is the CPU.
"""

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "gpudiag" / "children"))
import measure
from active import copies, devices, effort, products, said, training

MIB = 2**20
SMALL = effort.Sizes(
    side=64,
    repeated_side=32,
    copy_bytes=MIB,
    peer_bytes=MIB,
    collective_bytes=MIB,
    allocation_bytes=MIB,
    chunk_bytes=MIB,
    spare_bytes=MIB,
    images=2,
    image_side=32,
    convolution_side=8,
)
UUIDS = ("6018366c-f658-47a7-aed3-4fe53a096533", "0b3510b0-b46e-41da-a170-17a6205738d1")
EFFORT = effort.Effort(seconds=0.01, quick=True, sizes=SMALL)
FIRST, SECOND = torch.device("cpu", 0), torch.device("cpu", 1)


class Event:
    """The wall clock, in milliseconds between two events."""

    def __init__(self, *, enable_timing):
        assert enable_timing

    def record(self, _):
        self.at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, later):
        return (later.at - self.at) * 1e3


def properties(device):
    return SimpleNamespace(
        name="NVIDIA H200",
        uuid=UUIDS[device.index],
        total_memory=128 * MIB,
        multi_processor_count=132,
    )


CUDA = {
    "is_available": lambda: True,
    "init": lambda: None,
    "device_count": lambda: 2,
    "set_device": lambda _: None,
    "synchronize": lambda _: None,
    "empty_cache": lambda: None,
    "current_stream": lambda _: None,
    "can_device_access_peer": lambda _, __: True,
    "get_device_capability": lambda _: (9, 0),
    "get_device_properties": properties,
    "mem_get_info": lambda _: (9 * MIB, 128 * MIB),
    "Event": Event,
}


def unpinned(empty):
    def without(*size, **how):
        how.pop("pin_memory", None)
        return empty(*size, **how)

    return without


@contextmanager
def instead(owner, name, replacement):
    """A function of torch replaced for a while; the replacement gets the original first."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **how: replacement(original, *args, **how))
    yield
    setattr(owner, name, original)


def case(name):
    said.say(case=name)


def different_each_time(matmul, a, b, count=[]):  # noqa: B006 - it counts
    count.append(1)
    return matmul(a, b) + len(count)


def one_byte_wrong(copy, target, *args, **how):
    done = copy(target, *args, **how)
    done.view(-1)[0] += 1
    return done


def wrong_when_sent(to, tensor, *args, **how):
    done = to(tensor, *args, **how)
    if args == (SECOND,):
        done = done + 1
    return done


def a_word_keeps_its_bits(fill, tensor, value):
    fill(tensor, value)
    tensor[3] = 7
    return tensor


def addresses_collide(arange, *args, **how):
    done = arange(*args, **how)
    if "out" in how:
        done[0] = done[1]
    return done


def fails_with(error):
    def fail(*_, **__):
        raise error

    return fail


def with_faults():
    matmul = (torch.Tensor, "__matmul__")
    bf16 = (FIRST, products.repeatable, EFFORT, "bf16")
    case("bits that change")
    with instead(*matmul, different_each_time):
        said.attempt("repeatable bf16", *bf16)
    case("not a number")
    with instead(*matmul, lambda original, a, b: original(a, b) / 0):
        said.attempt("repeatable bf16", *bf16)
    case("zeros")
    with instead(*matmul, lambda original, a, b: original(a, b) * 0):
        said.attempt("matmul fp16", FIRST, products.matmul, EFFORT, "fp16")
    case("an error of the device")
    with instead(*matmul, fails_with(RuntimeError("CUDA error: uncorrectable ECC error"))):
        said.attempt("matmul fp16", FIRST, products.matmul, EFFORT, "fp16")
    case("not offered")
    with instead(torch, "_scaled_mm", fails_with(RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED"))):
        said.attempt("matmul fp8", FIRST, products.matmul, EFFORT, "fp8")
    case("no memory left")
    with instead(torch, "empty_like", fails_with(torch.OutOfMemoryError("CUDA out of memory"))):
        said.attempt("copy", FIRST, copies.within, EFFORT)
    case("a convolution that is not a number")
    with instead(torch.nn.Conv2d, "forward", lambda run, layer, x: run(layer, x) * float("nan")):
        said.attempt("convolution", FIRST, training.convolution, EFFORT)
        said.attempt("training step", FIRST, training.training_step, EFFORT)
    case("copies within")
    with instead(torch.Tensor, "copy_", one_byte_wrong):
        said.attempt("copy", FIRST, copies.within, EFFORT)
    case("copies by way of the host")
    with instead(torch.Tensor, "copy_", one_byte_wrong):
        said.attempt("host copy", FIRST, copies.to_and_from_host, EFFORT)
    case("copies to the other GPU")
    with instead(torch.Tensor, "to", wrong_when_sent):
        copies.peers([FIRST, SECOND], EFFORT)
    case("memory that keeps its bits")
    with instead(torch.Tensor, "fill_", a_word_keeps_its_bits):
        said.attempt("memory", FIRST, copies.memory, EFFORT)
    case("addresses that collide")
    with instead(torch, "arange", addresses_collide):
        said.attempt("memory", FIRST, copies.memory, EFFORT)
    case("too little memory")
    with instead(torch.cuda, "mem_get_info", lambda *_: (MIB, 128 * MIB)):
        said.attempt("memory", FIRST, copies.memory, EFFORT)


def main():
    torch.set_num_threads(1)
    for name, answer in CUDA.items():
        setattr(torch.cuda, name, answer)
    torch.empty = unpinned(torch.empty)
    devices.is_gpu = lambda _: True
    devices.gpu = lambda index: torch.device("cpu", index)
    effort.GPU = SMALL
    if sys.argv[1:] == ["sound"]:
        measure.main({"devices": [], "seconds": 0.1, "quick": True})
        return
    case("sound")
    measure.main({"devices": [], "seconds": 0.01, "quick": True})
    case("one of them")
    measure.main({"devices": [1], "seconds": 0.01, "quick": True})
    case("not there")
    measure.main({"devices": [0, 2], "seconds": 0.01, "quick": True})
    with_faults()


if __name__ == "__main__":
    main()
