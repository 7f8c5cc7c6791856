"""What a program prints on its two pipes, read until it ends, up to a limit of time and size."""

from __future__ import annotations

import os
import selectors
import time
from typing import IO

# Of each pipe; what comes behind it is read, so that the program goes on, and not kept.
LARGEST_OUTPUT_BYTES = 8 * 2**20
PART_BYTES = 2**16


class Pipes:
    """Standard output and standard error of a program that was started with pipes for both."""

    def __init__(self, out: IO[bytes], err: IO[bytes]) -> None:
        self._files = (out, err)
        self._kept = {file.fileno(): bytearray() for file in self._files}
        self._open = set(self._kept)

    def read(self, *, until: float) -> bool:
        """Read until both have ended, at most until this time of `time.monotonic`; whether so."""
        # poll, which takes no descriptor: there may be none left
        with selectors.PollSelector() as selector:
            for pipe in self._open:
                selector.register(pipe, selectors.EVENT_READ)
            while self._open and (left_s := until - time.monotonic()) > 0:
                for key, _ in selector.select(left_s):
                    if not self._take(key.fd):
                        selector.unregister(key.fd)
        return not self._open

    def close(self) -> tuple[str, str]:
        """What was kept of both."""
        texts = [bytes(self._kept[file.fileno()]).decode(errors="replace") for file in self._files]
        for file in self._files:
            file.close()
        return texts[0], texts[1]

    def _take(self, pipe: int) -> bool:
        part = os.read(pipe, PART_BYTES)
        if not part:
            self._open.discard(pipe)
            return False
        self._kept[pipe] += part[: max(0, LARGEST_OUTPUT_BYTES - len(self._kept[pipe]))]
        return True
