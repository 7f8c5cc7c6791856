import shutil

import pytest
from checkpoint_memory import IS_KNOWN, ONE_FILE, SEVERAL_FILES, shares_of

pytestmark = pytest.mark.skipif(not IS_KNOWN, reason="measured by Linux's records of memory")


def check(folder, kinds):
    """400 MiB into a model of 400 or 200 MiB, whose memory is first touched by the load."""
    shares = shares_of(folder, kinds)

    shutil.rmtree(folder)
    assert 0.4 < shares.pop("into half") < 0.7
    assert shares.keys() == set(kinds)
    assert all(0.9 < share < 1.2 for share in shares.values()), shares


def test_peak_of_memory_as_a_share_of_one_file(tmp_path):
    check(tmp_path, ONE_FILE)


@pytest.mark.slow
def test_peak_of_memory_as_a_share_of_several_files(tmp_path):
    check(tmp_path, SEVERAL_FILES)
