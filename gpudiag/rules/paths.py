"""GD6xx: environment variables that lead to other libraries, packages and files."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.snapshot import Snapshot, known


@rule(
    "GD621", Severity.WARNING, "https://github.com/pytorch/pytorch/pull/160179", explains=("GD121",)
)
def stubs_on_the_path(snapshot: Snapshot) -> Finding | None:
    """LD_LIBRARY_PATH holds the toolkit's folder of stubs.

    The folder is meant for linking on machines without a driver; its libcuda.so is empty.
    """
    path = snapshot.environment.get("LD_LIBRARY_PATH")
    folders = [f for f in (path or "").split(":") if re.search(r"/stubs/?$", f)]
    if not folders:
        return None
    return Finding(
        evidence=(f"LD_LIBRARY_PATH holds {folders[0]}",),
        cause="a program that finds the stub first fails with error 34",
        fix="take the folder out of LD_LIBRARY_PATH; use LIBRARY_PATH for linking",
    )


@rule("GD622", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/119989")
def libraries_preloaded(snapshot: Snapshot) -> Finding | None:
    """LD_PRELOAD forces a CUDA library on every program.

    The library is loaded before the one that torch brought, whichever version that is.

    Ignore it when you test another NCCL or cuDNN on purpose.
    """
    value = snapshot.environment.get("LD_PRELOAD")
    forced = re.findall(r"[^:\s]*lib(?:nccl|cuda|cudart|cudnn|cublas)[^:\s]*", value or "")
    if not forced:
        return None
    return Finding(
        evidence=tuple(f"LD_PRELOAD holds {path}" for path in forced),
        cause="versions meet that were not built for one another",
        fix="unset LD_PRELOAD",
    )


@rule("GD626", Severity.WARNING, "https://github.com/stas00/ml-engineering")
def variable_names_nothing(snapshot: Snapshot) -> Finding | None:
    """A variable names a file or folder that does not exist.

    Looked at are variables of CUDA and NCCL whose value is one path, such as CUDA_HOME and
    NCCL_TOPO_FILE. They stay behind when a recipe is copied from another cluster.

    Cure: unset the variables that the report names.
    """
    dangling = known(snapshot.environment.dangling)
    if not dangling:
        return None
    return Finding(
        evidence=tuple(f"{v.name}={v.value}: no such file or folder" for v in dangling),
        cause="builds fail, a profiler is not found, or NCCL ends at its start",
        fix="unset " + " ".join(v.name for v in dangling),
    )


@rule("GD627", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/122494")
def packages_of_another_environment(snapshot: Snapshot) -> Finding | None:
    """PYTHONPATH puts another environment's packages in front of this one's.

    It names a folder called site-packages or dist-packages, whose packages are imported first.
    """
    path = snapshot.environment.get("PYTHONPATH")
    folders = [f for f in (path or "").split(":") if re.search(r"/(site|dist)-packages/?$", f)]
    if not folders:
        return None
    return Finding(
        evidence=tuple(f"PYTHONPATH holds {folder}" for folder in folders),
        cause="torch, NumPy or an NVIDIA library comes from there, whatever is installed here",
        fix="unset PYTHONPATH",
    )


@rule("GD628", Severity.NOTE, "https://docs.python.org/3/library/venv.html")
def another_environment_active(snapshot: Snapshot) -> Finding | None:
    """The environment that is looked at is not the active one.

    VIRTUAL_ENV names the active environment; the Python that runs gpudiag belongs to another.

    Ignore it when you asked about this one on purpose.
    """
    active = snapshot.environment.get("VIRTUAL_ENV")
    if not active:
        return None
    prefix = known(snapshot.packages.prefix)
    if active.rstrip("/") == prefix.rstrip("/"):
        return None
    return Finding(
        evidence=(f"VIRTUAL_ENV={active}", f"gpudiag runs in {prefix}"),
        cause="what is said here about torch and its packages is not about the active environment",
        fix="install gpudiag into the active environment and run python -m gpudiag diagnose",
    )
