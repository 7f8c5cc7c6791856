"""Every comparison in one run -> one table, printed and kept in docs/results.

Usage: python benchmarks/run.py [NAME…]   (default: all; nothing else should run meanwhile)
"""

from __future__ import annotations

import datetime as dt
import importlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from table import as_text

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"
PACKAGES = ("numpy", "pandas", "torch", "torchvision", "timm", "scikit-learn", "torchmetrics")
PEERS = ("gpustat", "nvitop")


def main(names: list[str]) -> None:
    """Run the named modules of this folder that have a ``run`` function."""
    sys.path.insert(0, str(HERE))
    modules = names or sorted(
        path.stem for path in HERE.glob("*.py") if "\ndef run(" in path.read_text()
    )
    parts = [_heading()]
    for name in modules:
        module = importlib.import_module(name)
        parts.append(f"## {name}\n\n{as_text(module.run(), form='github')}\n")
        print(parts[-1], flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{dt.datetime.now(dt.UTC):%Y-%m-%d}-{_machine()}.md"
    path.write_text("\n".join(parts))
    print(f"written to {path}")


def _machine() -> str:
    return f"{os.cpu_count()}-cores-{platform.machine()}"


def _heading() -> str:
    return (
        f"# Measured on {dt.datetime.now(dt.UTC):%Y-%m-%d}\n\n"
        f"* {_processor()}, {os.cpu_count()} cores, no GPU, Python {platform.python_version()}\n"
        f"* {', '.join(f'{name} {_version(name)}' for name in (*PACKAGES, *PEERS))}\n"
        f"* `python benchmarks/run.py {' '.join(sys.argv[1:])}`\n\n"
        "Times are medians of alternating runs in seconds; the spread is that of the paired "
        "ratios\n(of the times where there is no peer).\n"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor() or "unknown processor"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main(sys.argv[1:])
