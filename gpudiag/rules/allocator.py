"""GD6xx: PYTORCH_CUDA_ALLOC_CONF, read as torch's allocator reads it."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, rule
from gpudiag.snapshot import Snapshot

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
LEAST_SPLIT_MB = 20  # torch refuses anything up to the size of its large segments


@rule("GD618", Severity.ERROR, NOTES, "https://github.com/pytorch/pytorch/issues/101158")
def allocator_settings_malformed(snapshot: Snapshot) -> Finding | None:
    """The settings of torch's memory allocator are malformed.

    The value is a list of option:value with commas. An equals sign in place of the colon, quotes,
    or a split size of 20 MiB or less is refused when the first tensor goes to the GPU.
    """
    faults = [
        f"{name}={value!r}: {fault}"
        for name, value in _settings(snapshot).items()
        if (fault := _fault(value)) is not None
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
        if _fault(value) is None
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


def _fault(value: str) -> str | None:
    """What torch would refuse in a value, None if nothing."""
    if value[0] in "'\"":
        return "the quotes are part of the value"
    for part in _parts(value):
        option, colon, setting = part.partition(":")
        if "=" in option:
            return f"{part!r} has an equals sign in place of a colon"
        if not colon or not setting.strip():
            return f"{part!r} has no value"
        if option == "max_split_size_mb" and not _is_above(setting, LEAST_SPLIT_MB):
            return f"max_split_size_mb must be a whole number above {LEAST_SPLIT_MB}"
        if option == "expandable_segments" and setting.strip() not in {"True", "False"}:
            return "expandable_segments must be True or False"
    return None


def _is_above(text: str, least: int) -> bool:
    return text.strip().isdecimal() and int(text) > least


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
