"""NVML, asked in a process of its own through nvidia-ml-py: one handle for the whole run."""

from __future__ import annotations

from typing import Any

import msgspec

from gpudiag import children
from gpudiag.host import Host
from gpudiag.probes.child import of_the_library, spoken
from gpudiag.probes.processes import others_hidden
from gpudiag.snapshot import Gpu, GpuProcess, Missing, Nvml, known_or


def nvml(host: Host, limit_s: float) -> Nvml:
    """What NVML knows; a GPU that hangs or crashes it costs only itself and those after it."""
    command = children.nvml()
    if command is None:
        return Nvml.missing("nvidia-ml-py is not installed: pip install nvidia-ml-py")
    outcome = host.run(*command, timeout_s=limit_s)
    objects, failure = spoken(outcome)
    if not objects:
        reason = f"NVML could not be asked: {failure or 'it said nothing'}"
        if not of_the_library(outcome):
            return Nvml.missing(reason)
        return Nvml.missing(reason, failure=failure)
    first, *rest = objects
    if first["init_code"] != 0:
        message = first["init_message"]
        reason = f"NVML did not start: {message} (NVML {first['init_code']})"
        return Nvml.missing(
            reason, init_code=first["init_code"], init_message=message, failure=None
        )
    count = first.pop("gpu_count")
    first["failure"] = (
        {"missing": f"NVML was asked until gpudiag's own script failed: {failure}"}
        if failure and not of_the_library(outcome)
        else failure
    )
    if isinstance(count, dict):
        return msgspec.convert(first | {"gpus": count, "pairs": count}, Nvml)
    unanswered = f"NVML was asked and did not answer: {failure}"
    gpus = [_gpu(said["gpu"]) for said in rest if "gpu" in said]
    gpus += [Gpu.missing(unanswered, index=index) for index in range(len(gpus), count)]
    owned = tuple(_with_owners(gpu, host) for gpu in gpus)
    pairs = next((said["pairs"] for said in rest if "pairs" in said), {"missing": unanswered})
    return msgspec.structs.replace(msgspec.convert(first | {"pairs": pairs}, Nvml), gpus=owned)


def _gpu(said: dict[str, Any]) -> Gpu:
    if "unreachable" in said:
        return Gpu.missing(
            said["unreachable"], index=said["index"], error_codes=tuple(said["error_codes"])
        )
    return msgspec.convert(said, Gpu)


def _with_owners(gpu: Gpu, host: Host) -> Gpu:
    processes = known_or(gpu.processes, ())
    if not processes:
        return gpu
    return msgspec.structs.replace(
        gpu, processes=tuple(_with_owner(process, host) for process in processes)
    )


def _with_owner(process: GpuProcess, host: Host) -> GpuProcess:
    folder = f"/proc/{process.pid}"
    if not host.exists(folder):
        if hidden := others_hidden(host):
            return msgspec.structs.replace(process, visible=hidden, name=hidden, user=hidden)
        reason = Missing(f"process {process.pid} is not in this PID namespace")
        return msgspec.structs.replace(process, visible=False, name=reason, user=reason)
    name = host.read(f"{folder}/comm")
    return msgspec.structs.replace(
        process,
        visible=True,
        name=name.strip() if isinstance(name, str) else name,
        user=host.owner(folder),
    )
