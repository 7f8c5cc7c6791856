import ctypes
import json
import os
import signal
import subprocess
import sys
import time

import pynvml
import pytest
from nvml_simulator import simulator

ASK = """
import json, sys
from ctypes import Structure, Array
from pynvml import *

def plain(value):
    if isinstance(value, (Array, list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, nvmlFriendlyObject):
        return vars(value)
    if isinstance(value, Structure):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, bytes):
        return value.decode()
    return getattr(value, "value", value)

def answer(question):
    try:
        return plain(eval(question))
    except NVMLError as error:
        return f"error {error.value}: {error}"

def gpu(index):
    return nvmlDeviceGetHandleByIndex(index)

def fields(*ids):
    return nvmlDeviceGetFieldValues(gpu(0), ids)

def filled(structure, function):
    function(gpu(0), byref(structure))
    return structure

print(json.dumps([answer("nvmlInit()")] + [answer(question) for question in sys.argv[1:]]))
"""


def run(env, *questions, **options):
    return subprocess.run(
        [sys.executable, "-c", ASK, *questions],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def ask(env, *questions):
    """What pynvml answers: plain values, or "error N: text"."""
    result = run(env, *questions)
    assert result.returncode == 0, result.stderr
    initialised, *answers = json.loads(result.stdout)
    return answers if initialised is None else [initialised, *answers]


def test_healthy_machine_answers_with_the_scenarios_values(nvml):
    env = nvml("healthy_8")

    answers = ask(
        env,
        "nvmlSystemGetDriverVersion()",
        "nvmlSystemGetNVMLVersion()",
        "nvmlSystemGetCudaDriverVersion_v2()",
        "nvmlDeviceGetCount()",
        "nvmlDeviceGetName(gpu(7))",
        "nvmlDeviceGetMinorNumber(gpu(7))",
        "nvmlDeviceGetIndex(gpu(7))",
        "nvmlDeviceGetCudaComputeCapability(gpu(0))",
        "nvmlDeviceGetTemperature(gpu(1), NVML_TEMPERATURE_GPU)",
        "nvmlDeviceGetGspFirmwareVersion(gpu(0))",
        "nvmlDeviceGetPowerManagementLimitConstraints(gpu(0))",
        "nvmlDeviceGetTotalEnergyConsumption(gpu(0))",
        "nvmlSystemGetProcessName(41203)",
        "nvmlDeviceValidateInforom(gpu(0))",
    )

    assert answers == [
        "550.54.15",
        "12.550.54.15",
        12040,
        8,
        "NVIDIA H100 80GB HBM3",
        7,
        7,
        [9, 0],
        63,
        "550.54.15",
        [200_000, 700_000],
        1_843_200_000_000,
        "/opt/venv/bin/python3.11",
        None,
    ]


DISTINCT = {
    "gpu.0.pci_bus_id": "000A0001:C3:1F.0",
    "gpu.0.pci_device_id": "0x11223344",
    "gpu.0.pci_subsystem_id": "0x55667788",
    "gpu.0.memory_total_bytes": "1000000000000",
    "gpu.0.memory_reserved_bytes": "100000000000",
    "gpu.0.memory_used_bytes": "20000000000",
    "gpu.0.bar1_total_bytes": "50000000000",
    "gpu.0.bar1_used_bytes": "10000000000",
    "gpu.0.utilization_gpu_percent": "71",
    "gpu.0.utilization_memory_percent": "72",
    "gpu.0.encoder_utilization_percent": "73",
    "gpu.0.encoder_sampling_period_us": "74",
    "gpu.0.temperature_celsius": "-5",
    "gpu.0.temperature_margin_celsius": "-7",
    "gpu.0.violation_thermal_ns": "5000000000",
    "gpu.0.violation_reference_us": "6000000000",
    "gpu.0.fabric_cluster_uuid": "000102030405060708090a0b0c0d0e0f",
    "gpu.0.fabric_status": "81",
    "gpu.0.fabric_clique_id": "82",
    "gpu.0.fabric_state": "3",
    "gpu.0.fabric_health_mask": "84",
    "gpu.0.fabric_health_summary": "2",
    "gpu.0.remapped_rows_correctable": "91",
    "gpu.0.remapped_rows_uncorrectable": "92",
    "gpu.0.remapped_rows_pending": "93",
    "gpu.0.remapped_rows_failure": "94",
    "gpu.0.row_remapper.max_banks": "95",
    "gpu.0.row_remapper.high_banks": "96",
    "gpu.0.row_remapper.partial_banks": "97",
    "gpu.0.row_remapper.low_banks": "98",
    "gpu.0.row_remapper.none_banks": "99",
    "gpu.0.retired_pages.double_bit.count": "2",
    "gpu.0.retired_pages.double_bit.0": "0x1a2b 1700000000",
    "gpu.0.retired_pages.double_bit.1": "0x3c4d 1700000001",
    "gpu.0.process.0": "501 6000000000 compute",
    "gpu.0.process.1": "502 7000000000 graphics",
    "gpu.0.process.2": "503 -1 compute 4 5",
    "gpu.0.process.3": "504 8000000000 mps",
    "gpu.0.process_utilization_percent.0": "501 61 62 63 64",
    "gpu.0.field.82.0": "105",
    "gpu.0.field.91.7": "error:15",
    "gpu.0.field.186.0": "1.5",
    "fabric_info_version": "3",
    "absent.newer_than_550": "",
}
CLUSTER = list(range(16))
FABRIC = {"clusterUuid": CLUSTER, "status": 81, "cliqueId": 82, "state": 3}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (
            "nvmlDeviceGetPciInfo(gpu(0))",
            {
                "busIdLegacy": "0001:C3:1F.0",
                "domain": 0xA0001,
                "bus": 0xC3,
                "device": 0x1F,
                "pciDeviceId": 0x11223344,
                "pciSubSystemId": 0x55667788,
                "busId": "000A0001:C3:1F.0",
            },
        ),
        (
            "nvmlDeviceGetMemoryInfo(gpu(0), version=nvmlMemory_v2)",
            {
                "version": 0x02000028,
                "total": 1_000_000_000_000,
                "reserved": 100_000_000_000,
                "free": 880_000_000_000,
                "used": 20_000_000_000,
            },
        ),
        (
            "nvmlDeviceGetMemoryInfo(gpu(0))",
            {"total": 1_000_000_000_000, "free": 880_000_000_000, "used": 120_000_000_000},
        ),
        (
            "nvmlDeviceGetBAR1MemoryInfo(gpu(0))",
            {"bar1Total": 50_000_000_000, "bar1Free": 40_000_000_000, "bar1Used": 10_000_000_000},
        ),
        ("nvmlDeviceGetUtilizationRates(gpu(0))", {"gpu": 71, "memory": 72}),
        ("nvmlDeviceGetEncoderUtilization(gpu(0))", [73, 74]),
        ("nvmlDeviceGetTemperatureV(gpu(0), NVML_TEMPERATURE_GPU)", -5),
        ("nvmlDeviceGetMarginTemperature(gpu(0))", -7),
        (
            "nvmlDeviceGetViolationStatus(gpu(0), NVML_PERF_POLICY_THERMAL)",
            {"referenceTime": 6_000_000_000, "violationTime": 5_000_000_000},
        ),
        ("filled(c_nvmlGpuFabricInfo_t(), nvmlDeviceGetGpuFabricInfo)", FABRIC),
        (
            "filled(c_nvmlGpuFabricInfo_v2_t(), nvmlDeviceGetGpuFabricInfoV)",
            FABRIC | {"version": 0x02000024, "healthMask": 84},
        ),
        (
            "filled(c_nvmlGpuFabricInfo_v3_t(), nvmlDeviceGetGpuFabricInfoV)",
            FABRIC | {"version": 0x03000028, "healthMask": 84, "healthSummary": 2},
        ),
        ("nvmlDeviceGetRemappedRows(gpu(0))", [91, 92, 93, 94]),
        (
            "nvmlDeviceGetRowRemapperHistogram(gpu(0))",
            {"max": 95, "high": 96, "partial": 97, "low": 98, "none": 99},
        ),
        ("nvmlDeviceGetRetiredPages(gpu(0), 1)", [0x1A2B, 0x3C4D]),
        (
            "nvmlDeviceGetRetiredPages_v2(gpu(0), 1)",
            [
                {"address": 0x1A2B, "timestamp": 1_700_000_000},
                {"address": 0x3C4D, "timestamp": 1_700_000_001},
            ],
        ),
        (
            "nvmlDeviceGetComputeRunningProcesses(gpu(0))",
            [
                {
                    "pid": 501,
                    "usedGpuMemory": 6_000_000_000,
                    "gpuInstanceId": 0xFFFFFFFF,
                    "computeInstanceId": 0xFFFFFFFF,
                },
                {"pid": 503, "usedGpuMemory": None, "gpuInstanceId": 4, "computeInstanceId": 5},
            ],
        ),
        ("[p.pid for p in nvmlDeviceGetGraphicsRunningProcesses(gpu(0))]", [502]),
        ("[p.pid for p in nvmlDeviceGetMPSComputeRunningProcesses(gpu(0))]", [504]),
        (
            "nvmlDeviceGetProcessUtilization(gpu(0), 1000)",
            [
                {
                    "pid": 501,
                    "timeStamp": 1001,
                    "smUtil": 61,
                    "memUtil": 62,
                    "encUtil": 63,
                    "decUtil": 64,
                }
            ],
        ),
        (
            "[(f.nvmlReturn, f.valueType, f.value.ullVal) for f in fields(82, (91, 7), 1)]",
            [[0, pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, 105], [15, 0, 0], [3, 0, 0]],
        ),
        ("fields(186)[0].value.dVal", 1.5),
    ],
)
def test_structure_has_every_value_in_its_own_member(nvml, question, expected):
    env = nvml("healthy_8", changes=DISTINCT)

    assert ask(env, question) == [expected]


