import builtins
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from evalkit.errors import InputError
from evalkit.models import build

NET = """
from torch import nn
from neighbour import WIDTH

def net(num_classes=3):
    return nn.Linear(WIDTH, num_classes)

def fixed():
    return nn.Linear(WIDTH, 7)

class Net(nn.Linear):
    def __init__(self):
        super().__init__(WIDTH, 5)

def needs(width):
    return nn.Linear(width, 1)

def wrong():
    return [1]

ready = nn.Linear(WIDTH, 2)
number = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a user's own net in it, which is the current directory."""
    (tmp_path / "own_net.py").write_text(NET)
    (tmp_path / "neighbour.py").write_text("WIDTH = 4\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("own_net", "neighbour"):
        sys.modules.pop(name, None)


def message_of(spec, **options):
    with pytest.raises(InputError) as error:
        build(spec, **options)
    return str(error.value)


def test_torchvision_with_the_number_of_classes():
    assert build("torchvision:mobilenet_v3_small", num_classes=7).classifier[-1].out_features == 7


@pytest.mark.parametrize("name", ["squeezenet1_0", "googlenet"])
def test_torchvision_models_build_without_warnings(name):
    assert isinstance(build(f"torchvision:{name}"), nn.Module)


def test_timm_with_the_number_of_classes():
    model = build("timm:test_resnet", num_classes=7)

    assert type(model) is type(timm.create_model("test_resnet"))
    assert model.get_classifier().out_features == 7


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("place", ["own_net", "own_net.py", "./own_net.py"])
def test_function_of_ones_own(place):
    assert build(f"{place}:net").out_features == 3
    assert build(f"{place}:net", num_classes=9).out_features == 9
    assert build(f"{place}:fixed", num_classes=9).out_features == 7
    assert build(f"{place}:Net", num_classes=9).out_features == 5
    assert build(f"{place}:ready", num_classes=9).out_features == 2


@pytest.mark.usefixtures("project")
def test_search_path_is_left_as_it_was():
    before = list(sys.path)

    build("own_net:net")

    assert sys.path == before


@pytest.mark.parametrize("spec", ["resnet18", "", ":", "torchvision:", ":net"])
def test_spec_that_is_none(spec):
    assert message_of(spec) == (
        "model must be torchvision:NAME, timm:NAME, package.module:function or file.py:function, "
        f"got '{spec}'"
    )


@pytest.mark.usefixtures("project")
def test_unknown_names_show_close_ones():
    assert message_of("torchvision:resnet19") == (
        "model must be one that torchvision has, got 'resnet19': close names are resnet18, "
        "resnet152, resnet101"
    )
    assert message_of("timm:test_resnett").startswith(
        "model must be one that timm has, got 'test_resnett': close names are test_resnet"
    )
    assert message_of("own_net:nett") == (
        "model must name an object of own_net, got 'nett': did you mean net?"
    )
    assert message_of("own_net:zzz") == (
        "model must name an object of own_net, got 'zzz': check the name"
    )


def test_segmentation_models_are_no_classifiers():
    assert message_of("torchvision:fcn_resnet50").startswith(
        "model must be one that torchvision has, got 'fcn_resnet50': close names are "
    )


def test_modules_that_do_not_import(project):
    (project / "broken.py").write_text("import no_such_module\n")
    (project / "syntax.py").write_text("def net(:\n")

    assert message_of("no_such_package.net:net") == (
        "model must name a module that imports, got 'no_such_package.net': ModuleNotFoundError: "
        "No module named 'no_such_package'"
    )
    assert message_of("broken.py:net") == (
        "model must name a module that imports, got 'broken.py': ModuleNotFoundError: No module "
        "named 'no_such_module' (broken.py, line 1)"
    )
    assert message_of("syntax:net").startswith(
        "model must name a module that imports, got 'syntax': SyntaxError: "
    )
    assert message_of("missing.py:net") == (
        "model must name a Python file, got 'missing.py': there is no such file"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (own.py, line 1)"),
        (
            "import argparse\nargparse.ArgumentParser().exit(2)",
            "SystemExit: 2 (own.py, line 2): put what it runs as a program under if __name__ == "
            '"__main__"',
        ),
    ],
)
@pytest.mark.parametrize("place", ["own", "own.py"])
def test_modules_that_fail(project, monkeypatch, place, code, said):
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (project / "own.py").write_text(code)

    assert (
        message_of(f"{place}:net")
        == f"model must name a module that imports, got '{place}': {said}"
    )


def test_functions_that_fail(project):
    (project / "own.py").write_text(
        "import torch\n\ndef net():\n    return torch.nn.Linear(2, 'two')\n\n"
        "def other():\n    raise TypeError('no')\n"
    )

    assert message_of("own.py:net").startswith(
        "model must be built by the function that it names, got TypeError: empty()"
    )
    assert message_of("own.py:net").endswith("(own.py, line 4) from 'own.py:net'")
    assert message_of("own.py:other") == (
        "model must be built by the function that it names, got TypeError: no (own.py, line 7) "
        "from 'own.py:other'"
    )


@pytest.mark.usefixtures("project")
def test_functions_that_build_no_model():
    assert message_of("own_net:needs") == (
        "model must name a function that can be called without arguments, got 'own_net:needs': "
        "needs() missing 1 required positional argument: 'width'"
    )
    assert message_of("own_net:wrong") == (
        "model must name a function that returns a torch.nn.Module, got 'own_net:wrong', which "
        "returns list"
    )
    assert message_of("own_net:number") == (
        "model must name a function that returns a model, got 'own_net:number', a int"
    )


def forbid(monkeypatch, library, error):
    real_import = builtins.__import__

    def imported(name, *arguments, **options):
        if name == library:
            raise error
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", imported)


def test_torchvision_that_was_built_for_another_torch(monkeypatch):
    forbid(monkeypatch, "torchvision", RuntimeError("operator torchvision::nms does not exist"))

    assert message_of("torchvision:resnet18") == (
        "torchvision is needed here, got 'operator torchvision::nms does not exist' when it was "
        "imported: run 'gpudiag diagnose' to see which version fits this torch"
    )


def test_timm_that_is_not_installed(monkeypatch):
    forbid(monkeypatch, "timm", ImportError("No module named 'timm'"))

    assert message_of("timm:resnet18") == (
        "model 'timm:resnet18' needs the package timm, got 'No module named 'timm'': pip install "
        "timm"
    )


def test_nothing_is_downloaded_for_timm(monkeypatch):
    """A file may name a timm model; it may not name one to fetch."""
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)

    for name in ("hf-hub:someone/model", "hf_hub:someone/model", "local-dir:/tmp"):
        assert message_of(f"timm:{name}").startswith(
            f"model must be one that timm has, got '{name}': "
        )


def test_everything_imports_where_torchvision_and_timm_do_not():
    program = (
        "import sys; sys.modules['torchvision'] = sys.modules['timm'] = None\n"
        "import evalkit.run, evalkit.checkpoint, evalkit.training, evalkit.demo, evalkit.models\n"
        "print(evalkit.models.build('torch.nn:Identity'))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("Identity()\n", "")
