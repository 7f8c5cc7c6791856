"""The notebooks: they run from top to bottom, and are kept with what they showed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(path):
    return [one for one in json.loads(path.read_text())["cells"] if one["cell_type"] == "code"]


def test_there_is_one_for_each_program():
    assert [path.stem for path in NOTEBOOKS] == ["evalkit", "gpudiag"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_with_its_outputs(path):
    cells = code_cells(path)
    shown = [output["output_type"] for cell in cells for output in cell["outputs"]]

    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "execute_result" in shown
    assert "error" not in shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    here = tmp_path / FOLDER.name
    shutil.copytree(FOLDER, here)
    copy = here / path.name
    copy.write_text(without_outputs(path))
    run = "import sys; from nbclient.cli import main; main(['--inplace', sys.argv[1]])"

    done = subprocess.run(
        [sys.executable, "-c", run, str(copy)],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert all(cell["execution_count"] for cell in code_cells(copy))


def without_outputs(path):
    """The notebook as it was before it was run."""
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps(notebook)