GUARDED = """
import ctypes, pynvml
from ctypes import byref, c_uint, c_ulonglong
pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
guarded = (ctypes.c_ubyte * 256)(*[0xA5] * 256)
ctypes.memset(guarded, 0, {size})
c_uint.from_buffer(guarded).value = {version}
code = pynvml.nvmlLib.{call}
print(code, set(guarded[{size}:]) == {{0xA5}})
"""


@pytest.mark.parametrize(
    ("structure", "version", "call"),
    [
        (pynvml.nvmlPciInfo_t, 0, "nvmlDeviceGetPciInfo_v3(gpu, guarded)"),
        (pynvml.c_nvmlMemory_t, 0, "nvmlDeviceGetMemoryInfo(gpu, guarded)"),
        (
            pynvml.c_nvmlMemory_v2_t,
            pynvml.nvmlMemory_v2,
            "nvmlDeviceGetMemoryInfo_v2(gpu, guarded)",
        ),
        (pynvml.c_nvmlBAR1Memory_t, 0, "nvmlDeviceGetBAR1MemoryInfo(gpu, guarded)"),
        (pynvml.c_nvmlUtilization_t, 0, "nvmlDeviceGetUtilizationRates(gpu, guarded)"),
        (
            pynvml.c_nvmlTemperature_v1_t,
            pynvml.nvmlTemperature_v1,
            "nvmlDeviceGetTemperatureV(gpu, guarded)",
        ),
        (
            pynvml.c_nvmlMarginTemperature_v1_t,
            pynvml.nvmlMarginTemperature_v1,
            "nvmlDeviceGetMarginTemperature(gpu, guarded)",
        ),
        (pynvml.c_nvmlViolationTime_t, 0, "nvmlDeviceGetViolationStatus(gpu, 1, guarded)"),
        (pynvml.c_nvmlGpuFabricInfo_t, 0, "nvmlDeviceGetGpuFabricInfo(gpu, guarded)"),
        (
            pynvml.c_nvmlGpuFabricInfo_v2_t,
            pynvml.nvmlGpuFabricInfo_v2,
            "nvmlDeviceGetGpuFabricInfoV(gpu, guarded)",
        ),
        (
            pynvml.c_nvmlGpuFabricInfo_v3_t,
            pynvml.nvmlGpuFabricInfo_v3,
            "nvmlDeviceGetGpuFabricInfoV(gpu, guarded)",
        ),
        (
            pynvml.c_nvmlRowRemapperHistogramValues,
            0,
            "nvmlDeviceGetRowRemapperHistogram(gpu, guarded)",
        ),
        (
            2 * pynvml.c_nvmlProcessInfo_v3_t,
            0,
            "nvmlDeviceGetComputeRunningProcesses_v3(gpu, byref(c_uint(2)), guarded)",
        ),
        (
            pynvml.c_nvmlProcessUtilizationSample_t,
            0,
            "nvmlDeviceGetProcessUtilization(gpu, guarded, byref(c_uint(1)), c_ulonglong(0))",
        ),
        (pynvml.c_nvmlFieldValue_t, 0, "nvmlDeviceGetFieldValues(gpu, 1, guarded)"),
    ],
)
def test_nothing_is_written_behind_a_structure(nvml, structure, version, call):
    env = nvml("healthy_8", changes=DISTINCT)
    script = GUARDED.format(size=ctypes.sizeof(structure), version=version, call=call)

    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.stdout, result.stderr) == ("0 True\n", "")


