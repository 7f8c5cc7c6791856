"""Builds the simulated libnvidia-ml.so.1 and points a program at it. See README.md."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
SCENARIOS = HERE / "scenarios"
LIBRARY = "libnvidia-ml.so.1"


def build(folder: Path, *, absent: Iterable[str] = ()) -> Path:
    """Compile the library into *folder*.

    Args:
        folder: Where libnvidia-ml.so.1 goes; made where it does not exist.
        absent: Functions that an older driver does not have. They are not exported, so
            that looking one up fails as it does there.

    Returns:
        The folder.

    Raises:
        ValueError: A function in *absent* is none of the library's own.
        subprocess.CalledProcessError: The compiler refused.
    """
    sources = sorted(HERE.glob("*.c"))
    text = "".join(source.read_text() for source in sources)
    absent = sorted(set(absent))
    unknown = [name for name in absent if not re.search(rf"\b{name}\(|\({name},", text)]
    if unknown:
        raise ValueError(f"absent must name functions of the simulator, got {', '.join(unknown)}")

    folder.mkdir(parents=True, exist_ok=True)
    exports = folder / "exports.map"
    hidden = "".join(f" {name};" for name in absent)
    exports.write_text(f"{{ global: nvml*; local: *;{hidden} }};\n")
    warnings = ["-Wall", "-Wextra", "-Werror"]
    shared = ["-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={exports}"]
    output = ["-o", str(folder / LIBRARY)]
    subprocess.run(["gcc", "-std=gnu17", "-O1", *warnings, *shared, *sources, *output], check=True)
    return folder


def environment(scenario: str | Path, library_folder: Path) -> dict[str, str]:
    """The variables under which a program sees the GPUs of a scenario.

    Args:
        scenario: Name of a shipped scenario, such as "healthy_8", or path of a file.
        library_folder: What `build` returned.
    """
    existing = os.environ.get("LD_LIBRARY_PATH")
    folders = [str(library_folder), *([existing] if existing else [])]
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(folders),
        "NVML_SIMULATOR_SCENARIO": str(scenario_path(scenario)),
    }


def scenario_path(scenario: str | Path) -> Path:
    if isinstance(scenario, Path):
        return scenario
    path = SCENARIOS / f"{scenario}.scenario"
    if not path.exists():
        names = ", ".join(sorted(file.stem for file in SCENARIOS.glob("*.scenario")))
        raise ValueError(f"scenario must be one of {names}, got {scenario}")
    return path


def read(scenario: str | Path) -> dict[str, str]:
    """The keys and values of a scenario and of those it includes, in the order of the lines."""
    path = scenario_path(scenario)
    values: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition("="))
        if key == "include":
            values = _merged(values, read(path.with_name(f"{value}.scenario")))
        elif key:
            values = _merged(values, {key: value})
    return values


def _merged(values: Mapping[str, str], later: Mapping[str, str]) -> dict[str, str]:
    """Later values go last, for the last of several lines that match is the one that counts."""
    return {key: value for key, value in values.items() if key not in later} | dict(later)


def absent_functions(scenario: str | Path) -> tuple[str, ...]:
    """The functions that the scenario's driver does not have, by all keys that start "absent"."""
    lists = (value for key, value in read(scenario).items() if key.startswith("absent"))
    return tuple(sorted({name for names in lists for name in names.split()}))


def changed(
    values: Mapping[str, str], changes: Mapping[str, str], *, gpus: int | None = None
) -> dict[str, str]:
    """A scenario with other values, and with another number of GPUs.

    Args:
        values: The scenario, as `read` gives it.
        changes: Values to add or replace, by key; "missing" takes one away.
        gpus: How many GPUs there shall be. Those above the scenario's own count repeat its
            GPUs in turn, each under its own UUID, serial number, address and process ids.

    Raises:
        ValueError: A key in *changes* is none that the simulator reads.
    """
    result = dict(values)
    count = int(values.get("gpu_count", "0"))
    for gpu in range(count, gpus or 0):
        original = f"gpu.{gpu % count}."
        for key, value in values.items():
            if key.startswith(original):
                field = key.removeprefix(original)
                result[f"gpu.{gpu}.{field}"] = _renumbered(field, value, gpu)
    if gpus is not None:
        result["gpu_count"] = str(gpus)
    unread = [key for key in changes if not is_read(key)]
    if unread:
        raise ValueError(f"changes must have keys that the simulator reads, got {unread}")
    return _merged(result, changes)


def is_read(key: str) -> bool:
    """Whether the simulator, or `build`, reads this key at all; a misspelt one it does not."""
    if key.startswith("absent"):
        return True
    source = "".join(file.read_text() for file in HERE.glob("*.c"))
    formats = re.findall(r'"([a-z][a-z0-9_.%]+)"', source)
    field = re.sub(r"^gpu\.[^.]+\.(mig\.[^.]+\.)?", "", key)
    as_pattern = re.escape(field).replace(r"\*", "[^.]*")
    return any(
        re.fullmatch(re.sub("%[su]", "[^.]*", form), field) or re.fullmatch(as_pattern, form)
        for form in formats
    )


def _renumbered(field: str, value: str, gpu: int) -> str:
    """What makes a GPU the one it is, made another's."""
    if re.search(r"\buuid$", field):
        return f"{value[:-4]}{gpu:04x}"
    if field == "serial":
        return f"{int(value) + 1000 * gpu}"
    if field == "minor_number":
        return str(gpu)
    if field == "pci_bus_id":
        return f"{gpu:08X}{value[8:]}"
    if re.search(r"\bprocess", field):
        pid, _, rest = value.partition(" ")
        return f"{int(pid) + 1000 * gpu} {rest}"
    return value


def write(values: Mapping[str, str], path: Path) -> Path:
    """Write a scenario and return its path."""
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    return path
