"""A cure as it has to be typed on this machine: with or without sudo, inside a container or not."""

from __future__ import annotations

import re

from gpudiag.snapshot import Snapshot, known_or

ALTERNATIVE = "; or "  # between cures that do the same; the least invasive stands first
# Commands that change the machine, which a container shares with others and may not touch.
OF_THE_HOST = re.compile(
    r"\b(?:reboot|dmesg|modprobe|rmmod|systemctl|dkms|update-initramfs|mokutil|nvidia-bug-report)\b"
    r"|--gpu-reset|nvidia-smi -i \d+ -(?:pl|pm|rgc|rac|e|mig|c)\b|/etc/modprobe\.d"
)
KUBERNETES = ("kubernetes", "kubepods")


def fitted(fix: str, snapshot: Snapshot) -> str:
    """The alternatives of a cure, each as this machine and this user need it.

    Without root a command keeps its ``sudo``, with root it loses it. In a container, what only
    the host can do says so.

    Example:
        >>> from gpudiag.snapshot import Snapshot, System
        >>> root = Snapshot(system=System(is_root=True, container=None))
        >>> fitted("sudo modprobe nvidia_uvm", root)
        'modprobe nvidia_uvm'
        >>> pod = Snapshot(system=System(is_root=True, container="kubernetes"))
        >>> fitted("sudo apt install gcc; or sudo reboot", pod)
        'apt install gcc; or on the node: sudo reboot'
    """
    container = known_or(snapshot.system.container, None)
    place = "on the node: " if container in KUBERNETES else "on the host: "
    is_root = known_or(snapshot.system.is_root, False)  # noqa: FBT003
    cures = []
    for cure in fix.split(ALTERNATIVE):
        if container is not None and OF_THE_HOST.search(cure):
            cures.append(cure if cure.startswith("on the ") else place + cure)
        else:
            cures.append(re.sub(r"\bsudo (?=\S)", "", cure) if is_root else cure)
    return ALTERNATIVE.join(cures)
