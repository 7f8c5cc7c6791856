"""Four loaders on one zoo of checkpoints, and the memory they take -> docs/comparison.md.

Usage: python benchmarks/checkpoint_zoo.py [GIB]   (size of the files for memory; default 4)
"""

from __future__ import annotations

import datetime as dt
import logging
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from tabulate import tabulate

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "comparison.md"
MARK = "<!-- measured: python benchmarks/checkpoint_zoo.py writes what follows -->\n"
PACKAGES = ("torch", "timm", "lightning", "safetensors", "accelerate", "pytorch-ignite")
sys.path.insert(0, str(ROOT / "tests"))

from checkpoint_files import SmallNet  # noqa: E402 - tests are no package
from checkpoint_memory import (  # noqa: E402
    LAYER_BYTES,
    ONE_FILE,
    SEVERAL_FILES,
    shares_of,
)
from checkpoint_zoo import ZOO, Animal, is_installed, original_of, trained_net  # noqa: E402

Loader = Callable[[Path, Animal], torch.nn.Module]

MEMORY = """
import os, sys, warnings
import torch
from torch import nn
warnings.simplefilter("ignore")
loader, path, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
with torch.device("meta"):
    layers = (nn.Linear(2048, 2048, bias=False) for _ in range(number))
    net = nn.ModuleDict({"layers": nn.ModuleList(layers)})
if loader == "write":
    state = {key: torch.full(value.shape, 0.5) for key, value in net.state_dict().items()}
    torch.save(state, path)
    sys.exit()
if loader == "timm":
    from timm.models import load_checkpoint as load
    run = lambda: load(net, path, use_ema=False)
else:
    run = lambda: net.load_state_dict(torch.load(path, map_location="cpu"))
net = net.to_empty(device="cpu")
def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024
before = memory("VmRSS")
run()
assert (net["layers"][number - 1].weight == 0.5).all()
print((memory("VmHWM") - before) / os.path.getsize(path))
"""


def main(gib: float) -> None:
    """Run all loaders on all files and rewrite the measured part of the page."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = [_row(name) for name in ZOO if is_installed(ZOO[name].needs)]
    totals = ["**all, of " + str(len(rows)) + "**"]
    totals += [f"**{sum(row[column] == 'all' for row in rows)}**" for column in range(1, 5)]
    silent = ["**wrong, silently**"]
    silent += [f"**{sum('silently' in row[column] for row in rows)}**" for column in range(1, 5)]
    table = tabulate([*rows, totals, silent], headers=["File", *LOADERS], tablefmt="github")
    memory = tabulate(_memory(gib), headers=["Loader", "file", "peak"], tablefmt="github")
    measured = (
        f"Run on {dt.datetime.now(dt.UTC):%Y-%m-%d} with Python {platform.python_version()}, "
        f"{', '.join(f'{name} {version(name)}' for name in PACKAGES)}.\n\n{table}\n\n"
        f"### Memory\n\nA checkpoint of {gib:g} GiB into a model of the same size on the CPU: peak "
        "of the process's memory above what it\ntook before the load, as a share of the files. The "
        f"model's own values are 1.00 of it.\n\n{memory}\n"
    )
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(MARK) + len(MARK)] + "\n" + measured, encoding="utf-8")
    print(measured)


def _row(name: str) -> list[str]:
    animal = ZOO[name]
    cells = [name]
    for load in LOADERS.values():
        with tempfile.TemporaryDirectory() as folder:
            path = animal.write(Path(folder), trained_net())
            cells.append(_outcome(load, path, animal))
    return cells


def _outcome(load: Loader, path: Path, animal: Animal) -> str:
    try:
        state = load(path, animal).state_dict()
    except Exception as error:  # noqa: BLE001 - whatever a loader raises is the measurement
        return f"error: {type(error).__name__}"
    wrong = [
        key
        for key, value in original_of(animal).items()
        if not key.endswith("num_batches_tracked") and not torch.equal(state[key], value)
    ]
    return "all" if not wrong else "***wrong, silently***"


def _by_evalkit(path: Path, animal: Animal) -> torch.nn.Module:
    from evalkit import load_checkpoint

    teacher = animal.weights if animal.weights == "teacher" else None
    return load_checkpoint(path, SmallNet(), weights=teacher)[0]


def _by_timm(path: Path, _animal: Animal) -> torch.nn.Module:
    from timm.models import load_checkpoint

    net = SmallNet()
    try:
        load_checkpoint(net, str(path), use_ema=False)
    except (RuntimeError, KeyError):
        load_checkpoint(net, str(path), use_ema=True)
    return net


def _by_lightning(path: Path, _animal: Animal) -> torch.nn.Module:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self, **_hyper_parameters: object) -> None:
            super().__init__()
            self.model = SmallNet()

    return Module.load_from_checkpoint(path, map_location="cpu").model


def _by_torch(path: Path, _animal: Animal) -> torch.nn.Module:
    net = SmallNet()
    net.load_state_dict(torch.load(path, map_location="cpu"))
    return net


LOADERS: dict[str, Loader] = {
    "evalkit": _by_evalkit,
    "timm": _by_timm,
    "Lightning": _by_lightning,
    "torch": _by_torch,
}


def _memory(gib: float) -> list[list[str]]:
    layers = max(1, round(gib * (1 << 30) / LAYER_BYTES))
    rows = []
    for kind in (*ONE_FILE, *SEVERAL_FILES):
        with tempfile.TemporaryDirectory() as folder:
            peak = shares_of(folder, [kind], layers=layers)[kind]
        rows.append(["evalkit", kind, f"{peak:.2f}"])
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "large.pth")
        _child("write", path, str(layers))
        for loader in ("timm", "torch"):
            peak = float(_child(loader, path, str(layers)))
            rows.append([loader, "zip", f"{peak:.2f}"])
    return rows


def _child(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4)
