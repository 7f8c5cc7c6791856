"""Measure torch's devices, a line per figure as soon as it is known.

Usage: python measure.py '{"devices": [0, 1], "seconds": 1.0, "quick": false}'
Devices are torch's indices; without any it measures all, without a GPU the CPU. Under torchrun each
rank measures its own device, and all of them their collectives.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

import torch

OPTIONS = json.loads(sys.argv[1])
SECONDS, QUICK = float(OPTIONS["seconds"]), bool(OPTIONS["quick"])
LEAST_REPEATS, MOST_REPEATS = 3, 500
MIB = 2**20
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
SEED = 20
AMPERE, ADA = (8, 0), (8, 9)  # the first with bfloat16 and TF32, the first with 8-bit floats
PATTERNS = (0x00, 0xFF, 0x55, 0xAA)


def say(**facts: Any) -> None:
    """Tell the parent; what has been said is kept even if the next test is fatal."""
    print(json.dumps(facts), flush=True)


def figure(test: str, device: Any, value: float, unit: str, **more: Any) -> None:
    """One measured number."""
    say(figure={"test": test, "device": str(device), "value": value, "unit": unit, **more})


def fault(test: str, device: Any, reason: str) -> None:
    """A result that is wrong."""
    say(fault={"test": test, "device": str(device), "reason": reason})


def attempt(test: str, device: Any, measure: Callable[..., object], *arguments: Any) -> bool:
    """Run a test; why it could not be run is told, and the next one follows."""
    say(testing={"test": test, "device": str(device)})
    try:
        measure(device, *arguments)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        say(skipped={"test": test, "device": str(device), "reason": reason})
        return False
    return True


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def once_s(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds of one run, by the device's own clock where it has one."""
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    event: Any = torch.cuda.Event  # not typed
    first, last = event(enable_timing=True), event(enable_timing=True)
    first.record(torch.cuda.current_stream(device))
    run()
    last.record(torch.cuda.current_stream(device))
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def times_s(device: torch.device, run: Callable[[], object]) -> list[float]:
    """Seconds of each repeat, after a warm-up of a third of the time."""
    for share, keep in ((SECONDS / 3, False), (SECONDS, True)):
        found: list[float] = []
        limit = time.monotonic() + share
        while len(found) < MOST_REPEATS and (
            len(found) < LEAST_REPEATS or time.monotonic() < limit
        ):
            found.append(once_s(device, run))
        if keep:
            return found
    raise AssertionError


def rate(
    test: str, device: torch.device, run: Callable[[], object], work: float, unit: str, **more: Any
) -> None:
    """*work* per median second, with how far the repeats lie apart."""
    found = times_s(device, run)
    median = statistics.median(found)
    low, _, high = statistics.quantiles(found, n=4)
    figure(
        test,
        device,
        work / median,
        unit,
        repeats=len(found),
        spread_fraction=(high - low) / median,
        **more,
    )


def random(device: torch.device, *shape: int, dtype: Any = torch.float32) -> Any:
    """Seeded normal numbers, the same on every device: zeros and constants run faster."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(*shape, generator=generator).to(device=device, dtype=dtype)


def size_of(device: torch.device) -> int:
    """The side of the matrices."""
    if device.type == "cuda":
        return 8192
    return 512 if QUICK else 1024


def precisions(device: torch.device) -> Iterator[str]:
    """What the device has units for."""
    yield "fp32"
    if device.type != "cuda":
        yield "bf16"
        return
    capability = torch.cuda.get_device_capability(device)
    yield "fp16"
    if capability >= AMPERE:
        yield from ("tf32", "bf16")
    if capability >= ADA and hasattr(torch, "_scaled_mm"):
        yield "fp8"


def use_tf32(*, on: bool) -> None:
    """Let fp32 products use the tensor cores, or not."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        matmul.fp32_precision = "tf32" if on else "ieee"
    else:
        matmul.allow_tf32 = on


