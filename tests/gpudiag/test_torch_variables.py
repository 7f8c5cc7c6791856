"""What the rules make of the variables that torch reads, with torch itself as the oracle."""

import subprocess
import sys

import pytest
from builders import gpu, only, silent, snapshot

from gpudiag.rules.allocator import allocator_settings_malformed
from gpudiag.rules.environment import ARCHITECTURE_NAMES, extensions_without_this_gpu

REFUSED = [
    *("garbage_collection_threshold:80", "garbage_collection_threshold:1.0"),
    *("garbage_collection_threshold:0", "backend:cudamallocasync", "roundup_power2_divisions:3"),
    *("roundup_power2_divisions:0", "per_process_memory_fraction:1.5", "max_split_size_mb:19"),
    *("per_process_memory_fraction:-0.1", "pinned_num_register_threads:3"),
    *("pinned_num_register_threads:256", "pinned_use_background_threads:yes"),
    *("expandable_segments:true", "max_split_size_mb=128", "max_split_size_mb:"),
]
ACCEPTED = [
    *("garbage_collection_threshold:0.8", "garbage_collection_threshold:.5", "backend:native"),
    *("roundup_power2_divisions:4", "roundup_power2_divisions:[256:1,512:2,>:4]"),
    *("per_process_memory_fraction:1", "per_process_memory_fraction:0", "max_split_size_mb: 20"),
    *("pinned_num_register_threads:128", "pinned_use_background_threads:True"),
    *("expandable_segments: True", "expandable_segments:True,max_split_size_mb:512"),
]
ASK_TORCH = """
import sys, torch
for value in sys.argv[1:]:
    try:
        torch._C._accelerator_setAllocatorSettings(value)
    except (RuntimeError, ValueError):
        print("refused")
    else:
        print("accepted")
"""


def settings(value, **torch):
    return snapshot(env={"PYTORCH_CUDA_ALLOC_CONF": value}, torch={"version": "2.14.1"} | torch)


def test_what_torch_refuses_is_malformed_and_nothing_else():
    torch = pytest.importorskip("torch", minversion="2.14")
    if torch.version.cuda is None:
        pytest.skip("this torch has no allocator for CUDA")

    answers = subprocess.run(
        [sys.executable, "-c", ASK_TORCH, *REFUSED, *ACCEPTED],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert answers == ["refused"] * len(REFUSED) + ["accepted"] * len(ACCEPTED)


@pytest.mark.parametrize("value", REFUSED)
def test_a_refused_setting_is_reported(value):
    assert only(allocator_settings_malformed, settings(value))


@pytest.mark.parametrize("value", ACCEPTED)
def test_an_accepted_setting_is_not(value):
    assert silent(allocator_settings_malformed, settings(value))


def test_the_size_of_a_large_segment_itself_was_refused_once():
    smallest = "max_split_size_mb:20"

    assert only(allocator_settings_malformed, settings(smallest, version="2.8.0"))
    assert silent(allocator_settings_malformed, settings(smallest, version="2.9.0"))
    assert silent(allocator_settings_malformed, snapshot(env={"PYTORCH_ALLOC_CONF": smallest}))


@pytest.mark.parametrize(
    ("value", "capability", "covered"),
    [
        ("Blackwell", (12, 0), True),
        ("Blackwell", (9, 0), False),
        ("Ampere", (8, 9), True),
        ("Ampere", (9, 0), True),
        ("Ampere+Tegra", (8, 7), True),
        ("Ampere+Tegra", (8, 0), False),
        ("10.0a", (10, 0), True),
        ("10.0a", (10, 3), False),
        ("9.0a+PTX", (10, 0), False),
        ("8.0", (8, 6), True),
        ("Whatever", (8, 6), True),
    ],
)
def test_a_list_of_architectures_is_read_as_torch_reads_it(value, capability, covered):
    seen = snapshot(
        env={"TORCH_CUDA_ARCH_LIST": value}, gpus=[gpu(0, compute_capability=capability)]
    )

    assert silent(extensions_without_this_gpu, seen) is covered


@pytest.mark.parametrize("name", ["Maxwell", "Ampere", "Ampere+Tegra", "Hopper", "Blackwell"])
def test_the_names_of_architectures_are_those_of_torch(monkeypatch, name):
    pytest.importorskip("torch", minversion="2.14")
    extension = pytest.importorskip("torch.utils.cpp_extension")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", ARCHITECTURE_NAMES[name.lower()])
    expected = extension._get_cuda_arch_flags()

    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", name)

    assert extension._get_cuda_arch_flags() == expected
