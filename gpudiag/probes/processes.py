"""Whether this user sees the processes of others."""

from __future__ import annotations

import re

from gpudiag.host import Host
from gpudiag.snapshot import Missing, known_or

HIDING = re.compile(r"^\S+ /proc proc \S*\bhidepid=(?!0\b|off\b)", re.MULTILINE)


def others_hidden(host: Host) -> Missing | None:
    """Why processes that are not in /proc may run nevertheless, None where all are shown.

    A shared machine may mount /proc so that users see their own processes only, but for root and
    one group.
    """
    if not HIDING.search(known_or(host.read("/proc/self/mounts"), "")):
        return None
    if isinstance(host.read("/proc/1/stat"), str):
        return None
    return Missing("/proc hides the processes of other users from this one (hidepid)")
