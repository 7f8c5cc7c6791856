"""Every fact about a GPU, from the simulated NVML to the snapshot, one line per fact."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pynvml
import pytest

import gpudiag
from gpudiag.host import Host
from gpudiag.probes.child import RECORD
from gpudiag.probes.nvml import nvml as ask_nvml
from gpudiag.snapshot import Gpu, GpuPair, MigInstance, Missing, NvLinkError, known

CHILDREN = Path(gpudiag.__file__).parent / "children"

# Every function is there and knows its newest structure, as under a driver later than 575.
NEWEST = {"absent.newer_than_550": "", "fabric_info_version": "3"}

# Key of the scenario behind "gpu.0.", its value, the fact, what the fact is then.
TABLE = [
    ("uuid", "GPU-0123", "uuid", "GPU-0123"),
    ("pci_bus_id", "00000001:C3:1F.0", "pci_address", "0001:c3:1f.0"),
    ("name", "NVIDIA H200", "name", "NVIDIA H200"),
    ("brand", "5", "brand", "geforce"),
    ("architecture", "10", "architecture", "blackwell"),
    ("compute_capability_major", "12", "compute_capability", (12, 1)),
    ("compute_capability_minor", "1", "compute_capability", (12, 1)),
    ("minor_number", "11", "minor_number", 11),
    ("vbios_version", "96.1", "vbios_version", "96.1"),
    ("memory_total_bytes", "10000000000", "memory_total_bytes", 10_000_000_000),
    ("memory_reserved_bytes", "500000000", "memory_reserved_bytes", 500_000_000),
    ("memory_used_bytes", "2000000000", "memory_used_bytes", 2_000_000_000),
    ("bar1_total_bytes", "300", "bar1_total_bytes", 300),
    ("bar1_used_bytes", "100", "bar1_used_bytes", 100),
    ("utilization_gpu_percent", "21", "utilization_fraction", 0.21),
    ("utilization_memory_percent", "22", "utilization_memory_fraction", 0.22),
    ("encoder_utilization_percent", "23", "utilization_encoder_fraction", 0.23),
    ("decoder_utilization_percent", "24", "utilization_decoder_fraction", 0.24),
    ("temperature_celsius", "31", "temperature_celsius", 31),
    ("field.82.0", "32", "temperature_memory_celsius", 32),
    ("temperature_margin_celsius", "33", "temperature_margin_celsius", 33),
    ("temperature_shutdown_threshold_celsius", "34", "temperature_shutdown_celsius", 34),
    ("temperature_slowdown_threshold_celsius", "35", "temperature_slowdown_celsius", 35),
    ("temperature_memory_max_threshold_celsius", "36", "temperature_memory_max_celsius", 36),
    ("temperature_gpu_max_threshold_celsius", "37", "temperature_gpu_max_celsius", 37),
    ("power_usage_milliwatt", "41500", "power_watts", 41.5),
    ("power_enforced_limit_milliwatt", "42500", "power_limit_watts", 42.5),
    ("power_default_limit_milliwatt", "43500", "power_limit_default_watts", 43.5),
    ("power_min_limit_milliwatt", "44500", "power_limit_min_watts", 44.5),
    ("power_max_limit_milliwatt", "45500", "power_limit_max_watts", 45.5),
    ("energy_millijoule", "46500", "energy_joules", 46.5),
    ("clock_graphics_mhz", "51", "clock_graphics_mhz", 51),
    ("clock_sm_mhz", "52", "clock_sm_mhz", 52),
    ("clock_memory_mhz", "53", "clock_memory_mhz", 53),
    ("clock_video_mhz", "54", "clock_video_mhz", 54),
    ("clock_max_graphics_mhz", "55", "clock_graphics_max_mhz", 55),
    ("clock_max_sm_mhz", "56", "clock_sm_max_mhz", 56),
    ("clock_max_memory_mhz", "57", "clock_memory_max_mhz", 57),
    ("clock_max_video_mhz", "58", "clock_video_max_mhz", 58),
    ("clocks_event_reasons", "0x88", "clock_event_reasons", 0x88),
    ("violation_power_ns", "61000000000", "violation_power_s", 61),
    ("violation_thermal_ns", "62000000000", "violation_thermal_s", 62),
    ("violation_sync_boost_ns", "63000000000", "violation_sync_boost_s", 63),
    ("violation_board_limit_ns", "64000000000", "violation_board_limit_s", 64),
    ("violation_low_utilization_ns", "65000000000", "violation_low_utilization_s", 65),
    ("violation_reliability_ns", "66000000000", "violation_reliability_s", 66),
    ("violation_application_clocks_ns", "67000000000", "violation_application_clocks_s", 67),
    ("violation_base_clocks_ns", "500000000", "violation_base_clocks_s", 0.5),
    ("performance_state", "8", "performance_state", 8),
    ("ecc_mode", "1", "ecc_enabled", True),
    ("ecc_mode_pending", "0", "ecc_enabled_pending", False),
    ("ecc.corrected.volatile.total", "71", "ecc_corrected_volatile", 71),
    ("ecc.corrected.aggregate.total", "72", "ecc_corrected_aggregate", 72),
    ("ecc.uncorrected.volatile.total", "73", "ecc_uncorrected_volatile", 73),
    ("ecc.uncorrected.aggregate.total", "74", "ecc_uncorrected_aggregate", 74),
    ("ecc.uncorrected.volatile.dram", "75", "ecc_uncorrected_volatile_dram", 75),
    ("ecc.uncorrected.volatile.sram", "76", "ecc_uncorrected_volatile_sram", 76),
    ("ecc.uncorrected.aggregate.dram", "77", "ecc_uncorrected_aggregate_dram", 77),
    ("ecc.uncorrected.aggregate.sram", "78", "ecc_uncorrected_aggregate_sram", 78),
    ("ecc.corrected.volatile.dram", "171", "ecc_corrected_volatile_dram", 171),
    ("ecc.corrected.volatile.sram", "172", "ecc_corrected_volatile_sram", 172),
    ("ecc.corrected.aggregate.dram", "173", "ecc_corrected_aggregate_dram", 173),
    ("ecc.corrected.aggregate.sram", "174", "ecc_corrected_aggregate_sram", 174),
    ("retired_pages.single_bit.count", "1", "pages_retired_single_bit", 1),
    ("retired_pages.double_bit.count", "2", "pages_retired_double_bit", 2),
    ("retired_pages_pending", "1", "page_retirement_pending", True),
    ("remapped_rows_correctable", "81", "rows_remapped_correctable", 81),
    ("remapped_rows_uncorrectable", "82", "rows_remapped_uncorrectable", 82),
    ("remapped_rows_pending", "1", "row_remap_pending", True),
    ("remapped_rows_failure", "1", "row_remap_failed", True),
    ("field.230.0", "4", "recovery_action", "drain_and_reset"),
    ("inforom_valid", "0", "inforom_valid", False),
    ("pcie_generation", "3", "pcie_generation", 3),
    ("pcie_max_generation", "4", "pcie_generation_max", 4),
    ("pcie_gpu_max_generation", "6", "pcie_generation_gpu_max", 6),
    ("pcie_width_lanes", "8", "pcie_width_lanes", 8),
    ("pcie_max_width_lanes", "32", "pcie_width_max_lanes", 32),
    ("pcie_replays", "91", "pcie_replays", 91),
    ("mig_mode", "0", "mig_enabled", False),
    ("mig_mode_pending", "1", "mig_enabled_pending", True),
    ("nvlink.0.version", "7", "nvlink_version", "5.0"),
    ("fabric_state", "2", "fabric_state", "in_progress"),
    ("fabric_status", "27", "fabric_status_code", 27),
    ("fabric_health_mask", "0x15", "fabric_health_mask", 0x15),
    ("fabric_health_summary", "3", "fabric_health", "limited_capacity"),
    ("compute_mode", "3", "compute_mode", "exclusive_process"),
    ("persistence_mode", "0", "persistence_enabled", False),
    ("display_active", "1", "display_active", True),
    ("display_mode", "1", "display_connected", True),
    ("gsp_firmware_enabled", "0", "gsp_firmware_enabled", False),
    ("gsp_firmware_default", "1", "gsp_firmware_default", True),
    ("gsp_firmware_version", "575.1", "gsp_firmware_version", "575.1"),
]
PAGES = {
    "retired_pages.single_bit.0": "0x1a2b 1700000000",
    "retired_pages.double_bit.0": "0x3c4d 1700000001",
    "retired_pages.double_bit.1": "0x5e6f 1700000002",
}
VALUES = {key: value for key, value, _, _ in TABLE} | PAGES
# Facts that one call answers stand and fall together; all others fail alone.
TOGETHER = [
    {"memory_total_bytes", "memory_used_bytes", "memory_free_bytes", "memory_reserved_bytes"},
    {"bar1_total_bytes", "bar1_used_bytes"},
    {"utilization_fraction", "utilization_memory_fraction"},
    {"power_limit_min_watts", "power_limit_max_watts"},
    {"ecc_enabled", "ecc_enabled_pending"},
    {
        "rows_remapped_correctable",
        "rows_remapped_uncorrectable",
        "row_remap_pending",
        "row_remap_failed",
    },
    {"mig_enabled", "mig_enabled_pending", "mig_uuids", "mig_instances"},
    {"fabric_state", "fabric_status_code", "fabric_health_mask", "fabric_health"},
    {"gsp_firmware_enabled", "gsp_firmware_default"},
]
# Lists have tests of their own below.
LISTS = {"processes", "mig_uuids", "mig_instances"} | {
    f"nvlink_{kind}" for kind in ("active", "inactive", "errors")
}


@pytest.fixture(scope="module")
def seen(nvml):
    def ask(scenario="healthy_8", *, changes=None, limit_s=15.0, **how):
        environment = os.environ | nvml(scenario, changes=changes, **how)
        return ask_nvml(Host(environment=environment), limit_s)

    return ask


@pytest.fixture(scope="module")
def gpu_with(seen):
    """The first of a healthy machine's GPUs under the newest driver, with other values."""

    def ask(values):
        changes = NEWEST | {f"gpu.0.{key}": value for key, value in values.items()}
        return known(seen(changes=changes, gpus=1).gpus)[0]

    return ask


