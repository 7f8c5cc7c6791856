import subprocess
import sys
import textwrap

import pytest

import evalkit

WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def python(code, *, cwd=None):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_public_names_are_sorted_and_exist():
    assert evalkit.__all__ == sorted(evalkit.__all__)
    assert set(evalkit.__all__) == set(evalkit._HOME)
    assert set(evalkit.__all__) <= set(dir(evalkit))
    for name in evalkit.__all__:
        assert getattr(evalkit, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'evalkit' has no attribute 'evalute'"):
        evalkit.evalute  # noqa: B018


def test_importing_loads_nothing_heavy():
    loaded = python("""
        import sys, evalkit, evalkit.cli
        heavy = {"torch", "torchvision", "numpy", "pandas", "pyarrow", "scipy", "sklearn"}
        print(*sorted(heavy & set(sys.modules)))
    """)

    assert loaded.strip() == ""


def test_report_works_without_torch(tmp_path):
    (tmp_path / "t.csv").write_text("label,prediction\ncat,cat\ncat,dog\n")

    printed = python(
        WITHOUT_TORCH
        + textwrap.dedent("""
            import evalkit
            from evalkit.cli import cli
            print(evalkit.confusion_matrix([0, 1], [1, 1], 2).to_numpy().tolist())
            print(evalkit.per_class_scores(evalkit.confusion_matrix([0], [0], 1)).shape)
            print(evalkit.accuracy([[0.1, 0.9]], [1], top=1))
            cli.main(["report", "t.csv", "--out", "out"], standalone_mode=False)
            assert not {"torch", "torchvision"} & set(sys.modules)
        """),
        cwd=tmp_path,
    )

    assert printed.startswith("[[0, 1], [0, 1]]\n(1, 11)\n{1: 1.0}\n")
    assert (tmp_path / "out" / "per_class.csv").exists()


def test_tables_and_numbers_load_no_torch_where_it_is_installed():
    loaded = python("""
        import sys
        import evalkit.evaluation, evalkit.predictions, evalkit.report.tables, evalkit.report.text
        from evalkit.scoring import calibration, confusion, intervals, scores, tally
        print("torch" in sys.modules)
    """)

    assert loaded == "False\n"
