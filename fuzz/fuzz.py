"""Fuzz one target with atheris: ``python fuzz/fuzz.py unpickler -max_total_time=600``.

Begins with the inputs in ``fuzz/corpus/TARGET``, keeps new ones in a folder that it names, writes
an input that fails into the current directory, and ends with 0 if none did. The options are those
of libFuzzer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"
LONGEST_BYTES = 16384
SLOWEST_S = 20
MOST_MIB = 4096

with atheris.instrument_imports(include=["evalkit", "gpudiag"]):
    from targets import TARGETS


def main() -> None:
    """Run until the options say that it is enough."""
    name, *options = sys.argv[1:]
    fresh = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    limits = [f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MIB}", f"-max_len={LONGEST_BYTES}"]

    def one_input(data: bytes) -> None:
        TARGETS[name](data)  # a refusal is an answer like any other

    print(f"new inputs go to {fresh}", flush=True)
    atheris.Setup([sys.argv[0], *limits, *options, fresh, str(CORPUS / name)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
