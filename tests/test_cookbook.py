"""The cookbook: a section for each recipe, every example run as a reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "cookbook.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
RECIPES = 20


def title(section):
    return section.partition("\n")[0]


def examples(section):
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_every_recipe_has_its_section_in_order():
    assert [title(section).partition(".")[0] for section in SECTIONS] == [
        str(number) for number in range(1, RECIPES + 1)
    ]


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_every_recipe_has_an_example_and_says_what_went_wrong(section):
    idea = section.split("\n\n")[1]

    assert len(examples(section)) == 1
    assert "\n\n*Pasted:* " in section
    assert idea.endswith(".")


# One process for all: importing torch twenty times would be most of the time. Each example has
# names and a folder of its own, and the variables of the environment as they were.
RUN_ALL = """
import os, sys, tempfile, traceback
before = dict(os.environ)
failed = []
for number, example in enumerate(open(sys.argv[1]).read().split("\\0"), 1):
    os.environ.clear()
    os.environ.update(before)
    os.chdir(tempfile.mkdtemp())
    try:
        exec(compile(example, f"recipe {number}", "exec"), {"__name__": f"recipe_{number}"})
    except BaseException:
        failed.append(number)
        traceback.print_exc()
sys.exit(f"failed: {failed}" if failed else 0)
"""


def test_every_example_runs(tmp_path):
    joined = tmp_path / "examples"
    joined.write_text("\0".join(example for s in SECTIONS for example in examples(s)))

    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(joined)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **{k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"},
            "TMPDIR": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
    )

    assert done.returncode == 0, done.stderr
