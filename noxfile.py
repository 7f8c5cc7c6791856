"""The versions of Python and torch that the project works with: nox -l lists the sessions.

`nox -s "torch(2.6)"` runs the tests of everything that touches torch beside that torch, `nox -s
python-3.13` the whole suite in that Python.
"""

import nox

# 2.13 came without a torchvision that fits.
TORCH = ("2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "2.14", "2.15")
PYTHON = ("3.11", "3.12", "3.13")
TOUCH_TORCH = (
    "tests/evalkit",
    "tests/gpudiag/test_measure.py",
    "tests/gpudiag/test_memory.py",
    "tests/gpudiag/test_probes_programs.py",
)

nox.options.default_venv_backend = "venv"


@nox.session(python="3.11", default=False)
@nox.parametrize("version", TORCH, ids=TORCH)
def torch(session: nox.Session, version: str) -> None:
    """Run what touches torch beside one version of it."""
    session.install("--upgrade", "pip>=25.1")  # knows --group
    session.install(f"torch=={version}.*", "torchvision", "--editable", ".[eval]")
    session.install("--group", "dev", f"torch=={version}.*")
    session.run("pip", "list", "--format", "freeze")
    session.run("pytest", "-q", *(session.posargs or TOUCH_TORCH))


@nox.session(python=PYTHON, default=False)
def python(session: nox.Session) -> None:
    """Run the whole suite in one version of Python."""
    session.install("--upgrade", "pip>=25.1")
    session.install("--editable", ".[eval]")
    session.install("--group", "dev")
    session.run("pytest", "-q", *session.posargs)
