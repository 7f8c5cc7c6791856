import subprocess
import sys


def said(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_neither_torch_nor_pandas():
    program = (
        "import sys, evalkit.training; "
        "print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    )

    assert said(program) == "[]\n"


def test_public_names_are_sorted_importable_and_functions_even_where_a_module_has_the_name():
    program = (
        "import evalkit.training.fit, evalkit.training.start, evalkit.training as p\n"
        "from evalkit.training.fit import fit\n"
        "assert p.__all__ == sorted(p.__all__) == sorted(p._HOME)\n"
        "assert set(p.__all__) <= set(dir(p))\n"
        "print([n for n in p.__all__ if not callable(getattr(p, n))], p.fit is fit)"
    )

    assert said(program) == "[] True\n"
