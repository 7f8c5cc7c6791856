import pytest
from builders import GIB, gpu, only, silent, snapshot

from gpudiag.rules import hardware, memory, multi_gpu, system
from gpudiag.rules.memory import MIB, UNACCOUNTED_MIB, UNACCOUNTED_WITH_RESERVE_MIB
from gpudiag.rules.system import COMFORTABLE_SHM_MIB
from gpudiag.snapshot import GpuProcess, KernelEvent, Missing, NotObserved

PER_GPU = [
    (hardware.gpu_lost, "GD401", {"error_codes": (15,)}, {"error_codes": ()}),
    (hardware.gpu_lost, "GD401", {"error_codes": (999,)}, {"error_codes": (16,)}),
    (hardware.reset_required, "GD402", {"error_codes": (16,)}, {"error_codes": (15,)}),
    (
        hardware.row_remap_pending,
        "GD403",
        {"row_remap_pending": True},
        {"row_remap_pending": False},
    ),
    (hardware.row_remap_failed, "GD404", {"row_remap_failed": True}, {"row_remap_failed": False}),
    (
        hardware.page_retirement_pending,
        "GD405",
        {"page_retirement_pending": True},
        {"page_retirement_pending": False},
    ),
    (
        hardware.thermal_throttling,
        "GD406",
        {"clock_event_reasons": 0x20},
        {"clock_event_reasons": 4},
    ),
    (
        hardware.thermal_throttling,
        "GD406",
        {"clock_event_reasons": 0x48},
        {"clock_event_reasons": 8},
    ),
    (hardware.power_brake, "GD407", {"clock_event_reasons": 0x80}, {"clock_event_reasons": 0x1}),
    (hardware.power_brake, "GD407", {"clock_event_reasons": 0x08}, {"clock_event_reasons": 0x48}),
    (
        hardware.uncorrected_ecc_errors,
        "GD410",
        {"ecc_uncorrected_volatile": 1},
        {"ecc_uncorrected_volatile": 0},
    ),
]


@pytest.mark.parametrize(("rule", "rule_id", "faulty", "healthy"), PER_GPU)
def test_each_rule_tells_the_faulty_gpu_from_the_healthy_one(rule, rule_id, faulty, healthy):
    answer = rule(snapshot(gpus=[gpu(0, **healthy), gpu(1, **faulty)]))

    assert [(f.id, f.subject) for f in answer.findings] == [(rule_id, "gpu:GPU-00000001")]
    assert "GPU 1" in answer.findings[0].evidence[0]


@pytest.mark.parametrize(
    "rule",
    [
        *{case[0].id: case[0] for case in PER_GPU}.values(),
        hardware.power_limit_lowered,
        hardware.implausible_readings,
        memory.memory_held_by_nobody,
    ],
)
def test_a_missing_fact_is_a_gap_of_that_gpu(rule):
    assert rule(snapshot(gpus=[gpu(4)])).gaps == ("GPU 4: not part of this test",)
    with pytest.raises(NotObserved):
        rule(snapshot())


@pytest.mark.parametrize(("limit_watts", "reported"), [(698.9, True), (699.0, False), (700, False)])
def test_a_power_limit_counts_as_lowered_from_one_watt(limit_watts, reported):
    held = gpu(
        clock_event_reasons=0x4, power_limit_watts=limit_watts, power_limit_default_watts=700
    )

    assert silent(hardware.power_limit_lowered, snapshot(gpus=[held])) is not reported


def test_a_lowered_limit_that_is_not_reached_costs_nothing():
    idle = gpu(clock_event_reasons=0x1, power_limit_watts=300, power_limit_default_watts=700)

    assert silent(hardware.power_limit_lowered, snapshot(gpus=[idle]))


