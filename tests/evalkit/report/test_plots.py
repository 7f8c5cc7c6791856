import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evalkit.evaluation import Evaluation
from evalkit.report.plots import plots

ALL = {f"plot_{name}.{kind}" for name in ("confusion_matrix", "reliability", "confidence")
       for kind in ("png", "svg")}  # fmt: skip


def evaluation(names=("ant", "bee"), **columns):
    label = [names[0], names[0], names[1]]
    frame = pd.DataFrame({"label": label, "prediction": [names[0], names[1], names[1]]} | columns)
    return Evaluation.from_predictions(frame, classes=list(names))


def test_every_plot_is_a_picture_of_each_kind():
    drawn = plots(evaluation(confidence=[0.9, 0.6, 1.0]))

    assert set(drawn) == ALL
    for name, content in drawn.items():
        if name.endswith(".png"):
            image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
            assert image.std() > 5
        else:
            assert b"<svg" in content


def test_without_confidence_there_is_the_matrix_alone():
    assert set(plots(evaluation())) == {"plot_confusion_matrix.png", "plot_confusion_matrix.svg"}


def test_the_same_numbers_give_the_same_files():
    assert plots(evaluation()) == plots(evaluation())


@pytest.mark.parametrize(
    "name", ["$x^2", "$\\frac{1}{0}$", "猫", "<script>", "a" * 300, "two\nlines"]
)
def test_any_name_can_be_drawn(name):
    svg = plots(evaluation((name, "bee")))["plot_confusion_matrix.svg"]

    assert b"<script" not in svg


def test_nothing_global_is_left_behind():
    before = (mpl.get_backend(auto_select=False), mpl.rcParams.copy())

    plots(evaluation(confidence=[0.9, 0.6, 1.0]))

    assert (mpl.get_backend(auto_select=False), mpl.rcParams.copy()) == before


def test_no_backend_is_chosen_for_the_process():
    program = (
        "import sys, pandas as pd; from evalkit.evaluation import Evaluation; "
        "from evalkit.report.plots import plots; "
        "frame = pd.DataFrame({'label': ['a', 'b'], 'prediction': ['a', 'a']}); "
        "plots(Evaluation.from_predictions(frame, classes=['a', 'b'])); "
        "print('matplotlib.pyplot' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"


def test_save_writes_them_with_the_rest(tmp_path):
    evaluation(confidence=[0.9, 0.6, 1.0]).save(tmp_path, plots=True)

    assert {path.name for path in tmp_path.glob("plot_*")} == ALL
