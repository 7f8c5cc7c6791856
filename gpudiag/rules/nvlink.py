"""GD1xx and GD7xx: NVLink, NVSwitch and the fabric manager that starts them."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, gpu_in_machine_rule, gpu_rule, rule, subject_of
from gpudiag.rules.machine import driver_version, install_package, just_booted, on_this_machine
from gpudiag.snapshot import Gpu, NotObserved, Snapshot, known, known_or

FABRIC_MANAGER = "nvidia-fabricmanager"
# On the A100 its stop ends all CUDA programs (ABORT_CUDA_JOBS_ON_FM_EXIT=1 is the default there).
RESTART_FABRIC = f"end the CUDA programs, then sudo systemctl restart {FABRIC_MANAGER}"
MEND_LINKS = (
    f"{RESTART_FABRIC}; or reset all peers together when they are free: sudo nvidia-smi "
    "--gpu-reset; or reseat the bridge or the GPU's tray"
)
REGISTERED = ("completed", "not_supported")
DOCUMENTATION = "https://github.com/pytorch/pytorch/issues/35710"
NVLINK_DOWN = "https://github.com/leptonai/gpud/issues/1085"
# Kinds of counters that mean lost data; replays of single packets are mended by the link itself.
GRAVE_LINK_ERRORS = ("recovery", "recovery_failed", "ecc_data")


@rule(
    "GD124",
    Severity.ERROR,
    DOCUMENTATION,
    "https://github.com/nanoporetech/dorado/issues/1214",
    explains=("GD105", "GD126", "GD221", "GD704", "GD718"),
)
def fabric_manager_not_running(snapshot: Snapshot) -> Finding | None:
    """The fabric manager of this NVSwitch machine does not run.

    The GPUs of an HGX or DGX machine are joined by NVSwitches, which the service
    nvidia-fabricmanager sets up. The bus shows the switches, and no such process is seen.
    """
    if known(snapshot.driver.nvswitch_count) == 0:
        return None
    on_this_machine(snapshot)
    services = {service.name: service.running for service in known(snapshot.driver.services)}
    if services.get(FABRIC_MANAGER, False) or just_booted(snapshot):
        return None
    branch = known_or(snapshot.driver.module_version, "580").partition(".")[0]
    install = install_package(
        snapshot, apt=f"nvidia-fabricmanager-{branch}", dnf="nvidia-fabric-manager"
    )
    return Finding(
        evidence=(
            f"{known(snapshot.driver.nvswitch_count)} NVSwitch(es) on the PCI bus",
            f"no process of {FABRIC_MANAGER}",
        ),
        cause="CUDA refuses to start: error 802, system not yet initialized",
        fix=f"sudo systemctl enable --now {FABRIC_MANAGER}; or where it is missing: {install}",
    )


@rule(
    "GD125",
    Severity.ERROR,
    DOCUMENTATION,
    explains=("GD105", "GD124", "GD126", "GD221"),
)
def fabric_manager_of_another_version(snapshot: Snapshot) -> Finding | None:
    """The fabric manager is of another version than the driver.

    nvidia-fabricmanager works with the driver of exactly its own version. A partial upgrade
    leaves the two apart.
    """
    manager = known(snapshot.driver.fabric_manager_version)
    if known(snapshot.driver.nvswitch_count) == 0:
        return None
    driver = driver_version(snapshot)
    if manager == driver:
        return None
    branch = driver.partition(".")[0]
    install = install_package(
        snapshot,
        apt=f"nvidia-fabricmanager-{branch}={driver}-1",
        dnf=f"nvidia-fabric-manager-{driver}",
    )
    return Finding(
        evidence=(f"fabric manager {manager}", f"driver {driver}"),
        cause="it refuses to start, the NVSwitches stay down, and CUDA fails with error 802",
        fix=f"{install} && sudo systemctl restart {FABRIC_MANAGER}",
    )


@gpu_in_machine_rule(
    "GD126",
    Severity.ERROR,
    DOCUMENTATION,
    explains=("GD105", "GD221", "GD704"),
)
def fabric_not_ready(gpu: Gpu, snapshot: Snapshot) -> Finding | None:
    """A GPU has not joined the NVLink fabric.

    Each GPU of an NVSwitch machine registers with the fabric when the machine starts; NVML says
    how far it has come. In the first minutes after boot it may still be at it.
    """
    state = known(gpu.fabric_state)
    if state in REGISTERED or just_booted(snapshot):
        return None
    return Finding(
        evidence=(
            f"GPU {gpu.index}: fabric state {state}",
            f"registration ended with NVML code {known_or(gpu.fabric_status_code, 'unknown')}",
        ),
        cause="CUDA refuses this GPU with error 802 until it has joined",
        fix=f"{RESTART_FABRIC}; or reset all GPUs together when they are free: sudo "
        "nvidia-smi --gpu-reset; or reboot",
    )


@gpu_in_machine_rule("GD704", Severity.WARNING, NVLINK_DOWN)
def nvlinks_partly_down(gpu: Gpu, snapshot: Snapshot) -> Finding | None:
    """Some NVLinks of a GPU are up and others are down.

    All links down is normal without a bridge; a part of them down is not. In a virtual machine,
    links to GPUs that it does not have are down, so nothing is concluded there.

    Ignore it when the bridge that is fitted joins only some of the links.
    """
    active, inactive = known(gpu.nvlink_active), known(gpu.nvlink_inactive)
    if not active or not inactive:
        return None
    _on_bare_metal(snapshot)
    return Finding(
        evidence=(
            f"GPU {gpu.index}: {len(active)} of {len(active) + len(inactive)} NVLinks are up",
            f"down: {', '.join(map(str, inactive))}",
        ),
        cause="collectives run at the speed of the slowest GPU's links",
        fix=MEND_LINKS,
    )


@rule("GD705", Severity.WARNING, NVLINK_DOWN)
def nvlinks_differ(snapshot: Snapshot) -> tuple[Finding, ...]:
    """A GPU has fewer NVLinks up than its equals in this machine.

    GPUs of the same name are compared with one another.

    Ignore it when only some of the GPUs are joined by bridges.
    """
    _on_bare_metal(snapshot)
    found = []
    by_name: dict[str, list[Gpu]] = {}
    for gpu in known(snapshot.nvml.gpus):
        by_name.setdefault(known(gpu.name), []).append(gpu)
    for name, gpus in by_name.items():
        most = max(len(known(gpu.nvlink_active)) for gpu in gpus)
        found += [
            Finding(
                subject=subject_of(gpu),
                evidence=(
                    f"GPU {gpu.index}: {len(known(gpu.nvlink_active))} NVLinks up",
                    f"another {name} here has {most}",
                ),
                cause="what it exchanges with the others takes a slower way",
                fix=MEND_LINKS,
            )
            for gpu in gpus
            if len(known(gpu.nvlink_active)) < most
        ]
    return tuple(found)


@gpu_rule("GD706", Severity.WARNING, "https://docs.nvidia.com/deploy/xid-errors/")
def nvlink_errors(gpu: Gpu) -> Finding | None:
    """An NVLink of a GPU has had to recover.

    NVML counts the errors of each link. Single replays are mended by the link itself and are not
    reported here; a recovery means that it was down for a moment.
    """
    errors = [e for e in known(gpu.nvlink_errors) if e.kind in GRAVE_LINK_ERRORS]
    grave = [e for e in errors if known_or(e.count, 0) > 0]
    if not grave:
        return None
    return Finding(
        evidence=tuple(
            f"GPU {gpu.index}, link {e.link}: {known_or(e.count, 0)} times {e.kind}"
            for e in grave[:4]
        ),
        cause="collectives stall or fail with Xid 74 while a link recovers",
        fix="reset all peers together when they are free: sudo nvidia-smi --gpu-reset; or reseat "
        "the bridge or the GPU's tray; if it comes back, ask for a replacement",
    )


@gpu_rule("GD718", Severity.WARNING, NVLINK_DOWN, explains=("GD704",))
def fabric_unhealthy(gpu: Gpu) -> Finding | None:
    """A GPU's place in the NVLink fabric is not healthy.

    NVML sums up the state of the GPU's links and routes as healthy, limited or unhealthy.
    """
    if known(gpu.fabric_state) != "completed":
        return None
    health = known(gpu.fabric_health)
    if health not in {"unhealthy", "limited_capacity"}:
        return None
    mask = known_or(gpu.fabric_health_mask, None)
    return Finding(
        evidence=(
            f"GPU {gpu.index}: fabric health {health}",
            "health mask " + ("unknown" if mask is None else hex(mask)),
        ),
        cause="traffic between the GPUs is slower than the machine can, or fails",
        fix=f"{RESTART_FABRIC}; or reset all GPUs together when they are free: sudo nvidia-smi "
        "--gpu-reset; or have the NVSwitches checked",
    )


def _on_bare_metal(snapshot: Snapshot) -> None:
    machine = known(snapshot.system.virtual_machine)
    if machine is not None:
        raise NotObserved(f"a virtual machine ({machine}) may not have all the GPUs at the links")
