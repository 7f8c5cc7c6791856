"""The versions of Python and torch that the project works with: nox -l lists the sessions.

`nox -s "torch(2.6)"` runs the tests of everything that touches torch beside that torch, `nox -s
python-3.13` the whole suite in that Python; both run the commands as well. What came of it is in
docs/compatibility.md. With uv installed, an environment takes seconds and shares its files.
"""

from pathlib import Path

import nox

TORCH = ("2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "2.13", "2.14", "2.15")
PYTHON = ("3.11", "3.12", "3.13")
TOUCH_TORCH = (
    "evalkit",
    "tests/evalkit",
    "tests/test_cookbook.py",
    "tests/gpudiag/test_measure.py",
    "tests/gpudiag/test_memory.py",
    "tests/gpudiag/test_probes_programs.py",
    "tests/gpudiag/test_public.py",
)

nox.options.default_venv_backend = "uv|venv"


@nox.session(python="3.11", default=False)
@nox.parametrize("version", TORCH, ids=TORCH)
def torch(session: nox.Session, version: str) -> None:
    """Run what touches torch beside one version of it."""
    install(session, f"torch=={version}.*", "torchvision")
    commands(session)
    session.run("pytest", "-q", *(session.posargs or TOUCH_TORCH))


@nox.session(python=PYTHON, default=False)
def python(session: nox.Session) -> None:
    """Run the whole suite in one version of Python."""
    install(session)
    commands(session)
    session.run("pytest", "-q", *session.posargs)


def install(session: nox.Session, *pins: str) -> None:
    """The project, what its tests need, and the versions that are asked for."""
    session.install("--upgrade", "pip>=25.1")  # knows --group
    session.install(*pins, "--editable", ".[eval]", "--group", "dev")
    session.run("python", "-m", "pip", "list", "--format", "freeze")


def commands(session: nox.Session) -> None:
    """The commands themselves: what a user of these versions sees."""
    out = Path(session.create_tmp()) / "demo"
    session.run("gpudiag", "diagnose", "--no-torch", "--fail-on", "never")
    session.run("gpudiag", "diagnose", "--fail-on", "never")
    session.run("evalkit", "demo", "--out", str(out))
