"""gpudiag diff: what can matter first, noise left out, what is not known said as such."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest
from builders import GIB, gpu, snapshot

from gpudiag import traits
from gpudiag.compare import Difference, compare
from gpudiag.finding import Finding, Severity, rule
from gpudiag.snapshot import (
    Driver,
    Gpu,
    GpuProcess,
    MappedLibrary,
    Missing,
    Misspelling,
    Nvml,
    Package,
    Packages,
    Service,
    Snapshot,
    System,
    TorchBuild,
    known,
)
from gpudiag.traits import together, traits_of

NOISE = {
    "nvml": {"gpus", "pairs"},  # told as gpu.*
    "driver": {"services", "parameters", "stuck_processes"},  # families of their own, and a moment
    "gpu": {
        *("index", "uuid", "pci_address", "minor_number", "processes", "mig_uuids"),
        *("memory_used_bytes", "memory_free_bytes", "memory_reserved_bytes", "bar1_used_bytes"),
        *("utilization_fraction", "utilization_memory_fraction", "utilization_encoder_fraction"),
        *("utilization_decoder_fraction", "temperature_celsius", "temperature_memory_celsius"),
        *("temperature_margin_celsius", "temperature_slowdown_celsius"),
        *("temperature_shutdown_celsius", "temperature_memory_max_celsius"),
        *("temperature_gpu_max_celsius", "power_watts", "energy_joules", "clock_graphics_mhz"),
        *("clock_sm_mhz", "clock_memory_mhz", "clock_video_mhz", "clock_graphics_max_mhz"),
        *("clock_video_max_mhz", "clock_event_reasons", "performance_state"),
        *(name for name in Gpu.__struct_fields__ if name.startswith(("ecc_corr", "ecc_uncorr"))),
        *("pages_retired_single_bit", "pages_retired_double_bit"),
        *("rows_remapped_correctable", "rows_remapped_uncorrectable"),
        *("pcie_generation", "pcie_replays", "nvlink_inactive", "nvlink_errors"),
        *("fabric_status_code", "fabric_health_mask"),
        *(name for name in Gpu.__struct_fields__ if name.startswith("violation_")),
    },
    "torch": {"python", "accelerator_devices", "allocator"},
    "packages": {"installed", "requirements", "prefix"},
    "system": {"shm_used_bytes", "uptime_s", "disks", "nccl_segments"},
}
SECTIONS = {
    "nvml": Nvml,
    "driver": Driver,
    "gpu": Gpu,
    "torch": TorchBuild,
    "packages": Packages,
    "system": System,
}
MADE = {"device_nodes", "pci_devices"}


@rule("XX1", Severity.ERROR)
def no_torch(seen):
    """There is no torch."""
    version = seen.torch.version
    missing = isinstance(version, Missing)
    return Finding(evidence=("no torch",), cause="c", fix="f") if missing else None


def differences(a, b, **how):
    return {one.fact: (one.a, one.b) for one in compare(a, b, rules=(), **how).differences}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_fact_of_a_snapshot_is_compared_or_left_out_on_purpose(section):
    """A new fact fails here until it is in MATTERS or CONTEXT of traits.py, or in NOISE above."""
    names = set(SECTIONS[section].__struct_fields__)
    groups = [
        set(traits.MATTERS.get(section, ())) | (MADE if section == "driver" else set()),
        set(traits.CONTEXT.get(section, ())),
        NOISE[section],
    ]

    assert set().union(*groups) == names
    assert sum(map(len, groups)) == len(names)


def machine(**changes):
    return snapshot(
        **{
            "gpus": [gpu(0, name="H100", power_limit_watts=700.0), gpu(1, name="H100")],
            "nvml": {"driver_version": "550.54.15"},
            "torch": {"version": "2.9.0"},
            "system": {
                "kernel": "6.8.0",
                "shm_total_bytes": 64 * GIB,
                "locked_memory_limit_bytes": None,
            },
            "env": {"NCCL_DEBUG": "INFO"},
        }
        | changes
    )


def test_equal_machines_do_not_differ():
    same = compare(machine(), machine(), rules=())

    assert (same.differences, same.rules, same.matters) == ((), (), False)


def test_what_changes_from_one_moment_to_the_next_is_left_out():
    holder = GpuProcess(pid=1, kind="compute", used_bytes=GIB)
    now = gpu(0, uuid="GPU-1", temperature_celsius=50, power_watts=300.0, processes=())
    then = gpu(0, uuid="GPU-2", temperature_celsius=60, power_watts=400.0, processes=(holder,))

    assert differences(snapshot(gpus=[now]), snapshot(gpus=[then])) == {}


def test_what_can_matter_comes_first_driver_wheel_library_limits_environment():
    b = machine(
        nvml={"driver_version": "535.104.05"},
        torch={"version": "2.8.0"},
        packages={"installed": (Package(name="torchvision", version="0.23", folder="x"),)},
        system={
            "kernel": "5.15.0",
            "shm_total_bytes": GIB // 16,
            "locked_memory_limit_bytes": 65536,
        },
        env={},
    )
    a = machine(packages={"installed": ()})

    found = compare(a, b, rules=()).differences

    assert [(one.fact, one.matters) for one in found] == [
        ("nvml.driver_version", True),
        ("torch.version", True),
        ("package.torchvision", True),
        ("system.shm_total_bytes", True),
        ("system.locked_memory_limit_bytes", True),
        ("env.NCCL_DEBUG", True),
        ("system.kernel", False),
    ]
    assert found[3] == Difference(
        fact="system.shm_total_bytes", matters=True, a="64.0 GiB", b="64 MiB"
    )
    assert (found[5].a, found[5].b) == ("INFO", None)


def test_the_library_that_is_really_loaded_is_compared_without_its_folder_in_the_wheel():
    def with_library(name, path, *, from_wheel):
        library = MappedLibrary(name=name, path=path, from_wheel=from_wheel)
        return snapshot(torch={"libraries": (library,)})

    here = with_library("libcudnn.so.9", "/a/site-packages/x/libcudnn.so.9", from_wheel=True)
    there = with_library("libcudnn.so.9", "/b/site-packages/x/libcudnn.so.9", from_wheel=True)
    system = with_library("libcudnn.so.8", "/usr/lib/libcudnn.so.8", from_wheel=False)

    assert differences(here, there) == {}
    assert differences(here, system) == {
        "library.libcudnn": (
            "libcudnn.so.9 (in the wheel)",
            "libcudnn.so.8 (/usr/lib/libcudnn.so.8)",
        )
    }


def test_a_fact_that_one_side_does_not_know_is_told_with_the_reason():
    blind = machine(torch={"version": Missing("import torch fails: x")}, env=None)

    found = compare(machine(), blind, rules=())

    assert {one.fact: (one.a, one.b) for one in found.differences} == {
        "torch.version": ("2.9.0", Missing("import torch fails: x")),
        "env.NCCL_DEBUG": ("INFO", Missing("not part of this test")),
    }
    assert found.matters


def test_what_an_older_gpudiag_did_not_ask_does_not_matter():
    older = snapshot(torch={"version": Missing("not recorded in this snapshot")})

    found = compare(snapshot(torch={"version": "2.9.0"}), older, rules=())

    assert [one.matters for one in found.differences] == [False]
    assert not found.matters


NOT_ASKED = Missing("torch was not asked (--no-torch)")


def test_a_snapshot_without_torch_does_not_differ_in_what_it_was_not_asked(diff):
    without = machine(torch={"version": NOT_ASKED, "cuda_version": NOT_ASKED})

    done = diff(machine(torch={"version": "2.9.0", "cuda_version": "12.8"}), without)

    assert done.returncode == 0
    assert done.stdout.endswith(
        "Not known on one side\n"
        "  B: torch was not asked (--no-torch)\n"
        "     torch.version, torch.cuda_version\n"
        "\n"
        "no difference\n"
        "2 facts were asked of one side only\n"
    )


def test_a_rule_that_the_other_side_could_not_be_asked_for_want_of_torch_does_not_matter():
    @rule("XX2", Severity.ERROR)
    def old_torch(seen):
        """The torch is old."""
        if known(seen.torch.version) < "3":
            return Finding(evidence=("old",), cause="c", fix="f")
        return None

    without, failing = (
        machine(torch={"version": why}) for why in (NOT_ASKED, Missing("import torch fails"))
    )

    assert not compare(machine(), without, rules=[old_torch]).matters
    assert compare(machine(), failing, rules=[old_torch]).matters


def test_a_machine_without_gpus_differs_in_their_number_alone():
    assert differences(machine(), machine(gpus=[])) == {"gpu.count": ("2", "0")}


def test_a_misspelt_variable_is_a_difference():
    slip = Misspelling(name="CUDA_VISIBLE_DEVICE", meant="CUDA_VISIBLE_DEVICES", value="0")

    assert differences(machine(misspelt=[]), machine(misspelt=[slip])) == {
        "env.CUDA_VISIBLE_DEVICE": (None, "0 (a slip for CUDA_VISIBLE_DEVICES)")
    }


def test_a_rank_or_a_folder_in_the_environment_rarely_matters():
    found = compare(machine(env={"RANK": "0"}), machine(env={"RANK": "1"}), rules=())

    assert [(one.fact, one.matters) for one in found.differences] == [("env.RANK", False)]
    assert not found.matters


def test_services_are_compared_by_name():
    running = snapshot(driver={"services": (Service(name="nvidia-fabricmanager", running=True),)})
    stopped = snapshot(driver={"services": (Service(name="nvidia-fabricmanager", running=False),)})

    assert differences(running, stopped) == {
        "service.nvidia-fabricmanager": ("running", "not running")
    }


def test_gpus_of_a_machine_are_told_together_where_they_agree():
    assert together(["700", Missing("gone"), None, "700"]) == (
        "700 (GPU 0, 3), not known (GPU 1), none (GPU 2)"
    )


def test_nothing_known_is_nothing_different():
    assert differences(Snapshot(), snapshot()) == {}
    assert all(isinstance(v, Missing | str) for v in traits_of(Snapshot()).values())


def test_rules_that_fire_on_one_side_only_are_told_with_what_the_other_said():
    found = compare(machine(), machine(torch={}), rules=[no_torch]).rules

    assert [(one.id, one.side, one.evidence, one.other) for one in found] == [
        ("XX1", "b", ("no torch",), "passed")
    ]
    assert compare(machine(torch={}), machine(torch={}), rules=[no_torch]).rules == ()


# --- the command


@pytest.fixture
def diff(tmp_path):
    def run(a, b, *options):
        for name, seen in (("a", a), ("b", b)):
            (tmp_path / f"{name}.json").write_text(
                seen if isinstance(seen, str) else seen.to_json()
            )
        return subprocess.run(
            [sys.executable, "-m", "gpudiag", "diff", "a.json", "b.json", *options],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"NO_COLOR": "1"},
            cwd=tmp_path,
        )

    return run


OTHER = machine(
    gpus=[gpu(0, name="H100", power_limit_watts=400.0), gpu(1, name="H100", error_codes=(15,))],
    torch={"version": Missing("torch was not asked (--no-torch)")},
    system={"kernel": "5.15.0", "shm_total_bytes": 64 * GIB, "locked_memory_limit_bytes": None},
    env={"NCCL_DEBUG": "INFO\x1b[2J"},
)


def test_the_text_tells_both_machines_then_the_differences_then_the_rules(diff):
    done = diff(machine(), OTHER, "--select", "GD401")

    assert done.stdout == (
        "A  a.json\n"
        "   2 x H100 · driver 550.54.15 · torch 2.9.0\n"
        "B  b.json\n"
        "   2 x H100 · driver 550.54.15 · torch not known: torch was not asked (--no-torch)\n"
        "\n"
        "Can matter\n"
        "fact                   A                               B\n"
        "---------------------  ------------------------------  ------------------------------\n"
        "gpu.power_limit_watts  700 (GPU 0), not known (GPU 1)  400 (GPU 0), not known (GPU 1)\n"
        "env.NCCL_DEBUG         INFO                            INFO\\x1b[2J\n"
        "\n"
        "Rarely matters\n"
        "fact           A      B\n"
        "-------------  -----  ------\n"
        "system.kernel  6.8.0  5.15.0\n"
        "\n"
        "Not known on one side\n"
        "  A: not part of this test\n"
        "     gpu.error_codes\n"
        "  B: torch was not asked (--no-torch)\n"
        "     torch.version\n"
        "\n"
        "Rules that fire on one side only\n"
        "  B: error GD401  A GPU is lost\n"
        "     GPU 1 does not answer: NVML 15 (GPU is lost)\n"
        "     could not be asked of A: GPU 0, 1: not part of this test\n"
        "\n"
        "3 differences that can matter, 1 that rarely does · 1 rule on one side only\n"
        "1 fact was asked of one side only\n"
    )
    assert (done.stderr, done.returncode) == ("", 1)


def test_json_and_csv_hold_the_same(diff):
    document = json.loads(diff(machine(), OTHER, "--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(diff(machine(), OTHER, "--format", "csv").stdout)))

    assert (document["a"], document["b"]) == ("a.json", "b.json")
    names = [one["fact"] for one in document["differences"]]
    assert [row["name"] for row in rows] == names + [one["id"] for one in document["rules"]]
    unknown = next(row for row in rows if row["name"] == "torch.version")
    assert (unknown["a"], unknown["b"]) == ("2.9.0", "")
    assert unknown["why_b_is_not_known"] == "torch was not asked (--no-torch)"
    assert document["differences"][names.index("torch.version")]["b"] == {
        "missing": "torch was not asked (--no-torch)"
    }


def test_no_difference_is_exit_code_0(diff):
    done = diff(machine(), machine())

    assert done.stdout.endswith("\n\nno difference\n")
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_difference_that_rarely_matters_is_told_and_is_exit_code_0(diff):
    system = {"kernel": "5.15.0", "shm_total_bytes": 64 * GIB, "locked_memory_limit_bytes": None}
    done = diff(machine(), machine(system=system))

    assert "system.kernel  6.8.0  5.15.0" in done.stdout
    assert done.returncode == 0


def test_a_file_that_cannot_be_read_is_one_line_and_exit_code_2(diff):
    done = diff(machine(), "no json")

    assert done.stderr.startswith("gpudiag: b.json: expected a snapshot in JSON, got text that is")
    assert (done.stdout, done.stderr.count("\n"), done.returncode) == ("", 1, 2)
