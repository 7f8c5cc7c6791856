"""What torch is and what it can do, asked in a fresh process of the same interpreter."""

from __future__ import annotations

import sys

import msgspec

from gpudiag.host import Host
from gpudiag.probes.child import CHILDREN, merged, spoken
from gpudiag.snapshot import Missing, TorchBuild


def torch_build(host: Host, limit_s: float) -> TorchBuild:
    """Torch's facts; an import that crashes or hangs is a fact, told in ``import_error``."""
    objects, failure = spoken(host.run_python(CHILDREN / "ask_torch.py", timeout_s=limit_s))
    said = merged(objects)
    if not said:
        return TorchBuild.missing(f"torch could not be asked: {failure}", python=sys.executable)
    if "import_error" not in said:
        said["import_error"] = f"the process that ran 'import torch' ended: {failure}"
    import_error = said["import_error"]
    if isinstance(import_error, str):
        reason = f"import torch fails: {_first_line(import_error)}"
    elif import_error is not None:
        reason = import_error["missing"]
    else:
        reason = f"torch was asked and did not answer: {failure or 'not part of its answer'}"
    unanswered = {"missing": reason}
    return msgspec.convert(
        dict.fromkeys(TorchBuild.__struct_fields__, unanswered) | said, TorchBuild
    )


def torch_not_asked(host: Host, limit_s: float) -> TorchBuild:  # noqa: ARG001 - a probe's form
    """The section for ``--no-torch``."""
    return TorchBuild(
        **dict.fromkeys(TorchBuild.__struct_fields__, Missing("torch was not asked (--no-torch)"))
    )


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else text
