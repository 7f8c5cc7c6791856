"""Which GPUs CUDA_VISIBLE_DEVICES leaves to this process."""

from __future__ import annotations

from gpudiag.snapshot import Gpu, NotObserved, Snapshot, known, known_or
from gpudiag.visible_devices import VisibleDevices, parse_visible_devices

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible(snapshot: Snapshot) -> tuple[str, VisibleDevices | None]:
    """The value of CUDA_VISIBLE_DEVICES and how CUDA reads it; None where it is not set."""
    value = snapshot.environment.get(VARIABLE)
    if value is None:
        return "", None
    try:
        count = len(known(snapshot.nvml.gpus))
    except NotObserved:
        count = None  # the list can still be read, only not be held against the machine
    return value, parse_visible_devices(value, device_count=count)


def visible_gpus(snapshot: Snapshot) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; all where it is not set, or leaves none.

    Raises:
        NotObserved: The GPUs are not known, or it is not known which of them an index means.
    """
    gpus = known(snapshot.nvml.gpus)
    try:
        _, read = visible(snapshot)
    except NotObserved:
        return gpus
    if read is None or len(read.kept) in {0, len(gpus)}:
        return gpus
    names = tuple(entry for entry in read.kept if isinstance(entry, str))
    if names:
        return tuple(gpu for gpu in gpus if any(u.startswith(names) for u in uuids(gpu))) or gpus
    by_address = snapshot.environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if by_address or len({known_or(gpu.name, "") for gpu in gpus}) == 1:
        return tuple(gpus[entry] for entry in read.kept if isinstance(entry, int))
    of_torch = {device.uuid for device in known_or(snapshot.torch.devices, ())}
    listed = tuple(gpu for gpu in gpus if gpu.uuid in of_torch)
    if len(listed) == len(read.kept):
        return listed
    kinds = {known_or(device.name, "") for device in known_or(snapshot.torch.devices, ())}
    alike = tuple(gpu for gpu in gpus if known_or(gpu.name, None) in kinds)
    if len(alike) == len(read.kept):  # an old torch tells no UUID, but which kind it got
        return alike
    raise NotObserved(
        f"{VARIABLE} counts the fastest GPU first, unless CUDA_DEVICE_ORDER is PCI_BUS_ID"
    )


def uuids(gpu: Gpu) -> tuple[str, ...]:
    """The names by which CUDA_VISIBLE_DEVICES may call a GPU and its MIG instances."""
    return (*([gpu.uuid] if isinstance(gpu.uuid, str) else []), *known_or(gpu.mig_uuids, ()))
