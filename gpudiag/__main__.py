"""``python -m gpudiag`` is the ``gpudiag`` command."""

from gpudiag.cli import main

if __name__ == "__main__":
    main()