@pytest.fixture(scope="module")
def changed_gpu(gpu_with):
    return gpu_with(VALUES)


def missing(gpu):
    return {name: fact.missing for name, fact in facts(gpu).items() if isinstance(fact, Missing)}


def facts(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


@pytest.mark.parametrize(
    ("fact", "expected"), [pytest.param(*row[2:], id=f"{row[0]}-{row[2]}") for row in TABLE]
)
def test_a_value_of_nvml_becomes_the_fact(changed_gpu, fact, expected):
    assert getattr(changed_gpu, fact) == expected


def test_every_fact_is_in_the_table():
    in_table = {fact for _, _, fact, _ in TABLE}

    assert set(Gpu.__struct_fields__) - in_table - LISTS == {
        "index",
        "error_codes",
        "memory_free_bytes",  # what is left of the other three
    }


@pytest.mark.parametrize(("key", "fact"), [(key, fact) for key, _, fact, _ in TABLE])
def test_a_call_that_fails_costs_what_it_would_have_answered(gpu_with, changed_gpu, key, fact):
    gpu = gpu_with(VALUES | {key: "error:999"})

    lost = next((group for group in TOGETHER if fact in group), {fact})
    assert gpu.error_codes == (999,)
    assert set(missing(gpu)) == lost
    assert all(reason.endswith("(NVML 999)") for reason in missing(gpu).values())
    expected = {name: Missing(missing(gpu)[name]) for name in lost} | {"error_codes": (999,)}
    assert facts(gpu) == facts(changed_gpu) | expected


def test_a_gpu_that_answers_everything_has_no_error_codes(changed_gpu):
    assert missing(changed_gpu) == {}
    assert changed_gpu.error_codes == ()


def test_a_name_that_is_newer_than_gpudiag_stays_a_number(gpu_with):
    gpu = gpu_with({"architecture": "77", "brand": "78", "field.230.0": "79"})

    assert (gpu.architecture, gpu.brand, gpu.recovery_action) == ("77", "78", "79")


def test_an_unreadable_inforom_is_no_corrupted_one(gpu_with):
    assert gpu_with({"inforom_valid": "0"}).inforom_valid is False
    assert gpu_with({"inforom_valid": "missing"}).inforom_valid == Missing(
        "nvmlDeviceValidateInforom: Not Supported (NVML 3)"
    )


def test_a_field_may_be_a_floating_point_number(gpu_with):
    assert gpu_with({"field.82.0": "71.0"}).temperature_memory_celsius == 71


@pytest.mark.parametrize(
    ("version", "mask", "health"),
    [
        ("3", 2, "healthy"),
        ("2", 2, Missing("this driver gives no summary of the fabric's health")),
    ],
)
def test_the_fabrics_health_is_read_with_the_newest_structure(seen, version, mask, health):
    changes = {"fabric_info_version": version}
    gpu = known(seen(changes=changes, gpus=1).gpus)[0]

    assert (gpu.fabric_state, gpu.fabric_health_mask, gpu.fabric_health) == (
        "completed",
        mask,
        health,
    )


def test_the_fabrics_state_is_read_with_the_first_structure(seen):
    changes = {"absent.fabric": "nvmlDeviceGetGpuFabricInfoV", "gpu.0.fabric_status": "15"}
    gpu = known(seen(changes=changes, gpus=1).gpus)[0]

    unknown = Missing("this driver does not tell the fabric's health")
    assert (gpu.fabric_state, gpu.fabric_status_code) == ("completed", 15)
    assert (gpu.fabric_health_mask, gpu.fabric_health) == (unknown, unknown)


def test_an_old_driver_says_which_functions_it_lacks(seen):
    gpu = known(seen("old_driver").gpus)[0]

    lacking = {name for name, why in missing(gpu).items() if "Function Not Found (NVML 13)" in why}
    assert lacking == {
        "architecture",
        "temperature_margin_celsius",
        "rows_remapped_correctable",
        "rows_remapped_uncorrectable",
        "row_remap_pending",
        "row_remap_failed",
        "pcie_generation_gpu_max",
        "mig_enabled",
        "mig_enabled_pending",
        "mig_uuids",
        "mig_instances",
        "fabric_state",
        "fabric_status_code",
        "fabric_health_mask",
        "fabric_health",
        "gsp_firmware_enabled",
        "gsp_firmware_default",
        "gsp_firmware_version",
    }
    assert set(missing(gpu)) - lacking == {
        "memory_reserved_bytes",  # counted as used
        "temperature_memory_celsius",
        "recovery_action",
    }
    assert gpu.error_codes == ()
    assert gpu.nvlink_version == "2.0"
    assert gpu.pages_retired_double_bit == 0


def test_a_consumer_card_says_what_it_does_not_support(seen):
    gpu = known(seen("gtx_1080_ti").gpus)[0]

    why = missing(gpu)
    newer = "nvmlDeviceGetMarginTemperature: Function Not Found (NVML 13)"
    assert why.pop("temperature_margin_celsius") == newer
    assert all(reason.endswith("Not Supported (NVML 3)") for reason in why.values())
    assert {name.partition("_")[0] for name in why} == {
        "ecc",
        "energy",
        "fabric",
        "gsp",
        "inforom",
        "mig",
        "nvlink",
        "page",
        "pages",
        "recovery",
        "row",
        "rows",
        "temperature",  # of the memory
        "violation",
    }
    assert gpu.error_codes == ()
    assert (gpu.architecture, gpu.brand, gpu.display_active) == ("pascal", "geforce", True)


def test_a_new_driver_names_the_recovery_and_the_margin(seen):
    gpu = known(seen("rtx_5090").gpus)[0]

    assert (gpu.recovery_action, gpu.temperature_margin_celsius) == ("none", 24)


def test_implausible_values_are_passed_on(seen):
    gpus = known(seen("implausible").gpus)

    assert gpus[0].temperature_celsius == 0
    assert gpus[1].temperature_celsius == 2**32 - 1
    assert gpus[1].power_watts == pytest.approx((2**32 - 1) / 1000)
    assert gpus[1].utilization_fraction == pytest.approx((2**32 - 1) / 100)
    assert gpus[2].memory_total_bytes == 0
    assert gpus[3].memory_used_bytes == 2**64 - 1
    assert gpus[3].energy_joules == pytest.approx((2**64 - 1) / 1000)
    assert gpus[4].clock_sm_mhz == 0
    assert (gpus[5].pcie_generation, gpus[5].pcie_width_lanes) == (0, 255)
    assert [gpu.error_codes for gpu in gpus] == [()] * 8


def test_links_that_are_down_are_told_from_those_that_are_up(gpu_with):
    gpu = gpu_with({"nvlink_count": "4", "nvlink.0.active": "0", "nvlink.2.active": "0"})

    assert (gpu.nvlink_active, gpu.nvlink_inactive) == ((1, 3), (0, 2))
    assert (gpu.nvlink_version, gpu.nvlink_errors) == ("4.0", ())


def test_a_gpu_without_links_is_asked_no_further(gpu_with):
    gpu = gpu_with({"nvlink.0.active": "missing"})

    unsupported = Missing("nvmlDeviceGetNvLinkState: Not Supported (NVML 3)")
    assert {getattr(gpu, f"nvlink_{fact}") for fact in ("active", "inactive", "errors")} == {
        unsupported
    }
    assert gpu.nvlink_version == unsupported


def test_a_link_that_the_part_leaves_out_is_neither_up_nor_down(gpu_with):
    gpu = gpu_with({"nvlink_count": "4", "nvlink.1.active": "missing"})

    assert (gpu.nvlink_active, gpu.nvlink_inactive) == ((0, 2, 3), ())


def test_a_link_whose_state_cannot_be_read_is_named(gpu_with):
    gpu = gpu_with({"nvlink.3.active": "error:999"})

    assert gpu.nvlink_active == tuple(link for link in range(18) if link != 3)
    assert gpu.nvlink_errors == (
        NvLinkError(
            link=3,
            kind="state",
            count=Missing("nvmlDeviceGetNvLinkState: Unknown Error (NVML 999)"),
        ),
    )
    assert gpu.error_codes == (999,)


def test_links_none_of_which_can_be_read_are_one_gap(gpu_with):
    gpu = gpu_with({"nvlink.*.active": "error:999"})

    assert gpu.nvlink_active == Missing("nvmlDeviceGetNvLinkState: Unknown Error (NVML 999)")
    assert gpu.nvlink_errors == gpu.nvlink_active


def test_links_that_are_all_down_have_no_protocol(gpu_with):
    gpu = gpu_with({"nvlink_count": "2", "nvlink.*.active": "0"})

    assert (gpu.nvlink_active, gpu.nvlink_inactive) == ((), (0, 1))
    assert gpu.nvlink_version == gpu.nvlink_errors == Missing("no NVLink is active")


def test_what_a_link_counted_is_listed_by_link_and_kind(gpu_with):
    gpu = gpu_with(
        {
            "nvlink.2.replay_errors": "5",
            "nvlink.2.recovery_errors": "6",
            "nvlink.7.crc_flit_errors": "7",
            "nvlink.7.crc_data_errors": "error:999",
            "nvlink.17.ecc_data_errors": "8",
        }
    )

    assert gpu.nvlink_errors == (
        NvLinkError(link=2, kind="replay", count=5),
        NvLinkError(link=2, kind="recovery", count=6),
        NvLinkError(link=7, kind="crc_flit", count=7),
        NvLinkError(
            link=7,
            kind="crc_data",
            count=Missing("nvmlDeviceGetNvLinkErrorCounter: Unknown Error (NVML 999)"),
        ),
        NvLinkError(link=17, kind="ecc_data", count=8),
    )


def test_a_counter_that_the_part_lacks_costs_no_other(gpu_with):
    gpu = gpu_with({"nvlink.*.ecc_data_errors": "missing", "nvlink.4.replay_errors": "9"})

    assert gpu.nvlink_errors == (NvLinkError(link=4, kind="replay", count=9),)


def test_blackwells_links_are_counted_by_fields(gpu_with):
    no_counters = {
        f"nvlink.*.{kind}_errors": "missing"
        for kind in ("replay", "recovery", "crc_flit", "crc_data", "ecc_data")
    }
    fields = {"field.214.*": "0", "field.219.*": "0", "field.219.5": "33"}

    assert gpu_with(no_counters | fields).nvlink_errors == (
        NvLinkError(link=5, kind="effective", count=33),
    )
    assert gpu_with(no_counters).nvlink_errors == Missing(
        "nvmlDeviceGetFieldValues(219): Not Supported (NVML 3)"
    )


def test_mig_instances_are_described(seen):
    gpu = known(seen("mig").gpus)[0]

    assert (gpu.mig_enabled, gpu.mig_enabled_pending) == (True, True)
    assert gpu.mig_uuids == tuple(instance.uuid for instance in known(gpu.mig_instances))
    assert known(gpu.mig_instances)[0] == MigInstance(
        uuid="MIG-852a5fba-444a-4f42-a37f-5722051e2670",
        profile="3g.40gb",
        gpu_instance_id=2,
        compute_instance_id=0,
        memory_total_bytes=42412802048,
        memory_used_bytes=32518438912,
        memory_free_bytes=9894363136,
        memory_reserved_bytes=0,
    )
    assert [i.profile for i in known(gpu.mig_instances)] == ["3g.40gb", "2g.20gb", "2g.20gb"]
    assert gpu.error_codes == ()


def test_an_instance_that_cannot_say_its_name_keeps_its_memory(seen):
    gpu = known(seen("mig", changes={"gpu.0.mig.1.name": "error:999"}).gpus)[0]

    instance = known(gpu.mig_instances)[1]
    assert instance.profile == Missing("nvmlDeviceGetName: Unknown Error (NVML 999)")
    assert instance.memory_total_bytes == 21072183296
    assert gpu.error_codes == (999,)


def test_instances_that_cannot_be_listed_leave_the_mode(seen):
    gpu = known(seen("mig", changes={"gpu.0.mig_max_devices": "error:999"}).gpus)[0]

    reason = Missing("nvmlDeviceGetMaxMigDeviceCount: Unknown Error (NVML 999)")
    assert gpu.mig_enabled is True
    assert (gpu.mig_uuids, gpu.mig_instances) == (reason, reason)
    assert len(known(gpu.processes)) == 2


def in_short(gpu):
    return {
        (p.pid, p.kind, p.used_bytes, p.gpu_instance_id, p.compute_instance_id)
        for p in known(gpu.processes)
    }


def test_processes_of_every_kind_are_listed_once(gpu_with):
    gpu = gpu_with(
        {
            "process.0": "4194990 100 compute",
            "process.1": "4194991 200 graphics",
            "process.2": "4194992 300 mps",
            "process.3": "4194992 300 compute",
            "process.4": "4194993 -1 compute",
        }
    )

    unknown = Missing("NVML gives no memory for this process")
    assert in_short(gpu) == {
        (4194990, "compute", 100, None, None),
        (4194991, "graphics", 200, None, None),
        (4194992, "mps", 300, None, None),
        (4194993, "compute", unknown, None, None),
    }


def test_processes_of_instances_name_them(seen):
    assert in_short(known(seen("mig").gpus)[0]) == {
        (51200, "compute", 32505856000, 2, 0),
        (51201, "compute", 12582912000, 3, 0),
    }


def test_instances_list_the_processes_that_the_whole_gpu_may_not(seen):
    gpu = known(seen("mig", changes={"gpu.0.compute_processes": "error:4"}).gpus)[0]

    assert {process.pid for process in known(gpu.processes)} == {51200, 51201}
    assert gpu.error_codes == ()


def test_processes_that_cannot_be_listed_are_a_gap(gpu_with):
    gpu = gpu_with({"compute_processes": "error:999", "mps_processes": "error:3"})

    assert gpu.processes == Missing(
        "nvmlDeviceGetComputeRunningProcesses_v3: Unknown Error (NVML 999)"
    )


def test_graphics_processes_that_cannot_be_listed_leave_the_others(gpu_with):
    gpu = gpu_with({"graphics_processes": "error:999"})

    assert len(known(gpu.processes)) == 1
    assert gpu.error_codes == (999,)


def test_each_two_gpus_are_a_pair(seen):
    changes = {
        "gpu.0.topology.1.common_ancestor": "10",
        "gpu.0.p2p.1.read": "0",
        "gpu.0.p2p.1.write": "3",
        "gpu.0.p2p.1.nvlink": "5",
        "gpu.1.p2p.2.read": "9",
    }
    pairs = known(seen(changes=changes, gpus=3).pairs)

    assert pairs == (
        GpuPair(
            first=0,
            second=1,
            topology="single",
            p2p_read="ok",
            p2p_write="topology_not_supported",
            p2p_nvlink="not_supported",
        ),
        GpuPair(
            first=0,
            second=2,
            topology="system",
            p2p_read="ok",
            p2p_write="ok",
            p2p_nvlink="ok",
        ),
        GpuPair(
            first=1,
            second=2,
            topology="system",
            p2p_read="9",
            p2p_write="ok",
            p2p_nvlink="ok",
        ),
    )


@pytest.mark.parametrize("fact", ["topology", "p2p_read", "p2p_write", "p2p_nvlink"])
def test_a_pair_that_cannot_be_read_costs_no_other_fact(seen, fact):
    key = {"topology": "topology.1.common_ancestor"}.get(fact, f"p2p.1.{fact[4:]}")
    nvml = seen(changes={f"gpu.0.{key}": "error:999"}, gpus=2)

    (pair,) = known(nvml.pairs)
    assert set(missing(pair)) == {fact}
    assert missing(pair)[fact].endswith("(NVML 999)")
    assert known(nvml.gpus)[0].error_codes == ()


def test_pairs_with_a_lost_gpu_say_so(seen):
    pairs = known(seen("lost_gpu").pairs)

    lost = {(p.first, p.second) for p in pairs if isinstance(p.p2p_read, Missing)}
    assert len(pairs) == 28
    assert lost == {(min(i, 5), max(i, 5)) for i in range(8) if i != 5}
    assert missing(pairs[4])["topology"] == "nvmlDeviceGetHandleByIndex: GPU is lost (NVML 15)"


@pytest.mark.parametrize(("gpus", "pairs"), [(0, 0), (1, 0), (2, 1), (16, 120)])
def test_pairs_are_listed_for_up_to_sixteen_gpus(seen, gpus, pairs):
    assert len(known(seen(gpus=gpus).pairs)) == pairs


def test_pairs_of_more_gpus_are_left_out(seen):
    assert seen(gpus=17).pairs == Missing("pairs are asked for up to 16 GPUs, here are 17")


def test_a_pair_that_hangs_costs_no_gpu(seen):
    nvml = seen(changes={"gpu.1.p2p.2.write": "hang:30"}, limit_s=2)

    assert all(isinstance(gpu.name, str) for gpu in known(nvml.gpus))
    assert nvml.pairs == Missing("NVML was asked and did not answer: no answer within 2 s")


def test_a_serial_number_is_never_asked_for(seen):
    nvml = seen(changes={"gpu.*.serial": "crash", "gpu.*.board_part_number": "crash"}, gpus=1)

    assert nvml.failure is None
    assert b"1652923012000" not in msgspec.json.encode(seen(gpus=1))


NEW_IN_PYNVML = (
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetGpuMaxPcieLinkGeneration",
    "nvmlMemory_v2",
    "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
)
OLD_PYNVML = """
import newer
from newer import *
from newer import _nvmlGetFunctionPointer, {names}
del {names}
def nvmlDeviceGetMemoryInfo(handle):
    return newer.nvmlDeviceGetMemoryInfo(handle)
"""


def test_an_old_binding_costs_only_what_it_does_not_know(nvml, tmp_path):
    shutil.copy(pynvml.__file__, tmp_path / "newer.py")
    (tmp_path / "pynvml.py").write_text(OLD_PYNVML.format(names=", ".join(NEW_IN_PYNVML)))
    command = [sys.executable, "-I", "-S", CHILDREN / "ask_nvml.py", tmp_path]

    result = subprocess.run(
        command,
        env=os.environ | nvml("healthy_8", gpus=1, changes=NEWEST),
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.stderr == ""
    gpu = json.loads(result.stdout.split(RECORD)[2])["gpu"]
    reasons = {name for name, fact in gpu.items() if "nvidia-ml-py does not know it" in str(fact)}
    assert reasons == {"temperature_margin_celsius", "pcie_generation_gpu_max"}
    assert gpu["temperature_celsius"] == 58
    assert gpu["memory_reserved_bytes"] == {"missing": "this driver counts its reserve as used"}
    assert gpu["fabric_state"] == "completed"
