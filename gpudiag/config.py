"""The configuration file: what a project has decided about rules, severity and time.

``gpudiag.toml`` holds the keys at its top, ``pyproject.toml`` in the table ``[tool.gpudiag]``. The
nearest one from a folder upwards counts, alone; in one folder, ``gpudiag.toml`` comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gpudiag.errors import InputError, close_ones

OWN_FILE = "gpudiag.toml"
SHARED_FILE = "pyproject.toml"
FAIL_ON = ("note", "warning", "error", "never")


class Config(NamedTuple):
    """What a configuration file says; None and empty: it says nothing about it."""

    path: Path | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: str | None = None
    timeout_s: float | None = None


def find_config(folder: Path) -> Config:
    """The nearest configuration from *folder* upwards, an empty one where there is none.

    Raises:
        InputError: A configuration file is not readable, not TOML, or holds an unknown key or a
            value of the wrong kind.
    """
    for parent in (folder, *folder.parents):
        for name in (OWN_FILE, SHARED_FILE):
            path = parent / name
            table = _table(path) if path.is_file() else None
            if table is not None:
                return read_config(table, path)
    return Config()


def read_config(table: dict[str, Any], path: Path) -> Config:
    """Check a table of the configuration.

    Example:
        >>> read_config({"ignore": ["gd6"], "fail-on": "warning"}, Path("gpudiag.toml"))
        Config(path=...Path('gpudiag.toml'), select=(), ignore=('GD6',), fail_on='warning',
        timeout_s=None)

    Raises:
        InputError: The table holds an unknown key or a value of the wrong kind.
    """
    unknown = [key for key in table if key not in READERS]
    if unknown:
        raise InputError(
            f"{path}: expected the keys {', '.join(READERS)}, got {', '.join(unknown)}"
            f"{close_ones(unknown[0], READERS)}"
        )
    values: dict[str, Any] = {}
    for key, value in table.items():
        field, wanted, read = READERS[key]
        values[field] = read(value)
        if values[field] is None:
            raise InputError(f"{path}: expected {key} to be {wanted}, got {value!r}")
    return Config(path=path, **values)


def _table(path: Path) -> dict[str, Any] | None:
    """The keys of a file; None where it is not about gpudiag, whatever else is wrong with it."""
    import tomllib  # most runs find no file to read

    try:
        data = path.read_bytes()
        if path.name == SHARED_FILE and b"gpudiag" not in data:
            return None
        document = tomllib.loads(data.decode())
    except OSError as error:
        raise InputError(
            f"expected a configuration file, got {path}: {error.strerror}; make it readable or "
            "use --no-config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"expected TOML in {path}, got: {error}; correct it or use --no-config"
        ) from error
    if path.name == OWN_FILE:
        return document
    tools = document.get("tool")
    table = tools.get("gpudiag") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{path}: expected tool.gpudiag to be a table, got {table!r}")
    return table


def _ids(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return None
    return tuple(one.strip().upper() for one in value)


def _severity(value: object) -> str | None:
    return value if isinstance(value, str) and value in FAIL_ON else None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value >= SHORTEST_S else None


SHORTEST_S = 0.1
READERS: dict[str, tuple[str, str, Callable[[object], Any]]] = {
    "select": ("select", 'a list of rule ids, as in ["GD2", "GD401"]', _ids),
    "ignore": ("ignore", 'a list of rule ids, as in ["GD605"]', _ids),
    "fail-on": ("fail_on", f"one of {', '.join(FAIL_ON)}", _severity),
    "timeout": ("timeout_s", f"a number of seconds from {SHORTEST_S}", _seconds),
}