def matmul(device: torch.device, precision: str) -> None:
    """A square product."""
    n = size_of(device)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    a, b = random(device, n, n, dtype=dtype), random(device, n, n, dtype=dtype).t().contiguous()
    use_tf32(on=precision == "tf32")

    def run() -> Any:
        return a @ b

    if precision == "fp8":
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t().contiguous().t()
        one = torch.ones((), device=device)

        def run() -> Any:
            return torch._scaled_mm(a8, b8, one, one, out_dtype=torch.bfloat16)  # noqa: SLF001 - no public form

    product = run()
    if not bool(torch.isfinite(product).all()):
        fault("matmul", device, f"the {precision} product holds NaN or infinity")
    elif not bool(product.any()):
        fault("matmul", device, f"the {precision} product is all zeros")
    rate("matmul", device, run, 2 * n**3 / 1e12, "TFLOP/s", precision=precision)
    use_tf32(on=False)


def repeatable(device: torch.device, reference: list[Any]) -> None:
    """The same product twice, and as on the first device of this kind, bit by bit."""
    n = 2048 if device.type == "cuda" else 256
    a = random(device, n, n)
    first, second = (a @ a).cpu(), (a @ a).cpu()
    if not torch.equal(first, second):
        fault("repeatable", device, "the same product gave different bits the second time")
    if reference and not torch.equal(reference[0], first):
        fault("repeatable", device, "the product differs from that of another GPU of this kind")
    if not reference:
        reference.append(first)
    figure("repeatable", device, 1.0, "checked")


def copies(device: torch.device) -> None:
    """Within the device, counting bytes read and written; to and from the host."""
    size = (1024 if device.type == "cuda" else 32 if QUICK else 128) * MIB
    source = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    rate("copy", device, lambda: target.copy_(source), 2 * size / 1e9, "GB/s", detail="device")
    if device.type != "cuda":
        return
    for detail, pin in (("pinned", True), ("pageable", False)):
        host = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
        host.fill_(1)
        for way, to, of in (("to device", target, host), ("to host", host, source)):

            def run(to: Any = to, of: Any = of) -> Any:
                return to.copy_(of, non_blocking=True)

            rate("copy", device, run, size / 1e9, "GB/s", detail=f"{detail} {way}")


