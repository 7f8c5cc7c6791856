"""Ask torch: what its files say, then what importing it gives, then what CUDA gives."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import warnings
from typing import Any

LIBRARIES = re.compile(
    r"lib(?:cudnn|cublas|cublasLt|nccl|nvJitLink|cudart|cuda|cusparse|cusparseLt|nvrtc)\.so"
)
CUDNN_9 = 90_000  # from here on a major version has four digits behind it, before it three
ESSENTIAL = ("__version__", "version", "cuda", "backends")  # what any torch that works has
LONGEST_ERROR = 4000  # characters of an import's error from its beginning, and from its end

# A way to the parent of our own: what torch or a library of it prints goes to standard error.
PARENT = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


def say(facts: dict[str, Any]) -> None:
    """Tell the parent; what has been said is kept even if the next question is fatal."""
    PARENT.write(f"\x1e{json.dumps(facts)}\n")  # the sign tells it from what a library prints
    PARENT.flush()


def version_on_disk() -> dict[str, Any] | None:
    """The facts that torch/version.py states, readable even where torch cannot be imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        shadow = {"missing": f"{spec.origin} is imported in place of torch"}
        return {"version": shadow, "import_error": shadow["missing"]}
    folder = next(iter(spec.submodule_search_locations))
    if spec.origin is None and not os.path.exists(f"{folder}/__init__.py"):  # noqa: PTH110 - as below
        left = f"{folder} is a folder without __init__.py: no torch, but what is left of one"
        return {"version": {"missing": left}, "import_error": left}
    facts = {}
    try:
        with open(f"{folder}/version.py") as file:  # noqa: PTH123 - pathlib is not loaded yet
            text = file.read()
    except OSError as error:
        return {"version": {"missing": f"torch/version.py: {error.strerror}"}}
    for name, fact in (
        ("__version__", "version"),
        ("cuda", "cuda_version"),
        ("hip", "hip_version"),
        ("xpu", "xpu_version"),
    ):
        found = re.search(rf"^{name}\b[^=\n]*=\s*(None|'([^']*)')", text, re.MULTILINE)
        if found:
            facts[fact] = found[2]
    return facts


def dotted(version: Any) -> str | None:
    """CuDNN's 90501 as 9.5.1 and 8902 as 8.9.2, NCCL's tuple as text."""
    if version is None:
        return None
    if isinstance(version, tuple):
        return ".".join(map(str, version))
    major = 10_000 if version >= CUDNN_9 else 1_000
    return f"{version // major}.{version % major // 100}.{version % 100}"


def told(error: BaseException) -> str:
    """The kind and the text of an error, without the middle of a text that is endless."""
    text = f"{type(error).__name__}: {error}"
    if len(text) <= 2 * LONGEST_ERROR:
        return text
    return f"{text[:LONGEST_ERROR]}\n…\n{text[-LONGEST_ERROR:]}"


def incomplete(torch: Any) -> str | None:
    """What a torch that was imported lacks, None if it is whole."""
    absent = [name for name in ESSENTIAL if not hasattr(torch, name)]
    if not absent:
        return None
    place = getattr(torch, "__file__", "torch")
    return f"{place} is not a whole torch: it has no {', '.join(absent)}"


def build(torch: Any) -> dict[str, Any]:
    """What torch was built for and with."""
    nccl: Any = None
    if torch.version.cuda or torch.version.hip:
        try:
            nccl = dotted(torch.cuda.nccl.version())
        except Exception as error:
            nccl = {"missing": f"torch.cuda.nccl.version(): {error}"}
    return {
        "version": str(torch.__version__),
        "cuda_version": torch.version.cuda,
        "hip_version": torch.version.hip,
        "xpu_version": getattr(torch.version, "xpu", None),
        "cudnn_version": dotted(torch.backends.cudnn.version()),
        "nccl_version": nccl,
        "arch_list": list(torch.cuda.get_arch_list()) or built_architectures(torch),
    }


def built_architectures(torch: Any) -> list[str]:
    """get_arch_list() is empty where no device is usable; the build's own flags still say it."""
    flags = getattr(
        torch._C,  # noqa: SLF001 - the public name says nothing without a device
        "_cuda_getArchFlags",
        None,
    )
    return (flags() or "").split() if flags else []


