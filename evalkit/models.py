"""From a line of text to a model: "torchvision:resnet18", "timm:…", "package.module:function"."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from evalkit.errors import InputError
from evalkit.user_code import told
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

LIBRARIES = ("torchvision", "timm")
# torchvision's two models that warn about their own default and start up slowly with it.
_SLOW_START = ("googlenet", "inception_v3")


def build(spec: str, *, num_classes: int | None = None) -> nn.Module:
    """Build the model that *spec* names, with fresh weights; nothing is downloaded.

    Args:
        spec: "torchvision:NAME" or "timm:NAME"; or "package.module:function" or
            "path/to/file.py:function", for a function (or class) that returns the model when it
            is called without arguments. Modules in the current directory are found.
        num_classes: Number of outputs. Given to libraries, and to a function that has a parameter
            of that name. None leaves the model its own default.

    Raises:
        InputError: The spec cannot be understood, the library is not installed or does not import,
            it has no such model, or what is built is no ``nn.Module``.

    Example:
        >>> build("torchvision:squeezenet1_1", num_classes=10).classifier[1].out_channels
        10
    """
    library, _colon, name = spec.partition(":")
    if name and library == "torchvision":
        return _build_torchvision(name, num_classes)
    if name and library == "timm":
        return _build_timm(name, num_classes)
    place, _colon, name = spec.rpartition(":")  # a path may hold a colon of its own
    if not place or not name:
        raise InputError(
            "model must be torchvision:NAME, timm:NAME, package.module:function or "
            f"file.py:function, got '{spec}'"
        )
    return _call(spec, load_object(place, name, what="model"), num_classes)


def is_library_spec(spec: str) -> bool:
    """Whether *spec* names a model of torchvision or timm, which any file may safely ask for.

    Example:
        >>> is_library_spec("torchvision:resnet18"), is_library_spec("os:abort")
        (True, False)
    """
    return spec.partition(":")[0] in LIBRARIES


def load_object(place: str, name: str, *, what: str) -> Any:
    """Return the object *name* of a module, given as ``package.module`` or as ``file.py``.

    Args:
        place: The module. One in the current directory is found, as with ``python -m``.
        name: The attribute.
        what: What it is for, at the beginning of the error's line.

    Raises:
        InputError: There is no such module or object, or the module fails to import.
    """
    module = _load_file(place, what) if place.endswith(".py") else _import(place, what)
    try:
        return getattr(module, name)
    except AttributeError:
        close = difflib.get_close_matches(name, dir(module), n=3)
        hint = f": did you mean {' or '.join(close)}?" if close else ": check the name"
        raise InputError(f"{what} must name an object of {place}, got '{name}'{hint}") from None


def _build_torchvision(name: str, num_classes: int | None) -> nn.Module:
    torchvision = import_torchvision()
    known = torchvision.models.list_models(module=torchvision.models)
    _require_known("torchvision", name, known)
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name in _SLOW_START:
        options["init_weights"] = False
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def _build_timm(name: str, num_classes: int | None) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"model 'timm:{name}' needs the package timm, got '{error}': pip install timm"
        ) from error
    _require_known("timm", name.partition(".")[0], timm.list_models())
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model


def import_torchvision() -> ModuleType:
    """Return torchvision, whose import fails where it was not built for the torch beside it.

    Raises:
        InputError: It is not installed, or it fails to import.
    """
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"torchvision is needed here, got '{reason}' when it was imported: "
            "run 'gpudiag diagnose' to see which version fits this torch"
        ) from error
    module: ModuleType = torchvision
    return module


def _require_known(library: str, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"close names are {some(close)}" if close else f"there are {len(known)}, see its docs"
    raise InputError(f"model must be one that {library} has, got '{name}': {hint}")


def _load_file(place: str, what: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        raise InputError(f"{what} must name a Python file, got '{place}': there is no such file")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"{what} must name a Python file, got '{place}'")
    module = importlib.util.module_from_spec(module_spec)
    with _importable(path.resolve().parent):
        try:
            module_spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise InputError(_import_message(what, place, error)) from error
    return module


def _import(place: str, what: str) -> ModuleType:
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(place)
        except (Exception, SystemExit) as error:
            raise InputError(_import_message(what, place, error)) from error


def _import_message(what: str, place: str, error: BaseException) -> str:
    is_program = isinstance(error, SystemExit)
    way_out = (
        ': put what it runs as a program under if __name__ == "__main__"' if is_program else ""
    )
    return f"{what} must name a module that imports, got '{place}': {told(error)}{way_out}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _call(spec: str, function: Any, num_classes: int | None) -> nn.Module:
    if isinstance(function, nn.Module):
        return function
    if not callable(function):
        raise InputError(
            f"model must name a function that returns a model, got '{spec}', "
            f"a {type(function).__name__}"
        )
    takes = num_classes is not None and "num_classes" in _parameters(function)
    try:
        model = function(num_classes=num_classes) if takes else function()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, TypeError) and _is_of_the_call(error):
            raise InputError(
                f"model must name a function that can be called without arguments, got '{spec}': "
                f"{error}"
            ) from error
        raise InputError(
            f"model must be built by the function that it names, got {told(error)} from '{spec}'"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model must name a function that returns a torch.nn.Module, got '{spec}', which "
            f"returns {type(model).__name__}"
        )
    return model


def _is_of_the_call(error: TypeError) -> bool:
    """Whether a function did not take the arguments, and so nothing in it was run."""
    trace = error.__traceback__
    return trace is None or trace.tb_next is None


def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # builtins have none
        return []
