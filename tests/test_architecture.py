"""The import rules of docs/design.md, read from the source and from what an import loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("gpudiag", "evalkit")
    for path in sorted((ROOT / package).rglob("*.py"))
}
THE_COMMAND_LINE = (
    *("gpudiag.cli", "gpudiag.command_line", "gpudiag.commands"),
    *("evalkit.cli", "evalkit.commands"),
)
OUTSIDE = {
    *("gpudiag.host", "gpudiag.programs", "gpudiag.select"),
    *("gpudiag.__main__", "gpudiag.command_line", "gpudiag.commands.running"),
}
WITHOUT_TORCH = (
    *("checks.evidence", "checks.finding", "checks.joined", "checks.labels", "checks.orders"),
    *("comparison", "evaluation", "report", "scoring", "summary"),
)


def imports(module):
    """Every module that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = absolute(module, node)
            found |= {f"{source}.{alias.name}" for alias in node.names} | {source}
    return found


def absolute(module, node):
    """What `from x import y` imports from, also where it begins with dots."""
    if not node.level:
        return node.module
    parts = module.split(".")
    up = node.level - (MODULES[module].name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])


def within(module, *packages):
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def calls(module):
    """The names of what a module calls."""
    tree = ast.parse(MODULES[module].read_text())
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def modules(*packages):
    return [module for module in MODULES if within(module, *packages)]


def test_gpudiag_never_imports_evalkit():
    guilty = [m for m in modules("gpudiag") if any(within(i, "evalkit") for i in imports(m))]

    assert guilty == []


@pytest.mark.parametrize("module", modules("gpudiag.rules"))
def test_rules_see_only_the_snapshot_and_the_vocabulary(module):
    allowed = (
        "gpudiag.snapshot",
        "gpudiag.finding",
        "gpudiag.measured",  # facts as well: what the active tests found
        "gpudiag.rules",
        "gpudiag.visible_devices",
    )
    seen = {name for name in imports(module) if within(name, "gpudiag") and name != "gpudiag"}

    assert {name for name in seen if not within(name, *allowed)} == set()


@pytest.mark.parametrize("module", modules("gpudiag"))
def test_only_the_host_touches_the_machine(module):
    if module in OUTSIDE or within(module, "gpudiag.children"):
        return

    assert not imports(module) & {"subprocess", "resource"}
    assert "os.environ" not in MODULES[module].read_text()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_command_line_prints_or_exits(module):
    if within(module, *THE_COMMAND_LINE, "gpudiag.children"):
        return

    assert not calls(module) & {"print", "click.echo", "sys.exit", "exit", "sys.stdout.write"}


@pytest.mark.parametrize(
    "module", [m for m in modules("evalkit") if within(m, *(f"evalkit.{n}" for n in WITHOUT_TORCH))]
)
def test_numbers_and_reports_never_import_torch(module):
    assert not {name for name in imports(module) if within(name, "torch", "torchvision")}


def test_gpudiag_imports_torch_in_its_children_alone():
    guilty = [m for m in modules("gpudiag") if any(within(i, "torch") for i in imports(m))]

    assert {"gpudiag.children.ask_torch", "gpudiag.children.measure"} <= set(guilty)
    assert [m for m in guilty if not within(m, "gpudiag.children")] == []


@pytest.mark.parametrize(
    "module", ["gpudiag", "gpudiag.cli", "gpudiag.__main__", "evalkit", "evalkit.cli"]
)
def test_importing_loads_neither_torch_nor_pandas(module):
    program = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'pandas', 'numpy', 'pynvml') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("package", ["gpudiag", "evalkit"])
def test_the_public_names_are_sorted_and_importable(package):
    program = (
        f"import {package} as p; names = p.__all__; assert names == sorted(names), names; "
        "print([n for n in names if not hasattr(p, n)])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_functions_named_like_modules_stay_functions():
    program = (
        "import gpudiag, gpudiag.snapshot, gpudiag.diagnose, gpudiag.probes\n"
        "from gpudiag.diagnose import Report\n"
        "print(callable(gpudiag.snapshot), callable(gpudiag.diagnose))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("True True\n", "")
