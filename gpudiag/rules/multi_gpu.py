"""GD7xx: several GPUs in one machine."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import in_container
from gpudiag.snapshot import Gpu, Snapshot, known

PEERS_HANG = "https://github.com/NVIDIA/nccl/issues/631"
PEERS_CORRUPT = "https://github.com/pytorch/pytorch/issues/84803"
UNTRANSLATED = ("iommu=pt", "iommu=off", "intel_iommu=off", "amd_iommu=off", "iommu.passthrough=1")


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


@rule("GD702", Severity.WARNING, PEERS_HANG, PEERS_CORRUPT)
def peer_traffic_rerouted(snapshot: Snapshot) -> Finding | None:
    """PCI bridges send what GPUs exchange through the processor.

    Access control (ACS) is on in a bridge: peer traffic is redirected to the root of the bus,
    where it is slow, or is lost. Virtual machines need that; on bare metal it does harm.

    Ignore it when all GPUs talk over NVLink, or virtual machines run on this host.
    """
    if known(snapshot.system.virtual_machine) is not None or len(known(snapshot.nvml.gpus)) <= 1:
        return None
    bridges = known(snapshot.system.acs_redirects)
    if not bridges:
        return None
    return Finding(
        evidence=(f"{len(bridges)} PCI bridge(s) redirect peer traffic: {', '.join(bridges[:4])}",),
        cause="NCCL hangs or is slow, and copies between GPUs may arrive wrong",
        fix="switch ACS off in the BIOS; or for each bridge: sudo setpci -s <bridge> "
        "ECAP_ACS+6.w=0000",
    )


@rule("GD703", Severity.NOTE, PEERS_HANG, PEERS_CORRUPT)
def addresses_translated(snapshot: Snapshot) -> Finding | None:
    """The IOMMU translates what GPUs send to one another over the PCI bus.

    It is on without passing host devices through (iommu=pt), on bare metal with several GPUs that
    reach each other over the bus.

    Ignore it when training over several GPUs neither hangs nor gives NaN.
    """
    if known(snapshot.system.virtual_machine) is not None or in_container(snapshot):
        return None
    if known(snapshot.system.iommu_groups) == 0:
        return None
    parameters = known(snapshot.system.kernel_parameters)
    if any(parameter in UNTRANSLATED for parameter in parameters):
        return None
    over_bus = [pair for pair in known(snapshot.nvml.pairs) if known(pair.p2p_nvlink) != "ok"]
    if not any(known(pair.p2p_read) == "ok" for pair in over_bus):
        return None
    return Finding(
        evidence=(
            f"{known(snapshot.system.iommu_groups)} IOMMU groups",
            f"kernel parameters: {' '.join(parameters) or 'none on the IOMMU'}",
        ),
        cause="on some boards peer copies then hang or arrive wrong",
        fix="boot with the kernel parameter iommu=pt; or export NCCL_P2P_DISABLE=1",
    )


@rule("GD707", Severity.NOTE, "https://github.com/stas00/ml-engineering")
def no_peer_access(snapshot: Snapshot) -> Finding | None:
    """GPUs of this machine cannot reach each other directly.

    GeForce cards from the RTX 40 on and the L4 lack peer access by design; boards may lack it, too.

    Ignore it: there is nothing to mend. It explains slow collectives.
    """
    pairs = known(snapshot.nvml.pairs)
    apart = [p for p in pairs if known(p.p2p_read) != "ok" or known(p.p2p_write) != "ok"]
    if not apart:
        return None
    return Finding(
        evidence=tuple(f"GPU {p.first} and GPU {p.second}: {known(p.p2p_read)}" for p in apart[:4]),
        cause="what they exchange goes through the host's memory",
        fix="nothing to do; plan with the speed of the PCI bus",
    )


@rule("GD716", Severity.WARNING, "https://github.com/stas00/ml-engineering")
def settings_differ(snapshot: Snapshot) -> Finding | None:
    """GPUs of one kind are set differently.

    Compared are error correction and the compute mode of GPUs of the same name.

    Ignore it when the GPUs serve different purposes.
    """
    evidence = []
    by_name: dict[str, list[Gpu]] = {}
    for gpu in known(snapshot.nvml.gpus):
        by_name.setdefault(known(gpu.name), []).append(gpu)
    for name, gpus in by_name.items():
        if len(gpus) > 1:
            evidence += _difference(name, "ECC", {g.index: str(known(g.ecc_enabled)) for g in gpus})
            evidence += _difference(
                name, "compute mode", {g.index: known(g.compute_mode) for g in gpus}
            )
    if not evidence:
        return None
    return Finding(
        evidence=tuple(evidence),
        cause="a program runs on one GPU and fails on the next, or has less memory there",
        fix="set them alike: sudo nvidia-smi -e 1 and sudo nvidia-smi -c DEFAULT, then reboot",
    )


def _difference(name: str, setting: str, values: dict[int, str]) -> list[str]:
    if len(set(values.values())) <= 1:
        return []
    listed = ", ".join(f"GPU {index} {value}" for index, value in values.items())
    return [f"{name}, {setting}: {listed}"]