@pytest.mark.parametrize(
    ("celsius", "used", "total", "reported"),
    [
        (0, 0, GIB, True),
        (1, 0, GIB, False),
        (130, 0, GIB, False),
        (131, 0, GIB, True),
        (40, GIB, GIB, False),
        (40, GIB + 1, GIB, True),
        (40, 0, 0, True),
    ],
)
def test_values_that_cannot_be_true_are_a_fault(celsius, used, total, reported):
    one = gpu(temperature_celsius=celsius, memory_used_bytes=used, memory_total_bytes=total)

    assert silent(hardware.implausible_readings, snapshot(gpus=[one])) is not reported


def test_throttling_is_told_with_temperature_and_clocks():
    hot = gpu(
        clock_event_reasons=0x60,
        temperature_celsius=88,
        temperature_slowdown_celsius=87,
        clock_sm_mhz=345,
        clock_sm_max_mhz=1980,
    )

    assert only(hardware.thermal_throttling, snapshot(gpus=[hot])).evidence == (
        "GPU 0: software and hardware thermal slowdown active",
        "temperature 88 °C, slowdown from 87 °C",
        "SM clock 345 MHz of 1980 MHz",
    )


def xid(number, said=""):
    return KernelEvent(text=f"NVRM: Xid (PCI:0000:1b:00): {number}, {said}", xid=number)


def log(*events):
    return snapshot(events=events, system={"container": None})


def test_a_grave_xid_is_told_with_its_meaning():
    seen = log(xid(13), xid(79))

    finding = only(hardware.grave_xid_in_kernel_log, seen)

    assert finding.id == "GD411"
    assert finding.evidence == ("Xid 79 (the GPU has fallen off the bus) on a GPU, no time",)


def test_only_the_last_three_of_many_xids_are_shown():
    finding = only(hardware.grave_xid_in_kernel_log, log(*[xid(48)] * 5))

    assert len(finding.evidence) == 4
    assert finding.evidence[-1] == "… and 2 earlier"


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (xid(62), "Xid 62 (a micro-controller of the GPU halted) on a GPU, no time"),
        (xid(92), "Xid 92 (many single-bit ECC errors) on a GPU, no time"),
        (xid(140), "Xid 140 (ECC error that was not recovered from) on a GPU, no time"),
        (
            xid(149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 08"),
            "Xid 149 (fatal NVLink error) on a GPU, no time",
        ),
        (
            xid(154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"),
            "Xid 154 (the driver asks for: Node Reboot Required) on a GPU, no time",
        ),
        (
            KernelEvent(text="nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 23001, Fatal, Link 12"),
            "SXid 23001 (fatal NVSwitch error) on 0000:c1:00.0, no time",
        ),
    ],
)
def test_what_a_grave_event_says(event, told):
    assert only(hardware.grave_xid_in_kernel_log, log(event)).evidence == (told,)


