"""How cost grows: seconds and peak memory by GPUs, classes, samples and ranks.

Each figure is of a process of its own, and of its children where it has any, start included; the
memory is the largest resident set of one of them. Run alone: python benchmarks/growth.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
from nvml_simulator import simulator  # noqa: E402 - found by the line above

BIN = Path(sys.executable).parent
GPUS = (1, 8, 64)
CLASSES = (10, 100, 1_000, 10_000, 100_000)
SAMPLES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
RANKS = (1, 2, 4)
PART = 1_000_000  # rows that are made and written at a time
RIGHT = 0.8
COUNT = """
import sys, numpy as np, evalkit
classes = int(sys.argv[1])
rng = np.random.default_rng(0)
labels, other = rng.integers(0, classes, 1_000_000), rng.integers(0, classes, 1_000_000)
predictions = np.where(rng.random(1_000_000) < 0.8, labels, other)
if classes <= 10_000:
    evalkit.per_class_scores(evalkit.confusion_matrix(labels, predictions, classes))
else:
    import pandas as pd
    frame = pd.DataFrame({"label": labels, "prediction": predictions})
    evalkit.Evaluation.from_predictions(frame, classes=[str(i) for i in range(classes)])
"""
MEASURE = (
    "import resource, subprocess, sys; "
    "code = subprocess.run(sys.argv[1:], stdout=-3).returncode; "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code > 1)"
)


def run() -> list[dict[str, Any]]:
    """Measure everything; one row per size."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        return [*_gpus(place), *_classes(), *_samples(place), *_ranks(place)]


def _gpus(place: Path) -> Iterator[dict[str, Any]]:
    library = simulator.build(place / "library")
    for count in GPUS:
        values = simulator.changed(simulator.read("healthy_8"), {}, gpus=count)
        scenario = simulator.write(values, place / f"{count}.scenario")
        command = [str(BIN / "gpudiag"), "snapshot", "--no-torch"]
        yield _row(
            f"snapshot --no-torch, {count} GPUs", command, simulator.environment(scenario, library)
        )


def _classes() -> Iterator[dict[str, Any]]:
    for count in CLASSES:
        yield _row(
            f"10^6 samples made, counted and scored, {count:,} classes",
            [sys.executable, "-c", COUNT, str(count)],
        )


def _samples(place: Path) -> Iterator[dict[str, Any]]:
    table = place / "predictions.parquet"
    for count in SAMPLES:
        _write(table, count)
        command = [
            *(str(BIN / "evalkit"), "report", str(table)),
            *("--out", str(place / f"report-{count}")),
        ]
        yield _row(f"evalkit report, {count:,} samples of 1,000 classes", command)
        table.unlink()


def _write(table: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"class {number}" for number in range(1_000)]
    schema = None
    writer = None
    for start in range(0, count, PART):
        rows = min(PART, count - start)
        labels = rng.integers(0, len(names), rows)
        predictions = np.where(rng.random(rows) < RIGHT, labels, rng.integers(0, len(names), rows))
        frame = pd.DataFrame(
            {
                "label": pd.Categorical.from_codes(labels, names),
                "prediction": pd.Categorical.from_codes(predictions, names),
                "confidence": rng.random(rows),
            }
        )
        part = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        schema = part.schema
        writer = writer or pq.ParquetWriter(table, schema)
        writer.write_table(part)
    if writer is not None:
        writer.close()


def _ranks(place: Path) -> Iterator[dict[str, Any]]:
    demo = place / "demo"
    evalkit = str(BIN / "evalkit")
    subprocess.run([evalkit, "demo", "--out", str(demo)], check=True, stdout=subprocess.DEVNULL)
    for count in RANKS:
        command = [
            *(str(BIN / "torchrun"), "--nproc-per-node", str(count), "-m", "evalkit", "evaluate"),
            *("--checkpoint", str(demo / "checkpoint.pth")),
            *("--model", "evalkit.demo.net:digits_net", "--data", str(demo / "val")),
            *("--out", str(place / f"ranks-{count}"), "--device", "cpu", "--workers", "1"),
        ]
        yield _row(f"evalkit evaluate, 360 images, {count} ranks", command)


def _row(name: str, command: list[str], extra: Mapping[str, str] | None = None) -> dict[str, Any]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *command],
        env=os.environ | dict(extra or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{command} failed: {done.stderr[-500:]}")
    return {
        "comparison": f"{name}: {int(done.stdout) / 1024:,.0f} MiB",
        "ours_s": seconds,
        "target": "none",
    }


if __name__ == "__main__":
    from table import as_text

    print(as_text(run()))