def test_choices_reach_their_own_values(nvml):
    env = nvml(
        "healthy_8",
        changes={
            "gpu.0.clock_sm_mhz": "1001",
            "gpu.0.clock_max_memory_mhz": "1002",
            "gpu.0.temperature_slowdown_threshold_celsius": "92",
            "gpu.0.pcie_rx_kib_per_s": "1003",
            "gpu.0.ecc.uncorrected.aggregate.sram": "1004",
            "gpu.0.ecc.corrected.volatile.total": "1005",
            "gpu.0.nvlink.17.crc_flit_errors": "1006",
            "gpu.0.nvlink.16.active": "0",
            "gpu.0.p2p.3.nvlink": "5",
            "gpu.0.topology.3.common_ancestor": "20",
        },
    )

    answers = ask(
        env,
        "nvmlDeviceGetClockInfo(gpu(0), NVML_CLOCK_SM)",
        "nvmlDeviceGetMaxClockInfo(gpu(0), NVML_CLOCK_MEM)",
        "nvmlDeviceGetTemperatureThreshold(gpu(0), NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)",
        "nvmlDeviceGetPcieThroughput(gpu(0), NVML_PCIE_UTIL_RX_BYTES)",
        "nvmlDeviceGetMemoryErrorCounter(gpu(0), 1, 1, NVML_MEMORY_LOCATION_SRAM)",
        "nvmlDeviceGetTotalEccErrors(gpu(0), 0, 0)",
        "nvmlDeviceGetNvLinkErrorCounter(gpu(0), 17, NVML_NVLINK_ERROR_DL_CRC_FLIT)",
        "[nvmlDeviceGetNvLinkState(gpu(0), link) for link in (15, 16, 17)]",
        "nvmlDeviceGetNvLinkState(gpu(0), 18)",
        "nvmlDeviceGetP2PStatus(gpu(0), gpu(3), NVML_P2P_CAPS_INDEX_NVLINK)",
        "nvmlDeviceGetTopologyCommonAncestor(gpu(0), gpu(3))",
    )

    expected = [1001, 1002, 92, 1003, 1004, 1005, 1006, [1, 0, 1]]
    assert answers == [*expected, "error 2: Invalid Argument", 5, 20]


