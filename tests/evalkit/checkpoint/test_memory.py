import shutil

import pytest
from checkpoint_memory import IS_KNOWN, ONE_FILE, SEVERAL_FILES, shares_of

pytestmark = pytest.mark.skipif(not IS_KNOWN, reason="measured by Linux's records of memory")


@pytest.mark.parametrize("kinds", [ONE_FILE, pytest.param(SEVERAL_FILES, marks=pytest.mark.slow)])
def test_peak_of_memory_as_a_share_of_the_file(tmp_path, kinds):
    """400 MiB into a model of 400 or 200 MiB, whose memory is first touched by the load."""
    shares = shares_of(tmp_path, kinds)

    shutil.rmtree(tmp_path)
    assert 0.4 < shares.pop("into half") < 0.7
    assert shares.keys() == set(kinds)
    assert all(0.9 < share < 1.2 for share in shares.values()), shares
