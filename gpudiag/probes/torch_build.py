"""What torch is and what it can do, asked in a fresh process of the same interpreter."""

from __future__ import annotations

import sys

import msgspec

from gpudiag import children
from gpudiag.host import Host
from gpudiag.probes.child import merged, spoken
from gpudiag.programs import Completed
from gpudiag.snapshot import AllocatorState, Missing, TorchBuild


def torch_build(host: Host, limit_s: float) -> TorchBuild:
    """Torch's facts; an import that fails or crashes is a fact, told in ``import_error``."""
    allocator = allocator_states()
    outcome = host.run(*children.torch(), timeout_s=limit_s)
    objects, failure = spoken(outcome)
    said = merged(objects)
    if not said:
        return TorchBuild.missing(f"torch could not be asked: {failure}", python=sys.executable)
    if "import_error" not in said and _timed_out(outcome):  # slow is not broken
        said["import_error"] = {"missing": f"import torch gave no answer within {limit_s:g} s"}
    elif "import_error" not in said:
        ended = failure or "exit code 0, before the import was done"
        said["import_error"] = f"the process that ran 'import torch' ended: {ended}"
    import_error = said["import_error"]
    if isinstance(import_error, str):
        reason = f"import torch fails: {_first_line(import_error)}"
    elif import_error is not None:
        reason = import_error["missing"]
    else:
        reason = f"torch was asked and did not answer: {failure or 'not part of its answer'}"
    unanswered = {"missing": reason}
    section = msgspec.convert(
        dict.fromkeys(TorchBuild.__struct_fields__, unanswered) | said, TorchBuild
    )
    return msgspec.structs.replace(section, allocator=allocator)


def allocator_states() -> tuple[AllocatorState, ...] | Missing:
    """What torch holds in the calling process; never loads torch, never initialises CUDA."""
    torch = sys.modules.get("torch")
    if torch is None:
        return Missing("torch is not loaded in this process")
    if not torch.cuda.is_initialized():
        return Missing("this process has not initialised CUDA")
    states = []
    for index in range(torch.cuda.device_count()):
        figures = torch.cuda.memory_stats(index)
        uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
        states.append(
            AllocatorState(
                device=f"cuda:{index}",
                uuid=None if uuid is None else f"GPU-{uuid}",
                allocated_bytes=figures.get("allocated_bytes.all.current", 0),
                reserved_bytes=figures.get("reserved_bytes.all.current", 0),
                fragmented_bytes=figures.get("inactive_split_bytes.all.current", 0),
            )
        )
    return tuple(states)


def torch_not_asked(host: Host, limit_s: float) -> TorchBuild:  # noqa: ARG001 - a probe's form
    """The section for ``--no-torch``: only what the calling process knows already."""
    return TorchBuild.missing(
        "torch was not asked (--no-torch)", python=sys.executable, allocator=allocator_states()
    )


def _timed_out(outcome: Completed | Missing) -> bool:
    return isinstance(outcome, Completed) and outcome.exit_code is None


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else text
