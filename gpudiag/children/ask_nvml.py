"""Ask NVML everything: one line for the driver, one line per GPU, one for how they are connected.

Usage: python -I -S ask_nvml.py FOLDER_OF_PYNVML
"""

from __future__ import annotations

import ctypes
import json
import sys

TYPE_CHECKING = False
sys.path += [__file__.rpartition("/")[0], sys.argv[1]]
import pynvml as n
from nvml_calls import Gap, ask  # type: ignore[import-not-found]  # beside this script
from nvml_gpu import gpu, pairs  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from typing import Any


def say(facts: dict[str, Any]) -> None:
    """Tell the parent; what has been said is kept even if the next question is fatal."""
    print(f"\x1e{json.dumps(facts)}", flush=True)  # the sign tells it from what a library prints


def cuda_version() -> str:
    """The newest CUDA that the driver knows: 12040 is 12.4."""
    version = n.nvmlSystemGetCudaDriverVersion_v2()
    return f"{version // 1000}.{version % 1000 // 10}"


def main() -> None:
    """Ask, from what can hardly fail to what may crash."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: it ends with its parent
    try:
        n.nvmlInit()
    except n.NVMLError as error:
        say({"init_code": error.value, "init_message": str(error)})
        return
    count = ask(n.nvmlDeviceGetCount)
    say(
        {
            "init_code": 0,
            "init_message": "Success",
            "driver_version": ask(n.nvmlSystemGetDriverVersion),
            "library_version": ask(n.nvmlSystemGetNVMLVersion),
            "cuda_version": ask(cuda_version),
            "gpu_count": count,
        }
    )
    if not isinstance(count, Gap):
        for index in range(count):
            say({"gpu": gpu(index)})
        say({"pairs": pairs(count)})
    n.nvmlShutdown()


main()
