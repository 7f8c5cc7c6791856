"""Virtual environments that are really broken, made of links to the packages of this one.

Nothing heavy is copied or downloaded: a package is a link, its absence is real.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import gpudiag

GPUDIAG = ("gpudiag", "msgspec", "click", "packaging", "nvidia-ml-py", "tabulate", "psutil")
# What torch imports, or loads where it is a CUDA build; NumPy is for a test to add.
TORCH = (
    *("torch", "filelock", "typing-extensions", "sympy", "mpmath", "networkx", "jinja2"),
    *("markupsafe", "fsspec", "setuptools", "triton"),
)
OFFLINE = re.compile("Retrying|ConnectionError|Max retries|Could not fetch URL|timed out")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


class Environment:
    """A virtual environment in which gpudiag can be run."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        self.site = next(folder.glob("lib/python*/site-packages"))
        self.link(*GPUDIAG)

    def link(self, *distributions: str) -> None:
        """Take distributions of the environment that runs the tests, as links."""
        for name in distributions:
            if name == "gpudiag":  # it may be installed as a link itself
                _link(Path(gpudiag.__file__).parent, self.site / "gpudiag")
                continue
            found = importlib.metadata.distribution(name)
            tops = {file.parts[0] for file in found.files or ()}
            for top in tops - {"..", "__pycache__"}:
                _link(Path(found.locate_file(top)), self.site / top)

    def link_torch(self, *more: str) -> None:
        """Take torch with everything that it needs but NumPy."""
        pytest.importorskip("torch")
        names = {
            re.sub(r"[-_.]+", "-", one.name).lower()
            for one in importlib.metadata.distributions()
            if one.name
        }
        of_nvidia = {name for name in names if name.startswith(("nvidia-", "cuda-"))}
        self.link(*sorted(names & {*TORCH} | of_nvidia), *more)

    def install(self, *requirements: str, options: tuple[str, ...] = ()) -> None:
        """Really install packages; skip the test only where there is no registry to ask."""
        command = [*PIP, "--python", str(self.python), "install", "--no-deps", "--retries", "1"]
        command += [*options, *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode and OFFLINE.search(said):
            pytest.skip(f"no package registry can be reached: {said.strip().splitlines()[-1]}")
        assert done.returncode == 0, said

    def write(self, files: dict[str, str]) -> None:
        """Files of an installation, by their path in site-packages."""
        for path, text in files.items():
            (self.site / path).parent.mkdir(parents=True, exist_ok=True)
            (self.site / path).write_text(text)

    def cut_short(self, path: str, size_bytes: int) -> None:
        """Replace a linked file by its beginning; the folders above it become real ones."""
        folder, real = self.site, (self.site / path).resolve()
        for part in Path(path).parts[:-1]:
            folder /= part
            if folder.is_symlink():
                target = folder.resolve()
                folder.unlink()
                folder.mkdir()
                for entry in target.iterdir():
                    _link(entry, folder / entry.name)
        (self.site / path).unlink()
        with real.open("rb") as file:
            (self.site / path).write_bytes(file.read(size_bytes))

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run its Python; nothing of the environment that runs the tests reaches it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [str(self.python), *command],
            capture_output=True,
            text=True,
            env=clean | variables,
            check=False,
        )

    def diagnose(self, *options: str, **variables: str) -> dict:
        """The document of `gpudiag diagnose --format json`."""
        command = ("diagnose", "--format", "json", "--fail-on", "never", "--no-config")
        done = self.run("-m", "gpudiag", *command, "--timeout", "90", *options, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def finding(document: dict, rule_id: str) -> dict:
    """The one finding of a rule in a report."""
    found = [one for one in document["findings"] if one["id"] == rule_id]
    assert len(found) == 1, [one["id"] for one in document["findings"]]
    return found[0]


def _link(target: Path, link: Path) -> None:
    if not link.exists() and target.exists():
        link.symlink_to(target)
