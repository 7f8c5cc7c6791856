"""A plan carried out: the modes off, the reset, the modes on again whatever happened, a look."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from gpudiag.host import Host
from gpudiag.reset.plan import CALL_LIMIT_S, Plan
from gpudiag.snapshot import Missing

RESET_LIMIT_S = 120.0  # seconds are usual; what takes minutes does not come back
# https://docs.nvidia.com/deploy/nvidia-smi/index.html, "Return Value"
MEANINGS = {
    2: "an argument is not known to this nvidia-smi",
    3: "this GPU does not offer it",
    4: "this user may not do it",
    6: "there is no such GPU",
    9: "the driver is not loaded",
    15: "the GPU has fallen off the bus",
}


@dataclass(frozen=True, kw_only=True)
class Reset:
    """How a reset went.

    Attributes:
        done: Whether every GPU was reset and answers.
        commands: What was run, or, on a dry run, what would be.
        obstacles: What stood in the way, sentences with their cure.
        said: What nvidia-smi said, and what gpudiag saw.
    """

    done: bool
    commands: tuple[str, ...]
    obstacles: tuple[str, ...]
    said: tuple[str, ...]


def perform(host: Host, plan: Plan, *, limit_s: float = RESET_LIMIT_S) -> Reset:
    """Reset, restore the modes even after a failure, and ask whether the GPUs answer."""
    said: list[str] = []
    done = True
    try:
        for command in plan.before:
            done = done and _run(host, command, CALL_LIMIT_S, said)
        done = done and _run(host, plan.reset, limit_s, said)
    finally:
        restored = [_run(host, command, CALL_LIMIT_S, said) for command in plan.after]
    if not all(restored):
        again = "; ".join(shlex.join(command) for command in plan.after)
        said.append(f"persistence mode was not restored, by hand: sudo {again}")
    if done:
        silent = [
            gpu.index
            for gpu, command in zip(plan.gpus, plan.verification, strict=True)
            if not _run(host, command, CALL_LIMIT_S, said)
        ]
        said += [f"GPU {index} does not answer after the reset: reboot" for index in silent]
        done = not silent and all(restored)
    return Reset(
        done=done,
        commands=plan.commands,
        obstacles=tuple(map(str, plan.obstacles)),
        said=tuple(said),
    )


def _run(host: Host, command: tuple[str, ...], limit_s: float, said: list[str]) -> bool:
    outcome = host.run(*command, timeout_s=limit_s)
    if isinstance(outcome, Missing):
        said.append(outcome.missing)
        return False
    text = f"{outcome.stdout}\n{outcome.stderr}"
    said += [line.rstrip() for line in text.splitlines() if line.strip()]
    if outcome.failure:
        meaning = MEANINGS.get(outcome.exit_code or 0)
        said.append(f"{shlex.join(command)}: {outcome.failure}{f', {meaning}' if meaning else ''}")
    return outcome.failure is None
