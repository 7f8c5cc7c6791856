"""GD7xx: several GPUs in one machine."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, rule
from gpudiag.snapshot import Snapshot, known


@rule("GD701", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/86539")
def order_of_different_gpus(snapshot: Snapshot) -> Finding | None:
    """GPUs of different kinds are counted in another order by CUDA than by nvidia-smi.

    CUDA puts the fastest GPU first unless CUDA_DEVICE_ORDER=PCI_BUS_ID, so ``cuda:0`` may not be
    the GPU that nvidia-smi calls 0.
    """
    names = [known(gpu.name) for gpu in known(snapshot.nvml.gpus)]
    if len(set(names)) <= 1 or snapshot.environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return None
    order = snapshot.environment.get("CUDA_DEVICE_ORDER")
    return Finding(
        evidence=(
            "nvidia-smi counts: " + ", ".join(f"{i} {name}" for i, name in enumerate(names)),
            f"CUDA_DEVICE_ORDER is {order or 'not set'}, so CUDA counts the fastest first",
        ),
        cause="CUDA_VISIBLE_DEVICES=0 and cuda:0 may mean another GPU than expected",
        fix="export CUDA_DEVICE_ORDER=PCI_BUS_ID",
    )