def test_memory_of_a_shipped_gpu_adds_up(nvml):
    env = nvml("healthy_8")

    v1, v2 = ask(
        env,
        "nvmlDeviceGetMemoryInfo(gpu(2))",
        "nvmlDeviceGetMemoryInfo(gpu(2), version=nvmlMemory_v2)",
    )

    assert v2["used"] + v2["free"] + v2["reserved"] == v2["total"]
    assert v1["used"] == v2["used"] + v2["reserved"]
    assert (v1["total"], v1["free"]) == (v2["total"], v2["free"])


def test_one_gpu_is_found_by_uuid_bus_id_and_serial(nvml):
    env = nvml("healthy_8")

    answers = ask(
        env,
        "nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID(gpu(6))))",
        "nvmlDeviceGetIndex(nvmlDeviceGetHandleBySerial(nvmlDeviceGetSerial(gpu(6))))",
        "nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('00000000:D1:00.0'))",
        "nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('0000:d1:00.0'))",
        "nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('d1:00.0'))",
        "nvmlDeviceGetHandleByUUID('GPU-none-such')",
        "gpu(8)",
    )

    assert answers == [6, 6, 6, 6, 6, "error 6: Not Found", "error 2: Invalid Argument"]


def test_value_that_the_scenario_lacks_is_not_supported(nvml):
    env = nvml("healthy_8", changes={"gpu.0.serial": "missing"})

    answers = ask(env, "nvmlDeviceGetFanSpeed(gpu(0))", "nvmlDeviceGetSerial(gpu(0))")

    assert answers == ["error 3: Not Supported"] * 2


