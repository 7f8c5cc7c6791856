"""Real environments that are really broken: gpudiag is run in each, by its own Python.

What a rule says will happen is made to happen, too, so that the rule is not only believed.
"""

import json
from importlib.metadata import distribution
from pathlib import Path

import pytest
from environments import Environment, finding

FILES = Path(__file__).parent.parent / "recorded_files"
PACKAGE_FAULTS = ("GD204", "GD205", "GD207", "GD211", "GD212", "GD214", "GD215", "GD226")


@pytest.fixture
def broken(tmp_path):
    return Environment(tmp_path / "venv")


def package_faults(document):
    return {one["id"] for one in document["findings"]} & {*PACKAGE_FAULTS}


def test_an_environment_without_a_fault_has_no_finding_about_packages(broken):
    broken.link_torch("numpy")

    document = broken.diagnose()

    assert package_faults(document) == set()
    assert document["snapshot"]["torch"]["import_error"] is None
    assert document["crashed"] == {}


def test_torch_without_numpy(broken):
    broken.link_torch()

    document = broken.diagnose()

    found = finding(document, "GD226")
    assert package_faults(document) == {"GD226"}
    assert "No module named 'numpy'" in found["evidence"][0]
    installer = (distribution("torch").read_text("INSTALLER") or "pip").strip()
    assert (
        found["fix"]
        == {
            "pip": f"{broken.python} -m pip install numpy",
            "uv": f"uv pip install --python {broken.python} numpy",
        }[installer]
    )
    assert document["snapshot"]["torch"]["import_error"] is None
    proof = broken.run("-W", "ignore", "-c", "import torch; torch.ones(1).numpy()")
    assert "Numpy is not available" in proof.stderr


def test_torch_without_numpy_is_seen_without_asking_torch(broken):
    broken.link_torch()

    assert finding(broken.diagnose("--no-torch"), "GD226")["evidence"] == [
        "there is no numpy beside torch"
    ]


@pytest.mark.parametrize(("kept_bytes", "sign"), [(7, "file too short"), (2**22, "SIGBUS")])
def test_a_truncated_library_of_torch(broken, kept_bytes, sign):
    broken.link_torch("numpy")
    broken.cut_short("torch/lib/libtorch_cpu.so", kept_bytes)

    document = broken.diagnose()

    found = finding(document, "GD205")
    assert sign in " ".join(found["evidence"])
    assert "truncated" in found["cause"]
    assert "torch" in found["fix"]
    assert "--no-cache-dir" in found["fix"]
    assert document["snapshot"]["torch"]["version"].startswith("2.")  # its files still tell it
    assert broken.run("-c", "import torch").returncode != 0


@pytest.mark.parametrize(
    ("files", "evidence"),
    [
        ({"torch/lib/libx.so": ""}, "is a folder without __init__.py"),
        ({"torch/__init__.py": ""}, "is not a whole torch: it has no __version__, version, cuda"),
        (
            {"torch/__init__.py": "__version__ = '2.9.0'", "torch-2.9.0.dist-info/METADATA": ""},
            "is not a whole torch: it has no version, cuda",
        ),
    ],
)
def test_what_a_removed_torch_left_behind(broken, files, evidence):
    broken.write(files)

    document = broken.diagnose()

    found = finding(document, "GD205")
    assert found["severity"] == "error"
    assert evidence in found["evidence"][0]
    assert f"{broken.site}/torch" in found["evidence"][0]
    assert found["fix"].startswith("remove the folder that is named there")
    assert found["fix"].endswith(
        f"{broken.python} -m pip install --force-reinstall torch torchvision"
    )
    proof = broken.run("-c", "import torch; torch.ones(1)")
    assert "module 'torch' has no attribute 'ones'" in proof.stderr


def test_a_cuda_torchvision_beside_the_cpu_torch_of_a_machine_without_gpu(broken):
    """Only what is wrong is replaced: torch may be hundreds of MiB, and is right."""
    broken.write(json.loads((FILES / "cpu_torch_with_cuda_torchvision.json").read_text()))

    document = broken.diagnose("--no-torch")

    assert finding(document, "GD204")["fix"] == (
        f"{broken.python} -m pip install --force-reinstall --no-deps torchvision==0.28.0 "
        "--index-url https://download.pytorch.org/whl/cpu"
    )


def test_two_nvml_bindings(broken, nvml):
    """The old package is imported in place of NVIDIA's module, and the GPUs are listed with it."""
    broken.install("pynvml==11.5.3")

    document = broken.diagnose("--no-torch", **nvml("healthy_8"))

    found = finding(document, "GD214")
    assert found["evidence"][0].startswith("pynvml 11.5.3 beside nvidia-ml-py ")
    assert "pip uninstall pynvml, then" in found["fix"]
    gpus = document["snapshot"]["nvml"]["gpus"]
    assert [gpu["name"] for gpu in gpus] == ["NVIDIA H100 80GB HBM3"] * 8
    imported = broken.run("-c", "import pynvml; print(pynvml.__file__)").stdout
    assert imported.strip().endswith("/pynvml/__init__.py")


def test_cpu_torch_with_cuda_torchvision_by_what_pip_wrote(broken, nvml):
    """The files that tell it, as pip left them; torch itself is not there to be asked."""
    broken.write(json.loads((FILES / "cpu_torch_with_cuda_torchvision.json").read_text()))

    document = broken.diagnose("--no-torch", **nvml("healthy_8"))

    found = finding(document, "GD204")
    assert found["evidence"] == ["torch is a CPU build, torchvision a CUDA 13 build"]
    assert found["fix"] == (
        f"install both from one index: {broken.python} -m pip install --force-reinstall torch "
        "torchvision --index-url https://download.pytorch.org/whl/cu126"
    )


@pytest.mark.slow
def test_cpu_torch_with_cuda_torchvision(broken, nvml):
    """The same, really installed: 250 MB."""
    broken.link(*("filelock", "typing-extensions", "sympy", "mpmath", "networkx", "jinja2"))
    broken.link("markupsafe", "fsspec", "setuptools", "numpy", "pillow")
    of_torch = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")
    broken.install("torch==2.13.0+cpu", options=of_torch)
    broken.install("torchvision==0.28.0")

    document = broken.diagnose(**nvml("healthy_8"))

    assert "CPU build" in finding(document, "GD204")["evidence"][0]
    assert "2.13.0+cpu was built without CUDA" in finding(document, "GD201")["evidence"][0]
    proof = broken.run("-c", "import torchvision")
    assert "operator torchvision::nms does not exist" in proof.stderr
