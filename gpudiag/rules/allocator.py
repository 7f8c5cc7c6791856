"""GD6xx: PYTORCH_CUDA_ALLOC_CONF, read as torch's allocator reads it."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.requirement import release
from gpudiag.snapshot import Snapshot, known_or

OLD, NEW = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
NOTES = "https://docs.pytorch.org/docs/stable/notes/cuda.html"
# The options of torch 2.0 to 2.15, from the strings of its libraries and its notes on CUDA.
OPTIONS = frozenset(
    {
        "backend",
        "expandable_segments",
        "expandable_segments_handle_type",
        "expandable_segments_reserve",
        "expandable_segments_reserve_by_class",
        "garbage_collection_threshold",
        "graph_capture_record_stream_reuse",
        "large_segment_size_mb",
        "max_non_split_rounding_mb",
        "max_split_size_mb",
        "per_process_memory_fraction",
        "pinned_max_cached_size_mb",
        "pinned_max_round_threshold_mb",
        "pinned_num_register_threads",
        "pinned_reserve_segment_size_mb",
        "pinned_use_background_threads",
        "pinned_use_cuda_host_register",
        "pinned_use_hip_host_register",
        "release_lock_on_cudamalloc",
        "release_lock_on_hipmalloc",
        "roundup_power2_divisions",
        "throw_on_cudamalloc_oom",
    }
)
LEAST_SPLIT_MB = 20  # torch refuses anything below the size of its large segments
ABOVE_IT_BEFORE = (2, 9)  # where c10/core/AllocatorConfig.cpp does not read it yet, that size, too
SWITCHES = frozenset(
    {
        "expandable_segments",
        "pinned_use_background_threads",
        "pinned_use_cuda_host_register",
        "release_lock_on_cudamalloc",
    }
)
BACKENDS = ("native", "cudaMallocAsync", "hipMallocAsync")
MOST_REGISTER_THREADS = 128


@rule("GD618", Severity.ERROR, NOTES, "https://github.com/pytorch/pytorch/issues/101158")
def allocator_settings_malformed(snapshot: Snapshot) -> Finding | None:
    """The settings of torch's memory allocator are malformed.

    The value is a list of option:value with commas. An equals sign in place of the colon, quotes,
    a split size below 20 MiB (before torch 2.9 of 20 MiB, too), a threshold that is no fraction or
    a number that must be a power of two and is none: each is refused when the first tensor goes to
    the GPU.
    """
    faults = [
        f"{name}={value!r}: {fault}"
        for name, value in _settings(snapshot).items()
        if (fault := _fault(value, _least_split_mb(snapshot))) is not None
    ]
    if not faults:
        return None
    return Finding(
        evidence=tuple(faults),
        cause="the first .cuda() ends with an error of CachingAllocator settings",
        fix=f"export {OLD}=expandable_segments:True; or unset {OLD}",
    )


@rule("GD619", Severity.WARNING, NOTES, "https://github.com/pytorch/pytorch/issues/123505")
def allocator_option_unknown(snapshot: Snapshot) -> Finding | None:
    """An option of torch's memory allocator is not known.

    Each option's name is compared with those that torch 2.0 to 2.15 know.

    Ignore it when your torch is newer and its notes name the option.
    """
    unknown = [
        option
        for value in _settings(snapshot).values()
        if _fault(value, _least_split_mb(snapshot)) is None
        for option in _options(value)
        if option not in OPTIONS
    ]
    if not unknown:
        return None
    return Finding(
        evidence=tuple(f"unknown option {option!r}" for option in unknown),
        cause="torch ends with 'Unrecognized CachingAllocator option' at the first .cuda()",
        fix=f"take it out of {OLD}; the notes on CUDA in torch's documentation list the options",
    )


@rule("GD620", Severity.WARNING, NOTES, "https://github.com/pytorch/torchtitan/pull/1577")
def allocator_settings_contradict(snapshot: Snapshot) -> Finding | None:
    """Two variables set torch's memory allocator differently.

    PYTORCH_ALLOC_CONF is the new name of PYTORCH_CUDA_ALLOC_CONF, and both are set.
    """
    settings = _settings(snapshot)
    if len(settings) < 2 or settings[OLD] == settings[NEW]:  # noqa: PLR2004 - both
        return None
    return Finding(
        evidence=tuple(f"{name}={value!r}" for name, value in settings.items()),
        cause="one of them is ignored, which one depends on torch's version",
        fix=f"unset {OLD}; or, before torch 2.9, unset {NEW}",
    )


def _settings(snapshot: Snapshot) -> dict[str, str]:
    values = {name: snapshot.environment.get(name) for name in (OLD, NEW)}
    return {name: value for name, value in values.items() if value}


def _least_split_mb(snapshot: Snapshot) -> int:
    """The smallest split size that this torch accepts, or that one of them does."""
    before = release(known_or(snapshot.torch.version, ""))[:2]
    return LEAST_SPLIT_MB + bool(before and before < ABOVE_IT_BEFORE)


def _fault(value: str, least_split_mb: int) -> str | None:
    """What torch would refuse in a value, None if nothing."""
    if value[0] in "'\"":
        return "the quotes are part of the value"
    for part in _parts(value):
        option, colon, setting = part.partition(":")
        if "=" in option:
            return f"{part!r} has an equals sign in place of a colon"
        if not colon or not setting.strip():
            return f"{part!r} has no value"
        wanted = _wanted(option.strip(), setting.strip(), least_split_mb)
        if wanted is not None:
            return f"{option} must be {wanted}"
    return None


def _wanted(option: str, setting: str, least_split_mb: int) -> str | None:
    """What a setting had to be that torch refuses, None where it takes it."""
    fraction = float(setting) if re.fullmatch(r"-?\d*\.?\d+", setting) else None
    number = int(setting) if re.fullmatch(r"\d{1,18}", setting) else None
    wanted: dict[str, tuple[bool, str]] = {
        "max_split_size_mb": (
            number is not None and number >= least_split_mb,
            f"a whole number from {least_split_mb} on",
        ),
        "garbage_collection_threshold": (
            fraction is None or 0 < fraction < 1,
            "between 0 and 1, and neither of them",
        ),
        "per_process_memory_fraction": (fraction is None or 0 <= fraction <= 1, "from 0 to 1"),
        "backend": (setting in BACKENDS, f"one of {', '.join(BACKENDS)}"),
        "roundup_power2_divisions": (number is None or number.bit_count() == 1, "a power of two"),
        "pinned_num_register_threads": (
            number is None or (number.bit_count() == 1 and number <= MOST_REGISTER_THREADS),
            f"a power of two up to {MOST_REGISTER_THREADS}",
        ),
        **dict.fromkeys(SWITCHES, (setting in {"True", "False"}, "True or False")),
    }
    accepted, words = wanted.get(option, (True, ""))
    return None if accepted else words


def _parts(value: str) -> list[str]:
    """The settings, apart from the commas inside of brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(value):
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append(value[start:position].strip())
            start = position + 1
    return [part for part in (*parts, value[start:].strip()) if part]


def _options(value: str) -> list[str]:
    return [part.partition(":")[0].strip() for part in _parts(value)]