def test_every_call_gives_the_error_it_is_told_to(nvml):
    env = nvml(
        "healthy_8",
        changes={
            "gpu.1.temperature_celsius": "error:15",
            "gpu.1.memory_used_bytes": "error:999",
            "gpu.1.compute_processes": "error:4",
            "gpu.1.inforom_valid": "0",
            "gpu.1.name": "error:3",
        },
    )

    answers = ask(
        env,
        "nvmlDeviceGetTemperature(gpu(1), 0)",
        "nvmlDeviceGetMemoryInfo(gpu(1), version=nvmlMemory_v2)",
        "nvmlDeviceGetComputeRunningProcesses(gpu(1))",
        "nvmlDeviceValidateInforom(gpu(1))",
        "nvmlDeviceGetName(gpu(1))",
    )

    assert [answer.partition(":")[0] for answer in answers] == [
        "error 15",
        "error 999",
        "error 4",
        "error 14",
        "error 3",
    ]


@pytest.mark.parametrize(
    ("scenario", "code"), [("driver_library_mismatch", 18), ("driver_not_loaded", 9)]
)
def test_driver_that_does_not_initialise_answers_nothing(nvml, scenario, code):
    initialised, *answers = ask(nvml(scenario), "nvmlDeviceGetCount()", "gpu(0)")

    assert initialised.startswith(f"error {code}: ")
    assert answers == ["error 1: Uninitialized"] * 2


def test_lost_gpu_is_counted_but_has_no_handle(nvml):
    count, lost, neighbour = ask(
        nvml("lost_gpu"), "nvmlDeviceGetCount()", "gpu(5)", "nvmlDeviceGetIndex(gpu(6))"
    )

    assert (count, lost, neighbour) == (8, "error 15: GPU is lost", 6)


def test_old_driver_lacks_the_symbols_themselves(nvml):
    env = nvml("old_driver")

    throttle, event, memory_v2, processes_v3 = ask(
        env,
        "nvmlDeviceGetCurrentClocksThrottleReasons(gpu(0))",
        "nvmlDeviceGetCurrentClocksEventReasons(gpu(0))",
        "nvmlDeviceGetMemoryInfo(gpu(0), version=nvmlMemory_v2)",
        "nvmlDeviceGetComputeRunningProcesses_v3(gpu(0))",
    )

    assert throttle == 0
    assert {event, memory_v2, processes_v3} == {"error 13: Function Not Found"}
    assert ask(
        env,
        'hasattr(__import__("pynvml").nvmlLib, "nvmlDeviceGetMemoryInfo")',
        'hasattr(__import__("pynvml").nvmlLib, "nvmlDeviceGetMemoryInfo_v2")',
    ) == [True, False]


def test_old_driver_lists_processes_in_the_old_structure(nvml):
    script = """
import ctypes, pynvml
class Process(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("usedGpuMemory", ctypes.c_ulonglong)]
pynvml.nvmlInit()
count, list = ctypes.c_uint(3), (3 * Process)()
function = pynvml.nvmlLib.nvmlDeviceGetComputeRunningProcesses
print(function(pynvml.nvmlDeviceGetHandleByIndex(1), ctypes.byref(count), list))
print(count.value, list[0].pid, list[0].usedGpuMemory, list[1].pid)
"""

    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | nvml("old_driver"),
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout == f"0\n1 30501 {14789 * 2**20} 0\n"