def cuda(torch: Any) -> dict[str, Any]:
    """Availability, the reason when there is none, and the devices."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    error = "; ".join(str(warning.message) for warning in said) or None
    if not available and error is None:
        try:
            torch.cuda.init()
        except Exception as refusal:
            error = str(refusal)
    devices = []
    if available:
        try:
            for index in range(torch.cuda.device_count()):
                properties = torch.cuda.get_device_properties(index)
                uuid = getattr(properties, "uuid", None)
                devices.append(
                    {
                        "index": index,
                        "name": properties.name,
                        "uuid": f"GPU-{uuid}" if uuid else {"missing": "torch gives no UUID"},
                        "compute_capability": [properties.major, properties.minor],
                        "memory_total_bytes": properties.total_memory,
                    }
                )
        except Exception as refusal:
            error = str(refusal)
    return {"cuda_available": available, "cuda_error": error, "devices": devices}


def libraries(torch: Any) -> list[dict[str, Any]]:
    """The CUDA libraries that this process really mapped, and whether its wheels brought them."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123 - as above
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if ".so" in line}
    site = os.path.dirname(os.path.dirname(os.path.realpath(torch.__file__)))  # noqa: PTH120
    return [
        {
            "name": os.path.basename(path),  # noqa: PTH119
            "path": path,
            "from_wheel": os.path.realpath(path).startswith(site + os.sep),
        }
        for path in sorted(paths)
        if LIBRARIES.match(os.path.basename(path))  # noqa: PTH119
    ]


def precision(torch: Any) -> dict[str, Any]:
    """How exactly, and how repeatably, torch computes by default."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = {
        "cudnn_allows_tf32": lambda: cudnn.allow_tf32,
        "fp16_reduced_precision": lambda: matmul.allow_fp16_reduced_precision_reduction,
        "bf16_reduced_precision": lambda: matmul.allow_bf16_reduced_precision_reduction,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
        "cudnn_benchmark": lambda: cudnn.benchmark,
    }
    facts: dict[str, Any] = {"float32_matmul_precision": torch.get_float32_matmul_precision()}
    for name, read in flags.items():
        try:
            facts[name] = bool(read())
        except Exception as error:
            facts[name] = {"missing": f"this torch does not tell: {error}"}
    return facts


def other_devices(torch: Any) -> list[str]:
    """The names of the accelerators of whatever kind torch has found."""
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return [torch.xpu.get_device_name(i) for i in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        return ["Apple GPU (MPS)"]
    return []


def accelerator(torch: Any) -> Any:
    """The kind of device that torch would use: cuda, xpu, mps, …; None without one."""
    module = getattr(torch, "accelerator", None)
    if module is None:
        return {"missing": "torch.accelerator came with torch 2.6"}
    if not module.is_available():
        return None
    return str(module.current_accelerator())


def main() -> None:
    """Ask, from what can hardly fail to what may crash."""
    facts = version_on_disk()
    if facts is None:
        missing = {"missing": f"torch is not installed for {sys.executable}"}
        say({"python": sys.executable, "import_error": missing, "version": missing})
        return
    say({"python": sys.executable, **facts})
    if "import_error" in facts:
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            import torch
        except BaseException as error:
            say({"import_error": told(error)})
            return
    if lacks := incomplete(torch):
        say({"import_error": lacks})
        return
    say({"import_error": None, "import_warnings": [str(warning.message) for warning in said]})
    for part in (build, cuda):
        try:
            say(part(torch))
        except Exception as error:
            say({"cuda_error": f"{type(error).__name__}: {error}"})
    say(
        {
            "allocator_backend": torch.cuda.get_allocator_backend()
            if torch.version.cuda
            else {"missing": "not a CUDA build"},
            "allocator_settings": os.environ.get("PYTORCH_ALLOC_CONF")
            or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
            "accelerator": accelerator(torch),
            "accelerator_devices": other_devices(torch),
            "libraries": libraries(torch),
            **precision(torch),
        }
    )


main()