@pytest.mark.parametrize(
    "event",
    [
        xid(149, "NETIR_LINK_EVT  Nonfatal XC0 i0 Link 08"),
        xid(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"),
        KernelEvent(text="nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20009, Non-fatal, Link 28"),
    ],
)
def test_an_event_that_is_not_fatal_is_not_grave(event):
    assert silent(hardware.grave_xid_in_kernel_log, log(event))


def test_an_action_that_the_driver_no_longer_asks_for_was_taken():
    event = KernelEvent(
        text="Xid 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
        xid=154,
        pci_address="0000:1b:00",
    )

    def seen(action):
        one = gpu(pci_address="0000:1b:00.0", recovery_action=action, error_codes=())
        return snapshot(gpus=[one], events=(event,), system={"container": None})

    assert silent(hardware.grave_xid_in_kernel_log, seen("none"))
    assert only(hardware.grave_xid_in_kernel_log, seen("gpu_reset"))


def test_xids_of_a_program_are_no_hardware_fault():
    assert silent(hardware.grave_xid_in_kernel_log, snapshot(events=(xid(13), xid(31), xid(43))))
    with pytest.raises(NotObserved):
        hardware.grave_xid_in_kernel_log(snapshot())


def holding(*, used_mib, process_mib=0, reserved=0, visible=True):
    processes = (GpuProcess(pid=77, kind="compute", used_bytes=process_mib * MIB, visible=visible),)
    return snapshot(
        gpus=[
            gpu(
                memory_used_bytes=used_mib * MIB,
                memory_total_bytes=80 * GIB,
                memory_reserved_bytes=reserved,
                processes=processes if process_mib else (),
            )
        ]
    )


def test_memory_that_no_process_holds_is_reported_from_the_threshold_on():
    assert silent(memory.memory_held_by_nobody, holding(used_mib=UNACCOUNTED_MIB))

    finding = only(memory.memory_held_by_nobody, holding(used_mib=UNACCOUNTED_MIB + 1))

    assert finding.id == "GD501"
    assert finding.evidence == (
        "GPU 0: 513 MiB in use, 0 MiB of it by the 0 process(es) that NVML names",
        "unaccounted for: 513 MiB",
    )


def test_memory_of_named_processes_is_accounted_for():
    assert silent(memory.memory_held_by_nobody, holding(used_mib=40_500, process_mib=40_000))


def test_processes_of_another_namespace_are_named_as_such():
    seen = holding(used_mib=40_000, process_mib=1_000, visible=False)

    assert only(memory.memory_held_by_nobody, seen).evidence[-1] == (
        "not in this PID namespace: 77"
    )


def test_an_old_driver_counts_its_reserve_as_used_and_gets_more_room():
    reserve = Missing("this driver counts its reserve as used")

    assert silent(
        memory.memory_held_by_nobody,
        holding(used_mib=UNACCOUNTED_WITH_RESERVE_MIB, reserved=reserve),
    )
    assert not silent(
        memory.memory_held_by_nobody,
        holding(used_mib=UNACCOUNTED_WITH_RESERVE_MIB + 1, reserved=reserve),
    )


def test_figures_that_cannot_be_true_are_not_accounted_for():
    assert memory.memory_held_by_nobody(holding(used_mib=90 * 1024)).gaps == (
        "GPU 0: more memory in use than there is: the figures cannot be trusted",
    )


def shm(size_mib, container="docker"):
    return snapshot(
        system={
            "shm_total_bytes": size_mib * MIB,
            "shm_used_bytes": 3 * MIB,
            "container": container,
        }
    )


def test_docker_default_of_64_mib_is_reported():
    finding = only(system.shared_memory_too_small, shm(64))

    assert (finding.id, str(finding.severity)) == ("GD601", "warning")
    assert finding.evidence == (
        "/dev/shm holds 64 MiB, 3 MiB of it in use",
        "workers are comfortable from 1024 MiB",
    )
    assert "--shm-size" in finding.fix


def test_kubernetes_mounts_an_empty_dir():
    assert "emptyDir" in only(system.shared_memory_too_small, shm(64, "kubernetes")).fix


def test_threshold_itself_is_comfortable():
    assert silent(system.shared_memory_too_small, shm(COMFORTABLE_SHM_MIB))
    assert not silent(system.shared_memory_too_small, shm(COMFORTABLE_SHM_MIB - 1))


def test_unknown_size_is_not_a_pass():
    with pytest.raises(NotObserved, match="not part of this test"):
        system.shared_memory_too_small(snapshot())


def test_different_gpus_are_counted_differently_by_cuda():
    mixed = [gpu(0, name="NVIDIA GeForce GTX 1660"), gpu(1, name="NVIDIA GeForce RTX 3090")]

    finding = only(multi_gpu.order_of_different_gpus, snapshot(gpus=mixed, env={}))

    assert finding.id == "GD701"
    assert finding.fix == "export CUDA_DEVICE_ORDER=PCI_BUS_ID"
    assert silent(
        multi_gpu.order_of_different_gpus,
        snapshot(gpus=mixed, env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
    )
    assert silent(multi_gpu.order_of_different_gpus, snapshot(gpus=[mixed[0]] * 2, env={}))
    with pytest.raises(NotObserved):
        multi_gpu.order_of_different_gpus(snapshot(env={}))