def test_mig_instances_have_uuid_name_memory_and_processes(nvml):
    env = nvml("mig")
    second = "nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), 1)"

    answers = ask(
        env,
        "nvmlDeviceGetMigMode(gpu(0))",
        "nvmlDeviceGetMigMode(gpu(1))",
        "nvmlDeviceGetMaxMigDeviceCount(gpu(0))",
        f"nvmlDeviceGetName({second})",
        f"nvmlDeviceGetUUID({second})[:4]",
        f"nvmlDeviceGetMemoryInfo({second}, version=nvmlMemory_v2).total",
        f"[process.pid for process in nvmlDeviceGetComputeRunningProcesses({second})]",
        f"nvmlDeviceGetIndex(nvmlDeviceGetDeviceHandleFromMigDeviceHandle({second}))",
        f"nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID({second})))",
        f"nvmlDeviceIsMigDeviceHandle({second})",
        "nvmlDeviceIsMigDeviceHandle(gpu(0))",
        "nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), 3)",
        "nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), 7)",
    )

    assert answers == [
        [1, 1],
        [0, 0],
        7,
        "NVIDIA H100 80GB HBM3 MIG 2g.20gb",
        "MIG-",
        20096 * 2**20,
        [51201],
        0,
        1,
        1,
        0,
        "error 6: Not Found",
        "error 2: Invalid Argument",
    ]


def test_hang_lasts_as_long_as_it_is_told_and_may_answer_then(nvml):
    env = nvml(
        "hangs_halfway",
        changes={"gpu.4.power_usage_milliwatt": "hang:1", "gpu.5.name": "hang:1 Late"},
    )

    started = time.monotonic()
    answers = ask(env, "nvmlDeviceGetPowerUsage(gpu(4))", "nvmlDeviceGetName(gpu(5))")

    assert answers == ["error 10: Timeout", "Late"]
    assert time.monotonic() - started >= 2


def test_hanging_call_holds_the_program_up(nvml):
    env = nvml("hangs_halfway")

    assert len(ask(env, "nvmlDeviceGetPowerUsage(gpu(3))")) == 1
    with pytest.raises(subprocess.TimeoutExpired):
        run(env, "nvmlDeviceGetPowerUsage(gpu(4))", timeout=2)


def test_crash_ends_the_program_by_a_segmentation_fault(nvml):
    env = nvml("crashes")

    assert ask(env, "nvmlDeviceGetName(gpu(2))") == ["NVIDIA H100 80GB HBM3"]
    assert run(env, "nvmlDeviceGetName(gpu(3))").returncode == -signal.SIGSEGV


def test_calls_before_init_and_after_shutdown_are_refused(nvml):
    answers = ask(
        nvml("healthy_8"),
        "nvmlShutdown()",
        "nvmlDeviceGetCount()",
        "nvmlSystemGetDriverVersion()",
        "nvmlShutdown()",
        "nvmlInit()",
        "nvmlDeviceGetCount()",
    )

    refused = "error 1: Uninitialized"
    assert answers == [None, refused, refused, refused, None, 8]


def test_scaled_scenario_gives_every_gpu_its_own_identity(nvml):
    env = nvml("healthy_8", gpus=64)

    names, *identities = ask(
        env,
        "{nvmlDeviceGetName(gpu(i)) for i in range(nvmlDeviceGetCount())}.__len__()",
        "[nvmlDeviceGetUUID(gpu(i)) for i in range(64)]",
        "[nvmlDeviceGetSerial(gpu(i)) for i in range(64)]",
        "[nvmlDeviceGetPciInfo(gpu(i)).busId for i in range(64)]",
        "[nvmlDeviceGetMinorNumber(gpu(i)) for i in range(64)]",
        "[nvmlDeviceGetComputeRunningProcesses(gpu(i))[0].pid for i in range(64)]",
    )

    assert names == 1
    assert [len(set(identity)) for identity in identities] == [64] * 5


