"""GD2xx: why `import torch` fails, told from the text with which it ends."""

from __future__ import annotations

import re
from typing import NamedTuple

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import fetch_torch_again, library_path, reinstall_torch
from gpudiag.snapshot import Missing, Snapshot, known


class ImportFault(NamedTuple):
    """A text that a failing import is known by, what it means, and the cure."""

    pattern: str
    cause: str
    fix: str  # {install} is the command for the right wheel, {fetch} the one that downloads it


TIMED_OUT = re.compile(r"no answer within")  # a probe's words
IMPORT_FAULTS = (
    ImportFault(
        r"without __init__\.py|is not a whole torch",
        "an installation of torch was removed or broken off half-way, and left files behind",
        "remove the folder that is named there (rename it if it is yours), then {install}",
    ),
    ImportFault(
        r"Too many open files|Cannot allocate memory|MemoryError"
        r"|failed to map segment from shared object(?!: Operation not permitted)",  # else: noexec
        "this process may use too little memory, or open too few files, to load torch",
        "raise the limit: ulimit -v unlimited, ulimit -n 65536, or the memory of the container",
    ),
    ImportFault(
        r"__nvJitLink\w+",
        "an older libnvJitLink of a system CUDA toolkit is loaded before the one torch brought",
        "unset LD_LIBRARY_PATH, or put site-packages/nvidia/nvjitlink/lib in front of it",
    ),
    ImportFault(
        r"undefined symbol: .*nccl|undefined symbol: .*cudnn|undefined symbol: .*cublas",
        "another copy of an NVIDIA library is loaded before the one torch was built with",
        "unset LD_LIBRARY_PATH; if that does not help: {install}",
    ),
    ImportFault(
        r"lib(?:cudnn|cublas|cudart|cusparse|cusolver|cufft|curand|nccl|nvrtc|cupti|nvJitLink)"
        r"\S*: cannot open shared object file",
        "an NVIDIA library that torch needs is not where its wheel puts it",
        "{install}",
    ),
    ImportFault(
        r"file too short|invalid ELF header|cannot read file data|SIGBUS",  # mapped past its end
        "a library of the installation is truncated, as after a full disk or a broken download",
        "make room (df -h), then {fetch}",
    ),
    ImportFault(
        r"GLIBC(?:XX)?_[\d.]+' not found",
        "the system's C library is older than the one this wheel was built for",
        "use a newer operating system image, or an older torch",
    ),
    ImportFault(
        r"static TLS block",
        "libraries that are loaded before torch leave no room for its thread-local storage",
        "import torch before the other libraries",
    ),
    ImportFault(
        r"signal 4|SIGILL",
        "the processor lacks instructions that this build uses (a virtual machine may hide AVX2)",
        "pass the host's CPU model through to the virtual machine, or use a build for this CPU",
    ),
    ImportFault(
        r"signal \d+",
        "importing torch crashes the process: its libraries do not belong together",
        "unset LD_LIBRARY_PATH and LD_PRELOAD and try again; if that does not help: {install}",
    ),
    ImportFault(
        r"partially initialized module 'torch'|module 'torch' has no attribute"
        r"|in place of torch",
        "a file or folder called torch is imported in place of the library",
        "rename it; python -c 'import torch; print(torch.__file__)' shows where it lies",
    ),
    ImportFault(
        r"No module named '?(\S+?)'?$",
        "a package that torch needs is not installed",
        "{install}",
    ),
)


@rule("GD205", Severity.ERROR, "https://pytorch.org/get-started/locally/")
def torch_does_not_import(snapshot: Snapshot) -> Finding | None:
    """Importing torch fails.

    ``import torch`` was run in a process of its own and ended with an error or a crash. Known
    texts are traced to their cause.

    A folder called torch without its ``__init__.py``, or with an empty one, imports without an
    error and is none the less no torch: that is told here, too. That the import is merely slow is
    told by GD227.

    Cause: the text says which: a library of a system toolkit in place of the wheel's, a library
    that is missing or cut short (a bus error), a C library or a processor that is too old, a file
    called torch in the way, what a removed installation left behind, or an installation that is
    mixed from several.

    Cure: unset LD_LIBRARY_PATH; or install torch anew, in the build that fits this machine (the
    report has the command); or remove what is left of a former torch first.
    """
    error = known(snapshot.torch.import_error)
    if error is None or TIMED_OUT.search(error):
        return None
    for fault in IMPORT_FAULTS:
        if re.search(fault.pattern, error):
            cause, fix = fault.cause, fault.fix
            break
    else:
        cause, fix = "torch's installation is incomplete or mixed", "{install}"
    lines = [line for line in error.splitlines() if line.strip()]
    evidence = lines if len(lines) <= 3 else [lines[0], "…", lines[-1]]  # noqa: PLR2004
    evidence += library_path(snapshot)
    return Finding(
        evidence=tuple(evidence),
        cause=cause,
        fix=fix.format(install=reinstall_torch(snapshot), fetch=fetch_torch_again(snapshot)),
    )


@rule("GD227", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/137260")
def import_takes_long(snapshot: Snapshot) -> Finding | None:
    """Importing torch takes longer than gpudiag waited.

    The process that imports torch gave no answer in time. Nothing is known to be broken: from a
    cold network disk, or on a machine that is busy, the import takes minutes.

    Ignore it when the first import after a start is always this slow.
    """
    error = snapshot.torch.import_error
    said = error.missing if isinstance(error, Missing) else error
    if said is None or not TIMED_OUT.search(said):
        known(error)
        return None
    return Finding(
        evidence=(said,),
        cause="every program that uses torch starts as slowly, and nothing is known of this torch",
        fix="ask again with a larger --timeout: the files are cached now; or install the "
        "environment on a local disk",
    )


@rule("GD228", Severity.WARNING, "https://docs.python.org/3/library/sys_path_init.html")
def torch_in_working_folder(snapshot: Snapshot) -> Finding | None:
    """A file or folder called torch lies in the working directory.

    Python looks beside the program first (with ``python -m`` and ``python -c`` in the working
    directory), and torch is installed elsewhere. The file is looked for, never imported.

    Ignore it when no program is started from this folder or lies in it.
    """
    path = known(snapshot.packages.torch_in_working_folder)
    if path is None:
        return None
    return Finding(
        evidence=(f"{path} comes before the torch that is installed",),
        cause="'import torch' gives that file and ends with \"module 'torch' has no attribute\"",
        fix="rename it, and remove the folder __pycache__ beside it; or start programs from "
        "another folder",
    )
