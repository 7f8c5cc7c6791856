"""Ask the CUDA driver library itself, without torch: its version, cuInit, the device count."""

from __future__ import annotations

import ctypes
import json

TYPE_CHECKING = False  # typing itself costs a fifth of this script's time
if TYPE_CHECKING:
    from typing import Any


def say(facts: dict[str, Any]) -> None:
    """Tell the parent; what has been said is kept even if the next question is fatal."""
    print(f"\x1e{json.dumps(facts)}", flush=True)  # the sign tells it from what a library prints


def main() -> None:
    """Ask, from what can hardly fail to what may crash."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: it ends with its parent
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        missing = {"missing": f"libcuda.so.1 cannot be loaded: {error}"}
        names = ("cuda_driver_version", "cuda_init_code", "cuda_device_count", "libcuda_path")
        say(dict.fromkeys(names, missing))
        return
    with open("/proc/self/maps") as maps:  # noqa: PTH123 - pathlib costs a tenth of this script
        paths = [line.split()[-1] for line in maps if "/libcuda.so" in line]
    say({"libcuda_path": paths[0] if paths else {"missing": "libcuda.so is not in the maps"}})
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        say({"cuda_driver_version": f"{number.value // 1000}.{number.value % 1000 // 10}"})
    code = cuda.cuInit(0)
    say({"cuda_init_code": code})
    if code == 0 and cuda.cuDeviceGetCount(ctypes.byref(number)) == 0:
        say({"cuda_device_count": number.value})


main()
