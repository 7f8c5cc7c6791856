"""Probes side by side: one thread where that is enough, more where one gets stuck."""

import threading
import time

from gpudiag.host import Host
from gpudiag.probes import Probe
from gpudiag.probes.asking import ask_all
from gpudiag.snapshot import Missing, System


def sleeps(seconds):
    def ask(_host, _limit_s):
        time.sleep(seconds)
        return System(kernel=threading.current_thread().name)

    return ask


def probe(section, seconds, *, limit_s=5.0):
    return Probe(section=section, kind=System, ask=sleeps(seconds), limit_s=limit_s)


def test_probes_that_do_not_wait_share_a_thread():
    asked = ask_all([probe("a", 0), probe("b", 0), probe("c", 0)], Host(), timeout_s=5)

    assert len({one.section().kernel for one in asked}) == 1
    assert [one.probe.section for one in asked] == ["a", "b", "c"]


def test_probes_that_wait_do_so_at_the_same_time():
    began = time.monotonic()

    asked = ask_all([probe(str(number), 0.5) for number in range(7)], Host(), timeout_s=5)

    assert time.monotonic() - began < 0.5 + 7 * 0.1
    assert len({one.section().kernel for one in asked}) == 7
    assert all(0.4 < one.seconds < 1 for one in asked)


def test_one_that_hangs_costs_the_others_nothing():
    began = time.monotonic()

    asked = ask_all([probe("stuck", 60, limit_s=0.3), probe("quick", 0)], Host(), timeout_s=5)

    assert time.monotonic() - began < 3
    assert asked[0].section().kernel == Missing("the stuck probe gave no answer within 0.3 s")
    assert isinstance(asked[1].section().kernel, str)


def test_the_limit_holds_for_those_that_begin_late():
    began = time.monotonic()

    asked = ask_all([probe(str(number), 60) for number in range(3)], Host(), timeout_s=0.5)

    assert time.monotonic() - began < 3
    assert all("no answer within 0.5 s" in one.section().kernel.missing for one in asked)