def test_fewer_gpus_than_the_scenario_has_are_possible(nvml):
    env = nvml("healthy_8", gpus=2)

    assert ask(env, "nvmlDeviceGetCount()", "gpu(2)") == [2, "error 2: Invalid Argument"]


def test_more_particular_line_wins_over_a_later_general_one(nvml, tmp_path):
    scenario = tmp_path / "two.scenario"
    scenario.write_text("gpu_count = 2\ngpu.1.name = B\ngpu.*.name = A # all others\n")

    answers = ask(nvml(scenario), "nvmlDeviceGetName(gpu(0))", "nvmlDeviceGetName(gpu(1))")

    assert answers == ["A", "B"]


def test_star_stands_for_a_whole_part_or_some_of_it(nvml):
    env = nvml("healthy_8", changes={"gpu.*.violation_*_ns": "7", "gpu.3.clock_*_mhz": "8"})

    answers = ask(
        env,
        "nvmlDeviceGetViolationStatus(gpu(3), NVML_PERF_POLICY_RELIABILITY).violationTime",
        "nvmlDeviceGetApplicationsClock(gpu(3), NVML_CLOCK_SM)",
        "nvmlDeviceGetApplicationsClock(gpu(2), NVML_CLOCK_SM)",
    )

    assert answers == [7, 8, "error 3: Not Supported"]


def test_line_that_is_no_pair_is_refused_with_its_text(nvml, tmp_path):
    scenario = tmp_path / "broken.scenario"
    scenario.write_text("gpu_count 2\n")

    result = run(nvml(scenario))

    assert "broken.scenario: expected 'key = value', got 'gpu_count 2" in result.stderr
    assert json.loads(result.stdout)[0].startswith("error 999")


SHIPPED = sorted(path.stem for path in simulator.SCENARIOS.glob("*.scenario"))


@pytest.mark.parametrize("scenario", SHIPPED)
def test_shipped_scenario_has_only_keys_that_are_read(scenario):
    assert [key for key in simulator.read(scenario) if not simulator.is_read(key)] == []


def test_misspelt_key_in_a_change_is_refused(nvml):
    with pytest.raises(ValueError, match=r"keys that the simulator reads, got \['gpu.0.nane'\]"):
        nvml("healthy_8", changes={"gpu.0.nane": "H100", "gpu.0.name": "H100"})


def test_unknown_scenario_is_refused_with_the_known_ones(nvml):
    with pytest.raises(ValueError, match=r"one of crashes, .* got healthy_9"):
        nvml("healthy_9")


def test_absent_function_that_the_library_never_had_is_refused(tmp_path):
    with pytest.raises(ValueError, match="functions of the simulator, got nvmlDeviceGetNane"):
        simulator.build(tmp_path, absent=["nvmlDeviceGetNane", "nvmlDeviceGetName"])


@pytest.mark.parametrize(
    ("scenario", "question", "expected"),
    [
        ("pending_remap", "nvmlDeviceGetRemappedRows(gpu(2))", [0, 1, 1, 0]),
        ("thermal_throttle", "nvmlDeviceGetCurrentClocksEventReasons(gpu(1))", 0x60),
        ("power_brake", "nvmlDeviceGetCurrentClocksEventReasons(gpu(0))", 0x88),
        ("hidden_memory", "nvmlDeviceGetComputeRunningProcesses(gpu(0))", []),
        ("exclusive_mode", "nvmlDeviceGetComputeMode(gpu(0))", 3),
        ("implausible", "nvmlDeviceGetTemperature(gpu(1), 0)", 0xFFFFFFFF),
        ("gtx_1080_ti", "nvmlDeviceGetEccMode(gpu(0))", "error 3: Not Supported"),
        ("rtx_5090", "nvmlDeviceGetCudaComputeCapability(gpu(0))", [12, 0]),
        (
            "mixed_gpus",
            "[nvmlDeviceGetName(gpu(i)) for i in (0, 1)]",
            ["NVIDIA GeForce RTX 3090", "NVIDIA GeForce GTX 1660"],
        ),
    ],
)
def test_shipped_scenario_shows_what_it_is_named_for(nvml, scenario, question, expected):
    assert ask(nvml(scenario), question) == [expected]