def memory_pattern(device: torch.device) -> None:
    """Known bytes written over free memory and read again."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        size = min(free // 2, 1024 * MIB) if QUICK else int(free * 0.9)
    else:
        size = 16 * MIB
    chunk = 256 * MIB
    blocks = [
        torch.empty(min(chunk, size - start), dtype=torch.uint8, device=device)
        for start in range(0, size, chunk)
    ]
    for pattern in PATTERNS:
        for block in blocks:
            block.fill_(pattern)
        wrong = sum(int((block != pattern).sum()) for block in blocks)
        if wrong:
            fault("memory", device, f"{wrong} bytes did not keep the pattern 0x{pattern:02X}")
    figure("memory", device, size / 2**30, "GiB checked")


def latencies(device: torch.device) -> None:
    """Launching a kernel, allocating memory."""
    small = torch.zeros(1, device=device)
    count = 1000

    def launch() -> None:
        for _ in range(count):
            small.add_(1)

    launch()
    synchronize(device)
    started = time.perf_counter()
    launch()
    synchronize(device)
    figure("launch", device, (time.perf_counter() - started) / count * 1e6, "µs")
    if device.type == "cuda":
        torch.cuda.empty_cache()
        started = time.perf_counter()
        torch.empty(256 * MIB, dtype=torch.uint8, device=device)
        synchronize(device)
        figure("allocation", device, (time.perf_counter() - started) * 1e6, "µs")


def convolution(device: torch.device) -> None:
    """A convolution as in the middle of a ResNet."""
    batch, side = (64, 56) if device.type == "cuda" else (4, 28)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(device)
    images = random(device, batch, 64, side, side)
    with torch.no_grad():
        if not bool(torch.isfinite(layer(images)).all()):
            fault("convolution", device, "the result holds NaN or infinity")
        work = 2 * batch * side * side * 64 * 64 * 9 / 1e12
        rate("convolution", device, lambda: layer(images), work, "TFLOP/s", precision="fp32")


def training_step(device: torch.device) -> None:
    """One step of ResNet-18."""
    from torchvision.models import resnet18

    batch, side = (64, 224) if device.type == "cuda" else (4, 64)
    torch.manual_seed(SEED)
    model = resnet18().to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = random(device, batch, 3, side, side)
    labels = torch.arange(batch, device=device)

    def step() -> Any:
        optimizer.zero_grad()
        loss: Any = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    if not bool(torch.isfinite(step())):
        fault("training step", device, "the loss is NaN or infinite")
    rate("training step", device, step, batch, "images/s", detail="resnet18")


def peers(devices: list[torch.device]) -> None:
    """Known bytes from each GPU to each other one, compared by way of the CPU."""
    size = 256 * MIB
    for source in devices:
        for target in devices:
            if source != target:
                attempt("peer copy", source, peer_copy, target, size)


def peer_copy(source: torch.device, target: torch.device, size: int) -> None:
    """One pair."""
    pattern = torch.arange(size // 8, dtype=torch.int64).to(source)
    arrived = pattern.to(target)
    if not torch.equal(arrived.cpu(), pattern.cpu()):
        fault("peer copy", source, f"bytes arrived changed on {target}")
    direct = torch.cuda.can_device_access_peer(source, target)
    detail = f"to {target}, {'direct' if direct else 'by way of the host'}"
    rate("peer copy", source, lambda: arrived.copy_(pattern), size / 1e9, "GB/s", detail=detail)


def collectives(device: torch.device) -> None:
    """Bus bandwidth of all-reduce and all-gather, as nccl-tests count it."""
    import datetime as dt

    from torch import distributed

    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=dt.timedelta(seconds=60))
    try:
        size = (1024 if device.type == "cuda" else 4 if QUICK else 32) * MIB
        own = torch.full((size // 4,), float(RANK + 1), device=device)
        total = own.clone()
        distributed.all_reduce(total)
        if not bool((total == WORLD * (WORLD + 1) / 2).all()):
            fault("all-reduce", device, f"rank {RANK} holds a wrong sum")
        everyone = [torch.empty_like(own) for _ in range(WORLD)]
        for test, run, work in (
            ("all-reduce", lambda: distributed.all_reduce(total), 2 * size * (WORLD - 1) / WORLD),
            ("all-gather", lambda: distributed.all_gather(everyone, own), size * (WORLD - 1)),
        ):
            found = []
            for _ in range(3 if QUICK else 20):  # as many on every rank, or they would wait forever
                distributed.barrier()
                found.append(once_s(device, run))
            bandwidth = work / statistics.median(found) / 1e9
            ranks: list[Any] = [None] * WORLD
            distributed.all_gather_object(ranks, bandwidth)
            if RANK == 0:
                for rank, value in enumerate(ranks):
                    figure(test, f"rank {rank}", value, "GB/s", detail=f"bus, {WORLD} ranks")
        if any((got != number + 1).any() for number, got in enumerate(everyone)):
            fault("all-gather", device, f"rank {RANK} holds what others did not send")
    finally:
        distributed.destroy_process_group()


def chosen() -> list[torch.device]:
    """The devices to measure."""
    if not torch.cuda.is_available():
        return [torch.device("cpu")]
    if WORLD > 1:
        return [torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))]
    indices = OPTIONS["devices"] or range(torch.cuda.device_count())
    return [torch.device("cuda", index) for index in indices]


def describe(device: torch.device) -> None:
    """Who it is."""
    if device.type != "cuda":
        say(device={"device": "cpu", "name": None, "uuid": None, "memory_total_bytes": None})
        return
    started = time.perf_counter()
    torch.cuda.set_device(device)
    torch.zeros(1, device=device)
    synchronize(device)
    figure("start", device, time.perf_counter() - started, "s")
    properties = torch.cuda.get_device_properties(device)
    uuid = getattr(properties, "uuid", None)
    say(
        device={
            "device": str(device),
            "name": properties.name,
            "uuid": None if uuid is None else f"GPU-{uuid}",
            "memory_total_bytes": properties.total_memory,
        }
    )


def main() -> None:
    """Measure, from what can hardly fail to what may crash."""
    devices = chosen()
    references: dict[str, list[Any]] = {}
    for device in devices:
        if not attempt("start", device, describe):
            continue
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        attempt("repeatable", device, repeatable, references.setdefault(kind, []))
        for precision in precisions(device):
            attempt(f"matmul {precision}", device, matmul, precision)
        for test, measure in {
            "copy": copies,
            "latencies": latencies,
            "convolution": convolution,
            "training step": training_step,
            "memory": memory_pattern,
        }.items():
            attempt(test, device, measure)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if devices[0].type == "cuda" and WORLD == 1:
        peers(devices)
    if WORLD > 1:
        attempt("collectives", devices[0], collectives)
    say(finished=True)


main()
