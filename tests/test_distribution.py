"""What is published: the sdist and the wheel, and what installing them does to an environment."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that had a torch before gpudiag came, and the version of that torch."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    metadata = site / "torch-2.6.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.6.0\n")
    (metadata / "RECORD").write_text("")
    (metadata / "INSTALLER").write_text("pip\n")
    run(python, "-m", "pip", "install", "--quiet", str(wheel))
    return folder / "bin"


def test_the_wheel_holds_every_module_and_what_they_read(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {
        str(path.relative_to(ROOT))
        for package in ("gpudiag", "evalkit")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }

    assert files - held == set()
    assert held >= {"gpudiag/py.typed", "evalkit/py.typed"}
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"gpudiag", "evalkit"}


def test_the_sdist_holds_the_tests_and_the_licence(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    assert held >= {"LICENSE", "README.md", "CHANGELOG.md", "tests/test_distribution.py"}


def test_the_registry_would_take_them(built):
    said = run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir()))

    assert said.count("PASSED") == 2


def test_the_installed_command_works_without_the_extra(installed):
    snapshot = run(installed / "gpudiag", "diagnose", "--no-torch", "--fail-on", "never", cwd="/")

    assert "rules passed" in snapshot
    assert run(installed / "evalkit", "--version", cwd="/").startswith("evalkit ")


def test_a_torch_that_was_there_is_not_touched(installed):
    versions = run(installed / "python", "-m", "pip", "list", "--format", "freeze")

    assert "torch==2.6.0" in versions.splitlines()
    assert not [line for line in versions.splitlines() if line.startswith("nvidia-cu")]


def test_the_sdist_installs_what_the_wheel_installs(built, wheel, installed, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    pip = (installed / "python", "-m", "pip", "install", "--quiet", "--no-deps")
    run(*pip, "--target", str(tmp_path), str(sdist))
    imported = run(
        *(installed / "python", "-c", "import gpudiag; print(gpudiag.__file__)"),
        env={"PYTHONPATH": str(tmp_path)},
        cwd="/",
    )

    archive = zipfile.ZipFile(wheel)
    names = {name for name in archive.namelist() if not name.endswith("/RECORD")}
    assert imported == f"{tmp_path}/gpudiag/__init__.py\n"
    assert {name for name in names if not (tmp_path / name).is_file()} == set()
    assert {name for name in names if (tmp_path / name).read_bytes() != archive.read(name)} == set()


def test_type_checkers_see_the_types(installed, tmp_path):
    script = tmp_path / "uses.py"
    script.write_text("import gpudiag\nreveal_type(gpudiag.Snapshot().taken_at)\n")

    said = run(
        *(sys.executable, "-m", "mypy", "--python-executable", str(installed / "python")),
        *("--cache-dir", str(tmp_path / "cache"), str(script)),
        cwd=tmp_path,
    )

    assert 'Revealed type is "str"' in said.replace("builtins.str", "str")
