"""Figures that cannot be true: told as evidence of GD409, and nowhere taken for a measurement."""

import os
import re

import pytest

from gpudiag.diagnose import diagnose
from gpudiag.host import Host
from gpudiag.memory.suspects import explanation
from gpudiag.probes import take_snapshot
from gpudiag.probes.holders import look
from gpudiag.render import render
from gpudiag.rules import hardware
from gpudiag.snapshot import Missing
from gpudiag.tables import devices, memory

ABSURD = "18446744073709551615"


@pytest.fixture(scope="module")
def seen(nvml):
    return take_snapshot(Host(environment=os.environ | nvml("implausible")), torch=False)


def test_they_are_no_gauges(seen):
    text = render(diagnose(seen, [hardware.implausible_readings]), "prometheus")

    def indices(metric):
        return re.findall(rf'^gpudiag_gpu_{metric}{{index="(\d)"', text, re.MULTILINE)

    assert ABSURD not in text
    assert indices("memory_used_bytes") == [*"014567"]
    assert indices("memory_total_bytes") == [*"0134567"]
    assert indices("temperature_celsius") == [*"234567"]
    assert 'gpudiag_finding{id="GD409"' in text


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_a_screen_shows_them_as_evidence_alone(seen, form):
    lines = render(diagnose(seen, [hardware.implausible_readings]), form).splitlines()

    absurd = [line for line in lines if ABSURD in line or "17179869184" in line]
    assert len(absurd) == 1
    assert f"{ABSURD} of 85520809984 bytes in use" in absurd[0]


def test_a_table_gives_the_reason_in_their_place(seen):
    reason = Missing(f"the driver says {ABSURD} of 85520809984 bytes in use, which cannot be")
    row = memory(seen)[3]

    assert (row["used_bytes"], row["free_bytes"], row["unaccounted_bytes"]) == (reason,) * 3
    assert row["total_bytes"] == 85520809984
    assert devices(seen)[0]["temperature_celsius"] == Missing(
        "the driver says 0 °C, which cannot be"
    )
    assert all(isinstance(row["used_bytes"], int) for row in memory(seen)[4:])


def test_nobody_is_suspected_of_holding_what_there_is_not(seen):
    who = look(Host(), ())
    lines = explanation(seen, who).splitlines()

    of_the_third = [line for line in lines if line.startswith("GPU 3")]
    assert of_the_third == [
        f"GPU 3: not known: the driver says {ABSURD} of 85520809984 bytes in use, which cannot be"
    ]
    assert memory(seen, who)[3]["suspects"] == ""
